/* Linear layers: what the quantization passes have in common about `matmul(x, W)` with a constant
 * W. */
#ifndef NB_PASSES_LINEAR_H
#define NB_PASSES_LINEAR_H

#include "passes/pass.h"

/* The weight of a linear layer: `op` is matmul by a constant of rank 2, or by dequantize of one, or
 * a qmatmul. Returns the constant (codes, if quantized), else NULL. */
nb_value *nb_linear_weight(const nb_op *op);

/* Keeps the weight that `codes` stand for while a later pass needs it, and gives it back: the f32
 * data of a constant of the same shape, or NULL when it is not known. Called by whoever rounds. */
void nb_keep_original(nb_pass_ctx *ctx, const nb_value *codes, nb_blob *weight);
const float *nb_original_of(const nb_pass_ctx *ctx, const nb_value *codes);

/* For the end of a pass that needs originals: with quantized layers of which none is known, an
 * error, and false. */
bool nb_originals_end(nb_pass_ctx *ctx, size_t known, size_t unknown);

/* What calibrate saw of a layer's input; NULL, after an error, when it did not see it. */
const nb_stats *nb_layer_stats(nb_pass_ctx *ctx, const nb_op *layer);

/* A linear layer whose result is an output of the graph (through views): the head of a language
 * model, whose errors reach the logits directly. */
bool nb_linear_is_head(const nb_op *op);

/* Is `op` a row look-up in a constant table of rank 2 whose rows are activations (an embedding),
 * rather than a table of angles for rotary? */
bool nb_is_embedding(const nb_op *op);

/* A gate times a signal, seen through `hadamard` and the `sub` of a constant: large where both are,
 * so that a token's largest value says little about the others. */
bool nb_is_gated(const nb_value *x);

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
/* The error that `option`'s pattern matches none of the layers of these names. */
void nb_no_match(nb_pass_ctx *ctx, const char *option, const char *pattern,
                 const char *const *names, size_t count);

#endif
