/* Private to frontend/: lowering ONNX nodes to IR ops.
 *
 * One row of import_ops.def is one operator: a function that reads operands and attributes of the
 * node at hand through this header, builds ops, and names the outputs. Functions return early on
 * the first error; nodes are independent, so the importer goes on and collects the errors of
 * others. */
#ifndef NB_IMPORT_H
#define NB_IMPORT_H

#include "frontend/frontend.h"
#include "frontend/model.h"
#include "ir/build.h"
#include "ir/symbolic.h"

typedef struct nb_importer nb_importer;
typedef nb_status (*nb_import_fn)(nb_importer *im);

typedef struct nb_import_row {
    const char *domain, *op;
    int64_t first, last;
    uint32_t least_inputs, most_inputs, most_outputs;
    const char *attributes;
    nb_import_fn fn;
    int argument;
} nb_import_row;

struct nb_importer {
    nb_onnx *m;
    nb_graph *g;
    nb_builder b; /* appends to the graph's body with the node's location */
    nb_diags *diags;
    nb_arena *arena; /* scratch */
    nb_map values;   /* ONNX name -> nb_value* */
    nb_map rows;     /* "domain::Op" -> nb_import_row* */
    const Onnx__NodeProto *node;
    const nb_import_row *row;   /* of the node's operator */
    size_t index;               /* of the node */
    int64_t opset;              /* of the node's domain */
    int argument;               /* of the row */
    size_t errors, first_diag;  /* before the node */
    size_t errors_before;       /* before the import */
    const nb_custom_op *custom; /* [n_custom] operators that others bring */
    size_t n_custom;
};

/* ---- the table ---- */
/* Fills im->rows. */
void nb_import_index(nb_importer *im);
/* Adds rows for im->custom (import_custom.c); a node's `argument` is the operator's number. */
void nb_import_index_custom(nb_importer *im);
/* "" for ai.onnx */
const char *nb_node_domain(const Onnx__NodeProto *n);
/* NULL when the operator is not supported at the model's opset. */
const nb_import_row *nb_import_find(const nb_importer *im, const Onnx__NodeProto *n);
/* What operators the nodes are, supported or not; in memory of the diagnostics. NB_MALFORMED of
 * nodes without one, or of a set that the model does not import. */
nb_status nb_import_count_operators(nb_importer *im, const Onnx__GraphProto *graph,
                                    const nb_operator_use **out, size_t *n);
/* Every unsupported operator with its count, in one error. */
nb_status nb_import_check_operators(nb_importer *im, const Onnx__GraphProto *graph);
/* Inputs, outputs and attributes of the node at hand against its row. */
nb_status nb_import_check_node(nb_importer *im);

/* "node #12 "conv3" (Conv, ai.onnx 22): ...": status as given. */
nb_status nb_node_error(nb_importer *im, nb_status status, const char *fmt, ...) NB_PRINTF(3, 4);

/* ---- operands and results ---- */
size_t nb_node_inputs(const nb_importer *im);
bool nb_has_input(const nb_importer *im, size_t i);
/* Operand i; NULL when it is not given. */
nb_value *nb_node_input(nb_importer *im, size_t i);
/* Names output i; does nothing when the node does not name it. Refuses types that no run could
 * have: negative or huge dimensions. NULL is an error that is recorded already (by the builder). */
nb_status nb_node_output(nb_importer *im, size_t i, nb_value *v);

/* ---- attributes ---- */
const Onnx__AttributeProto *nb_node_attr(const nb_importer *im, const char *name);
int64_t nb_node_int(const nb_importer *im, const char *name, int64_t fallback);
float nb_node_float(const nb_importer *im, const char *name, float fallback);
const char *nb_node_string(const nb_importer *im, const char *name, const char *fallback);
/* NULL when absent. */
const int64_t *nb_node_ints(const nb_importer *im, const char *name, size_t *count);

/* ---- windows that slide along axes: conv and pooling (import_window.c) ---- */
/* A number for each axis; `usual` when the node has none. */
nb_status nb_window_numbers(nb_importer *im, const char *name, int axes, int64_t usual,
                            int64_t *out);
/* `pads`, 0 when the node has none; 0 to 2^31-1. */
nb_status nb_window_pads(nb_importer *im, int axes, int64_t *before, int64_t *after);
typedef enum nb_auto_pad {
    NB_AUTO_PAD_NOT_SET,
    NB_AUTO_PAD_VALID,
    NB_AUTO_PAD_UPPER, /* the odd element goes to the end */
    NB_AUTO_PAD_LOWER
} nb_auto_pad;
nb_status nb_window_auto_pad(nb_importer *im, nb_auto_pad *out);

/* ---- shapes ---- */
/* Makes two dims equal that ONNX requires to be: replaces a symbol everywhere if need be. */
nb_status nb_unify(nb_importer *im, const nb_dim *a, const nb_dim *b);
/* Unifies what broadcasting requires of two shapes. */
nb_status nb_unify_broadcast(nb_importer *im, nb_value *a, nb_value *b);
/* -rank..rank-1 to 0..rank-1. */
nb_status nb_axis(nb_importer *im, int64_t axis, int rank, int64_t *out);
/* Axes from attribute `axes` (old opsets) or from operand `input`; *count 0 and NULL when absent.
 */
nb_status nb_axes(nb_importer *im, size_t input, int rank, const int64_t **axes, size_t *count);
/* Elements of an integer tensor that constants alone give; NULL otherwise (fold.c). */
const nb_dim *const *nb_fold(nb_importer *im, const nb_value *v, size_t *count);
/* Elements of operand i as expressions; an error when they depend on data. */
nb_status nb_dims_of(nb_importer *im, size_t i, const nb_dim *const **dims, size_t *count);
/* The same, but all must be numbers. */
nb_status nb_ints_of(nb_importer *im, size_t i, const int64_t **values, size_t *count);
static inline const nb_dim *nb_num(nb_importer *im, int64_t value) {
    return nb_dim_const(im->g, value);
}

/* ---- pieces ---- */
nb_value *nb_scalar(nb_importer *im, nb_elem elem, double value); /* rank 0 */
/* Elementwise with broadcasting: unifies first. */
nb_value *nb_combine(nb_importer *im, nb_op_kind kind, nb_value *a, nb_value *b);
/* x * factor, x + addend. */
nb_value *nb_times(nb_importer *im, nb_value *x, double factor);
nb_value *nb_plus(nb_importer *im, nb_value *x, double addend);
nb_value *nb_choose(nb_importer *im, nb_value *cond, nb_value *a, nb_value *b);
nb_value *nb_slice_axis(nb_importer *im, nb_value *x, int axis, const nb_dim *start,
                        const nb_dim *count, int64_t step);
nb_value *nb_join(nb_importer *im, nb_value *a, nb_value *b, int axis);
/* i64[count]: start, start + 1, ... */
nb_value *nb_count_up(nb_importer *im, const nb_dim *start, const nb_dim *count);
/* A vector seen in `rank` axes: it lies along `axis`, the others have length 1. */
nb_value *nb_along(nb_importer *im, nb_value *v, int rank, int axis);
/* i64: 0, 1, ... count - 1 along `axis` of `rank` axes. */
nb_value *nb_positions(nb_importer *im, int rank, int axis, const nb_dim *count);
nb_value *nb_expand_to(nb_importer *im, nb_value *x, int rank, const nb_dim *const *dims);
nb_value *nb_zero_pad(nb_importer *im, nb_value *x, int axis, int64_t before, int64_t after);
/* i64[n] of dimensions, or a scalar of one. */
nb_value *nb_make_dims(nb_importer *im, size_t n, const nb_dim *const *dims, bool scalar);
nb_value *nb_take(nb_importer *im, nb_value *x, nb_value *index, int axis);
nb_value *nb_reduce(nb_importer *im, nb_op_kind kind, nb_value *x, size_t n, const int64_t *axes,
                    bool keep);
nb_value *nb_multiply(nb_importer *im, nb_value *a, nb_value *b); /* matmul */
nb_value *nb_swap_axes(nb_importer *im, nb_value *x, int a, int b);

/* log(softmax(x)) along an axis. */
nb_value *nb_log_softmax(nb_importer *im, nb_value *x, int64_t axis);
/* i64: where x is largest or smallest along `axis`, which gets length 1: the first such place, or
 * the last. A NaN counts as both. */
nb_value *nb_best_place(nb_importer *im, nb_value *x, int64_t axis, bool largest, bool last);

/* Operators that are functions of one float: what the one of that name makes of x. */
typedef struct nb_form {
    const char *op;
    nb_value *(*of)(nb_importer *im, nb_value *x);
} nb_form;
/* Output 0 of the node by the form of its name; x must be floats. */
nb_status nb_apply_form(nb_importer *im, size_t n, const nb_form *forms);

#define IMPORT(domain, op, first, last, least, most, outputs, attributes, function, argument) \
    nb_status nb_import_##function(nb_importer *im);
#include "frontend/import_ops.def"
#undef IMPORT

#endif
