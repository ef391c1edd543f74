/* ONNX models as graphs, and graphs as ONNX models. */
#ifndef NB_FRONTEND_H
#define NB_FRONTEND_H

#include "ir/ir.h"

/* Reads the model at `path` and lowers it to a graph in stage FLOAT. The file stays mapped while
 * the graph lives. Errors: NB_IO (cannot read), NB_MALFORMED (breaks ONNX's rules), NB_UNSUPPORTED
 * (operators that Nibble lacks, all listed), NB_LIMIT. For `oom` see arena.h. */
nb_status nb_import(const char *path, nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out);

/* The same with inputs that are numbers from now on: `pins` are "NAME=NUMBER", and all elements of
 * the input are that number. What they decide, which branch of an If runs, is decided at import.
 * NB_USAGE for names that no input has. */
nb_status nb_import_pinned(const char *path, size_t n_pins, const char *const *pins, nb_oom_fn oom,
                           void *user, nb_diags *diags, nb_graph **out);

/* The same from memory, which must outlive the graph. External data is looked up in `directory`;
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
