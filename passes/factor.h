/* The product of two thin matrices that is nearest to a matrix. */
#ifndef NB_PASSES_FACTOR_H
#define NB_PASSES_FACTOR_H

#include "ir/support/base.h"

/* What is small: the squared error of E - A B summed with weights over its rows (`scale`), or over
 * what rows do together, the trace of (E - AB)' gram (E - AB). At most one of the two is given. */
typedef struct nb_factoring {
    int64_t rows, cols;
    int64_t rank;       /* at most rows and cols */
    const float *scale; /* [rows], positive, or NULL */
    const float *gram;  /* [rows, rows], positive definite, or NULL */
} nb_factoring;

/* Fills a [rows, rank] and b [rank, cols]; e [rows, cols] is used up. False when memory is short,
 * or gram has no Cholesky factor. */
bool nb_factor(const nb_factoring *f, float *e, float *a, float *b);

#endif
