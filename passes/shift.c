/* Zero points of activations (shift.h). */
#include "passes/shift.h"

#include "ir/build.h"

#include <math.h>

/* A shift costs an operation: codes must become this much finer. */
#define WORTH 0.9f

bool nb_shift_of(const nb_stats *stats, int64_t levels, float *shift, float *scale) {
    float low = fmaxf(stats->min, -stats->clip), high = fminf(stats->max, stats->clip);
    float step = (high - low) / (2 * (float)levels);
    *shift = 0;
    if (!(step > 0) || step > WORTH * stats->clip / (float)levels) return false;
    *scale = step;
    *shift = step * rintf((low + (high - low) / 2) / step);
    return *shift != 0;
}

/* shift * the sum of each column of the op's weight, in double, in order; NULL after an error. */
static double *column_sums(nb_pass_ctx *ctx, const nb_op *op, float shift) {
    const nb_op *back = nb_in(op, 1)->def;
    nb_arena *arena = nb_arena_create_like(nb_state_of(ctx)->scratch);
    nb_tensor codes = nb_tensor_of_const(nb_in(back, 0)), w;
    double *sum = NULL;
    if (nb_eval_op(back, &codes, NULL, &w, arena, nb_diags_of(ctx)) == NB_OK) {
        sum = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, double, (size_t)w.dims[1] + 1);
        for (int64_t k = 0; k < w.dims[0]; k++) {
            for (int64_t n = 0; n < w.dims[1]; n++)
                sum[n] += (double)((const float *)w.data)[k * w.dims[1] + n];
        }
        for (int64_t n = 0; n < w.dims[1]; n++) sum[n] *= (double)shift;
    }
    nb_arena_destroy(arena);
    return sum;
}

/* The slot of the constant bias that the layer's only user adds; NULL: there is none. */
static nb_use *bias_slot(const nb_op *op, int64_t n) {
    nb_op *add = nb_has_one_use(nb_out(op)) ? nb_out(op)->uses->user : NULL;
    if (!add || add->kind != NB_OP_add) return NULL;
    nb_use *slot = &add->operands[nb_in(add, 0) == nb_out(op) ? 1 : 0];
    const nb_type *t = slot->value->type;
    bool fits = nb_is_const(slot->value) && t->elem == NB_F32 && !t->quant && t->rank == 1 &&
                nb_dim_is(t->dims[0], n);
    return fits ? slot : NULL;
}

bool nb_shift_layer(nb_pass_ctx *ctx, nb_op *op, float shift) {
    nb_graph *g = ctx->graph;
    const nb_value *w = nb_in(nb_in(op, 1)->def, 0);
    int64_t n = w->type->dims[1]->value;
    double *sum = column_sums(ctx, op, shift);
    if (!sum) return false;
    nb_use *slot = bias_slot(op, n);
    const float *old = slot ? slot->value->blob->data : NULL;
    float *bias = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++) bias[i] = (float)(sum[i] + (old ? (double)old[i] : 0));
    nb_value *c =
        nb_const_f32(g, nb_format(g->arena, "%s.shift", w->name), 1, (const int64_t[]){n}, bias);
    if (slot) {
        nb_set_operand(slot, c);
        return true;
    }
    nb_builder b = nb_pass_builder(ctx, op->next, op->loc);
    nb_value *y = nb_binary(&b, NB_OP_add, nb_out(op), c);
    if (!y) return false;
    nb_replace_uses(nb_out(op), y);
    nb_set_operand(&y->def->operands[0], nb_out(op));
    return true;
}
