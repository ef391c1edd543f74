/* ONNX models as graphs, and graphs as ONNX models. */
#ifndef NB_FRONTEND_H
#define NB_FRONTEND_H

#include "ir/ir.h"

/* Reads the model at `path` and lowers it to a graph in stage FLOAT. The file stays mapped while
 * the graph lives. Errors: NB_IO (cannot read), NB_MALFORMED (breaks ONNX's rules), NB_UNSUPPORTED
 * (operators that Nibble lacks, all listed), NB_LIMIT. For `oom` see arena.h. */
nb_status nb_import(const char *path, nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out);

/* An operator that Nibble lacks, and what stands for it. */
struct nb_builder;
typedef struct nb_custom_op {
    const char *domain, *op; /* the domain is not ONNX's own */
    uint32_t inputs;         /* that each node has */
    /* Attributes, as nb_op_def of nb_pass.h has them: "axis:i=-1 pads:I alpha:f". NULL: none. */
    const char *attributes;
    /* Builds what a node's output is; NULL after a diagnostic. Operands are the inputs, then
     * constants of attributes of floats; numbers are integers of attributes. */
    nb_value *(*make)(const struct nb_custom_op *self, struct nb_builder *b,
                      nb_value *const *operands, size_t n_operands, const int64_t *numbers,
                      size_t n_numbers);
    const void *user; /* for make */
} nb_custom_op;

typedef struct nb_import_options {
    const nb_custom_op
        *custom; /* [n_custom] more operators, which come before those of the table */
    size_t n_custom;
    /* [n_pins] inputs that are numbers from now on, "NAME=NUMBER": all elements are that number.
     * What they decide, which branch of an If runs, is decided at import. NB_USAGE for names that
     * no input has. */
    const char *const *pins;
    size_t n_pins;
} nb_import_options;

/* nb_import with options; NULL: none. */
nb_status nb_import_with(const char *path, const nb_import_options *options, nb_oom_fn oom,
                         void *user, nb_diags *diags, nb_graph **out);

/* How often a model has an operator. */
typedef struct nb_operator_use {
    const char *name; /* "Conv", "com.microsoft::MatMulNBits" */
    const char *node; /* the first, "" when it has no name */
    size_t nodes;
    bool supported; /* at the model's opset */
} nb_operator_use;

/* The operators of a model in the order in which they come first, whether it can be imported or
 * not. In memory of the diagnostics. */
nb_status nb_import_survey(const char *path, const nb_custom_op *custom, size_t n_custom,
                           nb_diags *diags, const nb_operator_use **out, size_t *n);

/* nb_import from memory, which must outlive the graph. External data is looked up in `directory`;
 * NULL refuses it. `name` is for messages. */
nb_status nb_import_bytes(const void *bytes, size_t size, const char *name, const char *directory,
                          nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out);

/* One TensorProto file (.pb), as ONNX's test data has them: element, shape and data in `arena`. */
struct nb_tensor;
nb_status nb_read_tensor_file(const char *path, nb_arena *arena, nb_diags *diags,
                              struct nb_tensor *out);

/* "domain::Op" of every supported operator, in the order of the table; ends with NULL. */
const char *const *nb_import_operators(void);

/* How quantized layers are written. */
typedef enum nb_onnx_form {
    NB_ONNX_QDQ,         /* DequantizeLinear and MatMul of ai.onnx */
    NB_ONNX_MATMUL_NBITS /* com.microsoft MatMulNBits where it takes the weights */
} nb_onnx_form;

typedef enum nb_onnx_data {
    NB_ONNX_DATA_AUTO,     /* in the file up to 2 GB, beside it above */
    NB_ONNX_DATA_EMBEDDED, /* in the file; NB_LIMIT above 2 GB */
    NB_ONNX_DATA_EXTERNAL  /* beside it, in PATH.data */
} nb_onnx_data;

typedef struct nb_export_options {
    nb_onnx_form form;
    nb_onnx_data data;
} nb_export_options;

/* Writes the graph, of any stage, as an ONNX model (ir_version 10, opset 21). Names, shapes and
 * order of inputs and outputs are kept, weights keep their codes. Files appear whole or not at all;
 * weights are streamed. The graph is not changed (dimension expressions may be interned). Errors:
 * NB_UNSUPPORTED (operations that ONNX has not, all of them), NB_LIMIT, NB_IO. */
nb_status nb_export(nb_graph *g, const nb_export_options *options, const char *path,
                    nb_diags *diags);

/* Writes a decoder of llama's kind as GGUF version 3 (frontend/README.md, "GGUF"): codes in blocks
 * of GGUF's keep their bits, scales that are f32 are rounded to f16, and what has no block is F32.
 * Whole or not at all. NB_UNSUPPORTED names the op that a llama decoder has not. */
nb_status nb_export_gguf(nb_graph *g, const char *path, nb_diags *diags);

#endif
