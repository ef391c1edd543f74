/* Zero points of activations (shift.h). */
#include "passes/shift.h"

#include "passes/branch.h"

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

void nb_codes_of_range(const nb_stats *stats, nb_quant *q) {
    const float low = fminf(fmaxf(stats->min, -stats->clip), 0),
                high = fmaxf(fminf(stats->max, stats->clip), 0);
    *q = (nb_quant){.storage = NB_I8, .scale = (high - low) / 255.0F};
    if (!(q->scale > 0)) q->scale = 1;
    q->zero = (int64_t)fmaxf(fminf(rintf(-128.0F - low / q->scale), 127), -128);
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

bool nb_shift_layer(nb_pass_ctx *ctx, nb_op *op, float shift) {
    const double *sum = column_sums(ctx, op, shift);
    return sum && nb_bias_more(ctx, op, sum);
}
