/* Small integer tensors as dimension expressions.
 *
 * ONNX computes shapes with tensors (Shape, Gather, Concat, Mul ...). This follows such a value
 * back through the ops that made it and returns its elements as expressions over the graph's
 * symbols, so that importer and simplify can turn run-time shapes into `shape=[B,S,4,64]`. */
#ifndef NB_SYMBOLIC_H
#define NB_SYMBOLIC_H

#include "ir/ir.h"

#define NB_SYMBOLIC_MAX 64 /* elements followed */

/* The elements of `v` (rank 0 or 1, integer or bool) in row-major order, or NULL when some element
 * depends on data. `*count` gets their number (1 for rank 0). Memory is the graph's. */
const nb_dim *const *nb_symbolic(nb_graph *g, const nb_value *v, size_t *count);

/* Can the expression be a size? Not when it is invalid (types.h): expressions that a model builds
 * from one another double with each op, and past a bound nothing is a dimension any more. */
static inline bool nb_dim_is_simple(const nb_dim *d) { return !nb_dim_is_invalid(d); }

#endif
