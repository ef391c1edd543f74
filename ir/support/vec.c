/* Growth of NB_VEC arrays: doubling, so that n pushes copy fewer than 2n items in total. */
#include "ir/support/vec.h"

#include <string.h>

void *nb_vec_grow(nb_arena *arena, const void *items, size_t item_size, size_t *capacity) {
    size_t old = *capacity;
    /* Doubling cannot overflow: an arena has no room for an array of SIZE_MAX / 2 bytes. */
    size_t grown = old == 0 ? 8 : 2 * old;
    void *copy = nb_alloc_array(arena, grown, item_size);
    if (old > 0) memcpy(copy, items, old * item_size);
    *capacity = grown;
    return copy;
}
