/* Vectors that are rows become columns. */
#ifndef NB_KERNELS_TURN_H
#define NB_KERNELS_TURN_H

#include "codegen/cg.h"

/* Four vectors of `lanes` lanes of 4 bytes: within each quarter of four lanes, a transpose. Lane
 * 4 q + j of v[i] becomes lane 4 q + i of v[j]. */
void nb_turn(cg *g, int lanes, cg_val v[4]);

/* Codes of `count` inputs, each a vector of 16 places, i32 of which `bytes` bytes count, 16 for all
 * inputs at most: those of a place go side by side to `to`, of the next `apart` bytes on. `n`: how
 * many places there are, or NULL: 16. */
void nb_turn_codes(cg *g, const cg_val *codes, int count, int bytes, cg_val to, int64_t apart,
                   cg_val n);

#endif
