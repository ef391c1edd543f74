/* Making ops.
 *
 *   nb_builder b = {.graph = g, .before = op, .loc = op->loc, .diags = d};
 *   nb_begin(&b, NB_OP_reshape);
 *   nb_arg(&b, x);
 *   nb_set_dims(&b, "shape", 3, dims);
 *   nb_value *y = nb_end(&b);          // infers the type; NULL after a recorded error
 *
 * A NULL argument where an operand is required makes nb_end return NULL quietly, so that chains
 * need one check at the end. */
#ifndef NB_BUILD_H
#define NB_BUILD_H

#include "ir/ir.h"

typedef struct nb_builder {
    nb_graph *graph;
    nb_region *region; /* where to append; NULL = the graph's body */
    nb_op *before;     /* insert before this op instead, or NULL */
    const nb_loc *loc;
    nb_diags *diags;
    nb_op *op; /* under construction */
    size_t n_args;
    bool poisoned;
} nb_builder;

void nb_begin(nb_builder *b, nb_op_kind kind);
/* Operands in the order of the table; an optional one may be NULL. */
void nb_arg(nb_builder *b, nb_value *v);
void nb_set_int(nb_builder *b, const char *name, int64_t value);
void nb_set_float(nb_builder *b, const char *name, float value);
void nb_set_bool(nb_builder *b, const char *name, bool value);
void nb_set_ints(nb_builder *b, const char *name, size_t n, const int64_t *values);
void nb_set_dims(nb_builder *b, const char *name, size_t n, const nb_dim *const *values);
void nb_set_elem(nb_builder *b, const char *name, nb_elem value);
void nb_set_quant(nb_builder *b, const char *name, const nb_quant *value);
void nb_set_str(nb_builder *b, const char *name, const char *value);
/* The next body of the op; it is complete. */
void nb_set_region(nb_builder *b, nb_region *region);
/* Checks operands and attributes, infers the results' types, inserts the op; returns its first
 * result (NULL after an error, or for an op without results). b->op stays set until nb_begin. */
nb_value *nb_end(nb_builder *b);

/* The common shapes in one call. */
nb_value *nb_unary(nb_builder *b, nb_op_kind kind, nb_value *x);
nb_value *nb_binary(nb_builder *b, nb_op_kind kind, nb_value *x, nb_value *y);
nb_value *nb_reshape(nb_builder *b, nb_value *x, int rank, const nb_dim *const *dims);
nb_value *nb_transpose(nb_builder *b, nb_value *x, const int64_t *perm);
nb_value *nb_cast(nb_builder *b, nb_value *x, nb_elem to);

/* Computes the result types of `op` from operands and attributes (ops.def's rule). `types` has
 * room for nb_result_count entries. Errors name the op and what was expected and found. */
nb_status nb_infer(nb_graph *g, const nb_op *op, const nb_type **types, nb_diags *diags);

/* The broadcast of two dims: equal, or one of them 1; two different symbolic dims are an error
 * (NULL), which the ONNX importer resolves by substitution first. */
const nb_dim *nb_dim_broadcast(nb_graph *g, const nb_dim *a, const nb_dim *b);

#endif
