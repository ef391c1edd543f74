/* Whitening, and the rotation behind it that gives an error's square the same weight in each
 * element (shape_noise.h). Matrices are row by row, in double. */
#include "passes/shape_noise.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

#define DAMP 0.01 /* of the mean diagonal, as in GPTQ */

/* False when it holds what is not finite. */
static bool damp(double *m, int64_t n) {
    double trace = 0;
    for (int64_t i = 0; i < n * n; i++)
        if (!isfinite(m[i])) return false;
    for (int64_t i = 0; i < n; i++) trace += m[i * n + i];
    for (int64_t i = 0; i < n; i++) m[i * n + i] += trace > 0 ? DAMP * trace / (double)n : 1;
    return true;
}

/* ---- the geometric mean decomposition ------------------------------------------------------- */

/* R, which begins as a diagonal matrix, becomes upper triangular by rotations from both sides;
 * P' takes those from the right. */
typedef struct decomposition {
    int n;
    double *r, *p; /* [n,n]; p holds its columns as rows */
    double mean;   /* geometric, of R's diagonal */
} decomposition;

static void exchange(const decomposition *d, int a, int b) {
    if (a == b) return;
    cblas_dswap(d->n, d->r + (ptrdiff_t)a * d->n, 1, d->r + (ptrdiff_t)b * d->n, 1);
    cblas_dswap(d->n, d->r + a, d->n, d->r + b, d->n);
    cblas_dswap(d->n, d->p + (ptrdiff_t)a * d->n, 1, d->p + (ptrdiff_t)b * d->n, 1);
}

/* Of the diagonal behind k: the smallest if k's element is above the mean, or else the largest. */
static int partner(const decomposition *d, int k) {
    const int step = d->n + 1;
    const bool above = d->r[k * step] >= d->mean;
    int best = k + 1;
    for (int i = k + 2; i < d->n; i++)
        if (above == (d->r[i * step] < d->r[best * step])) best = i;
    return best;
}

/* Elements k and k + 1 of the diagonal, one on each side of the mean: the first becomes it. */
static void meet(const decomposition *d, int k) {
    const int n = d->n;
    double *row = d->r + (ptrdiff_t)k * n, *next = row + n, a = row[k], b = next[k + 1];
    const double mean = d->mean, apart = a * a - b * b;
    double c = 1, s = 0;
    if (fabs(apart) > 1e-12 * mean * mean)
        c = sqrt(fmin(1, fmax(0, (mean * mean - b * b) / apart)));
    s = sqrt(1 - c * c);
    cblas_drot(n, d->r + k, n, d->r + k + 1, n, c, s);
    cblas_drot(n, d->p + (ptrdiff_t)k * n, 1, d->p + (ptrdiff_t)(k + 1) * n, 1, c, s);
    /* Now k's column is (c a, s b): turned back onto k. */
    const double length = hypot(row[k], next[k]);
    cblas_drot(n - k, row + k, 1, next + k, 1, row[k] / length, next[k] / length);
    next[k] = 0;
}

static void decompose(decomposition *d) {
    double sum = 0;
    for (int i = 0; i < d->n; i++) sum += log(d->r[i * (d->n + 1)]);
    d->mean = exp(sum / d->n);
    for (int k = 0; k + 1 < d->n; k++) {
        exchange(d, k + 1, partner(d, k));
        meet(d, k);
    }
}

/* ---- the basis ------------------------------------------------------------------------------ */

/* Singular values of a root of L' harm L become R's diagonal, their vectors P; `harm` is used up.
 */
static bool begin(decomposition *d, const double *l, double *harm, double *values) {
    const int n = d->n;
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, n, n, 1, l, n, harm,
                n);
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, n, n, 1, l, n,
                harm, n);
    /* By columns, eigenvectors are rows of ours. */
    if (LAPACKE_dsyev(LAPACK_COL_MAJOR, 'V', 'L', n, harm, n, values) != 0) return false;
    memcpy(d->p, harm, (size_t)n * (size_t)n * sizeof *d->p);
    for (int i = 0; i < n; i++) { /* signs are free: whoever computes, the largest is positive */
        double *v = d->p + (ptrdiff_t)i * n;
        if (v[cblas_idamax(n, v, 1)] < 0) cblas_dscal(n, -1, v, 1);
    }
    memset(d->r, 0, (size_t)n * (size_t)n * sizeof *d->r);
    const double least = 1e-12 * values[n - 1];
    for (int i = 0; i < n; i++) d->r[i * (n + 1)] = sqrt(fmax(values[i], least));
    return true;
}

/* Rounding begins where R ends, so that elements go in the opposite order. */
static void store(const decomposition *d, const double *l, double *room, float *to, float *back,
                  float *feedback) {
    const int n = d->n;
    const size_t bytes = (size_t)n * (size_t)n * sizeof *room;
    memcpy(room, d->p, bytes);
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, n, n, 1, l, n,
                room, n); /* P' L^-1 */
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, n, n, 1, l, n,
                d->p, n); /* P' L' */
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            to[i * n + j] = (float)room[(n - 1 - j) * n + i];
            back[i * n + j] = (float)d->p[(n - 1 - j) * n + i];
        }
    }
    memset(room, 0, bytes);
    for (int i = 0; i < n; i++) room[i * (n + 1)] = d->mean;
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, n, n, 1, d->r, n,
                room, n); /* mean R^-1 */
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            feedback[i * n + j] = i < j ? -(float)room[(n - 1 - j) * n + n - 1 - i] : 0.0f;
}

bool nb_shape_noise(int64_t n, double *spread, double *harm, double *room, float *to, float *back,
                    float *feedback) {
    openblas_set_num_threads(1);
    if (!damp(spread, n) || !damp(harm, n)) return false;
    const size_t square = (size_t)(n * n);
    decomposition d = {.n = (int)n, .r = room, .p = room + square};
    if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', d.n, spread, d.n) != 0 ||
        !begin(&d, spread, harm, room + 3 * square))
        return false;
    decompose(&d);
    store(&d, spread, room + 2 * square, to, back, feedback);
    return true;
}
