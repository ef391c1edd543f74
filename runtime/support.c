/* Error texts, memory from the user's allocator, sizes (support.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/support.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT ((size_t)64)
/* Where blocks of that size begin. */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM (2 * HUGE_PAGE)

nb_rt_status nb_rt_fail(char *err, nb_rt_status status, const char *format, ...) {
    if (!err) return status;
    va_list args;
    va_start(args, format);
    vsnprintf(err, sizeof(nb_error_text), format, args);
    va_end(args);
    for (char *p = err; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = '?';
    return status;
}

const char *nb_print_dims(nb_dims_text text, const int64_t *dims, int32_t rank) {
    size_t at = 0;
    text[at++] = '[';
    for (int32_t i = 0; i < rank; i++) {
        size_t room = sizeof(nb_dims_text) - at;
        const char *comma = i > 0 ? "," : "";
        int n = dims[i] == -1 ? snprintf(text + at, room, "%s?", comma)
                              : snprintf(text + at, room, "%s%" PRId64, comma, dims[i]);
        at += (size_t)n;
    }
    text[at++] = ']';
    text[at] = 0;
    return text;
}

bool nb_bytes_of(const int64_t *dims, int32_t rank, int32_t elem, size_t *bytes) {
    const int64_t bits = (int64_t)nb_elem_bits(elem);
    int64_t product = bits < 8 ? 1 : bits / 8;
    bool empty = false, fits = true;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] < 0) return false;
        if (dims[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(product, dims[i], &product))
            fits = false;
    }
    /* An empty tensor is fine whatever its other dimensions. */
    if (empty)
        product = 0;
    else if (!fits || product > PTRDIFF_MAX)
        return false;
    if (bits < 8) product = product / (8 / bits) + (product % (8 / bits) != 0);
    *bytes = (size_t)product;
    return true;
}

size_t nb_elem_bytes(int32_t elem) { return nb_elem_bits(elem) / 8; }

size_t nb_elem_bits(int32_t elem) {
    switch (elem) {
    case 25: /* uint2 */
    case 26: /* int2 */
        return 2;
    case 21: /* uint4 */
    case 22: /* int4 */
    case 23: /* float4e2m1 */
        return 4;
    case 2:  /* uint8 */
    case 3:  /* int8 */
    case 9:  /* bool */
    case 17: /* float8e4m3fn */
    case 18: /* float8e4m3fnuz */
    case 19: /* float8e5m2 */
    case 20: /* float8e5m2fnuz */
    case 24: /* float8e8m0 */
        return 8;
    case 4:  /* uint16 */
    case 5:  /* int16 */
    case 10: /* float16 */
    case 16: /* bfloat16 */
        return 16;
    case 1:  /* float */
    case 6:  /* int32 */
    case 12: /* uint32 */
        return 32;
    case 7:  /* int64 */
    case 11: /* double */
    case 13: /* uint64 */
    case 14: /* complex64 */
        return 64;
    case 15: /* complex128 */
        return 128;
    default:
        return 0;
    }
}

static void *default_allocate(void *user, size_t size) {
    (void)user;
    if (size < HUGE_FROM) return aligned_alloc(ALIGNMENT, size);
    void *block = aligned_alloc(HUGE_PAGE, (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    /* Without huge pages it is merely slower, so a refusal does not matter. */
    if (block) madvise(block, size, MADV_HUGEPAGE);
    return block;
}

static void default_release(void *user, void *block) {
    (void)user;
    free(block);
}

const nb_memory nb_default_memory = {default_allocate, default_release, NULL};

void *nb_allocate(const nb_memory *memory, size_t size, const char *what, char *err) {
    void *block = NULL;
    /* aligned_alloc wants a multiple of the alignment. */
    if (size <= PTRDIFF_MAX - ALIGNMENT) {
        size_t rounded = size == 0 ? ALIGNMENT : (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        block = memory->allocate(memory->user, rounded);
    }
    if (!block) {
        nb_rt_fail(err, NB_RT_NO_MEMORY, "no memory for %s: %zu bytes", what, size);
    } else if ((uintptr_t)block % ALIGNMENT != 0) {
        memory->release(memory->user, block);
        block = NULL;
        nb_rt_fail(err, NB_RT_NO_MEMORY,
                   "no memory for %s: the allocator gave %zu bytes that are not "
                   "64-byte aligned",
                   what, size);
    }
    return block;
}

void *nb_allocate_zeroed(const nb_memory *memory, size_t size, const char *what, char *err) {
    void *block = nb_allocate(memory, size, what, err);
    return block ? memset(block, 0, size) : NULL;
}

void nb_release(const nb_memory *memory, void *block) {
    if (block) memory->release(memory->user, block);
}

nb_rt_status nb_reserve(const nb_memory *memory, nb_buffer *buffer, size_t size, const char *what,
                        char *err) {
    if (buffer->data && buffer->size >= size) return NB_RT_OK;
    size_t more = buffer->size + buffer->size / 2;
    if (more > size && more < PTRDIFF_MAX) size = more;
    /* First back, then new: what was inside is not needed, and the peak stays lower. */
    nb_drop(memory, buffer);
    buffer->data = nb_allocate(memory, size, what, err);
    if (!buffer->data) return NB_RT_NO_MEMORY;
    buffer->size = size;
    return NB_RT_OK;
}

void nb_drop(const nb_memory *memory, nb_buffer *buffer) {
    nb_release(memory, buffer->data);
    buffer->data = NULL;
    buffer->size = 0;
}
