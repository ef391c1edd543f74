/* What is checked of a golden file (golden.h). */
#include "tests/golden/golden.h"

#include "ir/text.h"
#include "passes/pass.h"

#include <stdio.h>
#include <string.h>

typedef struct run {
    const nb_golden *golden;
    nb_arena *arena;
    nb_diags *diags;
    nb_registry *registry;
    bool changed; /* by the pass that ran last */
} run;

static bool fail(const run *r, const char *what) {
    fprintf(stderr, "%s: %s\n", r->golden->path, what);
    for (size_t i = 0; i < r->diags->list.count; i++)
        fputs(nb_diag_render(r->arena, r->diags->list.items[i]), stderr);
    return false;
}

static nb_graph *parse(const run *r, const char *text) {
    nb_graph *g = NULL;
    nb_status status =
        nb_parse(text, strlen(text), r->golden->path, NULL, NULL, NULL, r->diags, &g);
    return status == NB_OK ? g : NULL;
}

static bool survives_printing(const run *r, const char *printed) {
    nb_graph *g = parse(r, printed);
    if (!g) return fail(r, "the printed graph cannot be parsed");
    bool same = strcmp(nb_print_string(r->arena, g, NULL), printed) == 0;
    nb_graph_destroy(g);
    return same || fail(r, "the printed graph prints otherwise after parsing");
}

static void see(void *user, const nb_pass_event *event) {
    ((run *)user)->changed = event->result == NB_PASS_CHANGED;
}

static nb_status run_pipeline(run *r, const nb_pipeline *pipeline, nb_graph *g) {
    nb_pass_env env = {.registry = r->registry,
                       .diags = r->diags,
                       .arena = r->arena,
                       .verify_each = true,
                       .check_each = true,
                       .after = see,
                       .after_user = r};
    return nb_pipeline_run(pipeline, g, &env);
}

static size_t line_length(const char *text) { return strcspn(text, "\n"); }

/* Shows the first line that differs. */
static bool compare(const run *r, const char *found) {
    const char *wanted = r->golden->after;
    int line = 1;
    while (*wanted && *found) {
        size_t a = line_length(wanted), b = line_length(found);
        if (a != b || memcmp(wanted, found, a) != 0) break;
        wanted += a + (wanted[a] == '\n');
        found += b + (found[b] == '\n');
        line++;
    }
    if (!*wanted && !*found) return true;
    fprintf(stderr, "%s: line %d of the result differs\n  expected: %.*s\n  found:    %.*s\n",
            r->golden->path, line, (int)line_length(wanted), wanted, (int)line_length(found),
            found);
    return false;
}

static bool is_idempotent(run *r, const nb_pipeline *pipeline, nb_graph *g, const char *printed) {
    nb_pipeline last = {0};
    nb_vec_push(r->arena, &last.steps, pipeline->steps.items[pipeline->steps.count - 1]);
    if (run_pipeline(r, &last, g) != NB_OK) return fail(r, "the last pass fails when run again");
    if (strcmp(nb_print_string(r->arena, g, NULL), printed) != 0)
        return fail(r, "the last pass changes its own result");
    return !r->changed || fail(r, "the last pass says that it changes its own result");
}

static bool check_graph(run *r, const nb_pipeline *pipeline, nb_graph *g, bool bless) {
    if (!survives_printing(r, nb_print_string(r->arena, g, NULL))) return false;
    if (run_pipeline(r, pipeline, g) != NB_OK) return fail(r, "a pass failed");
    const char *printed = nb_print_string(r->arena, g, NULL);
    bool ok = bless ? nb_golden_write(r->golden, printed) : compare(r, printed);
    return survives_printing(r, printed) && is_idempotent(r, pipeline, g, printed) && ok;
}

bool nb_golden_check(const nb_golden *golden, nb_arena *arena, bool bless) {
    run r = {.golden = golden,
             .arena = arena,
             .diags = nb_diags_create(arena, golden->path),
             .registry = nb_registry_create(arena)};
    nb_pipeline pipeline = {0};
    if (nb_pipeline_parse(r.registry, golden->passes, arena, r.diags, &pipeline) != NB_OK)
        return fail(&r, "the pipeline is wrong");
    if (pipeline.steps.count == 0) return fail(&r, "the pipeline is empty");
    nb_graph *g = parse(&r, golden->before);
    if (!g) return fail(&r, "the graph is wrong");
    bool ok = check_graph(&r, &pipeline, g, bless);
    nb_graph_destroy(g);
    return ok;
}
