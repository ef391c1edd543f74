/* Statistics of one value over all samples: what nb_stats is made from.
 *
 * A tensor is taken as x[outer][channel][inner]: channels of a linear layer are the last axis,
 * those of conv the second. Values are added one after the other in row-major order, sums in
 * double, so that the result has the same bits however rows are cut into samples, and on any number
 * of threads. Only `average` looks at samples. */
#ifndef NB_PASSES_OBSERVE_H
#define NB_PASSES_OBSERVE_H

#include "passes/histogram.h"
#include "passes/pass.h"

/* Of the whole tensor. */
typedef struct nb_seen {
    nb_histogram histogram;     /* of |x| */
    int64_t rows, samples, bad; /* bad: NaN or infinite values, which are not counted */
    double average;             /* moving average of each sample's largest |x| */
} nb_seen;

typedef struct nb_observer {
    int axis; /* of channels */
    int64_t channels;
    nb_seen *seen;
    double *sum, *sum_abs; /* [channels] */
    float *low, *high;     /* [channels] */
    nb_part state[3];      /* all that observing changes */
} nb_observer;

nb_observer *nb_observer_create(nb_arena *arena, int axis, int64_t channels);
void nb_observe(nb_observer *o, const nb_tensor *t);
/* The statistics so far; they share memory with the observer. `clip` is the largest |x|. */
nb_stats *nb_observer_stats(const nb_observer *o, nb_arena *arena);

/* Channels whose range takes bits from all others of their token: more than NB_OUTLIER times the
 * median. */
#define NB_OUTLIER 16.0f
typedef struct nb_outliers {
    float median, largest;
    int64_t count; /* 0 too when most channels rest */
} nb_outliers;
/* `range` has the channels' largest |x|, with any sign. */
nb_outliers nb_outliers_of(const float *range, int64_t n, nb_arena *scratch);

/* Statistics of x / factor[channel], each factor positive. */
void nb_stats_divide(nb_stats *stats, const float *factor);
/* Statistics of x - middle[channel]; the mean |x - middle| is not known. */
void nb_stats_subtract(nb_stats *stats, const float *middle);

#endif
