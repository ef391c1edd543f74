/* Linear layers: what the quantization passes have in common about `matmul(x, W)` with a constant
 * W. */
#ifndef NB_PASSES_LINEAR_H
#define NB_PASSES_LINEAR_H

#include "ir/build.h"
#include "passes/pass.h"
#include "passes/select.h"

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

/* The plain integers `x` as codes under `to`. */
nb_value *nb_as_codes(nb_builder *b, nb_value *x, const nb_quant *to);

/* What calibrate saw of a layer's input; NULL, after an error, when it did not see it. */
const nb_stats *nb_layer_stats(nb_pass_ctx *ctx, const nb_op *layer);

/* A linear layer whose result is an output of the graph (through views): the head of a language
 * model, whose errors reach the logits directly. */
bool nb_linear_is_head(const nb_op *op);

/* How many products each element of a linear layer's input goes into, where rows are places of a
 * picture: outputs of the layers that read it. INT64_MAX for any other layer. */
int64_t nb_outputs_of_places(const nb_op *op);

/* Is `op` a row look-up in a constant table of rank 2 whose rows are activations (an embedding),
 * rather than a table of angles for rotary? */
bool nb_is_embedding(const nb_op *op);

/* Also of those that are products of patches by now. */
bool nb_has_convolutions(const nb_graph *g);

/* A gate times a signal, seen through `hadamard` and the `sub` of a constant: large where both are,
 * so that a token's largest value says little about the others. */
bool nb_is_gated(const nb_value *x);

#endif
