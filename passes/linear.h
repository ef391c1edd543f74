/* Linear layers: what the quantization passes have in common about `matmul(x, W)` with a constant
 * W. */
#ifndef NB_PASSES_LINEAR_H
#define NB_PASSES_LINEAR_H

#include "passes/pass.h"

/* The weight of a linear layer: `op` is matmul by a constant of rank 2, or by dequantize of one, or
 * a qmatmul. Returns the constant (codes, if quantized), else NULL. */
nb_value *nb_linear_weight(const nb_op *op);

/* A linear layer whose result is an output of the graph (through views): the head of a language
 * model, whose errors reach the logits directly. */
bool nb_linear_is_head(const nb_op *op);

/* Is `op` a row look-up in a constant table of rank 2 whose rows are activations (an embedding),
 * rather than a table of angles for rotary? */
bool nb_is_embedding(const nb_op *op);

/* Does the ONNX node's name match `pattern` ('*' any run, '?' one character; alternatives are
 * separated by '|')? "" matches nothing. */
bool nb_match_name(const char *pattern, const char *name);

/* What a `skip="..."` option selects. Every pattern must select something: nb_skip_end records an
 * error with the nearest names otherwise and returns false. */
typedef struct nb_skip {
    const char *pattern;
    size_t matched;
    NB_VEC(const char *) seen; /* names that were asked about */
} nb_skip;
bool nb_skip_op(nb_pass_ctx *ctx, nb_skip *skip, const nb_op *op);
bool nb_skip_end(nb_pass_ctx *ctx, const nb_skip *skip);

#endif
