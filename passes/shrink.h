/* Second moments of few rows. Off their diagonal they are sums of products of either sign, and with
 * no more rows than inputs mostly noise, which rounding would make up for as if it were there. So
 * they are drawn to their diagonal, by as much as they are noise.
 *
 * The share of Ledoit and Wolf (A well-conditioned estimator for large-dimensional covariance
 * matrices, 2004), with the diagonal for a target and for values of unit mean square (Schaefer and
 * Strimmer, 2005): of r_ij = mean(z_i z_j), with z_i = x_i / sqrt(mean(x_i^2)),
 *
 *   share = sum var(r_ij) / sum r_ij^2         over i != j; var(r_ij) as the rows show it
 *
 * makes the squared error of (1 - share) r_ij least. Rounding solves by the inverse, whose errors
 * noise makes larger: what weighs is `strength` times share / (1 - share) (passes/README.md). */
#ifndef NB_PASSES_SHRINK_H
#define NB_PASSES_SHRINK_H

#include "passes/hessian.h"

typedef struct nb_shrink {
    const nb_moments *m;
    double *inverse; /* [n] of mean squares; 0 for an input that was silent */
    double products; /* sum over rows and i != j of (z_i z_j)^2 */
} nb_shrink;

/* Of complete moments of one kind of inputs, whose rows are shown once more. False when memory is
 * short. */
bool nb_shrink_begin(nb_shrink *s, const nb_moments *m);
void nb_shrink_see(nb_shrink *s, const float *x, int64_t rows);
/* What is taken off all elements off the diagonal, 0 to 1, by a `strength` above 0. */
double nb_shrink_share(const nb_shrink *s, double strength);
void nb_shrink_end(nb_shrink *s);

/* Takes a share off elements off the diagonal (of moments of two kinds of inputs: off all). */
void nb_moments_shrink(nb_moments *m, double share, bool whole);

#endif
