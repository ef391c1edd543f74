/* Private to frontend/: writing a graph's ops as ONNX nodes.
 *
 * One row of export_ops.def is one operation: a function that reads the op at hand and appends
 * nodes. What a node makes is an nb_port, an ONNX tensor to be; its name is chosen when all nodes
 * stand, so that a function may build a chain and give its end to nb_export_result. Nodes and
 * descriptions of tensors are small and stay in memory; bytes of weights are streamed when the file
 * is written (export_file.c). */
#ifndef NB_EXPORT_H
#define NB_EXPORT_H

#include "frontend/frontend.h"
#include "ir/build.h"
#include "ir/reals.h"

typedef struct nb_onnx_graph nb_onnx_graph;

typedef struct nb_port {
    const char *name;     /* NULL: one is made up when the file is written */
    const nb_type *type;  /* of the graph's value that it is, or NULL */
    nb_onnx_graph *graph; /* whose node makes it, or whose initializer it is; NULL: an input */
    const struct nb_onnx_node *maker; /* NULL: an input, an initializer, a parameter of a body */
    bool used;                        /* known when all nodes stand (nb_export_sweep) */
} nb_port;

typedef struct nb_onnx_attr {
    const char *name;
    enum { NB_ONNX_INT, NB_ONNX_FLOAT, NB_ONNX_INTS, NB_ONNX_TEXT, NB_ONNX_GRAPH } kind;
    int64_t i;
    float f;
    const int64_t *ints;
    size_t count;
    const char *text;
    nb_onnx_graph *graph;
} nb_onnx_attr;

#define NB_MAX_ONNX_ATTRS 8

typedef struct nb_onnx_node {
    const char *type, *domain; /* domain NULL: ai.onnx */
    const char *name;
    nb_port **inputs, **outputs; /* an input may be NULL: not given */
    size_t n_inputs, n_outputs, n_attrs;
    nb_onnx_attr attrs[NB_MAX_ONNX_ATTRS];
} nb_onnx_node;

/* What goes into a body, or comes out of it. */
typedef struct nb_onnx_info {
    nb_port *port;
    const nb_type *type;
} nb_onnx_info;

/* The model's graph, or the body of a node. Nodes of a body see what is around it, and nobody else
 * sees them. */
struct nb_onnx_graph {
    nb_onnx_graph *outer; /* NULL: it is the model's */
    const char *name;
    NB_VEC(nb_onnx_node *) nodes;
    NB_VEC(nb_onnx_info) inputs, outputs; /* of a body */
    nb_map values;                        /* nb_value* -> nb_port* */
    nb_map dims;                          /* nb_dim* -> nb_port*, i64[1] */
    nb_map shared; /* a description -> nb_port*: initializers, lists of dims, weights */
};

/* Where the bytes of an initializer go, piece by piece. */
typedef struct nb_sink {
    void (*put)(struct nb_sink *s, const void *bytes, size_t size);
    void *user;
    uint8_t held[4096]; /* single elements on their way */
    size_t n_held;
} nb_sink;

void nb_sink_put(nb_sink *s, const void *bytes, size_t size);
void nb_sink_byte(nb_sink *s, uint8_t byte);
void nb_sink_flush(nb_sink *s);

/* A tensor in the file. `write` puts exactly `bytes` bytes made of `from`. */
typedef struct nb_initializer {
    nb_port *port;
    nb_elem elem;
    int rank;
    int64_t dims[NB_MAX_RANK];
    int64_t bytes;
    const void *data;     /* small ones; else NULL */
    const nb_value *from; /* a constant */
    int64_t parameter;    /* for write */
    void (*write)(const struct nb_initializer *t, nb_sink *s, nb_arena *scratch);
    int64_t offset; /* in external data, or -1 */
} nb_initializer;

/* A value of codes. They are made when they are asked for, in the form that is asked for. */
typedef struct nb_coded {
    const nb_op *quantize; /* what makes them */
    nb_port *source;       /* the floats that become codes; NULL: what `quantize` takes */
    nb_port *floats, *codes, *scale, *reals, *second; /* second: reals, channels second */
    bool shifted;                                     /* i8 as u8: `codes` are greater by 128 */
} nb_coded;

typedef struct nb_exporter {
    nb_graph *g;
    const nb_export_options *options;
    nb_arena *arena;
    nb_diags *diags;
    nb_map coded;                 /* nb_value* -> nb_coded* */
    nb_map shifted;               /* nb_value* of i8 that are u8, greater by 128 */
    nb_map names;                 /* taken */
    nb_onnx_graph *model, *graph; /* the model's, and the one at hand */
    NB_VEC(nb_initializer *) tensors;
    const nb_op *op;      /* at hand */
    nb_onnx_node *main;   /* of the op at hand: the node that has its name; NULL: the last */
    bool contributed;     /* a com.microsoft operator is used */
    const char *location; /* of external data, beside the model */
} nb_exporter;

typedef nb_status (*nb_export_fn)(nb_exporter *x);

typedef struct nb_export_row {
    nb_export_fn fn;      /* NULL: cannot be written */
    const char *operator; /* for fn */
} nb_export_row;

extern const nb_export_row nb_export_rows[NB_OP_COUNT];

/* "OP cannot be written as ONNX: ...", NB_UNSUPPORTED, at the op at hand. */
nb_status nb_export_refuse(nb_exporter *x, const char *fmt, ...) NB_PRINTF(2, 3);

/* ---- nodes ---- */
#define NB_ATTR_I(name_, value) \
    (nb_onnx_attr) { .name = (name_), .kind = NB_ONNX_INT, .i = (value) }
#define NB_ATTR_F(name_, value) \
    (nb_onnx_attr) { .name = (name_), .kind = NB_ONNX_FLOAT, .f = (value) }
#define NB_ATTR_S(name_, value) \
    (nb_onnx_attr) { .name = (name_), .kind = NB_ONNX_TEXT, .text = (value) }

/* A node with these inputs (NULL at the end: left out; before: not given) and one output. */
nb_port *nb_put_node(nb_exporter *x, const char *type, size_t n, nb_port *const *inputs);
#define NB_PUT(x, type, ...)                                                         \
    nb_put_node((x), (type), sizeof((nb_port *[]){__VA_ARGS__}) / sizeof(nb_port *), \
                (nb_port *[]){__VA_ARGS__})
/* Of the node that was put last: an attribute, another output. */
void nb_put_attr(nb_exporter *x, nb_onnx_attr attr);
void nb_put_ints(nb_exporter *x, const char *name, size_t n, const int64_t *values);
nb_port *nb_put_output(nb_exporter *x);
nb_onnx_node *nb_last_node(const nb_exporter *x);

/* Common ones. `type` is that of `from`, or NULL when nothing of its shape is known to stay. */
nb_port *nb_put_reshape(nb_exporter *x, nb_port *from, const nb_type *type, size_t n,
                        const nb_dim *const *dims);
nb_port *nb_put_cast(nb_exporter *x, nb_port *from, nb_elem to);
nb_port *nb_put_slice(nb_exporter *x, nb_port *from, int64_t axis, int64_t start, int64_t end,
                      int64_t step);

/* ---- layouts (export_layout.c) ---- */
/* Transposes that take each other back are none. */
nb_port *nb_put_transpose(nb_exporter *x, nb_port *from, size_t n, const int64_t *perm);
/* Between [B,D...,C], as the graph has it, and [B,C,D...], as ONNX has it. */
nb_port *nb_put_channels_last(nb_exporter *x, nb_port *second, int rank);
nb_port *nb_put_channels_second(nb_exporter *x, nb_port *last, int rank);
/* What was put with its channels last, before that; NULL: p is no such transpose. */
nb_port *nb_before_channels_last(const nb_port *p, int rank);
/* Where axis d of a tensor with channels last is in it with channels second. */
int nb_axis_channels_second(int rank, int64_t d);
/* An elementwise node, whose result has that rank. It is put in front of transposes that move the
 * channels last: what takes them back then meets them. values[i], or NULL, is what in[i] holds;
 * attr is NULL or its attribute. */
nb_port *nb_put_each(nb_exporter *x, const char *type, int rank, size_t n, nb_port *const *in,
                     nb_value *const *values, const nb_onnx_attr *attr);
/* Leaves out nodes and initializers that nobody uses. */
void nb_export_sweep(nb_exporter *x);

/* ---- operands and results ---- */
/* What holds operand i or a value: floats (or integers) as the op sees them. Codes of weights and
 * activations come dequantized. NULL when the operand is not given, or after an error. */
nb_port *nb_operand(nb_exporter *x, size_t i);
nb_port *nb_put_patches(nb_exporter *x); /* what the kernel of a patches op sees */
nb_port *nb_port_of(nb_exporter *x, nb_value *v);
/* What operand i is, or what it dequantizes; that if it is constant, else NULL. */
nb_value *nb_read_by(const nb_op *op, size_t i);
nb_value *nb_constant_of(const nb_op *op, size_t i);
/* The product at hand as Conv, where its rows are places of a tensor with channels second; NULL:
 * it is none. *done is 3 if it has the bias. */
nb_port *nb_put_as_conv(nb_exporter *x, size_t *done);
/* Result i of the op at hand is this. */
nb_status nb_export_result(nb_exporter *x, size_t i, nb_port *port);
/* The result of the layer at hand is y and its operands from that one, bias and residual; then
 * maybe codes again. */
nb_status nb_export_sum(nb_exporter *x, nb_port *y, size_t from);
/* x; a run in which not all of the bools `holds` are true fails. */
nb_port *nb_put_required(nb_exporter *x, nb_port *v, nb_port *holds);

/* ---- bodies ---- */
/* From here on nodes are put into a new body, until nb_close_graph. */
nb_onnx_graph *nb_open_graph(nb_exporter *x, const char *name);
void nb_close_graph(nb_exporter *x);
/* Nodes for the ops of a region, whose parameters have ports. */
nb_status nb_export_region(nb_exporter *x, const nb_region *region);

/* ---- constants ---- */
nb_port *nb_port_i64s(nb_exporter *x, size_t n, const int64_t *values);
nb_port *nb_port_i64(nb_exporter *x, int64_t value); /* rank 0 */
nb_port *nb_port_u8(nb_exporter *x, uint8_t value);  /* rank 0 */
nb_port *nb_port_f32(nb_exporter *x, float value);   /* rank 0 */
/* Dimension expressions as i64[n], computed from the inputs' shapes; NULL after an error. */
nb_port *nb_port_dims(nb_exporter *x, size_t n, const nb_dim *const *dims);
nb_port *nb_port_dim(nb_exporter *x, const nb_dim *d); /* rank 0 */
/* The size of axis d of a tensor, i64[1]. */
nb_port *nb_put_size(nb_exporter *x, nb_port *tensor, int d);
/* Does the symbol have its value, here or around? */
bool nb_dim_has_port(const nb_exporter *x, const nb_dim *symbol);
/* A constant as it is, or its codes in the form that ONNX has: `elem` at least as wide. */
nb_port *nb_port_const(nb_exporter *x, nb_value *v);
/* The same, of floats or whole bytes, in another shape. */
nb_port *nb_port_reshaped(nb_exporter *x, nb_value *v, int rank, const int64_t *dims);
/* A constant [K...,C], dequantized if it is codes, whose last axis comes first, in that shape;
 * NULL: it cannot be said so. */
nb_port *nb_port_last_first(nb_exporter *x, nb_value *v, int rank, const int64_t *dims);
nb_elem nb_onnx_code(nb_elem storage);
/* A new initializer of the model, of that shape, whose bytes `write` makes of `from`. */
nb_initializer *nb_new_initializer(nb_exporter *x, const char *name, nb_elem elem, int rank,
                                   const int64_t *dims);
/* The port of that description, which is `v`'s number and a word; NULL: there is none yet. */
nb_port *nb_shared_get(nb_exporter *x, const nb_value *v, const char *what);
nb_port *nb_shared_set(nb_exporter *x, const nb_value *v, const char *what, nb_port *port);
/* The same for any bytes that describe it. */
nb_port *nb_shared_find(const nb_exporter *x, const void *key, size_t size);
nb_port *nb_shared_keep(nb_exporter *x, const void *key, size_t size, nb_port *port);

/* ---- quantization (export_weights.c, export_quant.c) ---- */
/* Parts of a quantized constant: codes in elem >= 8 bits when `bytes`, scales as f32 (NULL: inline;
 * a column of them for `column`), zero points or NULL. */
nb_port *nb_port_codes(nb_exporter *x, nb_value *w, bool bytes);
nb_port *nb_port_scales(nb_exporter *x, nb_value *w, bool column);
nb_port *nb_port_zeros(nb_exporter *x, nb_value *w, bool bytes, bool column);
nb_port *nb_port_reals(nb_exporter *x, nb_value *w);       /* dequantized, once */
nb_coded *nb_codes_made(nb_exporter *x, nb_port *source);  /* by the op at hand */
nb_port *nb_port_coded(nb_exporter *x, const nb_value *v); /* the same of codes made at run time */
/* And with their channels second: those of static scales are moved as codes. */
nb_port *nb_port_coded_second(nb_exporter *x, const nb_value *v);
/* The same where their channels were second before; NULL: they were not. */
nb_port *nb_port_coded_before(nb_exporter *x, const nb_value *v);
/* Other numbers, `in`, which are those of `from`, rounded to codes as those of v are, and
 * dequantized.
 */
nb_port *nb_port_coded_as(nb_exporter *x, const nb_value *v, const nb_value *from, nb_port *in);
/* Codes in whole bytes of a constant or of static scales, and their zero point (NULL: 0). */
nb_port *nb_port_integers(nb_exporter *x, nb_value *v, nb_port **zero);
/* Does MatMulNBits take this matrix? */
bool nb_fits_nbits(const nb_value *w);
/* a . w by MatMulNBits; `level` is its accuracy_level. */
nb_port *nb_put_nbits(nb_exporter *x, nb_port *a, nb_value *w, int64_t level);

/* ---- the file ---- */
nb_status nb_export_write(nb_exporter *x, const char *path);
const char *nb_export_name(nb_exporter *x, const char *wanted); /* made unique */

#endif
