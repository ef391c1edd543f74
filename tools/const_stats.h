/* The numbers of a constant, for pages. */
#ifndef NBT_CONST_STATS_H
#define NBT_CONST_STATS_H

#include "ir/ir.h"

#define NBT_STATS_BINS 48

/* Of what its codes stand for, if it is of codes. */
typedef struct nbt_const_stats {
    int64_t count, zeros, bad;        /* bad: NaN or infinite, which the rest leaves out */
    double min, max, mean, deviation; /* infinite and 0 when there is no other number */
    int64_t bins[NBT_STATS_BINS];     /* of equal width from min to max */
} nbt_const_stats;

/* Reads all of it, twice. */
nbt_const_stats nbt_const_stats_of(const nb_value *constant, nb_arena *scratch);

#endif
