/* smooth-fold: moves the range of activation channels into the weights (SmoothQuant, Xiao et al.,
 * arXiv 2211.10438), folded into the gain of the norm before them.
 *
 *   requires   calibrate; a norm with constant gain all of whose users are linear layers
 *   maintains  the function, up to rounding; statistics follow the change
 *
 *   For channel j:  s_j = amax(x_j)^alpha / max_i|w_ji|^(1-alpha),  gain_j /= s_j,  w_j: *= s_j
 *
 *   %n: f32[B,4] = rms_norm %x, @g           ->  rms_norm %x, @g.s
 *   %y: f32[B,2] = matmul %n, @w             ->  matmul %n, @w.s */
#include "passes/linear.h"

#include <math.h>
#include <string.h>

/* SmoothQuant's floor for both ranges: a channel that is never used must not get an infinite
 * factor. */
#define FLOOR 1e-5f

static const nb_option options[] = {
    {.name = "alpha",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .summary = "share of the range that moves: 0 none of the activation's, 1 all of it"},
    {.name = NULL},
};

/* A norm whose every user is a linear layer with a float weight. */
static bool can_smooth(const nb_op *norm) {
    if (norm->kind != NB_OP_rms_norm && norm->kind != NB_OP_layer_norm) return false;
    const nb_value *bias = norm->n_operands > 2 ? nb_in(norm, 2) : NULL;
    if (!nb_is_const(nb_in(norm, 1)) || nb_in(norm, 1)->type->elem != NB_F32 ||
        (bias && !nb_is_const(bias)))
        return false;
    for (const nb_use *u = nb_out(norm)->uses; u; u = u->next) {
        const nb_value *w = nb_linear_weight(u->user);
        if (!w || u->index != 0 || w->type->quant || w->type->elem != NB_F32) return false;
    }
    return nb_out(norm)->uses != NULL;
}

/* Largest |w| of each row over all layers behind the norm. */
static float *weight_range(nb_pass_ctx *ctx, const nb_op *norm, int64_t channels) {
    float *range = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)channels);
    for (const nb_use *u = nb_out(norm)->uses; u; u = u->next) {
        const nb_value *w = nb_linear_weight(u->user);
        const float *data = w->blob->data;
        int64_t cols = w->type->dims[1]->value;
        for (int64_t j = 0; j < channels; j++) {
            for (int64_t i = 0; i < cols; i++)
                range[j] = fmaxf(range[j], fabsf(data[j * cols + i]));
        }
    }
    return range;
}

/* A copy of a constant with row (or element) j multiplied by factor[j]. */
static nb_value *scaled(nb_pass_ctx *ctx, const nb_value *c, const float *factor, bool divide) {
    void *data;
    nb_blob *blob = nb_blob_create(c->blob->size, &data);
    if (!blob) {
        nb_error(nb_diags_of(ctx), NB_LIMIT, NB_NOWHERE,
                 "out of memory for the scaled form of '@%s'", c->name);
        return NULL;
    }
    int64_t rows = c->type->dims[0]->value, cols = c->type->rank == 2 ? c->type->dims[1]->value : 1;
    const float *from = c->blob->data;
    float *to = data;
    for (int64_t j = 0; j < rows; j++) {
        for (int64_t i = 0; i < cols; i++)
            to[j * cols + i] =
                divide ? from[j * cols + i] / factor[j] : from[j * cols + i] * factor[j];
    }
    const nb_loc *loc = nb_loc_via(ctx->graph, c->loc, "smooth-fold");
    return nb_graph_add_const(ctx->graph, nb_format(ctx->graph->arena, "%s.s", c->name), c->type,
                              blob, loc);
}

static bool replace_operand(nb_pass_ctx *ctx, nb_op *op, uint32_t slot, const float *factor,
                            bool divide) {
    nb_value *c = scaled(ctx, nb_in(op, slot), factor, divide);
    if (!c) return false;
    nb_set_operand(&op->operands[slot], c);
    op->loc = nb_loc_via(ctx->graph, op->loc, "smooth-fold");
    return true;
}

static void update_stats(nb_stats *stats, const float *s) {
    stats->clip = 0;
    for (int64_t j = 0; j < stats->channels; j++) {
        stats->amax[j] /= s[j];
        stats->mean_abs[j] /= s[j];
        stats->clip = fmaxf(stats->clip, stats->amax[j]);
    }
    stats->max = stats->clip;
    stats->min = -stats->clip;
}

static bool smooth(nb_pass_ctx *ctx, nb_op *norm, nb_stats *stats) {
    float alpha = (float)nb_option_of(ctx, "alpha")->f;
    int64_t n = stats->channels;
    const float *range = weight_range(ctx, norm, n);
    float *s = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n);
    for (int64_t j = 0; j < n; j++)
        s[j] = powf(fmaxf(stats->amax[j], FLOOR), alpha) / powf(fmaxf(range[j], FLOOR), 1 - alpha);
    if (!replace_operand(ctx, norm, 1, s, true)) return false;
    if (norm->n_operands > 2 && nb_in(norm, 2) && !replace_operand(ctx, norm, 2, s, true))
        return false;
    for (nb_use *u = nb_out(norm)->uses; u; u = u->next) {
        if (!replace_operand(ctx, u->user, 1, s, false)) return false;
    }
    update_stats(stats, s);
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    bool changed = false;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (!can_smooth(op)) continue;
        nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, nb_out(op));
        if (!stats) {
            ctx->host->report(ctx, NB_LEVEL_ERROR, op, "no statistics of '%%%s'", nb_out(op)->name);
            ctx->host->help(
                ctx, "give calibration data with --calib and run calibrate before smooth-fold");
            return NB_PASS_FAILED;
        }
        if (!smooth(ctx, op, stats)) return NB_PASS_FAILED;
        changed = true;
    }
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_smooth_fold = {
    .size = sizeof(nb_pass),
    .name = "smooth-fold",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS,
    .summary = "move outlier channels of norms into the weights behind them (SmoothQuant)",
};
