/* A weight as a constant of blocks. */
#ifndef NB_PASSES_BLOCK_WEIGHTS_H
#define NB_PASSES_BLOCK_WEIGHTS_H

#include "passes/block_codes.h"
#include "passes/pass.h"

/* The constant of codes for the matrix w [inputs, outputs] of a linear layer, whose columns are cut
 * into blocks; NULL after an error, at op: a weight that is not finite or too large, no memory. */
nb_value *nb_block_weight(nb_pass_ctx *ctx, const nb_op *op, const nb_value *w,
                          const nb_block_form *form);

#endif
