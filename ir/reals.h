/* Constants as numbers: what floats and integers are, and what codes stand for. */
#ifndef NB_REALS_H
#define NB_REALS_H

#include "ir/codes.h"

typedef struct nb_reals {
    nb_tensor tensor;
    nb_codes codes; /* of a quantized constant */
    int64_t count;
} nb_reals;

/* Borrows the constant's bytes. Scales that are codes are written out in `arena`. The reals point
 * into themselves: do not copy them. */
void nb_reals_open(nb_reals *r, const nb_value *constant, nb_arena *arena);
double nb_real(const nb_reals *r, int64_t i);

#endif
