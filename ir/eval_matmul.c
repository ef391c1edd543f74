/* matmul and attention: sequences of fma for each output (NUMBERS.md, "Products"). */
#include "ir/eval_private.h"
#include "ir/scalar.h"

#include <string.h>

/* ---- matmul -------------------------------------------------------------------------------- */

/* y[n] = sum over k of a[k] * b[k*N+n], each a sequence of fma. Inlined twice: with the CPU's fma
 * where it has one (the same bits, a hundred times faster than the library's), and without. */
static inline __attribute__((always_inline)) void row_times_matrix(const float *a, const float *b,
                                                                   int64_t K, int64_t N, float *y) {
    for (int64_t n = 0; n < N; n++) y[n] = 0;
    for (int64_t k = 0; k < K; k++) {
        for (int64_t n = 0; n < N; n++) y[n] = __builtin_fmaf(a[k], b[k * N + n], y[n]);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void row_fast(const float *a, const float *b, int64_t K,
                                                         int64_t N, float *y) {
    row_times_matrix(a, b, K, N, y);
}
static bool have_fast(void) {
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
}
#else
static void row_fast(const float *a, const float *b, int64_t K, int64_t N, float *y) {
    row_times_matrix(a, b, K, N, y);
}
static bool have_fast(void) { return false; }
#endif
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
    bool floats = nb_elem_is_float(y->elem) && y->elem != NB_F64, fast = have_fast();
    const float *fa = floats ? nb_tensor_floats(a, e->arena) : NULL,
                *fb = floats ? nb_tensor_floats(b, e->arena) : NULL;
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

/* ---- attention ----------------------------------------------------------------------------- */

nb_status nb_eval_attention(const nb_evaluating *e) {
    const nb_tensor *q = &e->in[0], *k = &e->in[1], *v = &e->in[2];
    int64_t B = q->dims[0], H = q->dims[1], S = q->dims[2], D = q->dims[3], G = k->dims[1],
            T = k->dims[2], E = v->dims[3];
    float scale = nb_attr_float(e->op, "scale");
    nb_tensor full = {.rank = 4, .dims = {B, H, S, T}};
    int64_t ms[NB_MAX_RANK] = {0};
    if (nb_given(e, 3)) nb_broadcast_strides(&e->in[3], &full, ms);
    float *score = NB_NEW_ARRAY(e->arena, float, (size_t)T + 1),
          *acc = NB_NEW_ARRAY(e->arena, float, (size_t)E + 1);
    for (int64_t row = 0; row < B * H * S; row++) {
        int64_t b = row / (H * S), h = row / S % H, s = row % S, g = h / (H / G);
        const float *qr = (const float *)q->data + row * D,
                    *kr = (const float *)k->data + (b * G + g) * T * D;
        const float *vr = (const float *)v->data + (b * G + g) * T * E;
        for (int64_t t = 0; t < T; t++) {
            float dot = 0;
            for (int64_t d = 0; d < D; d++) dot = fmaf(qr[d], kr[t * D + d], dot);
            score[t] = dot * scale;
            if (nb_given(e, 3))
                score[t] =
                    score[t] +
                    ((const float *)e->in[3].data)[b * ms[0] + h * ms[1] + s * ms[2] + t * ms[3]];
        }
        float m = nb_extreme(score, T, true), l = 0;
        memset(acc, 0, (size_t)E * sizeof *acc);
        for (int64_t t = 0; t < T; t++) {
            float p = nb_expf(score[t] - m);
            l = l + p;
            for (int64_t d = 0; d < E; d++) acc[d] = fmaf(p, vr[t * E + d], acc[d]);
        }
        for (int64_t d = 0; d < E; d++) ((float *)e->out->data)[row * E + d] = acc[d] / l;
    }
    return NB_OK;
}
