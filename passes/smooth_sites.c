/* Places for smooth-fold (smooth.h), and what can be said of their activations without data. */
#include "passes/raise.h"
#include "passes/smooth.h"
#include "passes/values.h"

#include <math.h>

#define EQUATION "x, w  ->  x / s, s * w"

static bool refused(nb_pass_ctx *ctx, const nb_op *op, const char *rule, const char *why) {
    nb_refused(ctx, op, rule, EQUATION, "%s", why);
    return false;
}

static bool feeds_layer(const nb_value *x) {
    for (const nb_use *u = x->uses; u; u = u->next)
        if (u->index == 0 && nb_float_weight(u->user)) return true;
    return false;
}

static void add_maker(nb_pass_ctx *ctx, nb_site *s, nb_use *use) {
    if (use && use->value) nb_vec_push(nb_state_of(ctx)->scratch, &s->makers, use);
}

/* x, or x less a constant for each channel (shift-fold), which takes the factors too. */
static nb_value *less_shift(nb_pass_ctx *ctx, nb_value *x, nb_site *s) {
    nb_op *sub = nb_has_one_use(x) ? x->uses->user : NULL;
    if (!sub || sub->kind != NB_OP_sub || nb_in(sub, 0) != x || !nb_is_float_const(nb_in(sub, 1)) ||
        nb_in(sub, 1)->type->rank != 1 ||
        nb_in(sub, 1)->type->dims[0] != x->type->dims[x->type->rank - 1])
        return x;
    add_maker(ctx, s, &sub->operands[1]);
    return nb_out(sub);
}

/* Notes the weights of the layers that take x; false when x has another reader. */
static bool find_readers(nb_pass_ctx *ctx, nb_value *x, nb_site *s) {
    for (nb_use *u = x->uses; u; u = u->next) {
        nb_use *weight = u->index == 0 ? nb_float_weight(u->user) : NULL;
        /* Where no layer takes x, nobody expects a place. */
        if (!weight && feeds_layer(x))
            nb_refused(ctx, x->def, "smooth", EQUATION,
                       "'%%%s' is read by %s, too, which is no linear layer", x->name,
                       nb_info(u->user)->name);
        if (!weight) return false;
        nb_vec_push(nb_state_of(ctx)->scratch, &s->readers, weight);
    }
    const nb_dim *last = x->type->dims[x->type->rank - 1];
    s->x = x;
    s->channels = s->factors = s->head = last->value;
    s->share = 1;
    return x->uses && nb_dim_is_const(last);
}

static bool find_norm(nb_pass_ctx *ctx, nb_op *norm, nb_site *s) {
    add_maker(ctx, s, &norm->operands[1]);
    if (!find_readers(ctx, less_shift(ctx, nb_out(norm), s), s)) return false;
    if (!nb_is_float_const(nb_in(norm, 1)))
        return refused(ctx, norm, "norm", "its gain is not a constant of f32");
    if (norm->n_operands < 3 || !nb_in(norm, 2)) return true;
    add_maker(ctx, s, &norm->operands[2]);
    return nb_is_float_const(nb_in(norm, 2)) ||
           refused(ctx, norm, "norm", "its bias is not a constant of f32");
}

static bool find_gated(nb_pass_ctx *ctx, nb_op *mul, nb_site *s) {
    const nb_value *x = nb_out(mul);
    if (x->type->elem != NB_F32 || x->type->rank == 0 || nb_in(mul, 0) == nb_in(mul, 1))
        return false;
    for (uint32_t i = 0; i < 2; i++) {
        nb_value *v = nb_in(mul, i);
        nb_use *bias,
            *weight = nb_has_one_use(v) && v->type == x->type ? nb_layer_behind(v, &bias) : NULL;
        if (!weight) continue;
        add_maker(ctx, s, weight);
        add_maker(ctx, s, bias);
        return find_readers(ctx, less_shift(ctx, nb_out(mul), s), s);
    }
    return false;
}

static bool find_values(nb_pass_ctx *ctx, nb_op *attention, nb_site *s) {
    nb_values v;
    const char *why = nb_values_find(ctx->graph, nb_state_of(ctx)->scratch, attention, &v);
    if (why) return refused(ctx, attention, "values", why);
    if (!find_readers(ctx, v.rows, s) || v.count == 0) return false;
    s->factors = v.count;
    s->head = v.size;
    s->share = s->channels / v.count;
    s->first = v.from;
    add_maker(ctx, s, v.weight);
    add_maker(ctx, s, v.bias);
    return true;
}

bool nb_site_find(nb_pass_ctx *ctx, nb_op *op, nb_site *out, nb_site_kind *kind) {
    *out = (nb_site){0};
    switch (op->kind) {
    case NB_OP_rms_norm:
    case NB_OP_layer_norm:
        *kind = NB_SITE_NORM;
        return find_norm(ctx, op, out);
    case NB_OP_mul:
        *kind = NB_SITE_GATED;
        return find_gated(ctx, op, out);
    case NB_OP_attention:
        *kind = NB_SITE_VALUES;
        return find_values(ctx, op, out);
    default:
        return false;
    }
}

/* ---- without data --------------------------------------------------------------------------- */

/* The size of a layer's output channels when its inputs are as large as the gain of the norm before
 * it says: the lengths of the weight's columns. */
static void multiply_by_columns(const nb_op *layer, int64_t first, int64_t n, float *size) {
    const nb_value *w = nb_in(layer, 1), *x = nb_in(layer, 0);
    const bool norm =
        x->def && (x->def->kind == NB_OP_rms_norm || x->def->kind == NB_OP_layer_norm);
    const nb_value *gain = norm && nb_is_float_const(nb_in(x->def, 1)) ? nb_in(x->def, 1) : NULL;
    const int64_t rows = w->type->dims[0]->value, cols = w->type->dims[1]->value;
    const float *data = w->blob->data, *g = gain ? gain->blob->data : NULL;
    for (int64_t j = 0; j < n; j++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++) {
            const double v = (double)data[i * cols + first + j] * (g ? (double)g[i] : 1);
            sum += v * v;
        }
        size[j] *= (float)sqrt(sum);
    }
}

/* The layer whose result becomes v by ops of one operand, or NULL. */
static const nb_op *layer_before(const nb_value *v) {
    while (v->def && v->def->n_operands == 1) v = nb_in(v->def, 0);
    return v->def && nb_float_weight(v->def) ? v->def : NULL;
}

void nb_site_guess(const nb_site *s, nb_site_kind kind, float *amax) {
    const nb_value *maker = s->makers.items[0]->value;
    const nb_op *by = s->makers.items[0]->user;
    for (int64_t f = 0; f < s->factors; f++) amax[f] = 1;
    if (kind == NB_SITE_NORM) {
        const float *gain = maker->blob->data;
        for (int64_t f = 0; f < s->factors; f++) amax[f] = fabsf(gain[f]);
        return;
    }
    multiply_by_columns(by, s->first, s->factors, amax);
    for (uint32_t i = 0; kind == NB_SITE_GATED && i < 2; i++) {
        const nb_op *layer = layer_before(nb_in(s->x->def, i));
        if (layer && layer != by && nb_in(layer, 1)->type->dims[1]->value == s->factors)
            multiply_by_columns(layer, 0, s->factors, amax);
    }
}
