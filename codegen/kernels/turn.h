/* Vectors that are rows become columns. */
#ifndef NB_KERNELS_TURN_H
#define NB_KERNELS_TURN_H

#include "codegen/cg.h"

/* Four vectors of `lanes` lanes of 4 bytes: within each quarter of four lanes, a transpose. Lane
 * 4 q + j of v[i] becomes lane 4 q + i of v[j]. */
void nb_turn(cg *g, int lanes, cg_val v[4]);

#endif
