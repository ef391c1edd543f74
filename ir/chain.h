/* Chains: elementwise ops that the compiled model computes together, without memory between them.
 *
 * plan-memory keeps the result of an elementwise op in registers when nothing but elementwise ops
 * of the same shape use it, all of one chain. The last of these, the root, then runs for all of
 * them: it reads what the chain takes from outside. Each op still rounds as it does alone.
 *
 * Where an op of a chain takes a slice, it can read the slice where it stands, in what it is a part
 * of: a window, which needs no memory of its own either. So gates of a recurrent cell are parts of
 * one product.
 *
 * A chain may begin with codes and end with codes: the sum of two quantized tensors, quantized
 * again, reads bytes and writes bytes.
 *
 * Pooling is one too: patches of one channel that a reduction reads, of codes with a dequantize
 * between. And so are convolutions of codes: patches that a qmatmul reads. */
#ifndef NB_CHAIN_H
#define NB_CHAIN_H

#include "ir/ir.h"

/* What a chain has at most. Much of its working set should stay in registers. */
#define NB_CHAIN_OPS    24
#define NB_CHAIN_INPUTS 12

typedef struct nb_chain {
    NB_VEC(const nb_op *) ops; /* each behind those whose results it takes; the root is last */
    NB_VEC(nb_value *) inputs; /* what they read, each once; also windows */
    bool whole;                /* false: there is more than fits, and the lists are not complete */
} nb_chain;

/* Elementwise mathematics, whose kernels compute chains. */
bool nb_can_chain(const nb_op *op);

/* Could `v` be a window: a slice whose bounds hold whatever the sizes are, with rows long enough to
 * be read where they stand, that nothing but ops of chains use? */
bool nb_can_be_window(const nb_value *v);

/* Where chains may begin and end: dequantize, or quantize, of codes of 8 bits with one scale. */
bool nb_is_code_step(const nb_op *op);

/* Could `v` stay in registers on its way to `user`? Both are then of one shape, and storing the
 * number would not round it; or `user` reduces the patches
 * `v`; or both are part of a convolution of codes; or `v` is a window. */
bool nb_chains_into(const nb_value *v, const nb_op *user);

/* The patches of a pooling that `op` could be, which need no memory, or NULL. Of codes the chain is
 * patches, as_codes, dequantize, reduction. */
const nb_op *nb_pooled(const nb_op *op);

/* A convolution of codes: the qmatmul of patches of x, which need no memory; or of codes x with two
 * axes of places or more, which is one of a kernel of one element. */
typedef struct nb_qconv {
    nb_value *x;          /* f32 (qpatches), i8 or u8; [B,C,D...] */
    bool last;            /* x is [B,D...,C] */
    const nb_op *turned;  /* the transpose that makes [B,C,D...] of x then, or NULL */
    const nb_op *patches; /* patches or qpatches; NULL: x are the codes themselves */
} nb_qconv;

/* Could `op` be one, its patches in registers? Codes have 8 bits and one scale, weights are a
 * constant of its own in 8 bits with a scale for each column or for all, and 32 bits hold the sums.
 */
bool nb_can_convolve(const nb_op *op, nb_qconv *conv);

/* Is it one, where plan-memory has been? */
bool nb_is_qconv(const nb_op *op);

/* The chain that ends in `root`: with it the ops whose results have storage NB_STORE_REGISTERS. Of
 * a convolution of codes inputs are the qmatmul's operands, x in place of the first. Of an op that
 * cannot chain it is the op alone with all of its operands, NULL where none is given. */
nb_chain nb_chain_of(nb_arena *arena, const nb_op *root);

/* The number of what an op of the chain takes: inputs first, then what the ops make, in order. */
size_t nb_chain_place(const nb_chain *chain, const nb_value *v);

/* Is `v` kept in registers, so that the op that makes it leaves no code of its own? */
static inline bool nb_in_registers(const nb_value *v) {
    return v->storage.kind == NB_STORE_REGISTERS;
}

/* Is it a window, where plan-memory has been? */
static inline bool nb_is_window(const nb_value *v) {
    return nb_in_registers(v) && v->def && v->def->kind == NB_OP_slice;
}

/* Whose memory is read for `v`, an input of a chain: what it is a window of, or itself. */
static inline nb_value *nb_chain_source(nb_value *v) {
    return nb_is_window(v) ? nb_in(v->def, 0) : v;
}

#endif
