/* matmul and attention: sequences of fma for each output (NUMBERS.md, "Products"). */
#include "ir/eval_fast.h"
#include "ir/eval_private.h"
#include "ir/scalar.h"

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

/* ---- attention ----------------------------------------------------------------------------- */

/* What one row (b, h, s) reads and writes. */
typedef struct row {
    const float *q, *k, *v, *mask; /* q[D], k[T,D], v[T,E], mask[T] or NULL */
    int64_t mask_stride, T, D, E;
    float scale;
    float hiding;       /* a mask as small hides its key; NaN: none does */
    float *score, *acc; /* scratch [T], result [E] */
} row;

static bool is_hidden(const row *r, int64_t t) {
    return r->mask && r->mask[t * r->mask_stride] <= r->hiding;
}

/* Masks hide keys unless they hide all. */
static void find_hiding(row *r) {
    r->hiding = NB_HIDING;
    for (int64_t t = 0; t < r->T; t++) {
        if (!is_hidden(r, t)) return;
    }
    r->hiding = NAN;
}

NB_INNER void attend(const row *r) {
    for (int64_t t = 0; t < r->T; t++) {
        float dot = 0;
        r->score[t] = -INFINITY;
        if (is_hidden(r, t)) continue;
        for (int64_t d = 0; d < r->D; d++) dot = fmaf(r->q[d], r->k[t * r->D + d], dot);
        r->score[t] = dot * r->scale;
        if (r->mask) r->score[t] = r->score[t] + r->mask[t * r->mask_stride];
    }
    float m = nb_extreme(r->score, r->T, true), l = 0;
    for (int64_t d = 0; d < r->E; d++) r->acc[d] = 0;
    for (int64_t t = 0; t < r->T; t++) {
        if (is_hidden(r, t)) continue;
        float p = nb_expf(r->score[t] - m);
        l = l + p;
        for (int64_t d = 0; d < r->E; d++) r->acc[d] = fmaf(p, r->v[t * r->E + d], r->acc[d]);
    }
    for (int64_t d = 0; d < r->E; d++) r->acc[d] = r->acc[d] / l;
}

NB_FAST static void attend_fast(const row *r) { attend(r); }
static void attend_plain(const row *r) { attend(r); }

/* Codes of 4 bits, two to a byte, as code * scale + minimum; D elements of each of T tokens. */
static const float *u4_floats(const nb_evaluating *e, size_t x) {
    const nb_tensor *t = &e->in[x], *scales = &e->in[x + 3], *minima = &e->in[x + 5];
    int64_t D = 2 * t->dims[3], T = t->dims[2], N = scales->dims[2], n = 2 * nb_tensor_count(t),
            group = nb_attr_int(e->op, "group");
    const uint8_t *bytes = t->data;
    float *out = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++) {
        int64_t head = i / (T * D), token = i / D % T, at = (head * N + i % D / group) * T + token;
        float code = (float)(bytes[i / 2] >> 4 * (i % 2) & 15),
              product = code * (float)nb_tensor_get(scales, at);
        out[i] = product + (float)nb_tensor_get(minima, at);
    }
    return out;
}

/* Keys (x = 1) or values (2) in f32: (f32)code * scale of codes. */
static const float *cache_floats(const nb_evaluating *e, size_t x) {
    const nb_tensor *t = &e->in[x];
    const size_t scales = x + 3;
    if (t->elem == NB_U8) return u4_floats(e, x);
    const float *floats = nb_tensor_floats(t, e->arena);
    if (!nb_given(e, scales)) return floats;
    int64_t n = nb_tensor_count(t), D = t->dims[3];
    float *out = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++) out[i] = floats[i] * ((const float *)e->in[scales].data)[i / D];
    return out;
}

nb_status nb_eval_attention(const nb_evaluating *e) {
    const nb_tensor *q = &e->in[0], *k = &e->in[1];
    int64_t B = q->dims[0], H = q->dims[1], S = q->dims[2], G = k->dims[1];
    row r = {.T = k->dims[2], .D = q->dims[3], .E = e->out->dims[3]};
    r.scale = nb_attr_float(e->op, "scale");
    r.score = NB_NEW_ARRAY(e->arena, float, (size_t)r.T + 1);
    nb_tensor full = {.rank = 4, .dims = {B, H, S, r.T}};
    int64_t ms[NB_MAX_RANK] = {0};
    if (nb_given(e, 3)) nb_broadcast_strides(&e->in[3], &full, ms);
    r.mask_stride = ms[3];
    bool fast = nb_have_fast();
    const float *keys = cache_floats(e, 1), *values = cache_floats(e, 2);
    for (int64_t i = 0; i < B * H * S; i++) {
        int64_t b = i / (H * S), h = i / S % H, s = i % S, g = h / (H / G);
        r.q = (const float *)q->data + i * r.D;
        r.k = keys + (b * G + g) * r.T * r.D;
        r.v = values + (b * G + g) * r.T * r.E;
        if (nb_given(e, 3))
            r.mask = (const float *)e->in[3].data + b * ms[0] + h * ms[1] + s * ms[2];
        r.acc = (float *)e->out->data + i * r.E;
        find_hiding(&r);
        (fast ? attend_fast : attend_plain)(&r);
    }
    return NB_OK;
}
