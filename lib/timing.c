/* Time (timing.h). */
#include "lib/timing.h"

#include <stdlib.h>
#include <time.h>

double nbl_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

nbl_times nbl_times_of(double *seconds, size_t n) {
    qsort(seconds, n, sizeof *seconds, ascending);
    return (nbl_times){.min = seconds[0], .median = seconds[n / 2], .max = seconds[n - 1]};
}
