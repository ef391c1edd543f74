/* What all files of the runtime share: error texts, memory from the user's allocator, sizes. */
#ifndef NB_RUNTIME_SUPPORT_H
#define NB_RUNTIME_SUPPORT_H

#include "runtime/nb_runtime.h"

#include <stdbool.h>

/* Writes one line to `err` (unless NULL) and returns `status`, so that callers can return it.
 * Control characters become '?': names come from files and may end up on a terminal. */
__attribute__((format(printf, 3, 4))) nb_rt_status nb_rt_fail(char *err, nb_rt_status status,
                                                              const char *format, ...);

/* "[1,2,?]" for messages; -1 is a question mark. */
typedef char nb_dims_text[24 * NB_MODEL_MAX_RANK];
const char *nb_print_dims(nb_dims_text text, const int64_t *dims, int32_t rank);

/* Bytes of a tensor; false when a dimension is negative or the product exceeds PTRDIFF_MAX. */
bool nb_bytes_of(const int64_t *dims, int32_t rank, int32_t elem, size_t *bytes);

typedef struct nb_memory {
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *memory);
    void *user;
} nb_memory;

extern const nb_memory nb_default_memory;

/* `what` is for the message. NULL after writing `err`. Memory is 64-byte aligned. */
void *nb_allocate(const nb_memory *memory, size_t size, const char *what, char *err);
void *nb_allocate_zeroed(const nb_memory *memory, size_t size, const char *what, char *err);
void nb_release(const nb_memory *memory, void *block);

/* Memory that is kept between runs and replaced when too small. */
typedef struct nb_buffer {
    unsigned char *data;
    size_t size;
} nb_buffer;

/* Makes room for `size` bytes and never leaves data NULL on success. Contents are lost when the
 * buffer is replaced; it then grows by half at least, so that slow growth seldom allocates. */
nb_rt_status nb_reserve(const nb_memory *memory, nb_buffer *buffer, size_t size, const char *what,
                        char *err);
void nb_drop(const nb_memory *memory, nb_buffer *buffer);

#endif
