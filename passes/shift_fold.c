/* shift-fold: takes the middle of each channel's range off what linear layers read (Outlier
 * Suppression+, Wei et al., arXiv 2304.09145), so that codes around 0 need not reach as far.
 *
 *   requires   calibrate
 *   maintains  the function, up to rounding (states of values hold shifted ones); statistics follow
 *              the change
 *
 *   For channel j:  z_j = (min x_j + max x_j) / 2,   x W = (x - z) W + z W
 *
 *   %n: f32[B,4] = layer_norm %x, @g, bias=@b  ->  layer_norm %x, @g, bias=@b.c
 *   %y: f32[B,2] = matmul %n, @w               ->  %y = matmul %n, @w;  %add = add %y, @w.bias
 *
 * z comes off for nothing in the bias of a layer norm, and in that of the layer that makes an
 * attention's values, since what attention weighs them by sums to 1. Elsewhere it is an op, `sub`;
 * smooth-fold divides its z too, when it comes behind. */
#include "ir/build.h"
#include "passes/branch.h"
#include "passes/observe.h"
#include "passes/raise.h"
#include "passes/values.h"

#include <math.h>

static const nb_option options[] = {
    {.name = "worth",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.9",
     .min = 0,
     .max = 1,
     .summary = "a place stays where more than this share of its largest |x| would remain"},
    {.name = NULL},
};

/* Where channels can be shifted. */
typedef struct place {
    nb_value *x;
    NB_VEC(nb_op *) layers; /* that read x, as nothing else does */
    int64_t channels,
        count; /* of x, and of shifts: heads of queries share those of a head of values */
    const nb_values *values; /* x is what an attention makes of them, or NULL */
} place;

/* The shift of channel j. */
static int64_t shift_of(const place *p, int64_t j) {
    if (!p->values) return j;
    const int64_t size = p->values->size, share = p->channels / p->count;
    return j / size / share * size + j % size;
}

static bool find_layers(nb_pass_ctx *ctx, nb_value *x, const nb_values *values, place *p) {
    *p = (place){.x = x, .values = values};
    for (nb_use *u = x->uses; u; u = u->next) {
        const nb_use *w = u->index == 0 ? nb_float_weight(u->user) : NULL;
        if (!w || nb_is_factor(w->value)) return false;
        nb_vec_push(nb_state_of(ctx)->scratch, &p->layers, u->user);
    }
    if (!p->layers.count) return false;
    p->channels = nb_linear_weight(p->layers.items[0])->type->dims[0]->value;
    p->count = values ? values->count : p->channels;
    return true;
}

/* z, and whether it takes enough off the largest |x|. */
static bool find_middles(nb_pass_ctx *ctx, const place *p, const nb_stats *stats, float *z) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    float *low = NB_NEW_ARRAY(scratch, float, (size_t)p->count),
          *high = NB_NEW_ARRAY(scratch, float, (size_t)p->count), before = 0, after = 0;
    for (int64_t s = 0; s < p->count; s++) {
        low[s] = INFINITY;
        high[s] = -INFINITY;
    }
    for (int64_t j = 0; j < p->channels; j++) {
        const int64_t s = shift_of(p, j);
        low[s] = fminf(low[s], stats->low[j]);
        high[s] = fmaxf(high[s], stats->high[j]);
        before = fmaxf(before, stats->amax[j]);
    }
    for (int64_t s = 0; s < p->count; s++) {
        z[s] = low[s] + (high[s] - low[s]) / 2;
        after = fmaxf(after, (high[s] - low[s]) / 2);
    }
    return after < before && after <= (float)nb_option_of(ctx, "worth")->f * before;
}

/* z W comes back in the bias of each layer. */
static bool give_back(nb_pass_ctx *ctx, const place *p, const float *z) {
    for (size_t i = 0; i < p->layers.count; i++) {
        const nb_value *w = nb_linear_weight(p->layers.items[i]);
        const int64_t cols = w->type->dims[1]->value;
        double *sum = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, double, (size_t)cols);
        for (int64_t j = 0; j < p->channels; j++) {
            const float *row = (const float *)w->blob->data + j * cols;
            for (int64_t n = 0; n < cols; n++) sum[n] += (double)z[shift_of(p, j)] * (double)row[n];
        }
        if (!nb_bias_more(ctx, p->layers.items[i], sum)) return false;
    }
    return true;
}

/* The bias of the layer norm that makes x, or NULL. */
static nb_use *norm_bias(const nb_value *x) {
    nb_op *norm = nb_made_by(x, NB_OP_layer_norm);
    return norm && norm->n_operands > 2 && nb_in(norm, 2) && nb_is_float_const(nb_in(norm, 2))
               ? &norm->operands[2]
               : NULL;
}

static bool take_off_norm(nb_pass_ctx *ctx, const place *p, nb_use *bias, const float *z) {
    const nb_value *old = bias->value;
    float *less = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)p->count);
    for (int64_t j = 0; j < p->count; j++) less[j] = ((const float *)old->blob->data)[j] - z[j];
    nb_set_operand(bias, nb_const_f32(ctx->graph, nb_format(ctx->graph->arena, "%s.c", old->name),
                                      1, &p->count, less));
    bias->user->loc = nb_loc_via(ctx->graph, bias->user->loc, "shift-fold");
    return true;
}

static bool take_off_values(nb_pass_ctx *ctx, const place *p, const float *z) {
    const nb_values *v = p->values;
    const int64_t cols = v->weight->value->type->dims[1]->value;
    double *less = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, double, (size_t)cols);
    for (int64_t s = 0; s < p->count; s++) less[v->from + s] = -(double)z[s];
    return nb_bias_more(ctx, v->weight->user, less);
}

/* Before `first`, the first layer in list order. */
static bool subtract(nb_pass_ctx *ctx, place *p, nb_op *first, const float *z) {
    nb_graph *g = ctx->graph;
    nb_builder b = nb_pass_builder(ctx, first, p->x->def ? p->x->def->loc : first->loc);
    nb_value *y =
        nb_binary(&b, NB_OP_sub, p->x,
                  nb_const_f32(g, nb_format(g->arena, "%s.middle", p->x->name), 1, &p->count, z));
    if (!y) return false;
    nb_set_name(g, y, nb_format(g->arena, "%s.shifted", p->x->name));
    for (size_t i = 0; i < p->layers.count; i++)
        nb_set_operand(&p->layers.items[i]->operands[0], y);
    p->x = y;
    return true;
}

static bool shift(nb_pass_ctx *ctx, place *p, nb_op *op, bool *changed) {
    nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, p->x);
    if (!stats) return nb_layer_stats(ctx, p->layers.items[0]) != NULL;
    float *z = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)p->channels);
    if (!find_middles(ctx, p, stats, z)) return true;
    *changed = true;
    if (!give_back(ctx, p, z)) return false;
    nb_use *bias = norm_bias(p->x);
    if (!(bias        ? take_off_norm(ctx, p, bias, z)
          : p->values ? take_off_values(ctx, p, z)
                      : subtract(ctx, p, op, z)))
        return false;
    float *each = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)p->channels);
    for (int64_t j = 0; j < p->channels; j++) each[j] = z[shift_of(p, j)];
    nb_stats_subtract(stats, each);
    nb_map_set(&nb_state_of(ctx)->env->stats, p->x, stats);
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_map done = {.arena =
                       nb_state_of(ctx)->scratch}; /* what was looked at, and what came of it */
    bool changed = false;
    NB_FOR_OPS(op, &ctx->graph->body) {
        nb_values values;
        bool of_values = op->kind == NB_OP_attention &&
                         !nb_values_find(ctx->graph, nb_state_of(ctx)->scratch, op, &values);
        nb_value *x = of_values ? values.rows : nb_float_weight(op) ? nb_in(op, 0) : NULL;
        place p;
        if (!x || nb_map_get(&done, x) || !find_layers(ctx, x, of_values ? &values : NULL, &p))
            continue;
        if (!shift(ctx, &p, op, &changed)) return NB_PASS_FAILED;
        nb_map_set(&done, x, x);
        nb_map_set(&done, p.x, p.x);
    }
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_shift_fold = {
    .size = sizeof(nb_pass),
    .name = "shift-fold",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS | NB_PASS_MOVES_STATES,
    .summary =
        "take the middle of each channel's range off what layers read (Outlier Suppression+)",
};
