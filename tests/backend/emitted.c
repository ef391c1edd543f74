/* Models that Nibble writes mean what it read: each of ONNX's node tests that it imports is written
 * as ONNX, as it was read and behind the pipeline of f32, read again, and both must compute the
 * same bits on the test's inputs, behind the same pipeline. So must the graphs of the folder
 * graphs/ beside this file; those of golden files nearly so, as they are.
 *
 * A test that is not imported, or whose inputs are not its model's, is skipped (backend.c says
 * why).
 *
 *   emitted [TEST or FOLDER/CASE...] */
#include "frontend/export.h"
#include "ir/eval.h"
#include "ir/support/file.h"
#include "ir/text.h"
#include "passes/check.h"
#include "passes/presets.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN     NIBBLE_SOURCE_DIR "/tests/golden"
#define GRAPHS     NIBBLE_SOURCE_DIR "/tests/backend/graphs"
#define DATA       "/usr/share/libonnx-testdata/data/node"
#define MAX_INPUTS 16
#define CLOSE      1e-4 /* queries of a cache of codes have 15 bits: 2^-15 of the largest */

typedef struct trial {
    const char *name, *file; /* file: the model written */
    nb_arena *arena;
    nb_diags *diags;
    nb_tensor *inputs;
    size_t n_inputs;
} trial;

static int passed, failed, skipped;

/* The first error. */
static const char *why(const trial *t) {
    for (size_t i = 0; i < t->diags->list.count; i++)
        if (t->diags->list.items[i]->severity == NB_ERROR) return t->diags->list.items[i]->message;
    return "failed";
}

static bool run_pipeline(trial *t, nb_graph *g) {
    nb_registry *registry = nb_registry_create(t->arena);
    nb_preset_options options = {.group = -1};
    nb_pipeline pipeline;
    nb_pass_env env = {
        .registry = registry, .diags = t->diags, .arena = t->arena, .verify_each = true};
    return nb_pipeline_parse(registry, nb_preset("f32", &options, t->arena), t->arena, t->diags,
                             &pipeline) == NB_OK &&
           nb_pipeline_run(&pipeline, g, &env) == NB_OK;
}

static bool load_inputs(trial *t) {
    while (t->n_inputs < MAX_INPUTS) {
        const char *path =
            nb_format(t->arena, "%s/%s/test_data_set_0/input_%zu.pb", DATA, t->name, t->n_inputs);
        if (access(path, R_OK) != 0) return true;
        if (nb_read_tensor_file(path, t->arena, t->diags, &t->inputs[t->n_inputs++]) != NB_OK)
            return false;
    }
    return true;
}

static const char *evaluate(trial *t, const nb_graph *g, nb_tensor **out) {
    *out = NB_NEW_ARRAY(t->arena, nb_tensor, g->outputs.count + 1);
    if (g->body.n_params != t->n_inputs) return "another number of inputs";
    for (uint32_t i = 0; i < t->n_inputs; i++) /* ONNX's data holds bfloat16 as uint16 */
        if (g->body.params[i]->type->elem == NB_BF16) t->inputs[i].elem = NB_BF16;
    return nb_eval(g, t->inputs, *out, NULL, 0, t->arena, t->diags) == NB_OK ? NULL : why(t);
}

static bool same(const nb_tensor *a, const nb_tensor *b, bool loose) {
    if (a->elem != b->elem || a->rank != b->rank || a->bytes != b->bytes) return false;
    for (int d = 0; d < a->rank; d++)
        if (a->dims[d] != b->dims[d]) return false;
    if (!a->bytes || memcmp(a->data, b->data, (size_t)a->bytes) == 0) return true;
    for (int64_t i = 0; loose && i < nb_tensor_count(a); i++) {
        const double x = nb_tensor_get(a, i), y = nb_tensor_get(b, i);
        if (!(fabs(x - y) <= CLOSE * (1 + fabs(x)))) return false;
    }
    return loose;
}

/* Names, types and order of what a user sees. */
static const char *same_ports(const nb_graph *a, const nb_graph *b) {
    bool same = a->body.n_params == b->body.n_params && a->outputs.count == b->outputs.count;
    for (uint32_t i = 0; same && i < a->body.n_params; i++)
        same = strcmp(a->body.params[i]->name, b->body.params[i]->name) == 0;
    for (size_t i = 0; same && i < a->outputs.count; i++)
        same = strcmp(a->outputs.items[i], b->outputs.items[i]) == 0;
    return same ? NULL : "inputs or outputs have other names";
}

/* Is there an operation that ONNX cannot say? */
static bool is_refused(const nb_region *region) {
    NB_FOR_OPS(op, region) {
        if (op->kind != NB_OP_return && !nb_export_rows[op->kind].fn) return true;
        for (uint32_t r = 0; r < op->n_regions; r++)
            if (is_refused(op->regions[r])) return true;
    }
    return false;
}

/* "": the test's inputs are not the model's, or it is refused as it has to be. */
static const char *compare(trial *t, nb_graph *g, bool prepared, bool loose) {
    const nb_export_options options = {.form = NB_ONNX_QDQ};
    nb_graph *again = NULL;
    nb_tensor *expected, *found;
    const char *reason = evaluate(t, g, &expected) ? "" : NULL;
    if (reason) return reason;
    const nb_status status = nb_export(g, &options, t->file, t->diags);
    if (is_refused(&g->body)) return status == NB_UNSUPPORTED ? "" : "it should be refused";
    if (status != NB_OK || nb_import(t->file, NULL, NULL, t->diags, &again) != NB_OK) return why(t);
    if (prepared && !run_pipeline(t, again)) reason = why(t);
    if (!reason) reason = same_ports(g, again);
    if (!reason) reason = evaluate(t, again, &found);
    for (size_t i = 0; !reason && i < g->outputs.count; i++)
        if (!same(&expected[i], &found[i], loose))
            reason = same(&expected[i], &found[i], true) ? "other bits" : "other numbers";
    nb_graph_destroy(again);
    return reason;
}

/* NULL: it passed; "": it is not imported. */
static const char *run_node_test(trial *t) {
    const char *model = nb_format(t->arena, "%s/%s/model.onnx", DATA, t->name), *reason;
    nb_graph *g = NULL;
    t->inputs = NB_NEW_ARRAY(t->arena, nb_tensor, MAX_INPUTS);
    if (!load_inputs(t) || nb_import(model, NULL, NULL, t->diags, &g) != NB_OK) return "";
    reason = compare(t, g, false, false);
    if (!reason && run_pipeline(t, g)) {
        reason = compare(t, g, true, false);
        if (reason && *reason) reason = nb_format(t->arena, "behind the pipeline: %s", reason);
    }
    nb_graph_destroy(g);
    return reason;
}

/* One of a golden file's graphs; what ONNX cannot say is refused as such. */
static const char *run_graph(trial *t, const char *text, size_t size, const char *base) {
    nb_graph *g = NULL;
    const char *reason = "";
    if (nb_parse(text, size, t->name, base, NULL, NULL, t->diags, &g) != NB_OK) return why(t);
    t->n_inputs = g->body.n_params;
    t->inputs = nb_made_up_inputs(g, t->arena);
    if (t->inputs) reason = compare(t, g, false, true);
    if (reason && *reason && nb_diags_status(t->diags) == NB_UNSUPPORTED) reason = "";
    nb_graph_destroy(g);
    return reason;
}

static void tell(const trial *t, const char *reason) {
    passed += !reason;
    failed += reason && *reason;
    skipped += reason && !*reason;
    if (reason && *reason) printf("FAILED %s: %s\n", t->name, reason);
    unlink(t->file);
}

static const char *written; /* the model at hand */

static trial new_trial(const char *name) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    return (trial){.name = nb_strdup(arena, name),
                   .file = written,
                   .arena = arena,
                   .diags = nb_diags_create(arena, name)};
}

static bool wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return argc == 1;
}

/* Both graphs of a file, which stand apart by a line of their own. */
static void run_golden(const char *folder, const char *file) {
    static const char line[] = "\n; ----\n";
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const char *base = nb_format(arena, "%s/%s", GOLDEN, folder);
    nb_file f;
    if (nb_file_open(nb_format(arena, "%s/%s", base, file), nb_diags_create(arena, file), &f) !=
        NB_OK)
        return;
    const char *text = nb_strndup(arena, (const char *)f.bytes, f.size), *end = strstr(text, line);
    nb_file_close(&f);
    trial t = new_trial(nb_format(arena, "%s/%s", folder, file));
    tell(&t, run_graph(&t, text, end ? (size_t)(end - text + 1) : strlen(text), base));
    nb_arena_destroy(t.arena);
    if (end) {
        t = new_trial(nb_format(arena, "%s/%s, behind its passes", folder, file));
        tell(&t, run_graph(&t, end + strlen(line), strlen(end + strlen(line)), base));
        nb_arena_destroy(t.arena);
    }
    nb_arena_destroy(arena);
}

static int is_test(const struct dirent *e) { return strncmp(e->d_name, "test_", 5) == 0; }
static int is_visible(const struct dirent *e) { return e->d_name[0] != '.'; }

static int is_case(const struct dirent *e) {
    const size_t n = strlen(e->d_name);
    return n > 4 && strcmp(e->d_name + n - 4, ".nir") == 0;
}

static void run_golden_files(int argc, char **argv) {
    struct dirent **folders, **files;
    char path[4096];
    const int n = scandir(GOLDEN, &folders, is_visible, alphasort);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", GOLDEN, folders[i]->d_name);
        const int m = scandir(path, &files, is_case, alphasort);
        for (int k = 0; k < m; k++) {
            snprintf(path, sizeof path, "%s/%s", folders[i]->d_name, files[k]->d_name);
            if (wanted(path, argc, argv)) run_golden(folders[i]->d_name, files[k]->d_name);
            free(files[k]);
        }
        if (m >= 0) free(files);
        free(folders[i]);
    }
    if (n >= 0) free(folders);
}

/* What these hold can be written, and is the same to the bit behind the pipeline. */
static const char *run_own_graph(trial *t, const char *path) {
    nb_graph *g = NULL;
    nb_file f;
    if (nb_file_open(path, t->diags, &f) != NB_OK) return why(t);
    const nb_status status =
        nb_parse((const char *)f.bytes, f.size, t->name, GRAPHS, NULL, NULL, t->diags, &g);
    nb_file_close(&f);
    if (status != NB_OK) return why(t);
    t->n_inputs = g->body.n_params;
    t->inputs = nb_made_up_inputs(g, t->arena);
    const char *reason = t->inputs && run_pipeline(t, g) ? compare(t, g, true, false) : why(t);
    nb_graph_destroy(g);
    return reason && !*reason ? "it was not written" : reason;
}

static void run_own_graphs(int argc, char **argv) {
    struct dirent **files;
    const int n = scandir(GRAPHS, &files, is_case, alphasort);
    for (int i = 0; i < n; i++) {
        trial t = new_trial(files[i]->d_name);
        if (wanted(t.name, argc, argv))
            tell(&t, run_own_graph(&t, nb_format(t.arena, "%s/%s", GRAPHS, t.name)));
        nb_arena_destroy(t.arena);
        free(files[i]);
    }
    if (n >= 0) free(files);
}

static void run_node_tests(int argc, char **argv) {
    struct dirent **tests;
    const int n = scandir(DATA, &tests, is_test, alphasort);
    if (n <= 0) printf("%s is not there: install libonnx-testdata\n", DATA);
    for (int i = 0; i < n; i++) {
        trial t = new_trial(tests[i]->d_name);
        if (wanted(t.name, argc, argv)) tell(&t, run_node_test(&t));
        nb_arena_destroy(t.arena);
        free(tests[i]);
    }
    if (n >= 0) free(tests);
}

int main(int argc, char **argv) {
    char folder[] = "/tmp/nibble-emitted-XXXXXX", path[64];
    if (!mkdtemp(folder)) {
        perror(folder);
        return EXIT_FAILURE;
    }
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    written = path;
    run_node_tests(argc, argv);
    run_golden_files(argc, argv);
    run_own_graphs(argc, argv);
    rmdir(folder);
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
