/* The safetensors file format (huggingface/safetensors): names, types, shapes and bytes of tensors.
 *
 *   u64 n, little-endian | n bytes of JSON | data
 *   {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [from, to]}, ..., "__metadata__":
 * ...}
 *
 * Files come from anyone: every offset, size and name is checked before it is used. */
#ifndef NB_PASSES_SAFETENSORS_H
#define NB_PASSES_SAFETENSORS_H

#include "ir/eval.h"

typedef struct nb_safetensor {
    const char *name;
    nb_tensor tensor; /* its data is that of the file, aligned or not */
} nb_safetensor;

typedef NB_VEC(nb_safetensor) nb_safetensors;

/* The tensors in the order of the file's header; `path` is for messages. `bytes` outlives them. */
nb_status nb_safetensors_parse(const char *path, const uint8_t *bytes, size_t size, nb_arena *arena,
                               nb_diags *diags, nb_safetensors *out);

#endif
