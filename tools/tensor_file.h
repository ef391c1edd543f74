/* Tensors in files: NumPy's .npy and .npz, ONNX's TensorProto .pb. */
#ifndef NBT_TENSOR_FILE_H
#define NBT_TENSOR_FILE_H

#include "ir/eval.h"

#include <stdio.h>

typedef struct nbt_named_tensor {
    const char *name;
    nb_tensor tensor;
} nbt_named_tensor;

/* .npy, or .pb by the name's ending. Data is in `arena`. */
nb_status nbt_read_tensor(const char *path, nb_arena *arena, nb_diags *diags, nb_tensor *out);
/* The bytes of an .npy file; `path` is for messages. */
nb_status nbt_parse_npy(const char *path, const char *bytes, size_t size, nb_arena *arena,
                        nb_diags *diags, nb_tensor *out);
/* All arrays of an .npz archive, in its order. */
nb_status nbt_read_npz(const char *path, nb_arena *arena, nb_diags *diags, nbt_named_tensor **out,
                       size_t *count);
/* bf16, which NumPy lacks, is written as f32. */
nb_status nbt_write_npy(const char *path, const nb_tensor *t, nb_diags *diags);
/* An .npz archive, whole or not at all. */
nb_status nbt_write_npz(const char *path, const nbt_named_tensor *arrays, size_t n,
                        nb_diags *diags);
/* What an .npy file of the tensor holds; false: NumPy has no such type. */
bool nbt_print_npy(FILE *f, const nb_tensor *t);
/* A file's bytes, NUL-terminated. */
nb_status nbt_read_file(const char *path, nb_arena *arena, nb_diags *diags, char **text,
                        size_t *size);
/* A 1-D .npy of integers as i64. */
nb_status nbt_read_tokens(const char *path, nb_arena *arena, nb_diags *diags, int64_t **tokens,
                          size_t *count);

#endif
