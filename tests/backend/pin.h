/* A model with all tensors of its inputs but the first pinned to given tensors. */
#ifndef NB_PIN_H
#define NB_PIN_H

#include <stddef.h>

typedef struct bytes {
    void *data; /* from malloc */
    size_t size;
} bytes;

/* The whole file; data is NULL when it cannot be read. */
bytes read_bytes(const char *path);

/* The model in which input i, from 1 to n-1, is the initializer `inputs[i]` (a serialized
 * TensorProto); sequences stay inputs. data is NULL when there is nothing to pin or a file is not
 * what it should be. */
bytes pin_inputs(bytes model, const bytes *inputs, size_t n);

#endif
