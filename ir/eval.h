/* What every op means, to the bit: a plain evaluator, slow and obviously right.
 *
 * It folds constants, it is the default of a pass' `run`, and it is the oracle that compiled code
 * is compared with, for equality of bits. README "Numbers" states the arithmetic in words. */
#ifndef NB_EVAL_H
#define NB_EVAL_H

#include "ir/ir.h"

/* A tensor with known shape. Codes of a NB_PER_TOKEN or NB_PER_BLOCK quantized value have their
 * scales beside them. */
typedef struct nb_tensor {
    nb_elem elem;
    int rank;
    int64_t dims[NB_MAX_RANK];
    void *data;    /* row-major, packed; NULL when it has no elements */
    int64_t bytes; /* of data */
    float *scales; /* [count / dims[rank-1] * blocks], or NULL */
} nb_tensor;

int64_t nb_tensor_count(const nb_tensor *t);

/* A value to observe: called after it was computed, in order of execution. */
typedef struct nb_tap {
    const nb_value *value;
    void (*seen)(void *user, const nb_value *value, const nb_tensor *tensor);
    void *user;
} nb_tap;

/* Runs the graph once. `inputs` has one tensor per graph input; `outputs` one per output, filled
 * with memory of `arena`. Symbols are bound from the inputs' shapes; a shape that does not fit, an
 * index out of range and the like are NB_MALFORMED errors that name the op. */
nb_status nb_eval(const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                  const nb_tap *taps, size_t n_taps, nb_arena *arena, nb_diags *diags);

/* Do the inputs fit the graph? Sets symbols[g->symbols.count] from their shapes, NB_UNBOUND where
 * no input says. Looks at no data. */
#define NB_UNBOUND INT64_MIN
nb_status nb_eval_bind(const nb_graph *g, const nb_tensor *inputs, int64_t *symbols,
                       nb_diags *diags);

/* Is `op` a matmul or depthwise that is defined as one of codes (NUMBERS.md)? Then its operands'
 * defining ops are dequantize. */
bool nb_is_product_of_codes(const nb_op *op);

/* Computes one op from tensors of its operands (entries for absent operands are ignored); a `bind`
 * sets its symbol. */
nb_status nb_eval_op(const nb_op *op, const nb_tensor *operands, int64_t *symbols,
                     nb_tensor *results, nb_arena *arena, nb_diags *diags);

/* The signature of "execute this graph": nb_eval has it, and so has compiled execution. */
typedef nb_status (*nb_run_fn)(void *user, const nb_graph *g, const nb_tensor *inputs,
                               nb_tensor *outputs, const nb_tap *taps, size_t n_taps,
                               nb_arena *arena, nb_diags *diags);

/* Is there a function in this process for every call of the graph, so that it can run here? */
nb_status nb_eval_can_call(const nb_graph *g, nb_diags *diags);

/* Scalars of any element type as double or int64, for constants and tests. */
double nb_tensor_get(const nb_tensor *t, int64_t index);
int64_t nb_tensor_get_int(const nb_tensor *t, int64_t index);
/* A constant value as a tensor (its data is borrowed). */
nb_tensor nb_tensor_of_const(const nb_value *v);

#endif
