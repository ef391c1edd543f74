/* Second moments and their factors (hessian.h). BLAS and LAPACK run on one thread, side by side on
 * tiles, so that sums do not depend on how many threads there are. */
#include "passes/hessian.h"

#include "ir/support/parallel.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- moments -------------------------------------------------------------------------------- */

#define PANEL 256 /* rows of the sum in a turn of the parallel loop */

bool nb_moments_create(nb_moments *m, int64_t n) {
    *m = (nb_moments){.n = n, .sum = calloc((size_t)(n * n) + 1, sizeof *m->sum)};
    return m->sum != NULL;
}

void nb_moments_free(nb_moments *m) {
    free(m->sum);
    m->sum = NULL;
}

typedef struct addition {
    nb_moments *m;
    const float *a, *b;
    int64_t rows;
} addition;

/* Some rows of the sum. With a = b the rest of a row, left of the diagonal, is never read. */
static void add_panel(void *user, int64_t turn) {
    const addition *add = user;
    const int64_t n = add->m->n, first = turn * PANEL, count = nb_min_i64(PANEL, n - first),
                  from = add->a == add->b ? first : 0;
    for (int64_t r = 0; r < add->rows; r += NB_MOMENT_ROWS)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)count, (int)(n - from),
                    (int)nb_min_i64(NB_MOMENT_ROWS, add->rows - r), 1, add->a + r * n + first,
                    (int)n, add->b + r * n + from, (int)n, 1, add->m->sum + first * n + from,
                    (int)n);
}

void nb_moments_add(nb_moments *m, const float *a, const float *b, int64_t rows) {
    addition add = {m, a, b, rows};
    openblas_set_num_threads(1);
    nb_parallel(nb_ceildiv(m->n, PANEL), add_panel, &add);
    m->rows += rows;
}

#define STRIPE 64 /* columns in a turn */

typedef struct costing {
    const nb_moments *m;
    const float *e;
    int64_t cols;
    double *costs; /* of stripes */
    atomic_bool no_memory;
} costing;

static void cost_of_stripe(void *user, int64_t turn) {
    costing *z = user;
    const int64_t n = z->m->n, first = turn * STRIPE, count = nb_min_i64(STRIPE, z->cols - first);
    float *product = malloc((size_t)(n * count + 1) * sizeof *product);
    double sum = 0;
    if (product)
        cblas_ssymm(CblasRowMajor, CblasLeft, CblasUpper, (int)n, (int)count, 1, z->m->sum, (int)n,
                    z->e + first, (int)z->cols, 0, product, (int)count);
    for (int64_t i = 0; product && i < n * count; i++)
        sum += (double)product[i] * (double)z->e[i / count * z->cols + first + i % count];
    z->costs[turn] = sum;
    if (!product) atomic_store(&z->no_memory, true);
    free(product);
}

bool nb_moments_cost(const nb_moments *m, const float *e, int64_t cols, double *cost) {
    const int64_t stripes = nb_ceildiv(cols, STRIPE);
    costing z = {m, e, cols, malloc((size_t)(stripes + 1) * sizeof *z.costs), false};
    if (!z.costs) return false;
    openblas_set_num_threads(1);
    nb_parallel(stripes, cost_of_stripe, &z);
    *cost = 0;
    for (int64_t i = 0; i < stripes; i++) *cost += z.costs[i] / (double)m->rows;
    free(z.costs);
    return !atomic_load(&z.no_memory);
}

/* ---- factors -------------------------------------------------------------------------------- */

typedef struct ranked {
    float value;
    int32_t input;
} ranked;

static int falling(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return x->input < y->input ? -1 : 1;
}

#define TRIES 4 /* each with ten times the damping of the one before */

static bool order_inputs(nb_hessian *h) {
    ranked *list = malloc((size_t)(h->n + 1) * sizeof *list);
    if (!list) return false;
    for (int64_t i = 0; i < h->n; i++) list[i] = (ranked){h->h[i * h->n + i], (int32_t)i};
    if (h->sorted) qsort(list, (size_t)h->n, sizeof *list, falling);
    for (int64_t i = 0; i < h->n; i++) h->order[i] = list[i].input;
    free(list);
    return true;
}

/* H in the opposite of the order is L L'. Turned back that is H = R R' with R upper triangular, so
 * that the factor is R^-1: row i of L^-1 read backwards is its row n-1-i. L takes the place of H in
 * `room`, block column by block column; its inverse, whose block columns do not depend on each
 * other, goes straight to where it belongs. */
typedef struct triangle {
    const nb_hessian *h;
    double *room; /* [n,n] */
    int64_t block;
    atomic_int status; /* of LAPACK; NO_MEMORY */
} triangle;

#define TILE      256
#define NO_MEMORY (-1)

/* Row block `turn` behind the block column: what the columns before it leave of it. */
static void update_tile(void *user, int64_t turn) {
    const triangle *t = user;
    const int64_t n = t->h->n, k = t->block * TILE, row = (t->block + turn) * TILE;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)nb_min_i64(TILE, n - row),
                (int)nb_min_i64(TILE, n - k), (int)k, -1, t->room + row * n, (int)n,
                t->room + k * n, (int)n, 1, t->room + row * n + k, (int)n);
}

static void divide_tile(void *user, int64_t turn) {
    const triangle *t = user;
    const int64_t n = t->h->n, k = t->block * TILE, row = (t->block + 1 + turn) * TILE;
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit,
                (int)nb_min_i64(TILE, n - row), TILE, 1, t->room + k * n + k, (int)n,
                t->room + row * n + k, (int)n);
}

/* Block column `turn` of L^-1, by L X = 1. */
static void invert_tile(void *user, int64_t turn) {
    triangle *t = user;
    const int64_t n = t->h->n, k = turn * TILE, rows = n - k, cols = nb_min_i64(TILE, rows);
    double *x = calloc((size_t)(rows * cols), sizeof *x);
    if (!x) {
        atomic_store(&t->status, NO_MEMORY);
        return;
    }
    for (int64_t i = 0; i < cols; i++) x[i * cols + i] = 1;
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)rows,
                (int)cols, 1, t->room + k * n + k, (int)n, x, (int)cols);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++)
            t->h->factor[(rows - 1 - i) * n + n - 1 - k - j] = (float)x[i * cols + j];
    }
    free(x);
}

/* The factor of H^-1; NB_HESSIAN_SINGULAR when H is not positive definite. */
static nb_hessian_result factorise(const nb_hessian *h, double *room) {
    const int64_t n = h->n, blocks = nb_ceildiv(n, TILE);
    triangle t = {.h = h, .room = room};
    for (int64_t i = 0; i < n; i++) {
        const float *from = h->h + h->order[n - 1 - i] * n;
        for (int64_t j = 0; j <= i; j++) room[i * n + j] = (double)from[h->order[n - 1 - j]];
    }
    for (; t.block < blocks; t.block++) {
        const int64_t k = t.block * TILE;
        if (k) nb_parallel(blocks - t.block, update_tile, &t);
        if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (int)nb_min_i64(TILE, n - k),
                                room + k * n + k, (int)n) != 0)
            return NB_HESSIAN_SINGULAR;
        nb_parallel(blocks - t.block - 1, divide_tile, &t);
    }
    memset(h->factor, 0, (size_t)(n * n) * sizeof *h->factor);
    nb_parallel(blocks, invert_tile, &t);
    return atomic_load(&t.status) ? NB_HESSIAN_NO_MEMORY : NB_HESSIAN_OK;
}

/* Damps H until it has a factor. */
static nb_hessian_result damp_and_factorise(nb_hessian *h, double mean, double damp, double *room) {
    double before = 0;
    nb_hessian_result result = NB_HESSIAN_SINGULAR;
    for (int i = 0; i < TRIES && result == NB_HESSIAN_SINGULAR; i++, damp *= 10) {
        /* Inputs that were never seen cost nothing, but their columns must have a factor. */
        const float more = mean > 0 ? (float)((damp - before) * mean) : 1;
        for (int64_t k = 0; k < h->n; k++) h->h[k * h->n + k] += more;
        result = factorise(h, room);
        before = damp;
    }
    return result;
}

nb_hessian_result nb_hessian_create(nb_hessian *h, const nb_moments *m, double damp, bool sorted) {
    const int64_t n = m->n;
    const size_t size = (size_t)(n * n) + 1;
    *h = (nb_hessian){.n = n,
                      .sorted = sorted,
                      .h = malloc(size * sizeof *h->h),
                      .factor = malloc(size * sizeof *h->factor),
                      .order = malloc((size_t)(n + 1) * sizeof *h->order)};
    double mean = 0, *room = malloc(size * sizeof *room);
    nb_hessian_result result = NB_HESSIAN_OK;
    if (!h->h || !h->factor || !h->order || !room) {
        result = NB_HESSIAN_NO_MEMORY;
    } else {
        for (int64_t i = 0; i < n; i++) {
            for (int64_t j = i; j < n; j++)
                h->h[i * n + j] = h->h[j * n + i] = m->sum[i * n + j] / (float)m->rows;
            mean += (double)h->h[i * n + i] / (double)n;
        }
        openblas_set_num_threads(1);
        if (!order_inputs(h))
            result = NB_HESSIAN_NO_MEMORY;
        else
            result = isfinite(mean) ? damp_and_factorise(h, mean, damp, room) : NB_HESSIAN_SINGULAR;
    }
    free(room);
    if (result != NB_HESSIAN_OK) nb_hessian_free(h);
    return result;
}

nb_hessian_result nb_hessian_put_last(nb_hessian *h, const int32_t *inputs, int64_t n) {
    double *room = malloc((size_t)(h->n * h->n) * sizeof *room);
    bool *last = calloc((size_t)h->n, sizeof *last);
    const bool ok = room && last && order_inputs(h);
    int64_t at = 0;
    for (int64_t i = 0; ok && i < n; i++) last[inputs[i]] = true;
    for (int64_t i = 0; ok && i < h->n; i++) {
        if (!last[h->order[i]]) h->order[at++] = h->order[i];
    }
    for (int64_t i = 0; ok && i < n; i++) h->order[at++] = inputs[i];
    const nb_hessian_result result = ok ? factorise(h, room) : NB_HESSIAN_NO_MEMORY;
    free(room);
    free(last);
    return result;
}

void nb_hessian_free(nb_hessian *h) {
    free(h->h);
    free(h->factor);
    free(h->order);
    *h = (nb_hessian){0};
}

bool nb_hessian_retarget(const nb_hessian *h, const nb_moments *cross, double strength,
                         const float *from, int64_t cols, float *to) {
    const int n = (int)h->n, width = (int)cols;
    const size_t size = (size_t)n * (size_t)cols + 1;
    float *pull = malloc(size * sizeof *pull), *solved = malloc(size * sizeof *solved);
    const bool ok = pull && solved;
    if (ok) {
        /* C from, then H^-1 of it as two products by the factor, in the factor's order. */
        openblas_set_num_threads(1);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, width, n,
                    (float)(strength / (double)cross->rows), cross->sum, n, from, width, 0, pull,
                    width);
        for (int64_t i = 0; i < n; i++)
            memcpy(solved + i * cols, pull + h->order[i] * cols, (size_t)cols * sizeof *pull);
        cblas_strmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, n, width, 1,
                    h->factor, n, solved, width);
        cblas_strmm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, n, width, 1,
                    h->factor, n, solved, width);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t c = 0, at = h->order[i] * cols; c < cols; c++)
                to[at + c] = from[at + c] + solved[i * cols + c];
        }
    }
    free(pull);
    free(solved);
    return ok;
}
