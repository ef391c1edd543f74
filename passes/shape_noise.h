/* Coordinates in which rounding errors fall where they do least harm. */
#ifndef NB_PASSES_SHAPE_NOISE_H
#define NB_PASSES_SHAPE_NOISE_H

#include "ir/support/base.h"

/* For vectors k of n elements with covariance `spread`, whose error e does the harm e' `harm` e;
 * both [n,n], symmetric, row by row, used up. Finds a basis for their codes and what each code's
 * rounding error is worth to those behind it:
 *   to        k `to` has the identity as covariance
 *   back      its inverse, transposed: a product q.k is (q `back`).(k `to`)
 *   feedback  strictly upper triangular. When elements of k `to` are rounded in order and x_j takes
 *             e_i feedback_ij for each i before it, e_i being x_i, as it came to be, less what it
 *             was rounded to, then the harm is c (e_1^2 + ... + e_n^2), with the same c for all and
 *             as small as any basis of unit volume lets it be.
 * c is the geometric mean of the eigenvalues of spread harm; where errors are not passed on, no
 * basis comes below the square of the arithmetic mean of their roots. It is found by the geometric
 * mean decomposition of Jiang, Hager and Li (Linear Algebra Appl. 396, 2005); rounding in order is
 * Babai's nearest plane, which for weights is GPTQ (arXiv 2210.17323).
 * Both matrices are damped by 1 % of their mean diagonal first, a zero one is the identity. `room`
 * holds n (3 n + 1) numbers. False when an element is not finite. */
bool nb_shape_noise(int64_t n, double *spread, double *harm, double *room, float *to, float *back,
                    float *feedback);

#endif
