/* Orthonormal matrices that spread what stands out in one entry over all (QuIP#, Tseng et al.,
 * arXiv 2402.04396; QuaRot, Ashkboos et al., arXiv 2404.00456): random signs, then a Hadamard
 * matrix. */
#ifndef NB_PASSES_ROTATION_H
#define NB_PASSES_ROTATION_H

#include "ir/support/arena.h"

/* R, n x n: diag(signs) times blocks of H(order) x H(block) / sqrt(order * block) on the diagonal,
 * where x is Kronecker's product, H(block) is Sylvester's matrix and H(order) Paley's. */
typedef struct nb_rotation {
    int64_t n, order,
        block;          /* block a power of two; order * block divides n, but nb_rotation_plain's */
    const int8_t *core; /* H(order), row-major; NULL when order is 1 */
    const int8_t *signs; /* [n]; NULL: all 1 */
} nb_rotation;

/* One block for all n where there is a Hadamard matrix at hand: n = 2^k, 12 * 2^k, 20 * 2^k, 28 *
 * 2^k...; otherwise blocks of the largest power of two that divides n. */
nb_rotation nb_rotation_random(nb_arena *arena, int64_t n, uint64_t seed);
/* No signs: what op `hadamard` does to rows of n, which is its own inverse. */
nb_rotation nb_rotation_plain(int64_t n, int64_t block);

/* Vectors are rotated NB_ROTATION_LANES at a time, v[n][NB_ROTATION_LANES]: each lane, a row, by R
 * from the right; a column would be by R' from the left, which is the same. `room` holds order *
 * NB_ROTATION_LANES numbers. */
#define NB_ROTATION_LANES 16
void nb_rotation_apply(const nb_rotation *r, double *v, double *room);

#endif
