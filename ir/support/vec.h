/* Growable arrays in an arena. NB_VEC(T) declares the type; items are v.items[0 .. v.count-1]. */
#ifndef NB_VEC_H
#define NB_VEC_H

#include "ir/support/arena.h"

#define NB_VEC(T)               \
    struct {                    \
        T *items;               \
        size_t count, capacity; \
    }

#define nb_vec_push(arena, vec, item)                                                       \
    do {                                                                                    \
        if ((vec)->count == (vec)->capacity)                                                \
            (vec)->items =                                                                  \
                nb_vec_grow((arena), (vec)->items, sizeof *(vec)->items, &(vec)->capacity); \
        (vec)->items[(vec)->count++] = (item);                                              \
    } while (0)

/* At least doubles `capacity` and returns a copy of the items; the old copy stays in the arena. */
void *nb_vec_grow(nb_arena *arena, const void *items, size_t item_size, size_t *capacity);

#endif
