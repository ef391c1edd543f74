/* Low-rank branches: y = x W + (x A) B, what low-rank and adapter put beside a linear layer. A and
 * B are constants of f32, f16 or, quantized, of 8 bits; the pass that made them stands in their
 * origin. */
#ifndef NB_PASSES_BRANCH_H
#define NB_PASSES_BRANCH_H

#include "passes/pass.h"

/* Adds x A B to the result of `layer`, behind its bias, so that fuse-dequant can make it the
 * residual of the layer's product. False after an error. */
bool nb_branch_add(nb_pass_ctx *ctx, nb_op *layer, nb_value *a, nb_value *b);

/* Adds the product of some of x's channels, by their numbers, and `rows`: what quantize-weights
 * leaves exact. */
bool nb_branch_add_exact(nb_pass_ctx *ctx, nb_op *layer, nb_value *inputs, nb_value *rows);

/* Is this constant a factor of a branch? */
bool nb_is_factor(const nb_value *constant);

/* The second product of the layer's branch that `pass` made, or NULL: its operands are x A and B.
 */
nb_op *nb_branch_find(const nb_op *layer, const char *pass);

/* The layer's result, or its sum with the branch of its adapter. */
const nb_value *nb_branch_sum(const nb_op *layer);

/* The `add` of a vector that belongs to the layer alone, or NULL. */
nb_op *nb_bias_add(const nb_op *layer);

/* Adds `more`, an entry for each column, to the layer's result: to that bias, or as one. False
 * after an error. */
bool nb_bias_more(nb_pass_ctx *ctx, nb_op *layer, const double *more);

#endif
