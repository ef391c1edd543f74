/* matmul: sequences of fma for each output (NUMBERS.md, "Products"). */
#include "ir/eval_fast.h"
#include "ir/eval_private.h"

#include <math.h>
#include <string.h>

/* ---- matmul -------------------------------------------------------------------------------- */

/* y[n] = sum over k of a[k] * b[k*N+n], each a sequence of fma. */
NB_INNER void row_times_matrix(const float *a, const float *b, int64_t K, int64_t N, float *y) {
    for (int64_t n = 0; n < N; n++) y[n] = 0;
    for (int64_t k = 0; k < K; k++) {
        for (int64_t n = 0; n < N; n++) y[n] = fmaf(a[k], b[k * N + n], y[n]);
    }
}

NB_FAST static void row_fast(const float *a, const float *b, int64_t K, int64_t N, float *y) {
    row_times_matrix(a, b, K, N, y);
}
static void row_plain(const float *a, const float *b, int64_t K, int64_t N, float *y) {
    row_times_matrix(a, b, K, N, y);
}

static void multiply_int(const nb_tensor *a, int64_t ia, const nb_tensor *b, int64_t ib,
                         nb_tensor *y, int64_t iy, int64_t K, int64_t N) {
    for (int64_t n = 0; n < N; n++) {
        uint64_t acc = 0;
        for (int64_t k = 0; k < K; k++)
            acc += (uint64_t)nb_tensor_get_int(a, ia + k) *
                   (uint64_t)nb_tensor_get_int(b, ib + k * N + n);
        nb_tensor_set_int(y, iy + n, (int64_t)acc);
    }
}

static void multiply_f64(const double *a, const double *b, double *y, int64_t K, int64_t N) {
    for (int64_t n = 0; n < N; n++) {
        y[n] = 0;
        for (int64_t k = 0; k < K; k++) y[n] = fma(a[k], b[k * N + n], y[n]);
    }
}

nb_status nb_eval_matmul(const nb_evaluating *e) {
    const nb_tensor *a = &e->in[0], *b = &e->in[1];
    nb_tensor *y = e->out, batch = {.rank = y->rank - 2};
    int64_t M = y->dims[y->rank - 2], N = y->dims[y->rank - 1], K = a->dims[a->rank - 1];
    int64_t strides[2][NB_MAX_RANK], index[NB_MAX_RANK] = {0}, at[2] = {0};
    memcpy(batch.dims, y->dims, sizeof batch.dims);
    nb_tensor ab = *a, bb = *b;
    ab.rank -= 2;
    bb.rank -= 2;
    nb_broadcast_strides(&ab, &batch, strides[0]);
    nb_broadcast_strides(&bb, &batch, strides[1]);
    bool floats = nb_elem_is_float(y->elem) && y->elem != NB_F64, fast = nb_have_fast();
    const float *fa = floats ? nb_tensor_floats(a, e->arena) : NULL,
                *fb = floats ? nb_eval_reals(e, 1) : NULL;
    float *row = NB_NEW_ARRAY(e->arena, float, (size_t)N + 1);
    int64_t batches = nb_tensor_count(&batch);
    for (int64_t i = 0; i < batches; i++) {
        for (int64_t m = 0; m < M; m++) {
            int64_t ia = (at[0] * M + m) * K, ib = at[1] * K * N, iy = (i * M + m) * N;
            if (y->elem == NB_F64) {
                multiply_f64((const double *)a->data + ia, (const double *)b->data + ib,
                             (double *)y->data + iy, K, N);
            } else if (floats) {
                (fast ? row_fast : row_plain)(fa + ia, fb + ib, K, N, row);
                for (int64_t n = 0; n < N; n++) nb_tensor_set_float(y, iy + n, (double)row[n]);
            } else {
                multiply_int(a, ia, b, ib, y, iy, K, N);
            }
        }
        nb_step(&batch, index, 2, at, strides);
    }
    return NB_OK;
}
