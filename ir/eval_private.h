/* Private to the evaluator: what a family's function gets. */
#ifndef NB_EVAL_PRIVATE_H
#define NB_EVAL_PRIVATE_H

#include "ir/eval.h"

typedef struct nb_evaluating {
    const nb_op *op;
    const nb_tensor *in; /* one per operand slot; of absent operands, nothing is set */
    nb_tensor *out;      /* one per result: shape set, data allocated and zeroed */
    int64_t *symbols;    /* bind writes */
    nb_arena *arena;     /* for scratch: gone when the op is done */
    nb_diags *diags;
} nb_evaluating;

/* Each family of ops.def is a function; a missing one is a link error that names it. */
#define OP(name, family, ...) nb_status nb_eval_##family(const nb_evaluating *e);
#include "ir/ops.def"
#undef OP

/* The first symbol of `d` that is not bound, or NULL. */
const nb_symbol *nb_unbound_in(const nb_dim *d, const int64_t *symbols);

/* Do scales travel with the codes of such a value? */
static inline bool nb_has_own_scales(const nb_type *type) {
    return type->quant &&
           (type->quant->granularity == NB_PER_TOKEN || type->quant->granularity == NB_PER_BLOCK);
}

/* An error at the op's location. */
nb_status nb_eval_error(const nb_evaluating *e, const char *fmt, ...) NB_PRINTF(2, 3);
/* A dimension's value at this run; an error when the inputs do not determine it. */
nb_status nb_dim_value(const nb_evaluating *e, const nb_dim *d, int64_t *value);
static inline bool nb_given(const nb_evaluating *e, size_t i) {
    return i < e->op->n_operands && nb_in(e->op, i);
}

void nb_tensor_set_int(nb_tensor *t, int64_t index, int64_t value); /* wraps */
void nb_tensor_set_float(nb_tensor *t, int64_t index,
                         double value); /* rounds; value is an f32 unless t is f64 */

/* All elements as f32, row-major: the tensor's own data if it is f32. */
const float *nb_tensor_floats(const nb_tensor *t, nb_arena *arena);
/* All elements of operand i as f32, codes as what they stand for. */
const float *nb_eval_reals(const nb_evaluating *e, size_t i);
/* Dynamic quantization of a run of n values (NUMBERS.md, "Quantization"), of which the largest |x|
 * gets the code `limit`: the scale, and codes of values by `*inverse`. */
float nb_run_scale(const float *x, int64_t n, float limit, float *inverse);
float nb_run_code(float x, float inverse, float limit);
/* The patches of x as `op` (patches or qpatches) says, into a y of their shape. */
void nb_patches_of(const nb_op *op, const nb_tensor *x, nb_tensor *y);
/* Stores n floats as the tensor's element type. */
void nb_tensor_store(nb_tensor *t, const float *values);

/* Strides, in elements, of `t` seen as broadcast to `out`'s shape (0 where it repeats). */
void nb_broadcast_strides(const nb_tensor *t, const nb_tensor *out, int64_t *strides);
/* Advances a multi-index over out->dims by one and the n offsets with it. */
void nb_step(const nb_tensor *out, int64_t *index, int n, int64_t *offsets,
             int64_t (*strides)[NB_MAX_RANK]);

/* Copies element `from` of x to element `to` of y, of one type; sub-byte elements go through
 * integers. */
void nb_copy_element(const nb_tensor *x, int64_t from, nb_tensor *y, int64_t to);
/* out[i] = a[ia] op b[ib], of an op of two operands. */
void nb_eval_pair(nb_op_kind kind, const nb_tensor *a, int64_t ia, const nb_tensor *b, int64_t ib,
                  nb_tensor *out, int64_t i);

/* Sums of floats in sixteen accumulators and a fixed tree (NUMBERS.md). */
float nb_sum16(const float *v, int64_t n);
/* Largest or smallest, NaN if there is one, +0 above -0; of nothing, -infinity or infinity. */
float nb_extreme(const float *v, int64_t n, bool largest);

/* Runs a body: `params` one tensor for each parameter, `results` one for each value it returns,
 * with memory of `arena`. */
nb_status nb_eval_region(const nb_evaluating *e, const nb_region *region, const nb_tensor *params,
                         nb_tensor *results, nb_arena *arena);

/* qmatmul on tensors: a has quant `qa` (and scales of its own if dynamic), b `qb`; bias and
 * residual may be NULL. Used for matmul(dequantize, dequantize) too, which is defined as this.
 * Descriptors that do not multiply, and codes out of range, are errors. */
nb_status nb_eval_product_of_codes(const nb_evaluating *e, const nb_tensor *a, const nb_quant *qa,
                                   const nb_tensor *b, const nb_quant *qb, const nb_tensor *bias,
                                   const nb_tensor *residual, nb_tensor *out);
/* The same of depthwise; into i32 the sums themselves. */
nb_status nb_eval_depthwise_of_codes(const nb_evaluating *e, const nb_tensor *x, const nb_quant *qx,
                                     const nb_tensor *w, const nb_quant *qw, const nb_tensor *bias,
                                     const nb_tensor *residual, nb_tensor *out);

#endif
