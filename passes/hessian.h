/* The second moments of a layer's inputs, H = X'X / rows: what an error E of its weights costs is
 * tr(E' H E), the mean squared error of the layer's outputs over the tokens seen. */
#ifndef NB_PASSES_HESSIAN_H
#define NB_PASSES_HESSIAN_H

#include "ir/support/base.h"

/* Rows that are added up before the sum joins the total: the result does not depend on how many
 * rows are given at once, if that is a multiple. */
#define NB_MOMENT_ROWS 128

typedef struct nb_moments {
    int64_t n, rows;
    float *sum; /* [n,n] */
} nb_moments;

/* False when memory is short. */
bool nb_moments_create(nb_moments *m, int64_t n);
void nb_moments_free(nb_moments *m);
/* sum += a'b, for a and b [rows,n]. */
void nb_moments_add(nb_moments *m, const float *a, const float *b, int64_t rows);
/* *cost = tr(E' H E) for an [n,cols] matrix, with moments of one kind of inputs (a = b). False when
 * memory is short. */
bool nb_moments_cost(const nb_moments *m, const float *e, int64_t cols, double *cost);

typedef struct nb_hessian {
    int64_t n;
    float *h;       /* [n,n], symmetric, with damping on its diagonal */
    float *factor;  /* [n,n], upper triangular: H^-1 = factor' factor, inputs in `order` */
    int32_t *order; /* [n]; order[i] is the i-th input to be quantized */
    bool sorted;    /* by falling diagonal */
} nb_hessian;

typedef enum nb_hessian_result {
    NB_HESSIAN_OK,
    NB_HESSIAN_NO_MEMORY,
    NB_HESSIAN_SINGULAR /* no damping made it positive definite: the inputs hold NaN or infinity */
} nb_hessian_result;

/* Adds damp times the mean of the diagonal to it (ten times as much, and again, while H has no
 * factor), and orders the inputs by falling diagonal if `sorted` (act-order), else as they are. */
nb_hessian_result nb_hessian_create(nb_hessian *h, const nb_moments *m, double damp, bool sorted);
/* Puts n inputs last in the order, as they are given, in place of those that were put there before.
 */
nb_hessian_result nb_hessian_put_last(nb_hessian *h, const int32_t *inputs, int64_t n);
void nb_hessian_free(nb_hessian *h);

/* to = from + strength * H^-1 C from, for [n,cols] matrices: the weights that, of inputs x with
 * moments H, make the outputs that `from` makes of other inputs y, where C = X'(Y - X) / rows
 * (GPTAQ's asymmetric calibration, arXiv 2504.02692, in closed form). False: memory is short. */
bool nb_hessian_retarget(const nb_hessian *h, const nb_moments *cross, double strength,
                         const float *from, int64_t cols, float *to);

#endif
