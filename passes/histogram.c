/* Histogram of magnitudes (histogram.h). */
#include "passes/histogram.h"

#include "ir/support/base.h"

#include <math.h>

#define BINS NB_HISTOGRAM_BINS

/* Bins between the bounds that mse tries: 0.4 % of the largest value at most. The error is flat
 * where it is smallest. */
#define MSE_STEP 8

void nb_histogram_widen(nb_histogram *h, float magnitude) {
    int exponent; /* magnitude = m * 2^exponent with 0.5 <= m < 1 */
    frexp((double)magnitude, &exponent);
    int64_t shift = nb_min_i64(exponent - h->exponent, NB_HISTOGRAM_BITS);
    for (int i = 0; h->scale > 0 && i < BINS; i++) {
        int64_t n = h->bins[i];
        h->bins[i] = 0;
        h->bins[i >> shift] += n;
    }
    h->exponent = exponent;
    h->scale = ldexp(BINS, -exponent);
}

/* Bins up to the last that has values; 0 when all values are 0. */
static int used_bins(const nb_histogram *h) {
    int n = h->scale > 0 ? BINS : 0;
    while (n > 0 && h->bins[n - 1] == 0) n--;
    return n;
}

static double edge(const nb_histogram *h, int bin) { return bin ? bin / h->scale : 0; }

double nb_histogram_percentile(const nb_histogram *h, double percent) {
    int64_t target = (int64_t)ceil((double)h->count * percent / 100), seen = 0;
    int used = used_bins(h);
    for (int i = 0; i < used; i++) {
        seen += h->bins[i];
        if (seen >= target) return edge(h, i + 1);
    }
    return edge(h, used);
}

/* ---- mse ------------------------------------------------------------------------------------ */

/* Integral of the squared error from 0 to x: whole cells of `step` around each multiple of it add
 * step^3 / 12; the distance from the last multiple, the largest code's beyond the bound, is cubed.
 */
static double error_up_to(double x, double step, double levels) {
    double k = fmin((double)(int64_t)(x / step + 0.5), levels), rest = x - k * step;
    return k * (step * step * step / 12) + rest * rest * rest / 3;
}

double nb_histogram_error(const nb_histogram *h, double bound, int64_t levels) {
    double step = bound / (double)levels, sum = 0, below = 0;
    int used = used_bins(h);
    for (int i = 0; i < used; i++) {
        double above = error_up_to(edge(h, i + 1), step, (double)levels);
        int64_t n = i ? h->bins[i] : h->bins[0] - h->zeros; /* zeros stay what they are */
        sum += (double)n * (above - below);
        below = above;
    }
    return h->count ? sum * h->scale / (double)h->count : 0;
}

double nb_histogram_mse(const nb_histogram *h, int64_t levels) {
    int used = used_bins(h), best = used;
    double least = INFINITY;
    for (int i = used; i > 0; i -= MSE_STEP) {
        double error = nb_histogram_error(h, edge(h, i), levels);
        if (error >= least) continue;
        least = error;
        best = i;
    }
    return edge(h, best);
}

/* ---- entropy -------------------------------------------------------------------------------- */

static double xlogx(double x) { return x > 0 ? x * log(x) : 0; }

/* Sums over the bins before each. */
typedef struct sums {
    int64_t values[BINS + 1], filled[BINS + 1]; /* bins that are not empty */
    double xlogx[BINS + 1];
} sums;

/* Divergence of bins [0, n), the last of which takes all values beyond, from what `codes` codes say
 * of them: the values of a code, spread evenly over its bins that are not empty. The values beyond
 * are unknown to the codes, so that a last bin which is empty by itself cannot be told: infinite.
 *
 * sum of p log(p / q), with p = a / all, q = b / within; p log p comes from the sums, and log q is
 * one number for each code. */
static double divergence(const nb_histogram *h, const sums *s, int n, int64_t codes) {
    if (h->bins[n - 1] == 0) return INFINITY;
    double beyond = (double)(s->values[BINS] - s->values[n]), all = (double)s->values[BINS],
           sum = s->xlogx[n - 1] + xlogx((double)h->bins[n - 1] + beyond);
    for (int64_t c = 0; c < codes; c++) {
        int64_t from = c * n / codes, to = (c + 1) * n / codes;
        double values = (double)(s->values[to] - s->values[from]),
               filled = (double)(s->filled[to] - s->filled[from]);
        if (values > 0) sum -= (values + (to == n ? beyond : 0)) * log(values / filled);
    }
    return sum / all - log(all) + log((double)s->values[n]);
}

double nb_histogram_entropy(const nb_histogram *h, int64_t levels) {
    int used = used_bins(h), best = used;
    sums s = {.values = {0}};
    for (int i = 0; i < BINS; i++) {
        s.values[i + 1] = s.values[i] + h->bins[i];
        s.filled[i + 1] = s.filled[i] + (h->bins[i] > 0);
        s.xlogx[i + 1] = s.xlogx[i] + xlogx((double)h->bins[i]);
    }
    double least = INFINITY;
    for (int n = used; n > levels; n--) {
        double d = divergence(h, &s, n, levels + 1);
        if (d >= least) continue;
        least = d;
        best = n;
    }
    return edge(h, best);
}
