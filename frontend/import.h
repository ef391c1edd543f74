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

/* Names of a graph of the file. A graph that is an attribute sees those around it too. */
typedef struct nb_scope {
    nb_map values; /* ONNX name -> nb_value* */
    struct nb_scope *outer;
    struct nb_body
        *body; /* the body of an op that the graph becomes; NULL: it is imported in place */
} nb_scope;

/* A list of tensors that is known at import (import_sequence.c). */
typedef struct nb_sequence nb_sequence;

/* A function at work: the node that calls it, with attributes that refer to no other. */
typedef struct nb_call {
    const Onnx__FunctionProto *function;
    const Onnx__NodeProto *node;
    const char *name; /* of the node, for locations */
    struct nb_call *outer;
    int depth;
} nb_call;

struct nb_importer {
    nb_onnx *m;
    nb_graph *g;
    nb_builder b; /* appends to the region at hand with the node's location */
    nb_diags *diags;
    nb_arena *arena; /* scratch */
    nb_scope *scope;
    nb_map rows;      /* "domain::Op" -> nb_import_row* */
    nb_map functions; /* "domain::Name" -> Onnx__FunctionProto* */
    nb_map sequences; /* nb_value* that stands for a list -> nb_sequence* */
    nb_map looked_at; /* functions whose operators are known */
    nb_call *call;    /* NULL: in the model's own graph */
    size_t n_nodes;   /* imported so far, those of functions at each call */
    const Onnx__NodeProto *node;
    const nb_import_row *row; /* of the node's operator; NULL: it calls a function */
    size_t index;             /* of the node */
    int64_t opset;            /* of the node's domain */
    int argument;             /* of the row */
    /* What inputs of the node are taken to be that only a run knows, and what each run is checked
     * for (import_assume.c). */
    struct {
        const nb_dim *const *dims;
        size_t count;
    } assumed[4];
    nb_value *counted[4]; /* `dims` of the counted symbols that inputs of the node became */
    nb_value *holds[4];
    size_t n_holds;
    size_t errors, first_diag;  /* before the node */
    size_t errors_before;       /* before the import */
    size_t n_misdeclared;       /* shapes that contradict what nodes give */
    const char *misdeclared;    /* the first of them */
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
/* What operators the nodes are, those of graphs inside and of functions too, supported or not; in
 * memory of the diagnostics. NB_MALFORMED of nodes without one, or of a set that the model does not
 * import. */
nb_status nb_import_count_operators(nb_importer *im, const Onnx__GraphProto *graph,
                                    const nb_operator_use **out, size_t *n);
/* Every unsupported operator with its count, in one error. */
nb_status nb_import_check_operators(nb_importer *im, const Onnx__GraphProto *graph);
/* Inputs, outputs and attributes of the node at hand against its row. */
nb_status nb_import_check_node(nb_importer *im);

/* "node #12 "conv3" (Conv, ai.onnx 22): ...": status as given. */
nb_status nb_node_error(nb_importer *im, nb_status status, const char *fmt, ...) NB_PRINTF(3, 4);

/* ---- names (import_scope.c) ---- */
/* What a name stands for here: outside of a body, the body's parameter for it. NULL: nothing. */
nb_value *nb_scope_find(nb_importer *im, const char *name);
bool nb_scope_has(const nb_importer *im, const char *name); /* of its own */
void nb_scope_define(nb_importer *im, const char *name, nb_value *v);
/* Stands for what a failed node or initializer would have defined. */
extern nb_value nb_import_failed;

/* Stands for an input that a call of a function does not give. */
extern nb_value nb_import_absent;
bool nb_scope_is_absent(const nb_importer *im, const char *name);

/* ---- pinned inputs (import_pin.c) ---- */
/* The number that input is pinned to, or NULL. */
const char *nb_pin_of(const nb_onnx *m, const char *input);
/* A constant of that type; NULL after an error. */
nb_value *nb_pinned(nb_importer *im, const char *input, const char *number, const nb_type *type);
/* Is there an input for each pin? */
nb_status nb_pins_check(nb_importer *im, const Onnx__GraphProto *graph);

/* ---- order (import_order.c) ---- */
/* [n_node] places of the graph's nodes, each behind what it uses; NULL: as they stand. */
const size_t *nb_import_order(nb_importer *im, const Onnx__GraphProto *graph);

/* ---- functions (import_function.c) ---- */
/* Fills im->functions. */
nb_status nb_function_index(nb_importer *im);
const Onnx__FunctionProto *nb_function_find(const nb_importer *im, const Onnx__NodeProto *n);
/* The version of a domain's operators that holds for the nodes at hand, 0 when it is not imported.
 */
int64_t nb_import_opset(const nb_importer *im, const char *domain);
/* The node with the caller's attributes in place of those that refer to them. */
const Onnx__NodeProto *nb_call_resolve(nb_importer *im, const Onnx__NodeProto *n);
/* The node at hand, which calls `f`. */
nb_status nb_import_call(nb_importer *im, const Onnx__FunctionProto *f);

/* ---- sequences (import_sequence.c) ---- */
/* NULL when `v` is a tensor. */
const nb_sequence *nb_sequence_of(const nb_importer *im, const nb_value *v);
/* The list as a body has it, which `take`s each tensor. */
nb_value *nb_sequence_inside(nb_importer *im, const nb_value *v,
                             nb_value *(*take)(nb_importer *im, struct nb_body *body, nb_value *v),
                             struct nb_body *body);

/* ---- graphs inside (import_scope.c) ---- */
/* A symbol outside, and the one that a body has for it: what must hold for sizes in a body that may
 * not run does not hold outside. */
typedef struct nb_shadow {
    const nb_dim *outside;
    const nb_symbol *inside;
    nb_value *now; /* dims of what became of it inside: it may have been replaced */
} nb_shadow;
typedef struct nb_body {
    nb_region *region;
    bool shadowed;
    NB_VEC(nb_shadow) shadows;
    NB_VEC(nb_value *) taken; /* from outside, in the order of the last parameters */
    uint32_t own;             /* parameters before these */
    nb_scope scope;
    nb_builder before; /* the importer's */
} nb_body;
/* From here on nodes are imported into a new body, until nb_body_end; parameters that are not taken
 * from outside are added to body->region first, and named with nb_body_param. */
void nb_body_begin(nb_importer *im, nb_body *body, bool shadowed);
/* Back to what was before. */
void nb_body_end(nb_importer *im, nb_body *body);
nb_value *nb_body_param(nb_importer *im, nb_body *body, const char *onnx, const nb_type *type);
/* The type as it is outside. */
const nb_type *nb_body_outside(nb_importer *im, const nb_body *body, const nb_type *type);
/* Symbols of the body go: where they had to be less than those outside, as bounded expressions. */
void nb_body_settle(nb_importer *im, nb_body *body);
/* Initializers and nodes of a graph inside, in the scope at hand (import.c). */
nb_status nb_import_nodes(nb_importer *im, const Onnx__GraphProto *graph);
/* Output i of a graph inside, once its nodes are imported; NULL after an error. */
nb_value *nb_graph_output(nb_importer *im, const Onnx__GraphProto *graph, size_t i);

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
/* Can they be two names of one size: is one a symbol that the other does not hold? B and 2*B
 * cannot, though they are equal where B is 0. */
bool nb_may_be_one(nb_importer *im, const nb_dim *a, const nb_dim *b);
/* Input `input`, which has to be one number, as a scalar of `elem`; NULL after an error. */
nb_value *nb_one_number(nb_importer *im, size_t input, nb_elem elem);
/* x, whose size along `axis` has to be `size`. Where no substitution says so, as of min(48,P+S)
 * rows of a table beside P+S, or of an image that is halved and doubled, each run is checked. The
 * caller unifies what is left. */
nb_value *nb_sized(nb_importer *im, nb_value *x, int axis, const nb_dim *size);
/* Unifies what broadcasting requires of two shapes. */
nb_status nb_unify_broadcast(nb_importer *im, nb_value *a, nb_value *b);
/* -rank..rank-1 to 0..rank-1. */
nb_status nb_axis(nb_importer *im, int64_t axis, int rank, int64_t *out);
/* Axes from attribute `axes` (old opsets) or from operand `input`; *count 0 and NULL when absent.
 */
nb_status nb_axes(nb_importer *im, size_t input, int rank, const int64_t **axes, size_t *count);
/* Elements of an integer tensor that constants alone give; NULL otherwise (fold.c). */
const nb_dim *const *nb_fold(nb_importer *im, const nb_value *v, size_t *count);
/* Elements of operand i as expressions. Numbers that only data tell are counted symbols
 * (import_counted.c); with many of them it is an error. */
nb_status nb_dims_of(nb_importer *im, size_t i, const nb_dim *const **dims, size_t *count);
/* The same, but an error when only data tell them. */
nb_status nb_known_dims_of(nb_importer *im, size_t i, const nb_dim *const **dims, size_t *count);
/* All must be numbers. */
nb_status nb_ints_of(nb_importer *im, size_t i, const int64_t **values, size_t *count);
static inline const nb_dim *nb_num(nb_importer *im, int64_t value) {
    return nb_dim_const(im->g, value);
}

/* ---- what only a run knows (import_assume.c, import_runtime.c) ---- */
/* The shape that the model declares for an output of the node, all in numbers? */
bool nb_declared(nb_importer *im, size_t output, int64_t *dims, int *rank);
/* What input i must be for output 0 to have its declared shape; every output of the node then
 * refuses runs in which it is not. NULL when that cannot be told. */
const nb_dim *const *nb_assume(nb_importer *im, size_t input, size_t *count);
/* n, one i64 that a run knows, as a dimension, which is at most `most` if that is not NULL: a new
 * counted symbol named after `name`, unless n is known. NULL after an error. */
const nb_dim *nb_count(nb_importer *im, const char *name, nb_value *n, const nb_dim *most);
/* The elements of v, i64[n] of at most 8, are counted, and nb_dims_of gives them for the input. */
nb_status nb_count_vector(nb_importer *im, size_t input, nb_value *v);
/* Those of the input itself; NULL when they are too many. */
const nb_dim *const *nb_count_input(nb_importer *im, size_t input, size_t *count);
/* i64[N]: where `is`, bool[n], is true; N is `declared` (a run in which it is not is refused), or
 * counted, at most `most`. */
nb_value *nb_places(nb_importer *im, nb_value *is, const int64_t *declared, const nb_dim *most);
/* Does the type hold a size that only the ops of `region` say? */
bool nb_counted_inside(const nb_region *region, const nb_type *type);
/* Are the elements of an input, if it is there, constants or made of shapes? */
bool nb_is_known(nb_importer *im, size_t input);
/* x; runs in which not all of `holds` is true are refused. */
nb_value *nb_require(nb_importer *im, nb_value *x, nb_value *holds);
/* bool: all of them. */
nb_value *nb_all(nb_importer *im, nb_value *is);
/* i64[n] constants; the input, a tensor of few integers, as i64[n] (NULL: it is none). */
nb_value *nb_numbers(nb_importer *im, size_t n, const int64_t *values);
nb_value *nb_vector_of(nb_importer *im, size_t input, size_t *n);
/* i64[n,rank] of axes i64[n], negative ones too: 1 where axis i is d. */
nb_value *nb_axes_mask(nb_importer *im, nb_value *axes, int rank);
/* bool: are they the axes of `set`, bit by bit? */
nb_value *nb_axes_are(nb_importer *im, nb_value *axes, int rank, unsigned set);
/* A reduction of the node over given axes. */
typedef nb_value *(*nb_reduced_fn)(nb_importer *im, nb_value *x, size_t n, const int64_t *axes);
nb_status nb_reduce_any_axes(nb_importer *im, nb_value *x, bool keep, nb_reduced_fn reduced);
nb_status nb_slice_any(nb_importer *im);
nb_status nb_pad_any(nb_importer *im, const char *mode, nb_value *value);
nb_status nb_range_any(nb_importer *im);

/* ---- pieces ---- */
nb_value *nb_scalar(nb_importer *im, nb_elem elem, double value); /* rank 0 */
/* Elementwise with broadcasting: unifies first. */
nb_value *nb_combine(nb_importer *im, nb_op_kind kind, nb_value *a, nb_value *b);
/* x * factor, x + addend. */
nb_value *nb_times(nb_importer *im, nb_value *x, double factor);
nb_value *nb_plus(nb_importer *im, nb_value *x, double addend);
nb_value *nb_bitcast(nb_importer *im, nb_value *x, nb_elem to);
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
/* Zeros of [n,...] with the slices `updates` put there at `index`, by a kind of scatter. */
nb_value *nb_put_rows(nb_importer *im, nb_op_kind kind, const nb_dim *n, nb_value *index,
                      nb_value *updates);
nb_value *nb_reduce(nb_importer *im, nb_op_kind kind, nb_value *x, size_t n, const int64_t *axes,
                    bool keep);
nb_value *nb_multiply(nb_importer *im, nb_value *a, nb_value *b); /* matmul */
nb_value *nb_swap_axes(nb_importer *im, nb_value *x, int a, int b);
/* transpose; of dequantized constants the codes change places, so that they still meet matmul as
 * dequantized codes. */
nb_value *nb_permute(nb_importer *im, nb_value *x, const int64_t *perm);

/* x as another element type, if it is not of it already. */
nb_value *nb_as(nb_importer *im, nb_value *x, nb_elem elem);
/* [B,S,H*D] -> [B,H,S,D], and back. */
nb_value *nb_split_heads(nb_importer *im, nb_value *x, int64_t heads, int64_t size);
nb_value *nb_join_heads(nb_importer *im, nb_value *x);
/* q[B,H,S,D], k[B,G,T,D], v[B,G,T,E]: makes equal what must be, and says H and G, of which the
 * former is a multiple. */
nb_status nb_check_heads(nb_importer *im, nb_value *q, nb_value *k, nb_value *v, int64_t *heads,
                         int64_t *groups);
/* [B,G,..] -> [B,H,..], rank 4: each of the groups for all heads that share it. */
nb_value *nb_repeat_heads(nb_importer *im, nb_value *x, int64_t groups, int64_t heads);
/* softmax(cap(q.k * scale) + bias).v, computed in f32; of q's type. The numbers of heads and their
 * sizes are known. */
typedef struct nb_attending {
    nb_value *q, *k, *v; /* [B,H,S,D], [B,G,T,D], [B,G,T,E], G a divisor of H */
    nb_value *bias;      /* f32, broadcasts to [B,H,S,T], or NULL */
    nb_value *sinks;     /* f32[H], or NULL: a score of each head's rows that no value belongs to */
    float scale, softcap; /* softcap * tanh(scores / softcap); 0: as they are */
    bool blind;           /* 0 where a row of the bias is -inf everywhere */
} nb_attending;
nb_value *nb_attend(nb_importer *im, const nb_attending *a);
/* The first 2*R of each head's elements x [B,H,S,D] rotated in f32 by tables [B|1,S,R]; of x's
 * type. */
nb_value *nb_rotate(nb_importer *im, nb_value *x, nb_value *cosine, nb_value *sine,
                    bool interleaved);

/* What a com.microsoft attention adds to scores of q[B,H,S,D] by k[B,H,T,D], f32 that broadcasts to
 * [B,H,S,T]: its mask (an input), `unidirectional`, and a bias (an input); *out NULL: nothing. */
nb_status nb_ms_bias(nb_importer *im, const nb_value *q, const nb_value *k, size_t mask_at,
                     size_t bias_at, nb_value **out);
/* `mask`, f32 or NULL, and the bias that is input `input`, f32[B|1,H|1,S,keys]; `mask` without one;
 * NULL after an error. */
nb_value *nb_ms_add_bias(nb_importer *im, size_t input, const nb_value *q, const nb_dim *keys,
                         nb_value *mask);
/* Columns from `from` on of x[B,S,..], `width` of them, as heads. */
nb_value *nb_ms_heads(nb_importer *im, nb_value *x, int64_t from, int64_t width, int64_t heads);
/* nb_attend with the node's scale, or 1 / sqrt(D): [B,S,H*E]. */
nb_value *nb_ms_attend(nb_importer *im, nb_value *q, nb_value *k, nb_value *v, nb_value *bias);

/* rms_norm, or layer_norm with a bias or NULL, of the last axis by the vector `gain`, with the
 * node's `epsilon`; NULL after an error. */
nb_value *nb_normalized(nb_importer *im, nb_op_kind kind, nb_value *x, nb_value *gain,
                        nb_value *bias, float usual_eps);
/* softmax(x) along an axis; `flat`: along all from that one on, as before opset 13. */
nb_status nb_softmax(nb_importer *im, nb_value *x, int64_t axis, bool flat, nb_value **y);
/* log(softmax(x)) along an axis. */
nb_value *nb_log_softmax(nb_importer *im, nb_value *x, int64_t axis);
/* i64: where x is largest or smallest along `axis`, which gets length 1: the first such place, or
 * the last. A NaN counts as both. */
nb_value *nb_best_place(nb_importer *im, nb_value *x, int64_t axis, bool largest, bool last);

/* A function in the cell of a recurrent layer: an op, or what `of` builds with alpha and beta. */
typedef struct nb_cell_function {
    const char *name;
    nb_op_kind kind; /* NB_OP_COUNT: see `of` */
    nb_value *(*of)(nb_importer *im, nb_value *x, double alpha, double beta);
    int n_numbers;     /* 0 none, 1 alpha, 2 both */
    float alpha, beta; /* when the node says nothing */
} nb_cell_function;
/* In whatever case; NULL when there is none of that name. */
const nb_cell_function *nb_cell_function_named(const char *name);

/* What attribute `activation` of a fused operator, which has these numbers, makes of x; x without
 * one. */
nb_value *nb_activated(nb_importer *im, nb_value *x, size_t n, const float *numbers);

/* x * sigmoid(alpha * x) */
nb_value *nb_swish(nb_importer *im, nb_value *x, float alpha);

/* Operators that are functions of one float: what the one of that name makes of x. */
typedef struct nb_form {
    const char *op;
    nb_value *(*of)(nb_importer *im, nb_value *x);
} nb_form;
/* Output 0 of the node by the form of its name; x must be floats, those of 16 bits are computed in
 * f32. */
nb_status nb_apply_form(nb_importer *im, size_t n, const nb_form *forms);

#define IMPORT(domain, op, first, last, least, most, outputs, attributes, function, argument) \
    nb_status nb_import_##function(nb_importer *im);
#include "frontend/import_ops.def"
#undef IMPORT

#endif
