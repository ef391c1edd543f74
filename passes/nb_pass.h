/* Passes: the one header that a pass needs, built-in or loaded from a shared object.
 *
 *   #include "nb_pass.h"
 *   static nb_pass_result run(nb_pass_ctx *ctx) { ... ctx->host->... }
 *   static const nb_pass pass = {
 *       .size = sizeof(nb_pass), .name = "mine", .summary = "...", .run = run};
 *   static const nb_pass *const passes[] = {&pass, NULL};
 *   NB_EXPORT const nb_plugin nb_plugin_v1 = {
 *       .size = sizeof(nb_plugin), .abi_major = NB_PASS_ABI_MAJOR,
 *       .abi_minor = NB_PASS_ABI_MINOR, .name = "mine", .passes = passes};
 *
 * `nibble new-pass NAME` writes all of that; WRITING_PASSES.md is the guide.
 *
 * A plug-in links nothing: everything goes through the host table. Handles are opaque; strings and
 * arrays that the host returns live as long as the graph, unless a line says otherwise ("scratch":
 * until the pass ends). Strings and arrays that a pass hands over are copied, unless a line says
 * otherwise. A call with a wrong argument records a diagnostic that names the call, and the pass
 * fails when it returns; it does not crash. Functions that only look (those without `ctx`) answer
 * NULL, "", 0 or -1 when asked about nothing. What cannot be checked: a handle must be one that the
 * host gave out for this graph. Not thread-safe: a pass calls the host from the thread that runs
 * it.
 *
 * The ABI is frozen as major 1: what stands here keeps its name, place and meaning, and a plug-in
 * built from this header runs with every later nibble of major 1. Structs that begin with `size`
 * only grow at their end, and nobody reads or writes more of the other's than its `size` says; the
 * others, which stand in arrays, keep their size, and their `reserved` members must be 0. What is
 * new comes with a new minor number. nb_plugin.abi_minor says which one a plug-in needs: a host
 * that has less refuses it, as does one of another major number. A plug-in that says less, and asks
 * NB_HAS before it uses a member, runs with older hosts, too.
 *
 * What versions brought, newest first:
 *
 * - 1.0: bodies of ops, sizes that only data tell, every element type and every kind of
 *   quantization can be seen and made. Elements of arrays have reserved members, rows of rewrite()
 *   may grow, nb_array has scales, abi_minor is what a plug-in needs, and what it exports is
 *   nb_plugin_v1. The order of the table is new.
 * - 0.4: refused, is_heard; nodes of ONNX that become operations of one's own.
 * - 0.3: operations of one's own; rewrite rows; quantizations and codes; large constants;
 *   statistics; selectors; a look into bodies; names, places, notes.
 * - 0.2: fact.
 * - 0.1: passes, options, walking, editing, constants, runs. */
#ifndef NB_PASS_H
#define NB_PASS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NB_PASS_ABI_MAJOR 1
#define NB_PASS_ABI_MINOR 0

#if defined(__GNUC__)
#define NB_EXPORT __attribute__((visibility("default")))
#else
#define NB_EXPORT
#endif

typedef struct nb_graph nb_graph;
typedef struct nb_op nb_op;
typedef struct nb_value nb_value;
typedef struct nb_pass_host nb_pass_host;
typedef struct nb_match nb_match; /* where the pattern of a rewrite row matched */
typedef struct nb_body nb_body;   /* a body of an op that is being made */

/* Element types: what ONNX has under its numbers (TensorProto.DataType), what it lacks from 1000
 * on. Those of fewer than 8 bits are packed, the first element in the low bits: bit b of element i
 * is bit i*bits + b of the bytes. elem_text and elem_bits of the host tell name and width. */
typedef enum nb_data_type {
    NB_DATA_F32 = 1,
    NB_DATA_U8 = 2,
    NB_DATA_I8 = 3,
    NB_DATA_U16 = 4,
    NB_DATA_I16 = 5,
    NB_DATA_I32 = 6,
    NB_DATA_I64 = 7,
    NB_DATA_BOOL = 9, /* bytes 0 and 1 */
    NB_DATA_F16 = 10,
    NB_DATA_F64 = 11,
    NB_DATA_U32 = 12,
    NB_DATA_U64 = 13,
    NB_DATA_BF16 = 16,
    NB_DATA_F8E4M3FN = 17,
    NB_DATA_F8E4M3FNUZ = 18,
    NB_DATA_F8E5M2 = 19,
    NB_DATA_F8E5M2FNUZ = 20,
    NB_DATA_U4 = 21,
    NB_DATA_I4 = 22,
    NB_DATA_F4E2M1 = 23,
    NB_DATA_F8E8M0 = 24,
    NB_DATA_U2 = 25,
    NB_DATA_I2 = 26,
    NB_DATA_NF4 = 1000,
    NB_DATA_U3 = 1003,
    NB_DATA_U5 = 1005,
    NB_DATA_U6 = 1006,
    NB_DATA_U7 = 1007,
    NB_DATA_I3 = 1013,
    NB_DATA_I5 = 1015,
    NB_DATA_I6 = 1016,
    NB_DATA_I7 = 1017
} nb_data_type;

/* Ordered so that results of several passes combine with min. */
typedef enum nb_pass_result {
    NB_PASS_FAILED = 0,
    NB_PASS_CHANGED = 1,
    NB_PASS_UNCHANGED = 2
} nb_pass_result;

typedef enum nb_option_kind {
    NB_OPTION_INT,    /* value.i; min and max are checked */
    NB_OPTION_FLOAT,  /* value.f */
    NB_OPTION_BOOL,   /* value.b: 0 or 1 */
    NB_OPTION_STRING, /* value.s, "" when not given */
    NB_OPTION_ENUM,   /* value.s is one of `choices`, value.i its index */
    /* Names of ONNX nodes, for host->selected: '*' is any run, '?' one character, '|'
     * stands between alternatives. One that matches nothing is an error with near misses. */
    NB_OPTION_SELECTOR
} nb_option_kind;

typedef struct nb_option {
    const char *name; /* lower case, digits, '-'; NULL ends the array */
    nb_option_kind kind;
    const char *fallback;       /* default, as text */
    const char *summary;        /* for --list-passes */
    double min, max;            /* NB_OPTION_INT and _FLOAT, when min < max */
    const char *const *choices; /* NB_OPTION_ENUM: NULL-terminated */
    const void *reserved;
} nb_option;

/* The value of an option; which member counts follows from its kind. */
typedef struct nb_option_value {
    int64_t i;     /* NB_OPTION_INT; NB_OPTION_ENUM: index in `choices` */
    double f;      /* NB_OPTION_FLOAT */
    int b;         /* NB_OPTION_BOOL */
    const char *s; /* NB_OPTION_STRING, _ENUM, _SELECTOR */
    int given;     /* 1 when the pipeline named it */
    const void *reserved[2];
} nb_option_value;

/* What a pass gets. */
typedef struct nb_pass_ctx {
    uint32_t size; /* sizeof(nb_pass_ctx) of the host */
    const nb_pass_host *host;
    void *host_data; /* for the host */
    nb_graph *graph;
    const nb_option_value *options; /* as declared, in that order */
    void *user;                     /* nb_pass.user */
} nb_pass_ctx;

/* One pass. */
typedef struct nb_pass {
    uint32_t size;            /* sizeof(nb_pass) */
    const char *name;         /* as in pipelines: lower case, digits, '-' */
    const char *summary;      /* one line */
    const nb_option *options; /* or NULL */
    /* Changes ctx->graph. NB_PASS_CHANGED when the graph is not what it was. */
    nb_pass_result (*run)(nb_pass_ctx *ctx);
    void *user; /* the pass' own, given back as ctx->user */
    /* Bits of what the pass promises: the driver checks them with --check-each. */
    uint32_t promises;
    uint32_t needs; /* what the passes before it must keep, NB_PASS_NEEDS_* */
} nb_pass;

#define NB_PASS_KEEPS_BITS    1u /* outputs are equal bit for bit before and after */
#define NB_PASS_KEEPS_NUMBERS 2u /* outputs agree within float tolerance */
/* neither: the pass may change numbers (quantization) */
#define NB_PASS_MOVES_STATES                                                                   \
    4u                       /* with either: so in runs that begin with empty states; what the \
                                states hold is the pass' own */
#define NB_PASS_RUNS_ONCE 8u /* a second run may change the graph again */
#define NB_PASS_LAST_ONLY                                                 \
    16u /* with either: of outputs whose shape the pass changed, the last \
           entries along axis 1 are what it was */

#define NB_PASS_NEEDS_ORIGINALS 1u /* the float weights behind quantized ones */

/* ---- operations of one's own ----
 *
 * A plug-in may bring operations. In a graph each is a `call` that carries the function's name and
 * its result's type, so that graphs can be printed, read and compared without the plug-in:
 *
 *   %y: f32[B,64] = call %x, @g {function="scaled_relu", to=f32, shape=[B,64], numbers=[3]}
 *
 * What it computes is a C function that the plug-in exports as nb_call_<name>. The evaluator and
 * models that run in memory call it there; a compiled file is linked with it (`nibble compile
 * --link kernel.o`), unless `lower` turned the call into operations that Nibble has. */

/* Computes rows begin .. end-1 of the result, where a row is all of its last axis (a result of rank
 * 0 or 1 is one row). Rows are computed in any order, by several threads at once, and must not
 * depend on how they are split. Tensors are dense and row-major. `dims` has the sizes of operand 0,
 * of operand 1, ..., then those of the result; the ranks follow from the graph. `numbers` are
 * those of the call. Operands of fewer than 8 bits an element are packed; results have at least 8.
 * It must not allocate memory, print or exit. */
typedef void (*nb_call_fn)(const void *const *operands, void *result, const int64_t *dims,
                           const int64_t *numbers, int64_t begin, int64_t end);

/* The type of a call's result, to be filled by nb_op_def.shape. */
typedef struct nb_op_shape {
    uint32_t size;       /* sizeof(nb_op_shape) of the host */
    int32_t elem;        /* nb_data_type; as operand 0 has, if left as it is */
    int32_t rank;        /* as of operand 0, if left as it is */
    const char *dims[8]; /* expressions, "B" or "2*S"; as of operand 0, if left as they are */
} nb_op_shape;

typedef struct nb_op_def {
    uint32_t size;       /* sizeof(nb_op_def) */
    const char *name;    /* a C identifier; the plug-in exports nb_call_<name> */
    const char *summary; /* one line */
    size_t operands;     /* how many a call has */
    /* The result's type for these operands: NULL when they fit and `out` is filled, else why not.
     * Texts in `out` may be of ctx's scratch memory. Runs whenever a call is made or read. A NULL
     * function: the type of operand 0. */
    const char *(*shape)(nb_pass_ctx *ctx, nb_value *const *operands, const int64_t *numbers,
                         size_t n_numbers, nb_op_shape *out);
    /* Builds before `op` what stands for it in Nibble's own operations, with equal results, and
     * returns it; the pass lower-calls does that. NULL after a diagnostic. A NULL function: the C
     * function is linked into the model. */
    nb_value *(*lower)(nb_pass_ctx *ctx, nb_op *op);
    /* "domain::Op". While the plug-in is loaded, nodes of that operator are imported as
     * calls, whatever its version; they have one output. NULL: none are. */
    const char *onnx;
    /* The node's attributes, "axis:i=-1 pads:I alpha:f=0.5", separated by blanks: a
     * name, the kind, and what it is when a node lacks it, without which a node must have it.
     * Integers (i) and lists of them (I) become `numbers`, in this order. A float (f) or a list of
     * them (F) becomes a constant, f32[] or f32[n]: operands behind the node's inputs, which count
     * in `operands`. NULL: the operator has no attributes. */
    const char *attributes;
} nb_op_def;

/* What a shared object brings. It exports one, named NB_PLUGIN_SYMBOL. */
typedef struct nb_plugin {
    uint32_t size;                 /* sizeof(nb_plugin) */
    uint32_t abi_major, abi_minor; /* NB_PASS_ABI_MAJOR, and the least minor number it needs */
    const char *name;
    const nb_pass *const *passes; /* NULL-terminated, or NULL */
    const nb_op_def *const *ops;  /* NULL-terminated, or NULL */
} nb_plugin;
#define NB_PLUGIN_SYMBOL "nb_plugin_v1"

/* A tensor for run() and constants. */
typedef struct nb_array {
    int32_t elem;     /* nb_data_type */
    int32_t rank;     /* 0 to 8 */
    int64_t dims[8];  /* the first `rank` count */
    const void *data; /* row-major, dense; elements of fewer than 8 bits packed */
    /* What taps see of codes whose scales are made in the run: those, one for each row of the last
     * axis, or for each block of it; else NULL, as in all that a pass hands over. */
    const float *scales;
} nb_array;

/* Sees a value that run() computed; `array` and its data are valid during the call. */
typedef void (*nb_tap_fn)(void *user, const nb_value *value, const nb_array *array);

/* An error makes the pass fail when it returns. */
typedef enum nb_level { NB_LEVEL_ERROR, NB_LEVEL_WARNING, NB_LEVEL_INFO } nb_level;

/* An attribute for build(); the member that counts follows from the op's declaration. */
typedef struct nb_attr_arg {
    const char *name;        /* as `nibble opt --list-ops` has it */
    int64_t i;               /* int; bool: 0 or not */
    double f;                /* float */
    const char *s;           /* text, element types ("f32"), quantizations by name */
    const int64_t *ints;     /* ints */
    const char *const *dims; /* dimension expressions as text: "B", "P+S", "64" */
    size_t count;            /* of ints or dims */
    const void *reserved;
} nb_attr_arg;

/* A quantization: how codes stand for numbers, (code - zero) * scale + minimum. Codes are integers
 * of up to 32 bits, or floats of up to 8. There is one scale (axis -1), one for each index of an
 * axis, or one for each run of `group` indices along it; or, with `amax`, one for each row of the
 * last axis (or for each run of `group` in a row), made in the run when the tensor is quantized. */
typedef struct nb_quant_arg {
    uint32_t size;       /* sizeof(nb_quant_arg), set by the caller */
    const char *name;    /* wanted; another is made of it when it is taken */
    const char *storage; /* element of the codes: "i8", "u4", "f8e4m3fn"... */
    int64_t axis;        /* of a scale per index, or along which groups run; -1: none */
    int64_t group;       /* indices that share a scale; 0: one scale for each index of `axis` */
    /* A constant: [], [dims[axis]], or the tensor's shape with dims[axis] divided by `group`,
     * rounded up; of f32, f16, codes (make_codes), or of small floats if the codes are such. NULL:
     * `scale` alone, or with `amax`. */
    const nb_value *scales;
    const nb_value *zeros; /* a constant of `storage` and of the scales' shape, or NULL: `zero` */
    int narrow;            /* 1: codes exclude the smallest, so that those of i8 are -127..127 */
    /* The scale, or what those that are not f32 are multiplied by; there 0 stands for 1. */
    double scale;
    int64_t zero;           /* the zero point, without `zeros` */
    const nb_value *minima; /* a constant as the scales are, in the place of zero points; or NULL */
    double minimum;         /* without `minima` */
    int64_t
        amax; /* scales are made in the run, so that the largest |code| is this; 0: they are not */
} nb_quant_arg;

/* What is known of a dimension expression. */
typedef struct nb_dim_view {
    uint32_t size;    /* sizeof(nb_dim_view), set by the caller */
    int32_t counted;  /* 1: it holds a symbol that only a `bind` says, see make_symbol */
    int64_t min, max; /* the values it may have; INT64_MIN, INT64_MAX: no bound is known */
} nb_dim_view;

/* What calibrate saw of a value. Arrays have an entry for each channel; they live as
 * long as the pipeline. */
typedef struct nb_stats_view {
    uint32_t size;          /* sizeof(nb_stats_view), set by the caller */
    int64_t channels, rows; /* of the last axis (a conv: of the second); values seen of each */
    const float *amax;      /* largest |x| */
    const float *mean_abs;  /* mean |x| */
    const float *mean;      /* mean x */
    const float *low;       /* smallest x */
    const float *high;      /* largest x */
    float min, max;         /* of the whole tensor */
    float clip;             /* bound of |x| that calibrate's method chose */
} nb_stats_view;

/* One rewrite, as a row. The equation is the rule:
 *
 *   {.size = sizeof(nb_rewrite_row), .name = "mul-one", .rule = "mul(x, 1) -> x"}
 *
 * On the left, `op(arguments)` matches a result of that op, its leading operands in order, or
 * either way round where the op commutes; a word matches any value and names it, the same word
 * twice the same value; `@word` a constant; a number a constant all of whose elements equal it;
 * `op!(...)` a result with no other use. On the right stand words of the left and ops without
 * attributes; numbers become constants of the element type of the result. */
typedef struct nb_rewrite_row {
    uint32_t size;    /* sizeof(nb_rewrite_row), the same in all rows of an array */
    const char *name; /* of the rule, for messages */
    const char *rule; /* "pattern -> replacement"; with `to`, what follows the arrow is comment */
    /* NULL when the rule applies to this match, else why not. A NULL function: always. */
    const char *(*where)(nb_pass_ctx *ctx, const nb_match *match);
    /* Builds the replacement before host->matched_op(match), or returns a value that exists; NULL
     * leaves the graph as it is. A NULL function: `rule` says it. */
    nb_value *(*to)(nb_pass_ctx *ctx, const nb_match *match);
} nb_rewrite_row;

/* Fills `bytes` bytes of a constant from byte `offset` on; 0 to give up. */
typedef int (*nb_fill_fn)(void *user, int64_t offset, int64_t bytes, void *data);

/* Does the host have this member? 0 for one older than the header. */
#define NB_HAS(host, member) \
    ((host)->size >= offsetof(nb_pass_host, member) + sizeof((host)->member))

struct nb_pass_host {
    uint32_t size;                 /* sizeof(nb_pass_host) of the host */
    uint32_t abi_major, abi_minor; /* of the host */

    /* ---- walking: ops in order, values, their text ---- */
    nb_op *(*first_op)(nb_graph *graph);     /* NULL: empty */
    nb_op *(*next_op)(const nb_op *op);      /* NULL after the last */
    const char *(*op_name)(const nb_op *op); /* "matmul" */
    const char *(*op_node)(const nb_op *op); /* the ONNX node it came from, "" if none */
    const char *(*op_text)(nb_pass_ctx *ctx,
                           const nb_op *op);         /* its line of .nir; scratch memory */
    size_t (*operand_count)(const nb_op *op);        /* optional ones that are not given count */
    nb_value *(*operand)(const nb_op *op, size_t i); /* NULL: not given */
    size_t (*result_count)(const nb_op *op);
    nb_value *(*result)(const nb_op *op, size_t i);
    nb_op *(*defining_op)(const nb_value *value);     /* NULL: input or constant */
    size_t (*use_count)(const nb_value *value);       /* operand slots that hold it */
    nb_op *(*user)(const nb_value *value, size_t i);  /* i-th use */
    const char *(*value_name)(const nb_value *value); /* without % or @ */
    int32_t (*value_elem)(const nb_value *value);     /* nb_data_type; of codes, their storage */
    int32_t (*value_rank)(const nb_value *value);     /* number of axes */
    int64_t (*value_dim)(const nb_value *value, int32_t axis);          /* -1: not constant */
    const char *(*value_type)(nb_pass_ctx *ctx, const nb_value *value); /* "f32[B,4]"; scratch */
    int (*is_const)(const nb_value *value);
    int (*is_quantized)(const nb_value *value); /* its elements are codes */
    /* Attributes: 0 when the op has none of that name and kind. attr_int reads flags too. */
    int (*attr_int)(const nb_op *op, const char *name, int64_t *out);
    int (*attr_float)(const nb_op *op, const char *name, double *out);
    int (*attr_ints)(const nb_op *op, const char *name, const int64_t **out, size_t *count);
    size_t (*input_count)(const nb_graph *graph);
    nb_value *(*input)(const nb_graph *graph, size_t i);
    size_t (*output_count)(const nb_graph *graph);
    nb_value *(*output)(const nb_graph *graph, size_t i);
    /* Any attribute as its text in .nir, strings without quotes; NULL when it is not set. Scratch.
     */
    const char *(*attr_text)(nb_pass_ctx *ctx, const nb_op *op, const char *name);
    /* "64", "B", "P+S"; "" beyond the rank. Scratch. */
    const char *(*value_dim_text)(nb_pass_ctx *ctx, const nb_value *value, int32_t axis);
    /* Name of the quantization of a value's codes, for `s` of nb_attr_arg; "" when it has none. */
    const char *(*value_quant)(const nb_value *value);

    /* ---- element types ---- */
    const char *(*elem_text)(int32_t elem);  /* "f32"; "" when there is none of that number */
    int32_t (*elem_named)(const char *text); /* nb_data_type; 0 when there is none of that name */
    int32_t (*elem_bits)(int32_t elem);      /* of an element; 0 */

    /* ---- sizes: dimension expressions are texts, equal ones have equal texts ---- */
    /* The i-th symbol, as it stands in expressions; NULL beyond the last. Scratch. */
    const char *(*symbol)(nb_pass_ctx *ctx, size_t i);
    /* What is known of an expression, "4*B"; 0 after a diagnostic. */
    int (*dim)(nb_pass_ctx *ctx, const char *text, nb_dim_view *out);
    /* A symbol that only data tell, of this name or one made of it, as it stands in expressions;
     * NULL after a diagnostic. Building a `bind` with it as `size` says its value: it may stand in
     * types and attributes of what follows that, and nowhere else. */
    const char *(*make_symbol)(nb_pass_ctx *ctx, const char *name, int64_t min, int64_t max);

    /* ---- bodies of ops that have any; next_op walks them too, to their `return` ---- */
    size_t (*body_count)(const nb_op *op);
    nb_op *(*body_first_op)(const nb_op *op, size_t body); /* NULL: empty */
    size_t (*body_input_count)(const nb_op *op, size_t body);
    nb_value *(*body_input)(const nb_op *op, size_t body, size_t i);
    nb_op *(*parent_op)(const nb_op *op); /* whose body it is in; NULL: the graph's */
    size_t (*body_output_count)(const nb_op *op, size_t body);
    nb_value *(*body_output)(const nb_op *op, size_t body, size_t i);

    /* ---- constants ---- */
    /* Data of a constant, row-major; 0 and a diagnostic when it is not one. */
    int (*const_data)(nb_pass_ctx *ctx, const nb_value *value, nb_array *out);
    /* A new constant; the data is copied. NULL after a diagnostic. */
    nb_value *(*make_const)(nb_pass_ctx *ctx, const char *name, const nb_array *array);

    /* Elements first .. first+count-1 as f32, codes as what they stand for. Weights of a file are
     * read as they are asked for. */
    int (*const_floats)(nb_pass_ctx *ctx, const nb_value *value, int64_t first, int64_t count,
                        float *out);
    /* Nobody will read it for a while: its part of a file may leave memory. */
    int (*const_rest)(nb_pass_ctx *ctx, const nb_value *value);
    /* make_const whose data `fill` writes piece by piece, in order; `shape` has data NULL. */
    nb_value *(*make_const_by)(nb_pass_ctx *ctx, const char *name, const nb_array *shape,
                               nb_fill_fn fill, void *user);

    /* ---- codes ---- */
    /* A quantization; its name, or NULL after a diagnostic. An equal one is made once. */
    const char *(*make_quant)(nb_pass_ctx *ctx, const nb_quant_arg *quant);
    /* A constant of codes under the quantization of that name; `codes` has its storage element. */
    nb_value *(*make_codes)(nb_pass_ctx *ctx, const char *name, const nb_array *codes,
                            const char *quant);
    /* Members of the quantization of that name (value_quant), as far as out->size goes; 0 when
     * there is none. */
    int (*quant)(const nb_graph *graph, const char *name, nb_quant_arg *out);

    /* ---- editing; new ops are placed before `before` and take its location ---- */
    /* An op's first result (the others: result(defining_op(v), i)); NULL after a diagnostic.
     * Operands in the order of `nibble opt --list-ops`; an optional one may be NULL. The result's
     * type follows from operands and attributes. The first op on codes makes a graph of floats one
     * of stage qdq, or fused. */
    nb_value *(*build)(nb_pass_ctx *ctx, nb_op *before, const char *op, nb_value *const *operands,
                       size_t n_operands, const nb_attr_arg *attrs, size_t n_attrs);
    /* These answer 1, or 0 after a diagnostic. The new value has the type of the old, and must be
     * computed earlier: that is verified when the pass has ended. */
    int (*set_operand)(nb_pass_ctx *ctx, nb_op *op, size_t i, nb_value *value);
    int (*replace_uses)(nb_pass_ctx *ctx, nb_value *from, nb_value *to);
    int (*remove_op)(nb_pass_ctx *ctx, nb_op *op); /* its results must be unused */
    /* Removes ops and constants that nothing uses; how many. Handles of theirs are void then. */
    size_t (*sweep)(nb_pass_ctx *ctx);
    /* Renames; another name is made of it when it is taken. */
    int (*set_name)(nb_pass_ctx *ctx, nb_value *value, const char *name);
    /* Moves an op in front of another of the same body. */
    int (*move_op)(nb_pass_ctx *ctx, nb_op *op, nb_op *before);

    /* ---- building ops with bodies ----
     *
     * make_body, body_take for each value it takes, build before body_end, body_return; then
     * build_with_bodies. A body sees what it takes, constants, and what it makes itself: what it
     * needs from outside is an operand of its op. A body that no op gets is dropped with the pass.
     */
    /* `like`: whose place its ops get, or NULL. The handle is scratch memory. */
    nb_body *(*make_body)(nb_pass_ctx *ctx, const nb_op *like);
    /* One value more that the body takes, of a type as value_type writes it. NULL after a
     * diagnostic. */
    nb_value *(*body_take)(nb_pass_ctx *ctx, nb_body *body, const char *name, const char *type);
    nb_op *(*body_end)(nb_pass_ctx *ctx, nb_body *body); /* its `return`, to build before */
    /* What the body returns, in the place of what it returned. 1, or 0 after a diagnostic. */
    int (*body_return)(nb_pass_ctx *ctx, nb_body *body, nb_value *const *values, size_t n);
    /* build() for an op that has bodies. */
    nb_value *(*build_with_bodies)(nb_pass_ctx *ctx, nb_op *before, const char *op,
                                   nb_value *const *operands, size_t n_operands,
                                   const nb_attr_arg *attrs, size_t n_attrs, nb_body *const *bodies,
                                   size_t n_bodies);

    /* ---- rewriting ---- */
    /* Applies rows until none fires; new ops get the places of what they replace. 1: the graph
     * changed, 0: it did not, -1 after a diagnostic. */
    int (*rewrite)(nb_pass_ctx *ctx, const nb_rewrite_row *rows, size_t n_rows);
    /* For `where` and `to`: the value of a word; NULL when the pattern has no such word. */
    nb_value *(*matched)(const nb_match *match, const char *word);
    nb_op *(*matched_op)(const nb_match *match); /* whose result is replaced */

    /* ---- operations of one's own ---- */
    /* build() for an operation that a plug-in brought. */
    nb_value *(*call)(nb_pass_ctx *ctx, nb_op *before, const char *name, nb_value *const *operands,
                      size_t n_operands, const int64_t *numbers, size_t n_numbers);

    /* ---- numbers: executes the graph on inputs (one per graph input) ---- */
    /* taps[i] is seen by `seen` in order of execution; outputs may be NULL or have one entry per
     * output, whose data lives until the pass ends. 0 after a diagnostic. */
    int (*run)(nb_pass_ctx *ctx, const nb_array *inputs, nb_array *outputs,
               const nb_value *const *taps, size_t n_taps, nb_tap_fn seen, void *user);
    /* Calibration samples the user gave (--calib): inputs for run(); 0 when there is no such
     * sample. */
    size_t (*sample_count)(nb_pass_ctx *ctx);
    /* 1 and one array for each graph input, in scratch memory. */
    int (*sample)(nb_pass_ctx *ctx, size_t i, const nb_array **inputs);

    /* ---- calibration ---- */
    /* What calibrate saw of a value; 0, without a diagnostic, when it did not. */
    int (*stats)(nb_pass_ctx *ctx, const nb_value *value, nb_stats_view *out);

    /* ---- conditions per node ---- */
    /* Does the option (NB_OPTION_SELECTOR) match the op's node? One that was given and matches none
     * of the ops asked about is an error when the pass ends. */
    int (*selected)(nb_pass_ctx *ctx, const char *option, const nb_op *op);

    /* ---- talking; texts as of printf ---- */
    /* A diagnostic at an op (NULL: of the whole graph), with the name of the pass in front. */
    void (*report)(nb_pass_ctx *ctx, nb_level level, const nb_op *op, const char *fmt, ...);
    void (*help)(nb_pass_ctx *ctx, const char *fmt, ...); /* belongs to the last report */
    void (*note)(nb_pass_ctx *ctx, const char *fmt, ...); /* a line below the last report */
    /* The same as report, at a value: where it was made, or the constant's origin. */
    void (*report_value)(nb_pass_ctx *ctx, nb_level level, const nb_value *value, const char *fmt,
                         ...);
    /* A number that the pass chose or found for an op (NULL: for the graph), for reports to show:
     * "alpha", 0.5. It is kept under the names of the pass and the node. */
    void (*fact)(nb_pass_ctx *ctx, const nb_op *op, const char *name, double value);
    /* A rewrite that nearly fired at `op` (NULL: of the whole graph), and why it was refused, for
     * `nibble explain`: the name of the rule, what it makes of what ("" when that is no equation),
     * and the reason, as of printf. It costs nothing when nobody listens. Rows of rewrite() tell
     * theirs by themselves. */
    void (*refused)(nb_pass_ctx *ctx, const nb_op *op, const char *rule, const char *equation,
                    const char *fmt, ...);
    /* Does anybody listen? For reasons that take time to find. */
    int (*is_heard)(nb_pass_ctx *ctx);

    /* ---- memory that goes when the pass ends ---- */
    /* Zeroed and 16-byte aligned. NULL, after a diagnostic, only for 2^40 bytes or more. */
    void *(*scratch)(nb_pass_ctx *ctx, size_t size);

    /* ---- extensions by name, e.g. "nb.rewrite/0"; NULL when unknown ---- */
    const void *(*query)(nb_pass_ctx *ctx, const char *extension);
};

#ifdef __cplusplus
}
#endif
#endif
