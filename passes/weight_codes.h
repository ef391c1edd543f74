/* A weight as a constant of codes, with its scales and zero points. */
#ifndef NB_PASSES_WEIGHT_CODES_H
#define NB_PASSES_WEIGHT_CODES_H

#include "passes/block_codes.h"
#include "passes/float_codes.h"
#include "passes/layer_inputs.h"
#include "passes/rtn.h"

/* How one matrix [rows, cols] is cut into runs that share a scale, and what becomes of a run. */
typedef struct nb_weight_cut {
    nb_rtn rtn;
    nb_float_codes form; /* elem: of codes, integers by rtn, or floats */
    int axis;            /* 0: a run is inputs of a linear layer; 1: a part of an embedding's row */
    int64_t group;       /* elements of a run along the axis, the last may be shorter; 0: all */
    bool twice;          /* scales become codes too (scale_codes.h) */
    const nb_block_form *block; /* axis 0: blocks of this form in place of all of these; or NULL */
} nb_weight_cut;

/* How weights are solved for by what layers' inputs look like on the samples. */
typedef struct nb_solving {
    nb_layer_inputs inputs;
    int refinements, anneal; /* see nb_gptq */
    double keep; /* inputs whose weights stay numbers: how many, or below 1 which share (exact.h) */
    nb_map exact; /* constant of codes -> its nb_exact */
    uint64_t key; /* of what is kept (kept.h): the codes of each weight, once they are there */
} nb_solving;

/* The form of integers. */
nb_float_codes nb_integer_codes(int bits, bool is_signed);

/* Replaces operand `slot` of op, a float matrix, by dequantize of its codes. `done`: from weights
 * to their codes, made once however many ops use one. `solving` (or NULL): rounds by the moments of
 * op's inputs. False after an error: a weight that is not finite, no memory. */
bool nb_quantize_operand(nb_pass_ctx *ctx, nb_map *done, nb_op *op, uint32_t slot,
                         const nb_weight_cut *cut, nb_solving *solving);

/* The same for the weight of a matmul, symmetric and by search, in groups of `group` (0: columns).
 */
bool nb_round_weight(nb_pass_ctx *ctx, nb_map *done, nb_op *op, int bits, int64_t group);

/* What the makers of such constants share: one of them beside weight w, under its name and a
 * suffix; errors about w at op: no memory, and element `at` of a matrix that fits no scale. */
nb_value *nb_add_part(nb_pass_ctx *ctx, const nb_value *w, const char *suffix, const nb_type *type,
                      nb_blob *blob);
void nb_codes_no_memory(nb_pass_ctx *ctx, const nb_value *w);
void nb_codes_misfit(nb_pass_ctx *ctx, const nb_op *op, const nb_value *w, int64_t at);

#endif
