/* Runs golden files (golden.h). */
#include "passes/golden.h"

#include "ir/support/file.h"
#include "ir/support/output.h"
#include "ir/text.h"
#include "passes/check.h"

#include <string.h>

#define MARK "; ----\n"

static const nb_print_options everything = {0};

typedef struct golden {
    const char *name, *path;
    const nb_golden_options *options;
    nb_arena *arena;
    nb_diags *diags;
    const char *header, *passes, *fails;
    bool samples;
    const char *before, *after; /* texts of the file; after is NULL when there is none */
    const char *now;            /* the graph as the observer saw it last */
    const char *faults;
} golden;

NB_PRINTF(2, 3) static void fault(golden *t, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(t->arena, fmt, args);
    va_end(args);
    t->faults = nb_format(t->arena, "%sFAILED %s: %s\n", t->faults, t->name, message);
}

static void fault_diags(golden *t, const char *what) {
    fault(t, "%s", what);
    for (size_t i = 0; i < t->diags->list.count; i++)
        t->faults = nb_format(t->arena, "%s%s", t->faults,
                              nb_diag_render(t->arena, t->diags->list.items[i]));
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
    nb_file file;
    if (nb_file_open(t->path, t->diags, &file) != NB_OK) {
        fault_diags(t, "the file cannot be read");
        return false;
    }
    const char *text = nb_strndup(t->arena, (const char *)file.bytes, file.size), *at = text;
    nb_file_close(&file);
    while (*at == ';') {
        at += strcspn(at, "\n");
        at += *at == '\n';
    }
    t->header = nb_strndup(t->arena, text, (size_t)(at - text));
    const char *mark = strstr(at, MARK);
    t->before = mark ? nb_strndup(t->arena, at, (size_t)(mark - at)) : at;
    t->after = mark ? mark + strlen(MARK) : NULL;
    t->passes = header_value(t, "passes");
    t->fails = header_value(t, "fails");
    t->samples = header_value(t, "samples") != NULL;
    if (!t->passes) fault(t, "no line '; passes: ...' in front");
    return t->passes != NULL;
}

static void bless(golden *t, const char *before, const char *after) {
    const char *text =
        nb_format(t->arena, "%s%s%s%s", t->header, before, after ? MARK : "", after ? after : "");
    if (nb_write_file(t->path, text, strlen(text), t->diags) != NB_OK)
        fault_diags(t, "the file cannot be written");
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
    if (n == 0 || pipeline->steps.items[n - 1].pass->promises & NB_PASS_RUNS_ONCE) return;
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

static void expect_after(golden *t, const char *after) {
    if (t->after)
        expect_text(t, "the graph after the passes", t->after, after);
    else
        fault(t, "there is no graph behind a line '; ----'; blessing writes it");
}

/* What the passes made is read back as it was printed. */
static void check_round_trip(golden *t, const char *after) {
    nb_graph *copy = parse(t, after);
    if (!copy) {
        fault_diags(t, "the second graph cannot be read");
        return;
    }
    expect_text(t, "the second graph read and printed", after,
                nb_print_string(t->arena, copy, &everything));
    nb_graph_destroy(copy);
}

static void run_passes(golden *t, nb_graph *g) {
    const char *canonical = nb_print_string(t->arena, g, &everything);
    const bool blessing = t->options->bless;
    if (!blessing) expect_text(t, "the first graph printed", t->before, canonical);
    t->now = canonical;
    nb_sample sample = {nb_made_up_inputs(g, t->arena)};
    nb_pass_env env = {.registry = t->options->registry,
                       .diags = t->diags,
                       .arena = t->arena,
                       .samples = &sample,
                       .n_samples = t->samples,
                       .verify_each = true,
                       .check_each = true,
                       .after = observe,
                       .after_user = t};
    nb_pipeline pipeline;
    nb_status status = nb_pipeline_parse(env.registry, t->passes, t->arena, t->diags, &pipeline);
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
    if (!blessing) expect_after(t, after);
    run_again(t, &pipeline, g, &env);
    if (blessing) bless(t, canonical, after);
    check_round_trip(t, after);
}

const char *nb_golden_run(const char *path, const char *name, const nb_golden_options *options,
                          nb_arena *arena) {
    golden t = {.name = name,
                .path = path,
                .options = options,
                .arena = arena,
                .diags = nb_diags_create(arena, name),
                .faults = ""};
    if (!read_golden(&t)) return t.faults;
    nb_graph *g =
        parse(&t, nb_format(arena, "%s%s", t.header, t.before)); /* lines as in the file */
    if (g) {
        run_passes(&t, g);
        nb_graph_destroy(g);
    } else {
        fault_diags(&t, "the first graph cannot be read");
    }
    return t.faults;
}
