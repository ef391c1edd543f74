/* smooth-fold: moves the range of activation channels into the weights (SmoothQuant, Xiao et al.,
 * arXiv 2211.10438), folded into what makes the activation: the gain of a norm, the layer that a
 * gate multiplies, the layer that makes an attention's values.
 *
 *   maintains  the function, up to rounding (states of values hold smoothed ones); statistics
 *              follow the change
 *
 *   For channel j:  s_j = amax(x_j)^alpha / max_i|w_ji|^(1-alpha),  x_j /= s_j,  w_j: *= s_j
 *
 *   %n: f32[B,4] = rms_norm %x, @g           ->  rms_norm %x, @g.s
 *   %y: f32[B,2] = matmul %n, @w             ->  matmul %n, @w.s
 *
 * What calibrate saw tells the ranges, else the samples do, else the weights before the place: any
 * of them is undone exactly when a model has a channel scaled up on one side and down on the other,
 * so that such outliers vanish without data too. With `search` each place takes the alpha that is
 * best for its layers on the samples, or stays as it is; so it does with the other methods, which
 * need samples: awq and omniquant (smooth_search.c). */
#include "passes/observe.h"
#include "passes/smooth.h"
#include "passes/walk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const acts[] = {"none", "i8", "i8-static", NULL};
/* In the order of nb_smooth_method. */
static const char *const methods[] = {"smoothquant", "awq", "omniquant", NULL};
static const char *const places[] = {"all", "norms", "products", NULL};
enum { ALL, NORMS, PRODUCTS };

static const nb_option options[] = {
    {.name = "alpha",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .summary = "share of the range that moves: 0 none of the activation's, 1 all of it"},
    {.name = "leave",
     .kind = NB_OPTION_FLOAT,
     .fallback = "1",
     .min = 1,
     .max = 1e6,
     .summary = "without search: channels whose factor is within so many times the median stay"},
    {.name = "places",
     .kind = NB_OPTION_ENUM,
     .fallback = "all",
     .choices = places,
     .summary = "norms; products: gated layers and the values of attention; all: both"},
    {.name = "method",
     .kind = NB_OPTION_ENUM,
     .fallback = "smoothquant",
     .choices = methods,
     .summary = "smoothquant: by the largest |x| and |w|; awq: searched, by the mean |x|; "
                "omniquant: the same, then clusters of channels by themselves"},
    {.name = "search",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "with samples: for each place the best alpha, or none, for what follows"},
    {.name = "bits",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 2,
     .max = 8,
     .summary = "search: the weights' bits that follow"},
    {.name = "group",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     .summary = "search: their group, 0: columns"},
    {.name = "asymmetric",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "search: they have zero points"},
    {.name = "act",
     .kind = NB_OPTION_ENUM,
     .fallback = "i8",
     .choices = acts,
     .summary = "search: the activations that follow: none below 16 bits, i8 by token, or static"},
    {.name = NULL},
};

/* ---- folding -------------------------------------------------------------------------------- */

/* A copy of a constant with its own scale for each row (NULL: none) or entry of the last axis. */
static nb_value *scaled(nb_pass_ctx *ctx, const nb_site *site, const nb_value *c, const float *s,
                        bool reader) {
    void *data;
    nb_blob *blob = nb_blob_create(c->blob->size, &data);
    if (!blob) {
        nb_error(nb_diags_of(ctx), NB_LIMIT, NB_NOWHERE,
                 "out of memory for the scaled form of '@%s'", c->name);
        return NULL;
    }
    const int64_t cols = c->type->dims[c->type->rank - 1]->value,
                  rows = blob->size / (int64_t)sizeof(float) / cols;
    const float *from = c->blob->data;
    float *to = data;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            const float v = from[i * cols + j];
            const int64_t f = j - site->first;
            to[i * cols + j] = reader                        ? v * s[nb_site_factor(site, i)]
                               : f >= 0 && f < site->factors ? v / s[f]
                                                             : v;
        }
    }
    const nb_loc *loc = nb_loc_via(ctx->graph, c->loc, "smooth-fold");
    return nb_graph_add_const(ctx->graph, nb_format(ctx->graph->arena, "%s.s", c->name), c->type,
                              blob, loc);
}

static bool replace(nb_pass_ctx *ctx, const nb_site *site, nb_use *use, const float *s,
                    bool reader) {
    nb_value *c = scaled(ctx, site, use->value, s, reader);
    if (!c) return false;
    nb_set_operand(use, c);
    use->user->loc = nb_loc_via(ctx->graph, use->user->loc, "smooth-fold");
    return true;
}

static bool fold(nb_pass_ctx *ctx, const nb_site *site, nb_stats *stats, const float *s) {
    for (size_t i = 0; i < site->makers.count; i++) {
        if (!replace(ctx, site, site->makers.items[i], s, false)) return false;
    }
    for (size_t i = 0; i < site->readers.count; i++) {
        if (!replace(ctx, site, site->readers.items[i], s, true)) return false;
    }
    if (!stats) return true;
    float *each = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)site->channels);
    for (int64_t j = 0; j < site->channels; j++) each[j] = s[nb_site_factor(site, j)];
    nb_stats_divide(stats, each);
    return true;
}

/* ---- what is known of x --------------------------------------------------------------------- */

#define ROWS 512 /* for the search, evenly from all samples */

static void take_channels(const nb_site *site, const float *amax, float *out) {
    for (int64_t j = 0; j < site->channels; j++) {
        float *most = &out[nb_site_factor(site, j)];
        *most = fmaxf(*most, amax[j]);
    }
}

/* The ranges, and some rows, of x on the samples. */
static void look(nb_pass_ctx *ctx, const nb_site *site, const nb_walk *walk, nb_rows_seen *seen) {
    const size_t n_samples = nb_state_of(ctx)->env->n_samples;
    const int64_t n = site->channels;
    int64_t total = 0, at = 0;
    float *amax = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n);
    double *sum = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, double, (size_t)site->factors);
    for (size_t i = 0; i < n_samples; i++)
        total += nb_tensor_count(nb_walk_sample(walk, site->x, i)) / n;
    seen->n_rows = 0;
    for (size_t i = 0; i < n_samples; i++) {
        const nb_tensor *t = nb_walk_sample(walk, site->x, i);
        const float *x = t->data;
        for (int64_t r = 0, count = nb_tensor_count(t) / n; r < count; r++, at++, x += n) {
            for (int64_t j = 0; j < n; j++) {
                amax[j] = fmaxf(amax[j], fabsf(x[j]));
                sum[nb_site_factor(site, j)] += (double)fabsf(x[j]);
            }
            if (at * ROWS / total < seen->n_rows) continue;
            memcpy(seen->rows + seen->n_rows++ * n, x, (size_t)n * sizeof *x);
        }
    }
    take_channels(site, amax, seen->amax);
    for (int64_t f = 0; f < site->factors; f++)
        seen->mean[f] = (float)(sum[f] / (double)(nb_max_i64(at, 1) * site->share));
}

/* Do the layers on the samples decide? */
static bool searches(nb_pass_ctx *ctx) {
    return nb_option_of(ctx, "search")->b || nb_option_of(ctx, "method")->i != NB_SMOOTHQUANT;
}

/* What there is: statistics, samples, or the weights. */
static bool see(nb_pass_ctx *ctx, const nb_site *site, nb_site_kind kind, nb_walk *walk,
                const nb_stats *stats, nb_rows_seen *seen) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    seen->amax = NB_NEW_ARRAY(scratch, float, (size_t)site->factors);
    seen->mean = NB_NEW_ARRAY(scratch, float, (size_t)site->factors);
    if (nb_state_of(ctx)->env->n_samples && (searches(ctx) || !stats)) {
        if (!nb_walk_to(walk, site->x)) return false;
        seen->rows = malloc((size_t)(ROWS * site->channels + 1) * sizeof *seen->rows);
        if (!seen->rows) {
            nb_error(nb_diags_of(ctx), NB_LIMIT, NB_NOWHERE, "out of memory for rows of '%%%s'",
                     site->x->name);
            return false;
        }
        look(ctx, site, walk, seen);
    } else if (stats) {
        take_channels(site, stats->amax, seen->amax);
    } else {
        nb_site_guess(site, kind, seen->amax);
    }
    return true;
}

/* ---- choosing ------------------------------------------------------------------------------- */

static nb_smooth_aim aim_of(nb_pass_ctx *ctx) {
    static const int act[] = {NB_AIM_WEIGHTS, NB_AIM_TOKENS, NB_AIM_TENSOR};
    return (nb_smooth_aim){.weight_bits = (int)nb_option_of(ctx, "bits")->i,
                           .group = nb_option_of(ctx, "group")->i,
                           .asymmetric = nb_option_of(ctx, "asymmetric")->b,
                           .act = act[nb_option_of(ctx, "act")->i]};
}

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The factors that alpha gives, in units of their median, 1 where they are near it; false when all
 * are. A model's own differences between channels are worth keeping, outliers are not. */
static bool take_alpha(nb_pass_ctx *ctx, const nb_site *site, const nb_rows_seen *seen, float *s) {
    const float leave = (float)nb_option_of(ctx, "leave")->f;
    const int64_t n = site->factors;
    bool moves = leave == 1;
    nb_smooth_factors(site, seen->amax, (float)nb_option_of(ctx, "alpha")->f, s);
    if (moves) return true;
    float *sorted = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n);
    memcpy(sorted, s, (size_t)n * sizeof *s);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    const float median = sorted[n / 2];
    for (int64_t f = 0; f < n; f++) {
        s[f] /= median;
        if (s[f] <= leave && s[f] * leave >= 1) s[f] = 1;
        moves |= s[f] != 1;
    }
    return moves;
}

/* What the walk holds of x follows. */
static void divide_held(nb_pass_ctx *ctx, const nb_site *site, const nb_walk *walk,
                        const float *s) {
    const int64_t n = site->channels;
    for (size_t i = 0; i < nb_state_of(ctx)->env->n_samples; i++) {
        float *x = nb_walk_data(walk, site->x, i);
        const int64_t count = x ? nb_tensor_count(nb_walk_sample(walk, site->x, i)) : 0;
        for (int64_t k = 0; k < count; k++) x[k] /= s[nb_site_factor(site, k % n)];
    }
}

static bool smooth(nb_pass_ctx *ctx, const nb_site *site, nb_site_kind kind, nb_walk *walk,
                   bool *changed) {
    nb_rows_seen seen = {0};
    nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, site->x);
    float *s = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)site->factors);
    double alpha = nb_option_of(ctx, "alpha")->f;
    bool ok = see(ctx, site, kind, walk, stats, &seen), moves = true;
    if (ok && seen.rows && searches(ctx)) {
        const nb_smooth_aim aim = aim_of(ctx);
        moves =
            nb_smooth_search(site, &seen, &aim, (nb_smooth_method)nb_option_of(ctx, "method")->i,
                             nb_state_of(ctx)->scratch, s, &alpha);
    } else if (ok) {
        moves = take_alpha(ctx, site, &seen, s);
    }
    if (ok) ctx->host->fact(ctx, site->x->def, "alpha", moves ? alpha : 0);
    if (ok && moves) {
        ok = fold(ctx, site, stats, s);
        divide_held(ctx, site, walk, s);
    }
    *changed |= ok && moves;
    free(seen.rows);
    return ok;
}

static bool is_wanted(nb_pass_ctx *ctx, nb_site_kind kind) {
    const int64_t wanted = nb_option_of(ctx, "places")->i;
    return wanted == ALL || (wanted == NORMS) == (kind == NB_SITE_NORM);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    /* No size changes: what a mapped file has need not be read. */
    if (nb_state_of(ctx)->env->estimating && nb_graph_is_mapped(ctx->graph))
        return nb_pass_end(ctx, false);
    if (nb_option_of(ctx, "method")->i != NB_SMOOTHQUANT && !nb_walk_samples(ctx))
        return NB_PASS_FAILED;
    bool changed = false, ok = true;
    nb_walk walk = nb_walk_begin(ctx, ctx->graph);
    NB_FOR_OPS(op, &ctx->graph->body) {
        nb_site site;
        nb_site_kind kind;
        if (!nb_site_find(ctx, op, &site, &kind)) continue;
        if (!is_wanted(ctx, kind)) continue;
        ok = smooth(ctx, &site, kind, &walk, &changed);
        if (!ok) break;
    }
    nb_walk_end(&walk);
    if (!ok) return NB_PASS_FAILED;
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_smooth_fold = {
    .size = sizeof(nb_pass),
    .name = "smooth-fold",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS | NB_PASS_MOVES_STATES | NB_PASS_RUNS_ONCE,
    .summary = "move outlier channels into the weights behind them (SmoothQuant)",
};
