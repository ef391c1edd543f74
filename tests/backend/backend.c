/* ONNX's node tests: each is a model of one operator, inputs, and the outputs ONNX expects.
 *
 * A test runs twice: with its inputs given at run time ("/runtime"), and with all but the first
 * pinned as initializers ("/pinned"), which is how real models have them. Both the evaluator and
 * the compiled code must agree with ONNX within its own tolerance, and with each other to the bit.
 *
 * Numbers that are drawn at random are compared by shape and range.
 *
 * LIST names what is not run or does not pass, with the reason: a listed test that passes is a
 * failure, as is one that does not pass and is not listed, so the list only shrinks. NB_BLESS=1
 * writes it anew. Processes share the tests, one for each CPU.
 *
 *   backend FOLDER LIST MANIFEST OTHER [TEST...]      e.g. test_add
 * test_reshape_negative_dim/pinned
 *
 * FOLDER holds the tests, MANIFEST (or "") is a table with a test's name in the first column and
 * its class in the fourth: tests are then counted by class. OTHER (or "") is a set that is run too:
 * what is in it as it is here is not run here. tests/backend/run says where sets of
 * tests are. */
#include "frontend/frontend.h"
#include "lib/execute.h"
#include "passes/check.h"
#include "passes/presets.h"
#include "tests/backend/pin.h"

#include <dirent.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_INPUTS    32
#define MAX_TESTS     8192
#define MAX_PROCESSES 64

/* ONNX's own runner compares with these. */
#define RELATIVE 1e-3
#define ABSOLUTE 1e-7

typedef struct trial {
    const char *name, *folder; /* of the test */
    bool pinned;
    nb_arena *arena;
    nb_diags *diags;
    bytes model, files[MAX_INPUTS]; /* files: the inputs of the data set */
    size_t n_files;
    nb_tensor inputs[MAX_INPUTS];
} trial;

typedef struct verdict {
    const char *name, *reason; /* NULL: it passed */
} verdict;

static verdict verdicts[MAX_TESTS], skips[MAX_TESTS];
static size_t n_verdicts, n_skips;
static nb_arena *kept; /* names and reasons */
static const char *folder, *list;

/* ---- comparing ------------------------------------------------------------------------------ */

static bool close_enough(nb_elem elem, double found, double expected) {
    if (isnan(found) || isnan(expected)) return isnan(found) && isnan(expected);
    if (found == expected) return true;
    if (nb_elem_is_integer(elem) || elem == NB_BOOL || isinf(found) || isinf(expected))
        return false;
    return fabs(found - expected) <= ABSOLUTE + RELATIVE * fabs(expected);
}

static const char *compare_shape(trial *t, const char *by, const nb_tensor *found,
                                 const nb_tensor *expected) {
    if (found->elem != expected->elem)
        return nb_format(t->arena, "%s: the output is %s, expected %s", by,
                         nb_elems[found->elem].text, nb_elems[expected->elem].text);
    bool shape = found->rank == expected->rank;
    for (int d = 0; shape && d < found->rank; d++) shape = found->dims[d] == expected->dims[d];
    return shape ? NULL : nb_format(t->arena, "%s: the output has another shape", by);
}

static const char *compare(trial *t, const char *by, const nb_tensor *found,
                           const nb_tensor *expected) {
    const char *reason = compare_shape(t, by, found, expected);
    if (reason) return reason;
    for (int64_t i = 0; i < nb_tensor_count(found); i++) {
        double a = nb_tensor_get(found, i), b = nb_tensor_get(expected, i);
        if (!close_enough(found->elem, a, b))
            return nb_format(t->arena, "%s: wrong numbers: element %lld is %.9g, expected %.9g", by,
                             (long long)i, a, b);
    }
    return NULL;
}

/* ONNX's numbers are drawn at random: no other generator gives the same. */
static bool is_drawn(const trial *t) {
    return strncmp(t->name, "test_bernoulli", 14) == 0 ||
           strncmp(t->name, "test_training_dropout", 21) == 0;
}

/* By shape and range: an element is 0, or 1, or the input's times the factor that ONNX's have, and
 * not all are of one kind. */
static const char *compare_drawn(trial *t, const char *by, const nb_tensor *found,
                                 const nb_tensor *expected) {
    const nb_tensor *x = &t->inputs[0];
    const char *reason = compare_shape(t, by, found, expected);
    const int64_t n = nb_tensor_count(found);
    if (reason || nb_tensor_count(x) != n) return reason;
    double factor = 1;
    int64_t zeros = 0;
    for (int64_t i = 0; i < n; i++)
        if (nb_tensor_get(expected, i) != 0 && nb_tensor_get(x, i) != 0)
            factor = nb_tensor_get(expected, i) / nb_tensor_get(x, i);
    for (int64_t i = 0; i < n; i++) {
        const double v = nb_tensor_get(found, i);
        zeros += v == 0;
        if (v != 0 && v != 1 && !close_enough(found->elem, v, factor * nb_tensor_get(x, i)))
            return nb_format(t->arena, "%s: element %lld is %.9g, which cannot be drawn", by,
                             (long long)i, v);
    }
    return zeros > 0 && zeros < n ? NULL : nb_format(t->arena, "%s: all drawn alike", by);
}

/* ---- one test ------------------------------------------------------------------------------- */

/* The first error. */
static const char *why(const trial *t, const char *fallback) {
    return t->diags->list.count ? t->diags->list.items[0]->message : fallback;
}

static const char *input_path(const trial *t, size_t i) {
    return nb_format(t->arena, "%s/test_data_set_0/input_%zu.pb", t->folder, i);
}

static void read_inputs(trial *t) {
    while (t->n_files < MAX_INPUTS && access(input_path(t, t->n_files), R_OK) == 0) {
        t->files[t->n_files] = read_bytes(input_path(t, t->n_files));
        t->n_files++;
    }
}

static nb_graph *import(trial *t) {
    nb_graph *g = NULL;
    const char *name = t->name;
    if (nb_import_bytes(t->model.data, t->model.size, name, NULL, NULL, NULL, t->diags, &g) !=
        NB_OK)
        return NULL;
    nb_registry *registry = nb_registry_create(t->arena);
    nb_preset_options options = {.group = -1};
    nb_pipeline pipeline;
    nb_pass_env env = {.registry = registry,
                       .diags = t->diags,
                       .arena = t->arena,
                       .verify_each = true,
                       .check_each = false};
    if (nb_pipeline_parse(registry, nb_preset("f32", &options, t->arena), t->arena, t->diags,
                          &pipeline) == NB_OK &&
        nb_pipeline_run(&pipeline, g, &env) == NB_OK)
        return g;
    nb_graph_destroy(g);
    return NULL;
}

static bool same_bits(const nb_tensor *a, const nb_tensor *b) {
    return a->bytes == b->bytes && (!a->bytes || memcmp(a->data, b->data, (size_t)a->bytes) == 0);
}

static const char *run_compiled(trial *t, const nb_graph *g, const nb_tensor *evaluated) {
    nbl_program program;
    nb_tensor *found = NB_NEW_ARRAY(t->arena, nb_tensor, g->outputs.count + 1);
    nb_status status =
        nbl_compile_graph(g, cg_cpu_find(NULL, "native"), NULL, t->arena, t->diags, &program);
    if (status == NB_OK) status = nbl_run_once(&program, 1, t->inputs, found, t->arena, t->diags);
    nbl_close(&program);
    if (status != NB_OK) return nb_format(t->arena, "compiled: %s", why(t, "failed"));
    for (size_t i = 0; i < g->outputs.count; i++)
        if (!same_bits(&found[i], &evaluated[i])) {
            return "compiled: other bits than evaluated";
        }
    return NULL;
}

/* ONNX's data holds bfloat16 as uint16. */
static void as_declared(nb_tensor *t, nb_elem declared) {
    if (declared == NB_BF16 && t->elem == NB_U16) t->elem = NB_BF16;
}

static const char *run_graph(trial *t, const nb_graph *g) {
    if (g->body.n_params != (t->pinned ? 1 : t->n_files))
        return "the data set has another number of inputs";
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        if (nb_read_tensor_file(input_path(t, i), t->arena, t->diags, &t->inputs[i]) != NB_OK)
            return "an input is no tensor";
        as_declared(&t->inputs[i], g->body.params[i]->type->elem);
    }
    nb_tensor *found = NB_NEW_ARRAY(t->arena, nb_tensor, g->outputs.count + 1);
    if (nb_eval(g, t->inputs, found, NULL, 0, t->arena, t->diags) != NB_OK)
        return nb_format(t->arena, "evaluated: %s", why(t, "failed"));
    for (size_t i = 0; i < g->outputs.count; i++) {
        nb_tensor expected;
        const char *path = nb_format(t->arena, "%s/test_data_set_0/output_%zu.pb", t->folder, i);
        if (nb_read_tensor_file(path, t->arena, t->diags, &expected) != NB_OK)
            return "an output is no tensor";
        as_declared(&expected, found[i].elem);
        const char *reason = compare(t, "evaluated", &found[i], &expected);
        if (reason && is_drawn(t)) reason = compare_drawn(t, "evaluated", &found[i], &expected);
        if (reason && expected.elem == NB_BF16)
            return "ONNX's own numbers are cut off to bfloat16, not rounded";
        if (reason) return reason;
    }
    return run_compiled(t, g, found);
}

static const char *run_trial(trial *t) {
    t->model = read_bytes(nb_format(t->arena, "%s/model.onnx", t->folder));
    const char *reason = t->model.data ? NULL : "no model";
    read_inputs(t);
    if (!reason && t->pinned) {
        bytes all = t->model;
        t->model = pin_inputs(all, t->files, t->n_files);
        free(all.data);
        if (!t->model.data) reason = "nothing to pin";
    }
    if (reason) return reason;
    nb_graph *g = import(t);
    if (!g && nb_diags_status(t->diags) != NB_UNSUPPORTED)
        return nb_format(t->arena, "refused as an error: %s", why(t, "no reason"));
    if (!g) return why(t, "not imported");
    reason = run_graph(t, g);
    nb_graph_destroy(g);
    return reason;
}

/* ---- the list ------------------------------------------------------------------------------- */

static void read_skips(void) {
    FILE *f = fopen(list, "r");
    char line[1024];
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strstr(line, ": ");
        if (line[0] == '#' || !colon || n_skips == MAX_TESTS) continue;
        skips[n_skips++] = (verdict){nb_strndup(kept, line, (size_t)(colon - line)),
                                     nb_strndup(kept, colon + 2, strcspn(colon + 2, "\n"))};
    }
    if (f) fclose(f);
}

static const char *skip_reason(const char *name) {
    for (size_t i = 0; i < n_skips; i++)
        if (strcmp(skips[i].name, name) == 0) return skips[i].reason;
    return NULL;
}

static int by_reason(const void *a, const void *b) {
    const verdict *x = a, *y = b;
    int order = strcmp(x->reason, y->reason);
    return order ? order : strcmp(x->name, y->name);
}

static void write_skips(void) {
    FILE *f = fopen(list, "w");
    if (!f) {
        perror(list);
        exit(EXIT_FAILURE);
    }
    fputs("# ONNX node tests that are not run or do not pass, and why; by reason. Lines only go:\n"
          "# the driver fails when a test on the list passes, and when one that is not on it does\n"
          "# not. NB_BLESS=1 writes the list anew.\n",
          f);
    size_t n = 0;
    for (size_t i = 0; i < n_verdicts; i++)
        if (verdicts[i].reason) verdicts[n++] = verdicts[i];
    qsort(verdicts, n, sizeof *verdicts, by_reason);
    for (size_t i = 0; i < n; i++) fprintf(f, "%s: %s\n", verdicts[i].name, verdicts[i].reason);
    fclose(f);
    printf("%zu lines in %s\n", n, list);
}

/* ---- all ------------------------------------------------------------------------------------ */

/* Takes what is in quotes off, with the space before it: names of single tests' tensors. */
static void drop_quoted(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        const char *end = from[0] == ' ' && from[1] == '"' ? strchr(from + 2, '"') : NULL;
        if (end)
            from = end;
        else
            *to++ = *from;
    }
    *to = 0;
}

/* A reason that tests share: "Conv is not supported", "Reshape: input 1 must be known". */
static const char *tidy(const char *text) {
    char *line = nb_strdup(kept, text);
    line[strcspn(line, "\n")] = 0;
    char *colon = strstr(line, ": ");
    size_t operators, nodes;
    if (colon && sscanf(line, "%zu operator%*[s] in %zu", &operators, &nodes) != 2 &&
        sscanf(line, "%zu operator in %zu", &operators, &nodes) == 2) {
        colon += 2;
        return nb_format(kept, "%.*s is not supported", (int)strcspn(colon, " "), colon);
    }
    drop_quoted(line);
    char *open = strstr(line, " ("), *comma = open ? strchr(open, ',') : NULL;
    colon = strstr(line, "): ");
    if (strncmp(line, "node #", 6) != 0 || !comma || !colon) return line;
    return nb_format(kept, "%.*s: %s", (int)(comma - open - 2), open + 2, colon + 3);
}

static void run_one(const char *name, bool pinned, FILE *out) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    trial t = {.name = nb_format(arena, "%s/%s", name, pinned ? "pinned" : "runtime"),
               .folder = nb_format(arena, "%s/%s", folder, name),
               .pinned = pinned,
               .arena = arena,
               .diags = nb_diags_create(arena, name)};
    fprintf(out, "%s\t", t.name); /* a test that ends the process is named by this */
    fflush(out);
    const char *reason = run_trial(&t);
    fprintf(out, "%s\n", reason ? tidy(reason) : "");
    free(t.model.data);
    for (size_t i = 0; i < t.n_files; i++) free(t.files[i].data);
    nb_arena_destroy(arena);
}

/* The last of several processes' share of the tests: lines of name, tab, reason. */
static void read_verdicts(FILE *out) {
    char line[4096];
    rewind(out);
    while (fgets(line, sizeof line, out) && n_verdicts < MAX_TESTS) {
        char *tab = strchr(line, '\t');
        if (!tab) continue;
        bool ended = !strchr(tab, '\n');
        tab[1 + strcspn(tab + 1, "\n")] = 0;
        const char *reason = ended ? "ended the process" : tab[1] ? nb_strdup(kept, tab + 1) : NULL;
        if (reason && strcmp(reason, "nothing to pin") == 0) continue;
        verdicts[n_verdicts++] = (verdict){nb_strndup(kept, line, (size_t)(tab - line)), reason};
    }
    fclose(out);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const verdict *)a)->name, ((const verdict *)b)->name);
}

/* Each process takes the next test until there is none. */
static void run_all(size_t n, char **names) {
    atomic_size_t *next =
        mmap(NULL, sizeof *next, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    size_t processes = cpus < 1 ? 1 : cpus > MAX_PROCESSES ? MAX_PROCESSES : (size_t)cpus;
    FILE *out[MAX_PROCESSES];
    if (next == MAP_FAILED) abort();
    for (size_t p = 0; p < processes; p++) {
        out[p] = tmpfile();
        if (!out[p]) abort();
        fflush(NULL);
        if (fork()) continue;
        for (size_t i = atomic_fetch_add(next, 1); i < n; i = atomic_fetch_add(next, 1)) {
            run_one(names[i], false, out[p]);
            run_one(names[i], true, out[p]);
        }
        fflush(out[p]);
        _exit(EXIT_SUCCESS);
    }
    while (wait(NULL) > 0) {
    }
    for (size_t p = 0; p < processes; p++) read_verdicts(out[p]);
    munmap(next, sizeof *next);
    qsort(verdicts, n_verdicts, sizeof *verdicts, by_name);
}

/* ---- counts --------------------------------------------------------------------------------- */

#define MAX_CLASSES 64

typedef struct class_count {
    const char *name;
    int tests, passed;
} class_count;

static bool test_passed(const char *name, bool *ran) {
    bool passed = true;
    size_t n = strlen(name);
    *ran = false;
    for (size_t i = 0; i < n_verdicts; i++) {
        if (strncmp(verdicts[i].name, name, n) != 0 || verdicts[i].name[n] != '/') continue;
        *ran = true;
        passed = passed && !verdicts[i].reason;
    }
    return passed;
}

/* Tests, of which all runs pass, by class; and of those that ONNX 1.22 has. */
static void print_classes(const char *manifest) {
    class_count classes[MAX_CLASSES], of_release = {.name = "all classes, in ONNX 1.22"};
    size_t n = 0;
    char line[4096];
    FILE *f = *manifest ? fopen(manifest, "r") : NULL;
    while (f && fgets(line, sizeof line, f)) {
        char *rest = line, *column[6] = {NULL};
        for (int c = 0; c < 6 && rest; c++) column[c] = strsep(&rest, "\t");
        bool ran, passed = column[5] && test_passed(column[0], &ran);
        if (!column[5] || !ran) continue;
        if (strcmp(column[5], "1") == 0) {
            of_release.tests++;
            of_release.passed += passed;
        }
        size_t c = 0;
        while (c < n && strcmp(classes[c].name, column[3]) != 0) c++;
        if (c == MAX_CLASSES) continue;
        if (c == n) classes[n++] = (class_count){.name = nb_strdup(kept, column[3])};
        classes[c].tests++;
        classes[c].passed += passed;
    }
    if (f) fclose(f);
    for (size_t c = 0; c < n; c++)
        printf("%5d of %5d  %s\n", classes[c].passed, classes[c].tests, classes[c].name);
    if (n) printf("%5d of %5d  %s\n", of_release.passed, of_release.tests, of_release.name);
}

static int is_test(const struct dirent *e) { return strncmp(e->d_name, "test_", 5) == 0; }

/* Is a file of test `name` the same in both sets? */
static bool is_same_file(const char *other, const char *name, const char *file) {
    bytes a = read_bytes(nb_format(kept, "%s/%s/%s", folder, name, file)),
          b = read_bytes(nb_format(kept, "%s/%s/%s", other, name, file));
    bool same =
        a.size == b.size && !a.data == !b.data && (!a.data || memcmp(a.data, b.data, a.size) == 0);
    free(a.data);
    free(b.data);
    return same;
}

/* Are model and data those of the set in folder `other`, which is run as well? */
static bool is_elsewhere(const char *other, const char *name) {
    if (!*other || !is_same_file(other, name, "model.onnx")) return false;
    for (int i = 0; i < MAX_INPUTS; i++) {
        const char *input = nb_format(kept, "test_data_set_0/input_%d.pb", i),
                   *output = nb_format(kept, "test_data_set_0/output_%d.pb", i);
        if (!is_same_file(other, name, input) || !is_same_file(other, name, output)) return false;
    }
    return true;
}

static bool wanted(const char *name, char **tests) {
    size_t n = strlen(name);
    for (char **t = tests; *t; t++)
        if (strncmp(*t, name, n) == 0 && (!(*t)[n] || (*t)[n] == '/')) return true;
    return !*tests;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fputs("usage: backend FOLDER LIST MANIFEST OTHER [TEST...]\n", stderr);
        return EXIT_FAILURE;
    }
    folder = argv[1], list = argv[2];
    struct dirent **found;
    int n = scandir(folder, &found, is_test, alphasort);
    if (n < 0) {
        perror(folder);
        return EXIT_FAILURE;
    }
    kept = nb_arena_create(NULL, NULL);
    read_skips();
    char **names = NB_NEW_ARRAY(kept, char *, (size_t)n + 1);
    size_t n_names = 0;
    for (int i = 0; i < n; i++) {
        if (wanted(found[i]->d_name, argv + 5) && !is_elsewhere(argv[4], found[i]->d_name))
            names[n_names++] = nb_strdup(kept, found[i]->d_name);
        free(found[i]);
    }
    free(found);
    run_all(n_names, names);
    int passed = 0, failed = 0, skipped = 0;
    bool blessing = getenv("NB_BLESS") && argc == 5;
    for (size_t i = 0; i < n_verdicts && !blessing; i++) {
        const verdict *v = &verdicts[i];
        const char *known = skip_reason(v->name);
        if (v->reason && known) {
            skipped++;
        } else if (v->reason) {
            failed++;
            printf("FAILED %s: %s\n", v->name, v->reason);
        } else if (known) {
            failed++;
            printf("FAILED %s passes: take it off the list\n", v->name);
        } else {
            passed++;
        }
    }
    print_classes(argv[3]);
    if (blessing) write_skips();
    nb_arena_destroy(kept);
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
