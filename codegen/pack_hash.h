/* The hash of packed weights in pieces. runtime/hash.h has it; its names clash with ir/support's,
 * so that only pack_hash.c includes it. */
#ifndef NB_PACK_HASH_H
#define NB_PACK_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct nb_hasher {
    uint64_t state[16];
} nb_hasher;

void nb_hasher_start(nb_hasher *hasher);
void nb_hasher_add(nb_hasher *hasher, const void *data, size_t size);
uint64_t nb_hasher_end(const nb_hasher *hasher);

#endif
