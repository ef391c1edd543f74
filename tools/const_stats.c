/* The numbers of a constant (const_stats.h). */
#include "tools/const_stats.h"

#include "ir/reals.h"

#include <math.h>

nbt_const_stats nbt_const_stats_of(const nb_value *constant, nb_arena *scratch) {
    nbt_const_stats s = {.min = INFINITY, .max = -INFINITY};
    double sum = 0, squares = 0;
    nb_reals r;
    nb_reals_open(&r, constant, scratch);
    s.count = r.count;
    for (int64_t i = 0; i < r.count; i++) {
        const double x = nb_real(&r, i);
        s.zeros += x == 0;
        s.bad += !isfinite(x);
        if (!isfinite(x)) continue;
        s.min = fmin(s.min, x);
        s.max = fmax(s.max, x);
        sum += x;
    }
    const int64_t good = s.count - s.bad;
    if (!good) return s;
    const double width = (s.max - s.min) / NBT_STATS_BINS;
    s.mean = sum / (double)good;
    for (int64_t i = 0; i < r.count; i++) {
        const double x = nb_real(&r, i), bin = width > 0 ? (x - s.min) / width : 0;
        if (!isfinite(x)) continue;
        squares += (x - s.mean) * (x - s.mean);
        s.bins[bin < NBT_STATS_BINS ? (int)bin : NBT_STATS_BINS - 1]++;
    }
    s.deviation = sqrt(squares / (double)good);
    return s;
}
