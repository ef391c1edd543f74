/* center-keys: key channels lose their mean before they join the cache.
 *
 *   requires   raise; samples (--calib), whose keys are averaged; before cache-type
 *   maintains  what attention computes, up to rounding: q.(k - c) differs from q.k by q.c, the same
 *              for all keys of a row, and softmax does not see that
 *
 * Keys have channels that are nearly constant and large: those that rotary turns least. They
 * stretch the range of codes that a token's keys share and carry no information (SageAttention,
 * arXiv 2410.02367, which takes the mean of the prompt at hand; a fixed one gives a token the same
 * codes however the prompt is split).
 *
 *   %k: f32[B,G,P+S,D] = concat %past, %new {axis=2}
 * becomes
 *   %new.centered: f32[B,G,S,D] = sub %new, @past.center
 *   %k: f32[B,G,P+S,D] = concat %past, %new.centered {axis=2} */
#include "ir/build.h"
#include "passes/cache.h"

#include <math.h>

/* What the samples showed of the new keys of a cache. */
typedef struct keys {
    nb_op *concat;
    const char *past;
    int64_t heads, size;
    double *sum; /* [heads][size] */
    int64_t tokens;
} keys;

static void observe(void *user, const nb_value *value, const nb_array *t) {
    keys *all = user, *k = all;
    while (nb_in(k->concat, 1) != value) k++;
    const float *x = t->data;
    for (int64_t b = 0; b < t->dims[0]; b++)
        for (int64_t h = 0; h < k->heads; h++)
            for (int64_t s = 0; s < t->dims[2]; s++)
                for (int64_t d = 0; d < k->size; d++) k->sum[h * k->size + d] += (double)*x++;
    k->tokens += t->dims[0] * t->dims[2];
}

static bool center(nb_pass_ctx *ctx, const keys *k) {
    nb_graph *g = ctx->graph;
    nb_value *fresh = nb_in(k->concat, 1);
    int64_t n = k->heads * k->size;
    float *mean = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++) {
        mean[i] = k->tokens ? (float)(k->sum[i] / (double)k->tokens) : 0;
        if (isfinite(mean[i])) continue;
        ctx->host->report(ctx, NB_LEVEL_ERROR, k->concat,
                          "'%%%s' holds NaN or infinity on the calibration samples", fresh->name);
        ctx->host->help(ctx, "run the float model on the same samples and check its outputs first");
        return false;
    }
    nb_builder b = nb_pass_builder(ctx, k->concat, k->concat->loc);
    nb_value *c = nb_const_f32(g, nb_format(g->arena, "%s.center", k->past), 4,
                               (int64_t[]){1, k->heads, 1, k->size}, mean),
             *y = nb_binary(&b, NB_OP_sub, fresh, c);
    if (!y) return false;
    nb_set_name(g, y, nb_format(g->arena, "%s.centered", fresh->name));
    nb_set_operand(&k->concat->operands[1], y);
    return true;
}

static bool is_centered(const nb_value *fresh) {
    return fresh->def && fresh->def->kind == NB_OP_sub && nb_is_const(nb_in(fresh->def, 1));
}

/* The caches of keys in f32; *n of them. */
static keys *find(nb_pass_ctx *ctx, size_t *n) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const nb_graph *g = ctx->graph;
    keys *all = NB_NEW_ARRAY(scratch, keys, g->states.count + 1);
    *n = 0;
    for (size_t i = 0; i < g->states.count; i++) {
        nb_cache c;
        if (!nb_find_cache(scratch, g, &g->states.items[i], &c) || !nb_cache_is(&c, 1)) continue;
        const nb_value *fresh = nb_in(c.concat, 1);
        const nb_type *t = fresh->type;
        if (is_centered(fresh) || t->elem != NB_F32 || !nb_dim_is_const(t->dims[1]) ||
            !nb_dim_is_const(t->dims[3]))
            continue;
        keys *k = &all[(*n)++];
        *k = (keys){c.concat, c.past->name, t->dims[1]->value, t->dims[3]->value, NULL, 0};
        k->sum = NB_NEW_ARRAY(scratch, double, (size_t)(k->heads * k->size) + 1);
    }
    return all;
}

static const nb_option options[] = {
    {.name = "auto",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "without samples, leave keys as they are"},
    {.name = NULL},
};

static nb_pass_result run(nb_pass_ctx *ctx) {
    const nb_pass_host *host = ctx->host;
    size_t n;
    keys *all = find(ctx, &n);
    if (!n || (!host->sample_count(ctx) && nb_option_of(ctx, "auto")->b))
        return nb_pass_end(ctx, false);
    if (!host->sample_count(ctx)) {
        host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
        host->help(ctx, "give some with --calib FILE.npy");
        return NB_PASS_FAILED;
    }
    const nb_value **taps =
        (const nb_value **)nb_alloc_array(nb_state_of(ctx)->scratch, n, sizeof *taps);
    for (size_t i = 0; i < n; i++) taps[i] = nb_in(all[i].concat, 1);
    for (size_t i = 0; i < host->sample_count(ctx); i++) {
        const nb_array *in;
        if (!host->sample(ctx, i, &in) || !host->run(ctx, in, NULL, taps, n, observe, all))
            return NB_PASS_FAILED;
    }
    for (size_t i = 0; i < n; i++)
        if (!center(ctx, &all[i])) return NB_PASS_FAILED;
    return nb_pass_end(ctx, true);
}

const nb_pass nb_pass_center_keys = {
    .size = sizeof(nb_pass),
    .name = "center-keys",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS | NB_PASS_MOVES_STATES,
    .summary =
        "subtract from keys their calibrated mean, which softmax does not see: fewer bits do",
};
