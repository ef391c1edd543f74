/* Golden files: tests/golden/<pass>/<case>.nir holds a graph and the whole graph after passes.
 *
 *   ; What the case shows.
 *   ; passes: simplify, raise
 *   ; samples: made-up          calibration samples are inputs that the test makes up
 *   ; fails: TEXT               the pipeline fails with a message that holds TEXT; no second graph
 *   nir 1 ...
 *   ; ----
 *   nir 1 ...
 *
 * Each file also checks: both texts print as they were read; the verifier after each pass; a pass
 * keeps the numbers it promises to keep, and says whether it changed the graph; the last pass run
 * again finds nothing to do. NB_BLESS=1 rewrites the files with what the passes make.
 *
 *   golden [FOLDER OR CASE...]       e.g. golden simplify raise/silu */
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT NIBBLE_SOURCE_DIR "/tests/golden"
#define MARK "; ----\n"

/* Passes whose second run may move numbers again. */
static const char *const not_idempotent[] = {"smooth-fold", "rotate", "adapter", "bias-correct"};

static const nb_print_options everything = {0};

typedef struct golden {
    const char *name; /* "simplify/cse" */
    const char *path;
    nb_arena *arena;
    nb_diags *diags;
    const char *header, *passes, *fails;
    bool samples;
    const char *before, *after; /* texts of the file; after is NULL when there is none */
    const char *now;            /* the graph as the observer saw it last */
    int faults;
} golden;

NB_PRINTF(2, 3) static void fault(golden *t, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(t->arena, fmt, args);
    va_end(args);
    printf("FAILED %s: %s\n", t->name, message);
    t->faults++;
}

static void fault_diags(golden *t, const char *what) {
    fault(t, "%s", what);
    for (size_t i = 0; i < t->diags->list.count; i++)
        fputs(nb_diag_render(t->arena, t->diags->list.items[i]), stdout);
}

/* Tells the first line in which two texts differ. */
static void expect_text(golden *t, const char *what, const char *expected, const char *found) {
    if (strcmp(expected, found) == 0) return;
    int line = 1;
    size_t i = 0, start = 0;
    for (; expected[i] && expected[i] == found[i]; i++) {
        if (expected[i] != '\n') continue;
        line++;
        start = i + 1;
    }
    fault(t, "%s: line %d\n  expected: %.*s\n  found:    %.*s", what, line,
          (int)strcspn(expected + start, "\n"), expected + start, (int)strcspn(found + start, "\n"),
          found + start);
}

/* ---- the file ------------------------------------------------------------------------------- */

static char *read_file(nb_arena *arena, const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = nb_alloc(arena, (size_t)size + 1);
    size_t got = fread(text, 1, (size_t)size, f);
    fclose(f);
    return got == (size_t)size ? text : NULL;
}

/* "; key: value" among the comments in front; NULL when it is not there. */
static const char *header_value(const golden *t, const char *key) {
    const char *mark = nb_format(t->arena, "; %s: ", key);
    for (const char *line = t->header; *line;) {
        size_t length = strcspn(line, "\n");
        if (strncmp(line, mark, strlen(mark)) == 0)
            return nb_strndup(t->arena, line + strlen(mark), length - strlen(mark));
        line += length + (line[length] == '\n');
    }
    return NULL;
}

static bool read_golden(golden *t) {
    char *text = read_file(t->arena, t->path);
    if (!text) {
        fault(t, "cannot read %s", t->path);
        return false;
    }
    char *at = text;
    while (*at == ';') at += strcspn(at, "\n") + (strchr(at, '\n') != NULL);
    t->header = nb_strndup(t->arena, text, (size_t)(at - text));
    char *mark = strstr(at, MARK);
    t->before = mark ? nb_strndup(t->arena, at, (size_t)(mark - at)) : at;
    t->after = mark ? mark + strlen(MARK) : NULL;
    t->passes = header_value(t, "passes");
    t->fails = header_value(t, "fails");
    t->samples = header_value(t, "samples") != NULL;
    if (!t->passes) fault(t, "no line '; passes: ...' in front");
    return t->passes != NULL;
}

static void bless(golden *t, const char *before, const char *after) {
    FILE *f = fopen(t->path, "wb");
    if (!f) {
        fault(t, "cannot write %s", t->path);
        return;
    }
    fprintf(f, "%s%s", t->header, before);
    if (after) fprintf(f, "%s%s", MARK, after);
    if (fclose(f) != 0) fault(t, "cannot write %s", t->path);
}

/* ---- the checks ----------------------------------------------------------------------------- */

static nb_graph *parse(golden *t, const char *text) {
    nb_graph *g;
    nb_status status = nb_parse(text, strlen(text), t->name, NULL, NULL, NULL, t->diags, &g);
    return status == NB_OK ? g : NULL;
}

/* Called after each pass. */
static void observe(void *user, const nb_pass_event *event) {
    golden *t = user;
    const char *text = nb_print_string(t->arena, event->graph, &everything);
    bool changed = strcmp(text, t->now) != 0;
    if (event->result == NB_PASS_UNCHANGED && changed)
        expect_text(t, nb_format(t->arena, "%s says it changed nothing", event->name), t->now,
                    text);
    if (event->result == NB_PASS_CHANGED && !changed)
        fault(t, "%s says it changed the graph, and the text is the same", event->name);
    t->now = text;
}

static void run_again(golden *t, const nb_pipeline *pipeline, nb_graph *g, nb_pass_env *env) {
    size_t n = pipeline->steps.count;
    if (n == 0) return;
    for (size_t i = 0; i < NB_COUNT(not_idempotent); i++)
        if (strcmp(pipeline->steps.items[n - 1].pass->name, not_idempotent[i]) == 0) return;
    nb_pipeline last = {0};
    nb_vec_push(t->arena, &last.steps, pipeline->steps.items[n - 1]);
    const char *once = t->now;
    if (nb_pipeline_run(&last, g, env) != NB_OK)
        fault_diags(t, "the last pass fails when it runs again");
    expect_text(t, "the last pass runs again", once, t->now);
}

static bool failed_as_said(golden *t) {
    for (size_t i = 0; i < t->diags->list.count; i++)
        if (strstr(t->diags->list.items[i]->message, t->fails)) return true;
    return false;
}

static void run_passes(golden *t, nb_graph *g, bool blessing) {
    const char *canonical = nb_print_string(t->arena, g, &everything);
    if (!blessing) expect_text(t, "the first graph printed", t->before, canonical);
    t->now = canonical;
    nb_registry *registry = nb_registry_create(t->arena);
    nb_sample sample = {nb_made_up_inputs(g, t->arena)};
    nb_pass_env env = {.registry = registry,
                       .diags = t->diags,
                       .arena = t->arena,
                       .samples = &sample,
                       .n_samples = t->samples,
                       .verify_each = true,
                       .check_each = true,
                       .after = observe,
                       .after_user = t};
    nb_pipeline pipeline;
    nb_status status = nb_pipeline_parse(registry, t->passes, t->arena, t->diags, &pipeline);
    if (status == NB_OK) status = nb_pipeline_run(&pipeline, g, &env);
    if (t->fails) {
        if (status == NB_OK || !failed_as_said(t))
            fault_diags(t, nb_format(t->arena, "expected an error that says: %s", t->fails));
        if (blessing) bless(t, canonical, NULL);
        return;
    }
    if (status != NB_OK) {
        fault_diags(t, "the pipeline fails");
        return;
    }
    const char *after = t->now;
    if (!blessing) expect_text(t, "the graph after the passes", t->after ? t->after : "", after);
    run_again(t, &pipeline, g, &env);
    if (blessing) bless(t, canonical, after);
    nb_graph *copy = parse(t, after);
    if (!copy) {
        fault_diags(t, "the second graph cannot be read");
        return;
    }
    expect_text(t, "the second graph read and printed", after,
                nb_print_string(t->arena, copy, &everything));
    nb_graph_destroy(copy);
}

static int run_case(const char *folder, const char *file) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    golden t = {.arena = arena, .diags = nb_diags_create(arena, file)};
    t.name = nb_format(arena, "%s/%.*s", folder, (int)strlen(file) - 4, file);
    t.path = nb_format(arena, "%s/%s/%s", ROOT, folder, file);
    if (read_golden(&t)) {
        nb_graph *g = parse(&t, t.before);
        if (g) {
            run_passes(&t, g, getenv("NB_BLESS") != NULL);
            nb_graph_destroy(g);
        } else {
            fault_diags(&t, "the first graph cannot be read");
        }
    }
    int faults = t.faults;
    nb_arena_destroy(arena);
    return faults;
}

/* ---- folders -------------------------------------------------------------------------------- */

static bool wanted(const char *folder, const char *file, int argc, char **argv) {
    size_t n = strlen(folder), m = strlen(file) - 4;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], folder) == 0) return true;
        if (strlen(argv[i]) == n + 1 + m && strncmp(argv[i], folder, n) == 0 && argv[i][n] == '/' &&
            strncmp(argv[i] + n + 1, file, m) == 0)
            return true;
    }
    return argc == 1;
}

static int is_folder(const struct dirent *e) { return e->d_type == DT_DIR && e->d_name[0] != '.'; }

static int is_case(const struct dirent *e) {
    size_t n = strlen(e->d_name);
    return n > 4 && strcmp(e->d_name + n - 4, ".nir") == 0;
}

int main(int argc, char **argv) {
    struct dirent **folders;
    int n_folders = scandir(ROOT, &folders, is_folder, alphasort), passed = 0, failed = 0;
    for (int i = 0; i < n_folders; i++) {
        nb_arena *arena = nb_arena_create(NULL, NULL);
        struct dirent **files;
        int n = scandir(nb_format(arena, "%s/%s", ROOT, folders[i]->d_name), &files, is_case,
                        alphasort);
        for (int k = 0; k < n; k++) {
            if (wanted(folders[i]->d_name, files[k]->d_name, argc, argv)) {
                if (run_case(folders[i]->d_name, files[k]->d_name))
                    failed++;
                else
                    passed++;
            }
            free(files[k]);
        }
        if (n >= 0) free(files);
        nb_arena_destroy(arena);
        free(folders[i]);
    }
    if (n_folders >= 0) free(folders);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed == 0 && passed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
