/* Wall-clock time and what is made of several measurements. */
#ifndef NBT_TIMING_H
#define NBT_TIMING_H

#include <stddef.h>

double nbt_now(void); /* seconds, monotonic */

typedef struct nbt_times {
    double min, median, max;
} nbt_times;
/* Sorts `seconds`; n >= 1. */
nbt_times nbt_times_of(double *seconds, size_t n);

#endif
