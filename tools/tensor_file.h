/* Tensors in files: NumPy's .npy, ONNX's TensorProto .pb. */
#ifndef NBT_TENSOR_FILE_H
#define NBT_TENSOR_FILE_H

#include "ir/eval.h"

/* By the name's ending. Data is in `arena`. */
nb_status nbt_read_tensor(const char *path, nb_arena *arena, nb_diags *diags, nb_tensor *out);
nb_status nbt_write_npy(const char *path, const nb_tensor *t, nb_diags *diags);
/* A file's bytes, NUL-terminated. */
nb_status nbt_read_file(const char *path, nb_arena *arena, nb_diags *diags, char **text,
                        size_t *size);
/* A 1-D .npy of integers as i64. */
nb_status nbt_read_tokens(const char *path, nb_arena *arena, nb_diags *diags, int64_t **tokens,
                          size_t *count);

#endif
