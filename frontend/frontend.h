/* ONNX models as graphs. */
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

#endif
