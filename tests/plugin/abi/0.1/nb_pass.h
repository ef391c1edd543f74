/* Passes: the one header that a pass needs, built-in or loaded from a shared object.
 *
 *   #include "nb_pass.h"
 *   static nb_pass_result run(nb_pass_ctx *ctx) { ... ctx->host->... }
 *   static const nb_pass pass = {.size = sizeof(nb_pass), .name = "mine", .summary = "...", .run =
 * run}; static const nb_pass *const passes[] = {&pass, NULL}; NB_EXPORT const nb_plugin
 * nb_plugin_v0 = { .size = sizeof(nb_plugin), .abi_major = NB_PASS_ABI_MAJOR, .name = "mine",
 * .passes = passes};
 *
 * A plug-in links nothing: everything goes through the host table. Handles are opaque; strings and
 * arrays that the host returns live as long as the graph, unless a line says otherwise. A call with
 * a wrong argument records a diagnostic that names the call and makes the pass fail; it does not
 * crash. Not thread-safe: a pass calls the host from the thread that runs it.
 *
 * The ABI: structs only grow at their end and begin with `size`; a major number must match. Major 0
 * may still change between releases. */
#ifndef NB_PASS_H
#define NB_PASS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NB_PASS_ABI_MAJOR 0
#define NB_PASS_ABI_MINOR 1

#if defined(__GNUC__)
#define NB_EXPORT __attribute__((visibility("default")))
#else
#define NB_EXPORT
#endif

typedef struct nb_graph nb_graph;
typedef struct nb_op nb_op;
typedef struct nb_value nb_value;
typedef struct nb_pass_host nb_pass_host;
typedef struct nb_rewrite nb_rewrite; /* nb.rewrite extension, see nb_rewrite.h */

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
    NB_OPTION_ENUM    /* value.s is one of `choices`, value.i its index */
} nb_option_kind;

typedef struct nb_option {
    const char *name; /* NULL ends the array */
    nb_option_kind kind;
    const char *fallback;       /* default, as text */
    const char *summary;        /* for --list-passes */
    double min, max;            /* NB_OPTION_INT and _FLOAT, when min < max */
    const char *const *choices; /* NB_OPTION_ENUM: NULL-terminated */
} nb_option;

typedef struct nb_option_value {
    int64_t i;
    double f;
    int b;
    const char *s;
    int given; /* 1 when the pipeline named it */
} nb_option_value;

/* What a pass gets. */
typedef struct nb_pass_ctx {
    uint32_t size;
    const nb_pass_host *host;
    void *host_data; /* for the host */
    nb_graph *graph;
    const nb_option_value *options; /* as declared, in that order */
    void *user;                     /* nb_pass.user */
} nb_pass_ctx;

typedef struct nb_pass {
    uint32_t size;
    const char *name;         /* as in pipelines: lower case, digits, '-' */
    const char *summary;      /* one line */
    const nb_option *options; /* or NULL */
    nb_pass_result (*run)(nb_pass_ctx *ctx);
    void *user;
    /* Bits of what the pass promises: the driver checks them with --check-each. */
    uint32_t promises;
} nb_pass;

#define NB_PASS_KEEPS_BITS    1u /* outputs are equal bit for bit before and after */
#define NB_PASS_KEEPS_NUMBERS 2u /* outputs agree within float tolerance */
/* neither: the pass may change numbers (quantization) */

typedef struct nb_plugin {
    uint32_t size;
    uint32_t abi_major, abi_minor;
    const char *name;
    const nb_pass *const *passes; /* NULL-terminated */
} nb_plugin;
#define NB_PLUGIN_SYMBOL "nb_plugin_v0"

/* A tensor for run() and constants. `elem` is an ONNX data type number. */
typedef struct nb_array {
    int32_t elem, rank;
    int64_t dims[8];
    const void *data;
} nb_array;

typedef void (*nb_tap_fn)(void *user, const nb_value *value, const nb_array *array);

typedef enum nb_level { NB_LEVEL_ERROR, NB_LEVEL_WARNING, NB_LEVEL_INFO } nb_level;

/* An attribute for build(); the member that counts follows from the op's declaration. */
typedef struct nb_attr_arg {
    const char *name;
    int64_t i;
    double f;
    const char *s; /* strings, element types ("f32"), quant descriptors by name */
    const int64_t *ints;
    const nb_value *const *dims_of; /* reserved, NULL */
    const char *const *dims;        /* dimension expressions as text: "B", "P+S", "64" */
    size_t count;                   /* of ints or dims */
} nb_attr_arg;

struct nb_pass_host {
    uint32_t size;
    uint32_t abi_major, abi_minor;

    /* ---- walking: ops in order, values, their text ---- */
    nb_op *(*first_op)(nb_graph *graph);     /* NULL: empty */
    nb_op *(*next_op)(const nb_op *op);      /* NULL after the last */
    const char *(*op_name)(const nb_op *op); /* "matmul" */
    const char *(*op_node)(const nb_op *op); /* the ONNX node it came from, "" if none */
    const char *(*op_text)(nb_pass_ctx *ctx,
                           const nb_op *op); /* its line of .nir; scratch memory */
    size_t (*operand_count)(const nb_op *op);
    nb_value *(*operand)(const nb_op *op, size_t i); /* NULL: not given */
    size_t (*result_count)(const nb_op *op);
    nb_value *(*result)(const nb_op *op, size_t i);
    nb_op *(*defining_op)(const nb_value *value); /* NULL: input or constant */
    size_t (*use_count)(const nb_value *value);
    nb_op *(*user)(const nb_value *value, size_t i); /* i-th use */
    const char *(*value_name)(const nb_value *value);
    int32_t (*value_elem)(const nb_value *value); /* ONNX data type of the codes */
    int32_t (*value_rank)(const nb_value *value);
    int64_t (*value_dim)(const nb_value *value, int32_t axis);          /* -1: not constant */
    const char *(*value_type)(nb_pass_ctx *ctx, const nb_value *value); /* "f32[B,4]"; scratch */
    int (*is_const)(const nb_value *value);
    int (*is_quantized)(const nb_value *value);
    /* Attributes: 0 when the op has none of that name. */
    int (*attr_int)(const nb_op *op, const char *name, int64_t *out);
    int (*attr_float)(const nb_op *op, const char *name, double *out);
    int (*attr_ints)(const nb_op *op, const char *name, const int64_t **out, size_t *count);
    size_t (*input_count)(const nb_graph *graph);
    nb_value *(*input)(const nb_graph *graph, size_t i);
    size_t (*output_count)(const nb_graph *graph);
    nb_value *(*output)(const nb_graph *graph, size_t i);

    /* ---- constants ---- */
    /* Data of a constant, row-major; 0 and a diagnostic when it is not one. */
    int (*const_data)(nb_pass_ctx *ctx, const nb_value *value, nb_array *out);
    /* A new constant; the data is copied. NULL after a diagnostic. */
    nb_value *(*make_const)(nb_pass_ctx *ctx, const char *name, const nb_array *array);

    /* ---- editing; new ops are placed before `before` and take its location ---- */
    nb_value *(*build)(nb_pass_ctx *ctx, nb_op *before, const char *op, nb_value *const *operands,
                       size_t n_operands, const nb_attr_arg *attrs, size_t n_attrs);
    int (*set_operand)(nb_pass_ctx *ctx, nb_op *op, size_t i, nb_value *value);
    int (*replace_uses)(nb_pass_ctx *ctx, nb_value *from, nb_value *to);
    int (*remove_op)(nb_pass_ctx *ctx, nb_op *op); /* its results must be unused */
    size_t (*sweep)(nb_pass_ctx *ctx);             /* removes what nothing uses */

    /* ---- numbers: executes the graph on inputs (one per graph input) ---- */
    /* taps[i] is seen by `seen` in order of execution; outputs may be NULL or have one entry per
     * output, whose data lives until the pass ends. 0 after a diagnostic. */
    int (*run)(nb_pass_ctx *ctx, const nb_array *inputs, nb_array *outputs,
               const nb_value *const *taps, size_t n_taps, nb_tap_fn seen, void *user);
    /* Calibration samples the user gave (--calib): inputs for run(); 0 when there is no such
     * sample. */
    size_t (*sample_count)(nb_pass_ctx *ctx);
    int (*sample)(nb_pass_ctx *ctx, size_t i, const nb_array **inputs);

    /* ---- talking ---- */
    void (*report)(nb_pass_ctx *ctx, nb_level level, const nb_op *op, const char *fmt, ...);
    void (*help)(nb_pass_ctx *ctx, const char *fmt, ...); /* belongs to the last report */

    /* ---- memory that goes when the pass ends ---- */
    void *(*scratch)(nb_pass_ctx *ctx, size_t size); /* zeroed, never NULL */

    /* ---- extensions by name, e.g. "nb.rewrite/0"; NULL when unknown ---- */
    const void *(*query)(nb_pass_ctx *ctx, const char *extension);
};

#ifdef __cplusplus
}
#endif
#endif
