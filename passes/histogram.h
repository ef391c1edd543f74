/* Histogram of magnitudes, and the bounds that are chosen from it.
 *
 * Bins have equal width over [0, limit); limit is the power of two above the largest value seen, so
 * that at least half the bins lie below that value. When a larger one comes bins are merged, which
 * loses nothing: each bin of the wider histogram is a whole number of old ones. What is in the
 * bins therefore depends neither on the order of the values nor on how they were cut. */
#ifndef NB_PASSES_HISTOGRAM_H
#define NB_PASSES_HISTOGRAM_H

#include <stdint.h>

#define NB_HISTOGRAM_BITS 12
#define NB_HISTOGRAM_BINS (1 << NB_HISTOGRAM_BITS)

/* Plain data, all zeros at first. */
typedef struct nb_histogram {
    int64_t bins[NB_HISTOGRAM_BINS];
    int64_t count, zeros; /* of values; of those that are 0, which are in bins[0] too */
    int64_t exponent;     /* limit = 2^exponent */
    double scale;         /* bins per unit; 0: nothing but zeros so far */
} nb_histogram;

/* Makes room for `magnitude`. */
void nb_histogram_widen(nb_histogram *h, float magnitude);

/* `magnitude` is finite and not negative. */
static inline void nb_histogram_add(nb_histogram *h, float magnitude) {
    h->count++;
    double at = (double)magnitude * h->scale;
    if (magnitude > 0 && !(h->scale > 0 && at < NB_HISTOGRAM_BINS)) {
        nb_histogram_widen(h, magnitude);
        at = (double)magnitude * h->scale;
    }
    h->zeros += magnitude == 0;
    h->bins[(int)at]++;
}

/* Bounds are upper edges of bins; 0 when there is nothing but zeros. `levels` is the largest code
 * of symmetric codes: 127 for 8 bits. */

/* The bound that `percent` of all values do not exceed. */
double nb_histogram_percentile(const nb_histogram *h, double percent);
/* The expected squared error of values that are clipped to `bound` and rounded to multiples of
 * bound / levels, were the values of a bin spread evenly over it. */
double nb_histogram_error(const nb_histogram *h, double bound, int64_t levels);
/* The bound of the smallest such error. */
double nb_histogram_mse(const nb_histogram *h, int64_t levels);
/* The bound whose codes tell most about the distribution: the smallest Kullback-Leibler divergence
 * of what the codes say from the clipped histogram (Migacz, "8-bit Inference with TensorRT", 2017).
 */
double nb_histogram_entropy(const nb_histogram *h, int64_t levels);

#endif
