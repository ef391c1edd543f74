/* attention (NUMBERS.md, "Products"): keys and values of floats, and of codes of 4 bits as what
 * they stand for, go through sequences of fma; codes of 8 bits through sums of integers. */
#include "ir/eval_fast.h"
#include "ir/eval_private.h"
#include "ir/scalar.h"

/* What one row (b, h, s) reads and writes. */
typedef struct row {
    const float *q, *k, *v, *mask; /* q[D], k[T,D], v[T,E], mask[T] or NULL */
    const int8_t *k_codes, *v_codes;
    const float *k_scales, *v_scales; /* [T], of codes of 8 bits; they stand instead of floats */
    int64_t mask_stride, T, D, E;
    float scale;
    float hiding;  /* a mask as small hides its key; NaN: none does */
    int32_t *code; /* scratch [D]: q in codes */
    float *score;  /* scratch [T] */
    int64_t *sum;  /* scratch [E] */
    float *acc;    /* result [E] */
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

/* Codes of the query; returns what a product of codes is to be multiplied by. */
static float code_query(const row *r) {
    const float limit = NB_QUERY_CODES;
    float inverse, scale = nb_run_scale(r->q, r->D, limit, &inverse);
    for (int64_t d = 0; d < r->D; d++) r->code[d] = (int32_t)nb_run_code(r->q[d], inverse, limit);
    return scale * r->scale;
}

NB_INNER float product(const row *r, int64_t t) {
    if (r->k_codes) {
        int64_t sum = 0;
        for (int64_t d = 0; d < r->D; d++) sum += r->code[d] * r->k_codes[t * r->D + d];
        return (float)sum * r->k_scales[t];
    }
    float dot = 0;
    for (int64_t d = 0; d < r->D; d++) dot = fmaf(r->q[d], r->k[t * r->D + d], dot);
    return dot;
}

NB_INNER void find_scores(const row *r) {
    const float scale = r->k_codes ? code_query(r) : r->scale;
    for (int64_t t = 0; t < r->T; t++) {
        r->score[t] = -INFINITY;
        if (is_hidden(r, t)) continue;
        r->score[t] = product(r, t) * scale;
        if (r->mask) r->score[t] = r->score[t] + r->mask[t * r->mask_stride];
    }
}

NB_INNER void weigh_floats(const row *r, float m) {
    float l = 0;
    for (int64_t d = 0; d < r->E; d++) r->acc[d] = 0;
    for (int64_t t = 0; t < r->T; t++) {
        if (is_hidden(r, t)) continue;
        float p = nb_expf(r->score[t] - m);
        l = l + p;
        for (int64_t d = 0; d < r->E; d++) r->acc[d] = fmaf(p, r->v[t * r->E + d], r->acc[d]);
    }
    for (int64_t d = 0; d < r->E; d++) r->acc[d] = r->acc[d] / l;
}

/* The largest scale of values that count; NaN if one is. */
static float largest_scale(const row *r) {
    float largest = 0;
    for (int64_t t = 0; t < r->T; t++) {
        float x = r->v_scales[t];
        if (r->score[t] == -INFINITY) continue;
        if (x != x) return x;
        if (x > largest) largest = x;
    }
    return largest;
}

NB_INNER void weigh_codes(const row *r, float m) {
    const float largest = largest_scale(r), inverse = NB_WEIGHT_CODES / largest,
                by = inverse == HUGE_VALF ? 0 : inverse;
    int64_t count = 0;
    for (int64_t d = 0; d < r->E; d++) r->sum[d] = 0;
    for (int64_t t = 0; t < r->T; t++) {
        float p = nb_expf(r->score[t] - m);
        p = p > 0 ? p : 0;
        count += (int64_t)rintf(p / NB_WEIGHT_UNIT);
        float weight = p * (r->v_scales[t] * by);
        const int64_t code = weight > 0 ? (int64_t)rintf(weight) : 0;
        for (int64_t d = 0; d < r->E; d++) r->sum[d] += code * r->v_codes[t * r->E + d];
    }
    const float step = largest / NB_WEIGHT_CODES, l = (float)count * NB_WEIGHT_UNIT + (m - m);
    for (int64_t d = 0; d < r->E; d++) r->acc[d] = (float)r->sum[d] * step / l;
}

NB_INNER void attend(const row *r) {
    find_scores(r);
    float m = nb_extreme(r->score, r->T, true);
    if (r->v_codes)
        weigh_codes(r, m);
    else
        weigh_floats(r, m);
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
              scaled = code * (float)nb_tensor_get(scales, at);
        out[i] = scaled + (float)nb_tensor_get(minima, at);
    }
    return out;
}

/* Keys (x = 1) or values (2) in f32; NULL: they are codes of 8 bits. */
static const float *cache_floats(const nb_evaluating *e, size_t x) {
    const nb_tensor *t = &e->in[x];
    if (t->elem == NB_I8) return NULL;
    return t->elem == NB_U8 ? u4_floats(e, x) : nb_tensor_floats(t, e->arena);
}

nb_status nb_eval_attention(const nb_evaluating *e) {
    const nb_tensor *q = &e->in[0], *k = &e->in[1], *v = &e->in[2];
    int64_t B = q->dims[0], H = q->dims[1], S = q->dims[2], G = k->dims[1];
    row r = {.T = k->dims[2], .D = q->dims[3], .E = e->out->dims[3]};
    r.scale = nb_attr_float(e->op, "scale");
    r.score = NB_NEW_ARRAY(e->arena, float, (size_t)r.T + 1);
    r.code = NB_NEW_ARRAY(e->arena, int32_t, (size_t)r.D + 1);
    r.sum = NB_NEW_ARRAY(e->arena, int64_t, (size_t)r.E + 1);
    nb_tensor full = {.rank = 4, .dims = {B, H, S, r.T}};
    int64_t ms[NB_MAX_RANK] = {0};
    if (nb_given(e, 3)) nb_broadcast_strides(&e->in[3], &full, ms);
    r.mask_stride = ms[3];
    bool fast = nb_have_fast();
    const float *keys = cache_floats(e, 1), *values = cache_floats(e, 2);
    for (int64_t i = 0; i < B * H * S; i++) {
        int64_t b = i / (H * S), h = i / S % H, s = i % S, head = b * G + h / (H / G);
        r.q = (const float *)q->data + i * r.D;
        if (keys) {
            r.k = keys + head * r.T * r.D;
        } else {
            r.k_codes = (const int8_t *)k->data + head * r.T * r.D;
            r.k_scales = (const float *)e->in[4].data + head * r.T;
        }
        if (values) {
            r.v = values + head * r.T * r.E;
        } else {
            r.v_codes = (const int8_t *)v->data + head * r.T * r.E;
            r.v_scales = (const float *)e->in[5].data + head * r.T;
        }
        if (nb_given(e, 3))
            r.mask = (const float *)e->in[3].data + b * ms[0] + h * ms[1] + s * ms[2];
        r.acc = (float *)e->out->data + i * r.E;
        find_hiding(&r);
        (fast ? attend_fast : attend_plain)(&r);
    }
    return NB_OK;
}
