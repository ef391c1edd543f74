/* calibrate: watches the inputs of linear layers while the model runs on samples.
 *
 *   requires   samples (--calib)
 *   maintains  the graph, untouched; what was seen is kept for the passes that follow
 *
 * Per channel it keeps the largest and the mean |x|; for the whole tensor the range, and the bound
 * `clip` that the method chooses: absmax the largest |x|; minmax max(-min, max), the same for
 * symmetric codes; percentile the |x| that this share of all values does not exceed, from a
 * histogram whose range doubles when needed, so that the result does not depend on the order of
 * samples. */
#include "ir/ir.h"
#include "passes/linear.h"

#include <math.h>
#include <string.h>

static const char *const methods[] = {"absmax", "minmax", "percentile", NULL};
enum { ABSMAX, MINMAX, PERCENTILE };

static const nb_option options[] = {
    {.name = "method",
     .kind = NB_OPTION_ENUM,
     .fallback = "absmax",
     .choices = methods,
     .summary = "how the bound of a whole tensor is chosen"},
    {.name = "percentile",
     .kind = NB_OPTION_FLOAT,
     .fallback = "99.999",
     .min = 50,
     .max = 100,
     .summary = "for method=percentile: values within the bound, in percent"},
    {.name = NULL},
};

#define BINS 4096

/* |x| in [0, limit) over BINS equal bins; limit is a power of two and doubles by merging bins. */
typedef struct histogram {
    float limit;
    uint64_t bins[BINS], count;
} histogram;

typedef struct watched {
    nb_pass_ctx *ctx;
    nb_stats *stats;
    double *sum_abs;      /* per channel, in double: rows are many */
    histogram *histogram; /* method=percentile */
    bool bad;             /* NaN or infinity was seen */
} watched;

static void widen(histogram *h) {
    for (int i = 0; i < BINS / 2; i++) h->bins[i] = h->bins[2 * i] + h->bins[2 * i + 1];
    memset(h->bins + BINS / 2, 0, sizeof h->bins / 2);
    h->limit *= 2;
}

static void count_value(histogram *h, float a) {
    if (h->limit == 0) h->limit = 1.0f / 1024;
    while (a >= h->limit) widen(h);
    h->bins[(int)(a / h->limit * BINS)]++;
    h->count++;
}

static float percentile_of(const histogram *h, double percent) {
    uint64_t target = (uint64_t)ceil((double)h->count * percent / 100), seen = 0;
    for (int i = 0; i < BINS; i++) {
        seen += h->bins[i];
        if (seen >= target) return h->limit * (float)(i + 1) / BINS;
    }
    return h->limit;
}

static void observe(void *user, const nb_value *value, const nb_tensor *t) {
    (void)value;
    watched *w = user;
    nb_stats *s = w->stats;
    int64_t n = s->channels, rows = n ? nb_tensor_count(t) / n : 0;
    const float *x = t->data;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < n; j++) {
            float v = x[r * n + j], a = fabsf(v);
            if (!isfinite(v)) {
                w->bad = true;
                continue;
            }
            s->amax[j] = fmaxf(s->amax[j], a);
            w->sum_abs[j] += (double)a;
            s->min = fminf(s->min, v);
            s->max = fmaxf(s->max, v);
            if (w->histogram) count_value(w->histogram, a);
        }
    }
    s->rows += rows;
}

static bool finish(nb_pass_ctx *ctx, watched *w, const nb_value *value) {
    nb_stats *s = w->stats;
    if (w->bad) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, value->def,
                          "'%%%s' holds NaN or infinity on the calibration samples", value->name);
        ctx->host->help(ctx, "run the float model on the same samples and check its outputs first");
        return false;
    }
    for (int64_t j = 0; j < s->channels; j++)
        s->mean_abs[j] = s->rows ? (float)(w->sum_abs[j] / (double)s->rows) : 0;
    s->clip = fmaxf(-s->min, s->max);
    if (w->histogram && w->histogram->count)
        s->clip = fminf(s->clip, percentile_of(w->histogram, nb_option_of(ctx, "percentile")->f));
    nb_map_set(&nb_state_of(ctx)->env->stats, value, s);
    return true;
}

static bool watch(nb_pass_ctx *ctx, const nb_value *x, watched *w) {
    nb_arena *keep = nb_state_of(ctx)->env->arena, *scratch = nb_state_of(ctx)->scratch;
    const nb_dim *last = x->type->dims[x->type->rank - 1];
    if (!nb_dim_is_const(last)) return false;
    size_t n = (size_t)last->value;
    *w = (watched){.ctx = ctx, .stats = NB_NEW(keep, nb_stats)};
    w->stats->channels = last->value;
    w->stats->amax = NB_NEW_ARRAY(keep, float, n);
    w->stats->mean_abs = NB_NEW_ARRAY(keep, float, n);
    w->sum_abs = NB_NEW_ARRAY(scratch, double, n);
    if (nb_option_of(ctx, "method")->i == PERCENTILE) w->histogram = NB_NEW(scratch, histogram);
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_pass_state *state = nb_state_of(ctx);
    nb_pass_env *env = state->env;
    if (!env->n_samples) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
        ctx->host->help(ctx, "give some with --calib FILE.npy");
        return NB_PASS_FAILED;
    }
    nb_map known = {.arena = state->scratch};
    NB_VEC(nb_tap) taps = {0};
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (!nb_linear_weight(op)) continue;
        nb_value *x = nb_in(op, 0);
        if (x->type->elem != NB_F32 || x->type->quant || nb_map_get(&known, x)) continue;
        watched *w = NB_NEW(state->scratch, watched);
        nb_map_set(&known, x, w);
        if (!watch(ctx, x, w)) continue;
        nb_tap tap = {x, observe, w};
        nb_vec_push(state->scratch, &taps, tap);
    }
    nb_run_fn execute = env->run;
    for (size_t i = 0; i < env->n_samples; i++) {
        nb_arena *arena = nb_arena_create_like(state->scratch);
        nb_tensor *out = NB_NEW_ARRAY(arena, nb_tensor, ctx->graph->outputs.count + 1);
        const nb_tensor *in = env->samples[i].inputs;
        nb_status status =
            execute ? execute(env->run_user, ctx->graph, in, out, taps.items, taps.count, arena,
                              env->diags)
                    : nb_eval(ctx->graph, in, out, taps.items, taps.count, arena, env->diags);
        nb_arena_destroy(arena);
        if (status != NB_OK) return NB_PASS_FAILED;
    }
    for (size_t i = 0; i < taps.count; i++) {
        if (!finish(ctx, taps.items[i].user, taps.items[i].value)) return NB_PASS_FAILED;
    }
    return nb_pass_end(ctx, false);
}

const nb_pass nb_pass_calibrate = {
    .size = sizeof(nb_pass),
    .name = "calibrate",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "observe the inputs of linear layers on the calibration samples",
};
