/* The test of `nibble reduce` that is a number (reduce.h): how far the model behind the pipeline
 * is from what the evaluator makes of the graph before it. What it makes is compiled and run; where
 * the evaluator shows the fault as well, that computes both, since it needs no compiling. Each
 * candidate is measured in a process of its own: a pass that crashes or hangs takes nothing else
 * with it, and is no failure of the kind that is looked for. A candidate whose float outputs are no
 * numbers is none either; nor is one that is infinitely far off, unless the whole model is. */
#include "passes/divergence.h"
#include "tools/compare.h"
#include "tools/reduce.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- metrics -------------------------------------------------------------------------------- */

/* Sums over samples and outputs. */
typedef struct sums {
    double kld, most, rows, agree;
    size_t n;
    nbt_error error;
} sums;

static int64_t largest(const float *x, int64_t n) {
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) at = x[i] > x[at] ? i : at;
    return at;
}

static void add_pair(sums *s, const nb_tensor *wanted, const nb_tensor *found, bool rows,
                     nb_outputs kind) {
    const int64_t count = nb_tensor_count(wanted), n = rows ? wanted->dims[wanted->rank - 1] : 0;
    const float *a = wanted->data, *b = found->data;
    s->n++;
    nbt_error_add(&s->error, wanted, found);
    for (int64_t i = 0; i < count; i++) {
        const double off = fabs((double)a[i] - (double)b[i]);
        if (off > s->most || isnan(off)) s->most = isnan(off) ? (double)INFINITY : off;
    }
    if (n) s->kld += nb_divergence(wanted, found, kind);
    for (int64_t r = 0; n && r < count / n; r++) {
        s->rows++;
        s->agree += largest(a + r * n, n) == largest(b + r * n, n);
    }
}

static double kld(const sums *s) { return s->n ? s->kld / (double)s->n : 0; }
static double max_abs(const sums *s) { return s->most; }
static double top1(const sums *s) { return s->rows > 0 ? s->agree / s->rows : 1; }
static double sqnr(const sums *s) {
    if (s->error.noise == 0) return (double)INFINITY;
    return isfinite(s->error.noise) ? nbt_sqnr(s->error) : (double)-INFINITY;
}

typedef struct metric {
    const char *name;
    double (*of)(const sums *s);
    bool rows; /* of the output that counts; the others: of all outputs, wherever they are */
} metric;

static const metric metrics[] = {
    {"kld", kld, true}, {"sqnr", sqnr, false}, {"max-abs", max_abs, false}, {"top1", top1, true}};

/* ---- one measurement ------------------------------------------------------------------------ */

/* What a child tells; short enough for one write. */
typedef struct report {
    bool known;
    double value;
    bool inputs_do; /* there is no number, and the inputs are to blame */
    char why[400];
} report;

/* There is no number: false. */
NB_PRINTF(2, 3) static bool say_why(report *r, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, args);
    va_end(args);
    return false;
}

typedef struct numeric_test {
    nbt_test test;
    nbt_args *args;
    const metric *metric;
    bool above; /* fails when the value is above `bound`, else when it is below */
    double bound;
    const char *pipeline, *output; /* text of passes; the output that counts */
    bool whole_is_finite;
    bool interpret; /* the evaluator runs what passes made */
    /* of the candidate that is measured: */
    const nb_graph *graph;
    const nbt_samples *samples;
    int pipe[2];
} numeric_test;

static nb_status run_passes(const numeric_test *t, nb_graph *g, nb_arena *arena) {
    nbl_runner runner = {.cpu = cg_cpu_find(NULL, "native"), .arena = arena};
    nb_pass_env env = {.diags = t->args->diags,
                       .arena = arena,
                       .run = nbl_run_compiled,
                       .run_user = &runner,
                       .samples = t->samples->items,
                       .n_samples = t->samples->count};
    nb_pipeline pipeline;
    NB_TRY(nbt_make_registry(t->args, &env.registry));
    NB_TRY(nb_pipeline_parse(env.registry, t->pipeline, arena, t->args->diags, &pipeline));
    NB_TRY(nb_pipeline_run(&pipeline, g, &env));
    return g->stage == NB_STAGE_PLANNED ? NB_OK : nbt_plan(t->args, g);
}

/* The first element that is infinite or no number; -1: none is. */
static int64_t not_finite(const nb_tensor *t) {
    const float *x = t->data;
    const int64_t n = nb_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return i;
    }
    return -1;
}

/* A tap: the first value that is not finite. */
static void find_source(void *user, const nb_value *value, const nb_tensor *tensor) {
    const nb_value **first = user;
    if (!*first && tensor->elem == NB_F32 && not_finite(tensor) >= 0) *first = value;
}

/* The op that is the first to make what is not finite of these inputs; NULL: none. */
static const nb_op *source_of(const numeric_test *t, const nb_sample *sample, nb_arena *arena) {
    const nb_graph *g = t->graph;
    const nb_value *first = NULL;
    nb_tap *taps = NB_NEW_ARRAY(arena, nb_tap, (size_t)g->n_values + 1);
    nb_tensor *outputs = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count + 1);
    size_t n = 0;
    NB_FOR_OPS(op, &g->body) {
        for (uint32_t i = 0; i < op->n_results; i++) {
            const nb_type *type = op->results[i]->type;
            if (type->elem == NB_F32 && !type->quant)
                taps[n++] = (nb_tap){op->results[i], find_source, &first};
        }
    }
    const nb_status status =
        nb_eval(g, sample->inputs, outputs, taps, n, arena, nb_diags_create(arena, NULL));
    return status == NB_OK && first ? first->def : NULL;
}

/* Output `name` is not finite before any pass. */
static bool refuse_inputs(const numeric_test *t, size_t sample, const char *name,
                          const nb_tensor *wanted, report *r) {
    nb_arena *arena = t->args->arena;
    const int64_t at = not_finite(wanted);
    const nb_op *op = source_of(t, &t->samples->items[sample], arena);
    const char *made_by = "";
    if (op)
        made_by = nb_format(arena, "; '%s' (%s) is the first operation to make such a number",
                            *nb_loc_name(op->loc) ? nb_loc_name(op->loc) : nb_out(op)->name,
                            nb_info(op)->name);
    r->inputs_do = true;
    return say_why(r, "output '%s' is %g at element %lld in sample %zu, before any pass%s", name,
                   (double)((const float *)wanted->data)[at], (long long)at, sample + 1, made_by);
}

static bool is_state(const nb_graph *g, size_t output) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].output == output) return true;
    }
    return false;
}

/* Adds what the outputs that are measured differ by; false: there is one that cannot be. */
static bool add_outputs(const numeric_test *t, const nb_graph *after, size_t sample,
                        const nb_tensor *wanted, const nb_tensor *found, sums *s, report *r) {
    bool any = false;
    for (size_t i = 0; i < t->graph->outputs.count; i++) {
        const char *name = t->graph->outputs.items[i];
        const nb_tensor *w = &wanted[i], *f = NULL;
        if (w->elem != NB_F32 || is_state(t->graph, i)) continue;
        if (t->metric->rows && (strcmp(name, t->output) != 0 || w->rank == 0)) continue;
        for (size_t k = 0; k < after->outputs.count; k++) {
            if (strcmp(after->outputs.items[k], name) == 0) f = &found[k];
        }
        if (!f) return say_why(r, "the passes leave no output '%s'", name);
        if (f->elem != NB_F32 || nb_tensor_count(f) != nb_tensor_count(w))
            return say_why(r,
                           "output '%s' has %lld elements of %s behind the passes, %lld of f32 "
                           "before them",
                           name, (long long)nb_tensor_count(f), nb_elems[f->elem].text,
                           (long long)nb_tensor_count(w));
        if (not_finite(w) >= 0) return refuse_inputs(t, sample, name, w, r);
        add_pair(s, w, f, t->metric->rows,
                 nb_outputs_kind(nb_in(t->graph->body.last, (uint32_t)i)));
        any = true;
    }
    return any || say_why(r, "no output of f32 is left for %s", t->metric->name);
}

static nb_status compare(const numeric_test *t, const nb_graph *after, nbt_model *m, report *r) {
    sums s = {0};
    nb_arena *arena = t->args->arena;
    nbt_samples like;
    NB_TRY(nbt_samples_like(t->args, t->samples, after, &like));
    r->known = true;
    for (size_t i = 0; i < t->samples->count && r->known; i++) {
        nb_tensor *wanted = NB_NEW_ARRAY(arena, nb_tensor, t->graph->outputs.count + 1),
                  *found = NB_NEW_ARRAY(arena, nb_tensor, after->outputs.count + 1);
        NB_TRY(
            nb_eval(t->graph, t->samples->items[i].inputs, wanted, NULL, 0, arena, t->args->diags));
        NB_TRY(nbt_run_model(t->args, m, like.items[i].inputs, found, arena));
        r->known = add_outputs(t, after, i, wanted, found, &s, r);
    }
    r->value = t->metric->of(&s);
    return NB_OK;
}

static nb_status measure(const numeric_test *t, report *r) {
    nb_arena *arena = t->args->arena;
    nbt_model m = {.graph = nb_graph_clone(t->graph), .interpret = t->interpret};
    const cg_cpu *cpu;
    const nbl_how how = {0};
    NB_TRY(nbt_choose_cpu(t->args, "native", &cpu));
    NB_TRY(nbt_choose_threads(t->args, &m.threads));
    NB_TRY(run_passes(t, m.graph, arena));
    if (!m.interpret)
        NB_TRY(nbl_compile_graph(m.graph, cpu, &how, arena, t->args->diags, &m.program));
    return compare(t, m.graph, &m, r);
}

/* In the child, whose memory goes with it. */
static void measure_and_tell(void *user) {
    numeric_test t = *(const numeric_test *)user;
    nbt_args args = *t.args;
    report r = {.known = false};
    args.diags = nb_diags_create(args.arena, t.graph->file);
    t.args = &args;
    if (measure(&t, &r) != NB_OK)
        r.known = say_why(&r, "%s",
                          args.diags->list.count ? args.diags->list.items[0]->message
                                                 : "the measurement fails");
    if (write(t.pipe[1], &r, sizeof r) != sizeof r) _exit(1);
}

static nbt_end_of_run ask_child(numeric_test *t, const nb_graph *g, const nbt_samples *samples,
                                report *r) {
    nbt_end_of_run end = {.status = -1};
    *r = (report){.known = false};
    t->graph = g;
    t->samples = samples;
    if (pipe(t->pipe) != 0) return end;
    end = nbt_run_child(measure_and_tell, t, t->test.timeout);
    close(t->pipe[1]);
    if (end.status != 0 || read(t->pipe[0], r, sizeof *r) != sizeof *r) r->known = false;
    close(t->pipe[0]);
    return end;
}

static bool is_bad(const numeric_test *t, const report *r) {
    if (!r->known || isnan(r->value)) return false;
    return t->above ? r->value > t->bound : r->value < t->bound;
}

static bool numeric_fails(nbt_test *test, const nb_graph *g, const nbt_samples *samples) {
    numeric_test *t = (numeric_test *)test;
    report r;
    ask_child(t, g, samples, &r);
    return is_bad(t, &r) && isfinite(r.value) == t->whole_is_finite;
}

/* ---- the condition -------------------------------------------------------------------------- */

static nb_status parse(numeric_test *t, const char *text) {
    char name[16] = "", sign = 0, rest = 0;
    const int n = sscanf(text, " %15[a-z0-9-] %c %lf %c", name, &sign, &t->bound, &rest);
    for (size_t i = 0; i < NB_COUNT(metrics); i++) {
        if (strcmp(metrics[i].name, name) == 0) t->metric = &metrics[i];
    }
    t->above = sign == '>';
    if (n == 3 && t->metric && (sign == '>' || sign == '<') && isfinite(t->bound)) return NB_OK;
    nb_error(t->args->diags, NB_USAGE, NB_NOWHERE, "--numeric: cannot read '%s'", text);
    nb_help(t->args->diags, "a number, < or >, and a bound: kld>0.1, sqnr<20 (in dB), max-abs>0.5, "
                            "top1<0.9");
    return NB_USAGE;
}

static nb_status not_failing(const numeric_test *t, const nbt_end_of_run *end, const report *r) {
    nb_diags *diags = t->args->diags;
    if (end->interrupted) return nb_error(diags, NB_CHECK_FAILED, NB_NOWHERE, "interrupted");
    if (r->known) {
        nb_error(diags, NB_CHECK_FAILED, NB_NOWHERE, "%s is %.4g over %zu samples: not %s",
                 t->metric->name, r->value, t->samples->count, nbt_get(t->args, "numeric"));
        nb_help(diags, "without --tokens or --calib, inputs are made up");
        return NB_CHECK_FAILED;
    }
    nb_error(diags, NB_CHECK_FAILED, NB_NOWHERE, "the model cannot be measured: %s",
             end->timed_out             ? "time is out"
             : WIFSIGNALED(end->status) ? strsignal(WTERMSIG(end->status))
             : *r->why                  ? r->why
                                        : "the measurement fails");
    if (!r->inputs_do)
        nb_help(diags, "--test takes any command, and counts crashes and time-outs too");
    else if (nbt_has(t->args, "tokens") || nbt_has(t->args, "calib"))
        nb_help(diags, "leave that sample out, or find with --test what makes it so");
    else
        nb_help(diags, "these inputs are made up: give the model its own with --calib FILE.npz");
    return NB_CHECK_FAILED;
}

/* Runs become short soon, compiling does not. */
#define MOST_TIMES_SLOWER 4

static void prefer_evaluator(numeric_test *t, const nb_graph *whole, const nbt_samples *samples,
                             double compiled) {
    report r;
    t->interpret = true;
    const nbt_end_of_run end = ask_child(t, whole, samples, &r);
    t->interpret = is_bad(t, &r) && isfinite(r.value) == t->whole_is_finite &&
                   end.seconds < MOST_TIMES_SLOWER * compiled;
}

nb_status nbt_numeric_test(nbt_args *args, const nb_graph *whole, const nbt_samples *samples,
                           nbt_test **out) {
    numeric_test *t = NB_NEW(args->arena, numeric_test);
    report r;
    *t = (numeric_test){.test = {.fails = numeric_fails, .takes_samples = true}, .args = args};
    NB_TRY(parse(t, nbt_get(args, "numeric")));
    NB_TRY(nbt_number(args, "timeout", 0.001, 1e9, &t->test.timeout));
    NB_TRY(nbt_pipeline_text(args, NULL, &t->pipeline));
    const size_t output = nb_output_that_counts(whole).output;
    if (output == SIZE_MAX)
        return nb_error(args->diags, NB_UNSUPPORTED, (nb_where){.file = whole->file, .offset = -1},
                        "no output is of f32: there is nothing to measure");
    t->output = whole->outputs.items[output];
    t->test.moves_outputs = !t->metric->rows;
    t->interpret = nbt_has(args, "interpret");
    const nbt_end_of_run end = ask_child(t, whole, samples, &r);
    t->whole_is_finite = isfinite(r.value);
    if (!is_bad(t, &r)) return not_failing(t, &end, &r);
    if (t->test.timeout == 0) t->test.timeout = nbt_time_to_wait(end.seconds);
    t->test.verdict = nb_format(args->arena, "%s = %.4g", t->metric->name, r.value);
    if (!t->interpret) prefer_evaluator(t, whole, samples, end.seconds);
    *out = &t->test;
    return NB_OK;
}
