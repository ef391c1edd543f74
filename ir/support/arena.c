/* The arena is a list of zeroed chunks whose sizes double up to CHUNK_MAX; the first in the list is
 * being filled. An allocation that would waste much of a chunk gets one of its own, behind the
 * first, so that filling goes on.
 *
 * Under the address sanitizer unused memory is poisoned and each allocation is followed by a gap,
 * so that overruns inside a chunk are found as with malloc. */
#include "ir/support/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NB_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define NB_ASAN 1
#endif

#ifdef NB_ASAN
#include <sanitizer/asan_interface.h>
#define GAP ((size_t)ALIGNMENT)
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define GAP                                        ((size_t)0)
#endif

#define ALIGNMENT 16
#define CHUNK_MIN ((size_t)4096)
#define CHUNK_MAX ((size_t)1 << 20)
/* No single allocation of a real program comes near; leaves room for rounding up. */
#define SIZE_LIMIT (SIZE_MAX / 4)

typedef struct chunk {
    struct chunk *next;
    size_t used, size; /* of data */
    _Alignas(ALIGNMENT) unsigned char data[];
} chunk;

struct nb_arena {
    chunk *first;
    size_t next_size; /* of the next shared chunk */
    nb_oom_fn oom;
    void *user;
};

static _Noreturn void out_of_memory(nb_oom_fn oom, void *user) {
    if (oom != NULL) oom(user);
    abort();
}

nb_arena *nb_arena_create(nb_oom_fn oom, void *user) {
    nb_arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) out_of_memory(oom, user);
    *arena = (nb_arena){.next_size = CHUNK_MIN, .oom = oom, .user = user};
    return arena;
}

nb_arena *nb_arena_create_like(const nb_arena *parent) {
    return nb_arena_create(parent->oom, parent->user);
}

nb_oom_fn nb_arena_oom(const nb_arena *arena, void **user) {
    *user = arena->user;
    return arena->oom;
}

void nb_arena_destroy(nb_arena *arena) {
    if (arena == NULL) return;
    for (chunk *c = arena->first, *next; c != NULL; c = next) {
        next = c->next;
        ASAN_UNPOISON_MEMORY_REGION(c->data, c->size);
        free(c);
    }
    free(arena);
}

static chunk *new_chunk(const nb_arena *arena, size_t size) {
    chunk *c = calloc(1, sizeof *c + size);
    if (c == NULL) out_of_memory(arena->oom, arena->user);
    c->size = size;
    ASAN_POISON_MEMORY_REGION(c->data, size);
    return c;
}

static void *take(chunk *c, size_t size, size_t room) {
    unsigned char *memory = c->data + c->used;
    c->used += room;
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
    return memory;
}

void *nb_alloc(nb_arena *arena, size_t size) {
    if (size > SIZE_LIMIT) out_of_memory(arena->oom, arena->user);
    /* An empty allocation takes room too: it has an address of its own. */
    size_t room = ((size == 0 ? 1 : size) + GAP + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    chunk *first = arena->first;
    if (first != NULL && room <= first->size - first->used) return take(first, size, room);

    if (room > arena->next_size / 4) {
        chunk *own = new_chunk(arena, room);
        if (first == NULL) {
            arena->first = own;
        } else {
            own->next = first->next;
            first->next = own;
        }
        return take(own, size, room);
    }
    chunk *shared = new_chunk(arena, arena->next_size);
    shared->next = first;
    arena->first = shared;
    if (arena->next_size < CHUNK_MAX) arena->next_size *= 2;
    return take(shared, size, room);
}

void *nb_alloc_array(nb_arena *arena, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) out_of_memory(arena->oom, arena->user);
    return nb_alloc(arena, total);
}

char *nb_strndup(nb_arena *arena, const char *text, size_t length) {
    if (length > SIZE_LIMIT) out_of_memory(arena->oom, arena->user);
    char *copy = nb_alloc(arena, length + 1);
    if (length > 0) memcpy(copy, text, length);
    return copy;
}

char *nb_strdup(nb_arena *arena, const char *text) { return nb_strndup(arena, text, strlen(text)); }

char *nb_vformat(nb_arena *arena, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, fmt, args);
    /* The only failures left to vsnprintf here are a text of over INT_MAX bytes and no memory. */
    if (length < 0) out_of_memory(arena->oom, arena->user);
    char *text = nb_alloc(arena, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}

char *nb_format(nb_arena *arena, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *text = nb_vformat(arena, fmt, args);
    va_end(args);
    return text;
}
