/* Zero points of activations, and what stands in for those that codes cannot have.
 *
 * Codes of a range [lo, hi] that is not symmetric: with its middle c, a multiple of the scale,
 *
 *   x W = (x - c) W + c (1 W)
 *
 * x - c has symmetric codes of the scale (hi - lo) / 2 / levels. Where 0 is one of them, they are
 * those of x with the zero point -c / scale; elsewhere c is taken off x, and c times the sums of
 * W's columns is a bias. */
#ifndef NB_PASSES_SHIFT_H
#define NB_PASSES_SHIFT_H

#include "passes/pass.h"

/* The shift c and the scale for codes up to `levels`; 0 and false where they would not be finer
 * than codes of [-clip, clip] by a tenth. */
bool nb_shift_of(const nb_stats *stats, int64_t levels, float *shift, float *scale);

/* 8-bit codes, all 256, of the range that was seen and 0. */
void nb_codes_of_range(const nb_stats *stats, nb_quant *q);

/* Adds c (1 W) to the result of `op`, matmul(x, W): to the bias that follows, or as one. W is
 * dequantized. False after a diagnostic. */
bool nb_shift_layer(nb_pass_ctx *ctx, nb_op *op, float shift);

#endif
