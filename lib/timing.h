/* Wall-clock time and what is made of several measurements. */
#ifndef NBL_TIMING_H
#define NBL_TIMING_H

#include <stddef.h>

double nbl_now(void); /* seconds, monotonic */

typedef struct nbl_times {
    double min, median, max;
} nbl_times;
/* Sorts `seconds`; n >= 1. */
nbl_times nbl_times_of(double *seconds, size_t n);

#endif
