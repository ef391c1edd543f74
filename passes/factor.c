/* A truncated singular value decomposition of a weighted matrix (factor.h).
 *
 * With T'T the weighting (T = diag(scale), or the transposed Cholesky factor of gram), the nearest
 * A B comes from the largest r singular values of T E = U S V' (Eckart and Young):
 * A = T^-1 U sqrt(S), B = sqrt(S) V'.
 *
 * They are found by subspace iteration from random vectors (Halko, Martinsson, Tropp, arXiv
 * 0909.4061): some products with T E instead of a whole decomposition, which takes hours for the
 * matrices of a large model. Vectors are rows throughout, which LAPACK reads as columns. */
#include "passes/factor.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Vectors beyond twice the rank, and iterations: of 256 x 1024 errors of rounding, whose spectrum
 * is flat, the rest is then within 0.1 % of the smallest possible. */
#define MORE_VECTORS 16
#define ITERATIONS   6

/* ---- weighting ------------------------------------------------------------------------------ */

/* Lower L with L L' = gram, computed in double; NULL when it is not positive definite, or memory is
 * short. */
static float *root_of(const float *gram, int64_t n) {
    double *l = malloc((size_t)(n * n) * sizeof *l);
    float *root = malloc((size_t)(n * n) * sizeof *root);
    for (int64_t i = 0; l && i < n * n; i++) l[i] = (double)gram[i];
    bool ok =
        l && root && LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', (lapack_int)n, l, (lapack_int)n) == 0;
    for (int64_t i = 0; ok && i < n * n; i++) root[i] = (float)l[i];
    free(l);
    if (ok) return root;
    free(root);
    return NULL;
}

static void scale_rows(float *m, int64_t rows, int64_t cols, const float *scale, bool divide) {
    for (int64_t i = 0; i < rows; i++) {
        float s = divide ? 1 / scale[i] : scale[i];
        for (int64_t k = 0; k < cols; k++) m[i * cols + k] *= s;
    }
}

/* ---- singular vectors ----------------------------------------------------------------------- */

/* Vectors of both sides: left [n, rows], right [n, cols]. */
typedef struct space {
    const float *m; /* [rows, cols] */
    int rows, cols, n;
    float *left, *right;
    float *values, *tau; /* [n] */
    float *turn;         /* [n, n] */
    float *basis;        /* [n, cols] */
} space;

static void to_left(const space *s) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->n, s->rows, s->cols, 1, s->right,
                s->cols, s->m, s->cols, 0, s->left, s->rows);
}

static void to_right(const space *s) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, s->n, s->cols, s->rows, 1, s->left,
                s->rows, s->m, s->cols, 0, s->right, s->cols);
}

static bool make_orthonormal(const space *s, float *vectors, int length) {
    return LAPACKE_sgeqrf(LAPACK_COL_MAJOR, length, s->n, vectors, length, s->tau) == 0 &&
           LAPACKE_sorgqr(LAPACK_COL_MAJOR, length, s->n, s->n, vectors, length, s->tau) == 0;
}

/* SplitMix64: the same vectors each time. */
static void fill_random(float *to, int64_t count) {
    uint64_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        to[i] = (float)((double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1);
    }
}

/* left: orthonormal, spans about what the largest singular values belong to; right: left' m. */
static bool find_space(const space *s) {
    fill_random(s->right, (int64_t)s->n * s->cols);
    for (int i = 0; i <= ITERATIONS; i++) {
        to_left(s);
        if (!make_orthonormal(s, s->left, s->rows)) return false;
        to_right(s);
        if (i < ITERATIONS && !make_orthonormal(s, s->right, s->cols)) return false;
    }
    return true;
}

/* Signs are free; this choice does not depend on who computes: b's largest element is positive. */
static float sign_of(const float *v, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++) largest = fabsf(v[i]) > fabsf(largest) ? v[i] : largest;
    return largest < 0 ? -1.0f : 1.0f;
}

/* a [rows, rank] and b [rank, cols], each with the root of the singular values. */
static bool take(const space *s, int rank, float *a, float *b) {
    if (LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', s->cols, s->n, s->right, s->cols, s->values, s->basis,
                       s->cols, s->turn, s->n) != 0)
        return false;
    /* right = turn values basis, turn by rows; so m's left vectors are left' turn. */
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, s->rows, rank, s->n, 1, s->left, s->rows,
                s->turn, s->n, 0, a, rank);
    for (int j = 0; j < rank; j++) {
        float *to = b + (int64_t)j * s->cols, root = sqrtf(s->values[j]);
        memcpy(to, s->basis + (int64_t)j * s->cols, (size_t)s->cols * sizeof *to);
        float factor = root * sign_of(to, s->cols);
        for (int i = 0; i < s->cols; i++) to[i] *= factor;
        for (int i = 0; i < s->rows; i++) /* + 0: no -0 */
            a[(int64_t)i * rank + j] = a[(int64_t)i * rank + j] * factor + 0.0f;
    }
    return true;
}

/* The nearest a b to m, unweighted. */
static bool decompose(const nb_factoring *f, const float *m, float *a, float *b) {
    int64_t n = nb_min_i64(2 * f->rank + MORE_VECTORS, nb_min_i64(f->rows, f->cols));
    space s = {.m = m, .rows = (int)f->rows, .cols = (int)f->cols, .n = (int)n};
    float *memory = malloc((size_t)(n * (f->rows + 2 * f->cols + n + 2)) * sizeof(float));
    if (!memory) return false;
    s.left = memory;
    s.right = s.left + n * f->rows;
    s.basis = s.right + n * f->cols;
    s.turn = s.basis + n * f->cols;
    s.values = s.turn + n * n;
    s.tau = s.values + n;
    bool ok = find_space(&s) && take(&s, (int)f->rank, a, b);
    free(memory);
    return ok;
}

bool nb_factor(const nb_factoring *f, float *e, float *a, float *b) {
    /* One thread for each matrix: sums do not depend on how many processors there are. */
    openblas_set_num_threads(1);
    const int rows = (int)f->rows, cols = (int)f->cols, rank = (int)f->rank;
    float *root = f->gram ? root_of(f->gram, f->rows) : NULL;
    if (f->gram && !root) return false;
    if (root)
        cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, rows, cols, 1,
                    root, rows, e, cols);
    else if (f->scale)
        scale_rows(e, f->rows, f->cols, f->scale, false);
    bool ok = decompose(f, e, a, b);
    if (root)
        cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, rows, rank, 1,
                    root, rows, a, rank);
    else if (f->scale)
        scale_rows(a, f->rows, f->rank, f->scale, true);
    free(root);
    return ok;
}
