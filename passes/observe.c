/* Statistics of one value over all samples (observe.h). */
#include "passes/observe.h"

#include <math.h>
#include <stdlib.h>

/* What each sample counts in the moving average, as in other calibrators. */
#define AVERAGE_SHARE 0.01

nb_observer *nb_observer_create(nb_arena *arena, int axis, int64_t channels) {
    nb_observer *o = NB_NEW(arena, nb_observer);
    size_t n = (size_t)channels;
    *o = (nb_observer){.axis = axis, .channels = channels, .seen = NB_NEW(arena, nb_seen)};
    o->sum = NB_NEW_ARRAY(arena, double, 2 * n + 1);
    o->sum_abs = o->sum + n;
    o->low = NB_NEW_ARRAY(arena, float, 2 * n + 1);
    o->high = o->low + n;
    for (size_t c = 0; c < n; c++) {
        o->low[c] = INFINITY;
        o->high[c] = -INFINITY;
    }
    o->state[0] = (nb_part){o->seen, sizeof *o->seen};
    o->state[1] = (nb_part){o->sum, 2 * n * sizeof *o->sum};
    o->state[2] = (nb_part){o->low, 2 * n * sizeof *o->low};
    return o;
}

/* Returns |v|. */
static inline float add_value(nb_observer *o, int64_t channel, float v) {
    float a = fabsf(v);
    if (!isfinite(v)) {
        o->seen->bad++;
        return 0;
    }
    if (v < o->low[channel]) o->low[channel] = v;
    if (v > o->high[channel]) o->high[channel] = v;
    o->sum[channel] += (double)v;
    o->sum_abs[channel] += (double)a;
    nb_histogram_add(&o->seen->histogram, a);
    return a;
}

void nb_observe(nb_observer *o, const nb_tensor *t) {
    const float *x = t->data;
    int64_t count = nb_tensor_count(t), inner = 1;
    if (count == 0) return;
    for (int d = o->axis + 1; d < t->rank; d++) inner *= t->dims[d];
    float largest = 0;
    for (const float *end = x + count; x < end;) {
        for (int64_t c = 0; c < o->channels; c++) {
            for (int64_t i = 0; i < inner; i++) {
                float a = add_value(o, c, *x++);
                largest = a > largest ? a : largest;
            }
        }
    }
    nb_seen *s = o->seen;
    s->average += s->samples ? AVERAGE_SHARE * ((double)largest - s->average) : (double)largest;
    s->samples++;
    s->rows += count / o->channels;
}

/* ---- what came of it ------------------------------------------------------------------------ */

static void set_range(nb_stats *s) {
    s->min = s->max = s->clip = 0;
    for (int64_t c = 0; c < s->channels; c++) {
        s->amax[c] = fmaxf(-s->low[c], s->high[c]);
        s->min = c ? fminf(s->min, s->low[c]) : s->low[c];
        s->max = c ? fmaxf(s->max, s->high[c]) : s->high[c];
        s->clip = fmaxf(s->clip, s->amax[c]);
    }
}

nb_stats *nb_observer_stats(const nb_observer *o, nb_arena *arena) {
    nb_stats *s = NB_NEW(arena, nb_stats);
    size_t n = (size_t)o->channels;
    *s = (nb_stats){.channels = o->channels,
                    .rows = o->seen->rows,
                    .amax = NB_NEW_ARRAY(arena, float, n + 1),
                    .mean_abs = NB_NEW_ARRAY(arena, float, n + 1),
                    .mean = NB_NEW_ARRAY(arena, float, n + 1),
                    .low = NB_NEW_ARRAY(arena, float, n + 1),
                    .high = NB_NEW_ARRAY(arena, float, n + 1),
                    .histogram = &o->seen->histogram};
    for (size_t c = 0; c < n && s->rows; c++) {
        s->mean[c] = (float)(o->sum[c] / (double)s->rows);
        s->mean_abs[c] = (float)(o->sum_abs[c] / (double)s->rows);
        s->low[c] = o->low[c];
        s->high[c] = o->high[c];
    }
    set_range(s);
    return s;
}

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

nb_outliers nb_outliers_of(const float *range, int64_t n, nb_arena *scratch) {
    nb_outliers o = {0};
    if (n == 0) return o;
    float *sorted = NB_NEW_ARRAY(scratch, float, (size_t)n);
    for (int64_t i = 0; i < n; i++) sorted[i] = fabsf(range[i]);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    o.median = sorted[n / 2];
    o.largest = sorted[n - 1];
    for (int64_t i = n; i-- > 0 && sorted[i] > NB_OUTLIER * o.median;) o.count++;
    if (!(o.median > 0)) o.count = 0;
    return o;
}

void nb_stats_divide(nb_stats *s, const float *factor) {
    for (int64_t c = 0; c < s->channels; c++) {
        s->low[c] /= factor[c];
        s->high[c] /= factor[c];
        s->mean[c] /= factor[c];
        if (s->mean_abs) s->mean_abs[c] /= factor[c];
    }
    set_range(s);
    s->histogram = NULL;
}

void nb_stats_subtract(nb_stats *s, const float *middle) {
    for (int64_t c = 0; c < s->channels; c++) {
        s->low[c] -= middle[c];
        s->high[c] -= middle[c];
        s->mean[c] -= middle[c];
    }
    set_range(s);
    s->mean_abs = NULL;
    s->histogram = NULL;
}
