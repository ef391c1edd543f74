/* Bump allocation with one lifetime: everything is released when the arena is destroyed.
 *
 * Memory is zeroed and 16-byte aligned. Allocation never returns NULL: when memory runs out the
 * arena calls the handler given at creation, which must not return (a longjmp or an exit); with no
 * handler the process aborts. Not thread-safe: one arena belongs to one thread at a time. */
#ifndef NB_ARENA_H
#define NB_ARENA_H

#include "ir/support/base.h"

#include <stdarg.h>

typedef struct nb_arena nb_arena;
typedef void (*nb_oom_fn)(void *user);

nb_arena *nb_arena_create(nb_oom_fn oom, void *user);
/* A new arena with the same out-of-memory handler as `parent`; destroyed separately. */
nb_arena *nb_arena_create_like(const nb_arena *parent);
void nb_arena_destroy(nb_arena *arena);
/* The handler, NULL when there is none, and what it is called with. */
nb_oom_fn nb_arena_oom(const nb_arena *arena, void **user);

/* `size` bytes, zeroed. */
void *nb_alloc(nb_arena *arena, size_t size);
/* `count * size` bytes, zeroed; overflow counts as running out of memory. */
void *nb_alloc_array(nb_arena *arena, size_t count, size_t size);
#define NB_NEW(arena, T)          ((T *)nb_alloc((arena), sizeof(T)))
#define NB_NEW_ARRAY(arena, T, n) ((T *)nb_alloc_array((arena), (n), sizeof(T)))

/* A NUL-terminated copy of `length` bytes at `text`. */
char *nb_strndup(nb_arena *arena, const char *text, size_t length);
char *nb_strdup(nb_arena *arena, const char *text);
char *nb_format(nb_arena *arena, const char *fmt, ...) NB_PRINTF(2, 3);
char *nb_vformat(nb_arena *arena, const char *fmt, va_list args) NB_PRINTF(2, 0);

#endif
