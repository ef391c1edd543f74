/* Quantization: codes, their scales, and products of codes (NUMBERS.md, "Quantization"). */
#include "ir/codes.h"
#include "ir/eval_private.h"
#include "ir/minifloat.h"
#include "ir/scalar.h"

#include <stdlib.h>
#include <string.h>

const float *nb_eval_reals(const nb_evaluating *e, size_t i) {
    const nb_tensor *t = &e->in[i];
    const nb_quant *q = nb_in(e->op, (uint32_t)i)->type->quant;
    if (!q) return nb_tensor_floats(t, e->arena);
    const int64_t n = nb_tensor_count(t);
    const nb_codes c = nb_codes_expand(q, t, e->arena);
    float *reals = NB_NEW_ARRAY(e->arena, float, (size_t)n + 1);
    for (int64_t k = 0; k < n; k++) reals[k] = nb_codes_real(&c, k);
    return reals;
}

static int64_t clip(const nb_quant *q, float v, int64_t zero) {
    if (v != v) v = 0;
    int64_t smallest = nb_quant_min(q), largest = nb_quant_max(q);
    /* In double: exact for every code and zero point of up to 32 bits. */
    double c = (double)v + (double)zero;
    if (c < (double)smallest) return smallest;
    return c >= (double)largest ? largest : (int64_t)c;
}

float nb_run_scale(const float *x, int64_t n, float limit, float *inverse) {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = nb_bits(x[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    float amax = nb_from_bits(top);
    *inverse = 0;
    if (top >= 0x7f800000u) return nb_from_bits(0x7fc00000u);
    if (amax == 0 || limit / amax == HUGE_VALF) return 0;
    *inverse = limit / amax;
    return amax / limit;
}

float nb_run_code(float x, float inverse, float limit) {
    if (inverse == 0) return 0; /* whatever x is */
    float v = rintf(x * inverse);
    return v > limit ? limit : v < -limit ? -limit : v;
}

/* One run of a dynamic quantizer: n values share a scale. */
static float quantize_run(const nb_quant *q, const float *x, int64_t n, nb_tensor *y, int64_t at) {
    float limit = (float)q->amax_code, inverse, scale = nb_run_scale(x, n, limit, &inverse);
    for (int64_t i = 0; i < n; i++)
        nb_tensor_set_int(y, at + i, (int64_t)nb_run_code(x[i], inverse, limit));
    return scale;
}

/* Codes of x, which is f32 and has the result's shape. */
static void quantize(const nb_evaluating *e, const nb_tensor *x) {
    const nb_quant *q = nb_attr_of(e->op, "to")->quant;
    const float *v = x->data;
    int64_t n = nb_tensor_count(x);
    if (q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK) {
        int64_t last = x->dims[x->rank - 1],
                block = q->granularity == NB_PER_BLOCK ? q->group : last, run = 0;
        for (int64_t i = 0; last && i < n;) {
            int64_t length = nb_min_i64(block, last - i % last);
            e->out->scales[run++] = quantize_run(q, v + i, length, e->out, i);
            i += length;
        }
        return;
    }
    const nb_codes c = nb_codes_expand(q, x, e->arena);
    for (int64_t i = 0; i < n; i++)
        nb_tensor_set_int(e->out, i,
                          clip(q, rintf(v[i] / nb_codes_scale(&c, i)), nb_codes_zero(&c, i)));
}

nb_status nb_eval_quantize(const nb_evaluating *e) {
    quantize(e, &e->in[0]);
    return NB_OK;
}

/* Zeros, f32, in the shape of the result. */
static nb_tensor floats_like(const nb_evaluating *e) {
    nb_tensor t = *e->out;
    t.elem = NB_F32;
    t.bytes = 4 * nb_tensor_count(e->out);
    t.data = nb_alloc(e->arena, (size_t)t.bytes + 4);
    return t;
}

nb_status nb_eval_qpatches(const nb_evaluating *e) {
    nb_tensor patches = floats_like(e);
    nb_patches_of(e->op, &e->in[0], &patches);
    quantize(e, &patches);
    return NB_OK;
}

/* What quantize_u4 makes of a run of values, which share a scale and a minimum. */
typedef struct run_u4 {
    int64_t n;
    float scale, minimum; /* as f16 holds them, which codes are made for */
    uint8_t *codes;       /* [n], 0 to 15 */
    float *errors, loss;  /* with feedback: [n] and the sum of their squares */
} run_u4;

static float as_f16(float x) { return nb_float_decode(NB_F16, nb_float_encode(NB_F16, x)); }

/* A NaN makes the minimum one. */
static void range_u4(run_u4 *r, float low, float high) {
    r->minimum = as_f16(low);
    r->scale = as_f16((high - r->minimum) / 15.0f);
}

static void round_u4(run_u4 *r, const float *x) {
    float inverse = 1.0f / r->scale;
    for (int64_t i = 0; i < r->n; i++) {
        float v = rintf((x[i] - r->minimum) * inverse);
        r->codes[i] = v > 15.0f ? 15 : v > 0.0f ? (uint8_t)v : 0; /* NaN is 0 */
    }
}

/* x[j] gets its part of the error of element i, for j in [from, to). */
static void feed(float *x, float error, const float *feedback, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; j++) x[j] += error * feedback[j];
}

/* Uses up x. `feedback` begins at the run's first element, rows lie D apart. */
static void diffuse_u4(run_u4 *r, float *x, const float *feedback, int64_t D) {
    r->loss = 0;
    for (int64_t i = 0; i < r->n; i++) {
        run_u4 one = {.n = 1, .scale = r->scale, .minimum = r->minimum, .codes = &r->codes[i]};
        round_u4(&one, &x[i]);
        r->errors[i] = x[i] - ((float)r->codes[i] * r->scale + r->minimum);
        r->loss += r->errors[i] * r->errors[i];
        feed(x, r->errors[i], feedback + i * D, i + 1, r->n);
    }
}

/* Rounds the run at x in 16 ranges and returns the best of them. Each of runs[2] has room for codes
 * and errors, as `room` has for x. */
static const run_u4 *choose_u4(run_u4 *runs, int64_t n, const float *x, float *room,
                               const float *feedback, int64_t D) {
    const float low = nb_extreme(x, n, false), high = nb_extreme(x, n, true),
                step = (high - low) / 15.0f;
    int best = 0;
    for (int i = 0; i < 16; i++) {
        run_u4 *r = &runs[i ? !best : best];
        r->n = n;
        range_u4(r, low - 0.4f * (float)(i / 4) * step, high + 0.4f * (float)(i % 4) * step);
        memcpy(room, x, (size_t)n * sizeof *x);
        diffuse_u4(r, room, feedback, D);
        if (r->loss < runs[best].loss) best = !best;
    }
    return &runs[best];
}

static void store_u4(const run_u4 *r, const nb_evaluating *e, int64_t from, int64_t at) {
    uint8_t *bytes = (uint8_t *)e->out[0].data + from / 2;
    for (int64_t i = 0; i < r->n; i++)
        bytes[i / 2] = (uint8_t)(bytes[i / 2] | r->codes[i] << 4 * (i % 2));
    nb_tensor_set_float(&e->out[1], at, (double)r->scale);
    nb_tensor_set_float(&e->out[2], at, (double)r->minimum);
}

/* A row of D elements, which are used up; `at` is where the first of its N scales goes, S apart. */
static void quantize_row_u4(const nb_evaluating *e, run_u4 *runs, float *row, float *room,
                            const float *feedback, int64_t from, int64_t at) {
    const int64_t D = e->in[0].dims[3], S = e->in[0].dims[2], group = nb_attr_int(e->op, "group");
    for (int64_t begin = 0; begin < D; begin += group, at += S) {
        const int64_t end = nb_min_i64(begin + group, D);
        const run_u4 *r = runs;
        if (feedback) {
            const float *f = feedback + begin * D;
            r = choose_u4(runs, end - begin, row + begin, room, f + begin, D);
            for (int64_t i = 0; i < r->n; i++) feed(row, r->errors[i], f + i * D, end, D);
        } else {
            const int64_t n = runs->n = end - begin;
            range_u4(runs, nb_extreme(row + begin, n, false), nb_extreme(row + begin, n, true));
            round_u4(runs, row + begin);
        }
        store_u4(r, e, from + begin, at);
    }
}

nb_status nb_eval_quantize_u4(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    const float *feedback = nb_in(e->op, 1) ? e->in[1].data : NULL;
    const int64_t D = x->dims[3], S = x->dims[2], N = e->out[1].dims[2],
                  rows = x->dims[0] * x->dims[1] * S;
    float *row = NB_NEW_ARRAY(e->arena, float, (size_t)D + 1),
          *room = NB_NEW_ARRAY(e->arena, float, (size_t)D + 1);
    run_u4 runs[2];
    for (int i = 0; i < 2; i++)
        runs[i] = (run_u4){.codes = NB_NEW_ARRAY(e->arena, uint8_t, (size_t)D + 1),
                           .errors = NB_NEW_ARRAY(e->arena, float, (size_t)D + 1)};
    for (int64_t i = 0; i < rows; i++) {
        const int64_t head = i / S;
        memcpy(row, (const float *)x->data + i * D, (size_t)D * sizeof *row);
        quantize_row_u4(e, runs, row, room, feedback ? feedback + head % x->dims[1] * D * D : NULL,
                        i * D, head * N * S + i % S);
    }
    return NB_OK;
}

nb_status nb_eval_dequantize(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    const nb_quant *q = nb_in(e->op, 0)->type->quant;
    int64_t n = nb_tensor_count(x), last = x->rank ? nb_max_i64(x->dims[x->rank - 1], 1) : 1;
    float *y = e->out->data;
    if (x->scales) {
        int64_t block = q->granularity == NB_PER_BLOCK ? q->group : last,
                blocks = nb_ceildiv(last, block);
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)nb_tensor_get_int(x, i) * x->scales[i / last * blocks + i % last / block];
        return NB_OK;
    }
    const nb_codes c = nb_codes_expand(q, x, e->arena);
    for (int64_t i = 0; i < n; i++) y[i] = nb_codes_real(&c, i);
    return NB_OK;
}

nb_status nb_eval_scales(const nb_evaluating *e) {
    if (!e->in[0].scales) return nb_eval_error(e, "the codes came without scales");
    if (e->out->bytes) memcpy(e->out->data, e->in[0].scales, (size_t)e->out->bytes);
    return NB_OK;
}

nb_status nb_eval_qgather(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *index = &e->in[1];
    int64_t rows = x->dims[0], width = rows ? nb_tensor_count(x) / rows : 0,
            n = nb_tensor_count(index);
    const nb_codes c = nb_codes_expand(nb_in(e->op, 0)->type->quant, x, e->arena);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = nb_tensor_get_int(index, i);
        if (at < 0) at += rows;
        if (at < 0 || at >= rows)
            return nb_eval_error(e, "index %lld is outside a table of %lld rows",
                                 (long long)nb_tensor_get_int(index, i), (long long)rows);
        for (int64_t k = 0; k < width; k++)
            ((float *)e->out->data)[i * width + k] = nb_codes_real(&c, at * width + k);
    }
    return NB_OK;
}

/* ---- products of codes --------------------------------------------------------------------- */

static int64_t group_of(const nb_quant *qb, int64_t K) {
    return qb->granularity == NB_PER_GROUP ? nb_min_i64(qb->group, K) : K;
}

bool nb_is_product_of_codes(const nb_op *op) {
    const bool depthwise = op->kind == NB_OP_depthwise;
    if (op->kind != NB_OP_matmul && !depthwise) return false;
    const nb_op *a = nb_in(op, 0)->def, *b = nb_in(op, 1)->def;
    if (!a || !b || a->kind != NB_OP_dequantize || b->kind != NB_OP_dequantize) return false;
    const nb_value *x = nb_in(a, 0), *w = nb_in(b, 0);
    if (depthwise) {
        const int last = w->type->rank - 1;
        int64_t n;
        return nb_is_const(w) && nb_type_static_count(w->type, &n) &&
               !nb_depthwise_obstacle(x->type->quant, w->type->quant, last,
                                      n / nb_max_i64(w->type->dims[last]->value, 1));
    }
    return nb_is_const(w) && w->type->rank == 2 &&
           !nb_product_obstacle(x->type->quant, w->type->quant, w->type->dims[0]->value);
}

/* Columns of one row: sum over k of code * weight, exact. */
static void integer_sums(const int32_t *a, const int16_t *w, int64_t K, int64_t N, int64_t *sum) {
    memset(sum, 0, (size_t)N * sizeof *sum);
    for (int64_t k = 0; k < K; k++) {
        for (int64_t n = 0; n < N; n++) sum[n] += (int64_t)a[k] * w[k * N + n];
    }
}

nb_status nb_eval_product_of_codes(const nb_evaluating *e, const nb_tensor *a, const nb_quant *qa,
                                   const nb_tensor *b, const nb_quant *qb, const nb_tensor *bias,
                                   const nb_tensor *residual, nb_tensor *out) {
    int64_t K = b->dims[0], N = b->dims[1],
            rows = K ? nb_tensor_count(a) / K : nb_tensor_count(out) / nb_max_i64(N, 1);
    const char *why = nb_product_obstacle(qa, qb, K);
    if (why) return nb_eval_error(e, "%s", why);
    int64_t group = nb_max_i64(group_of(qb, K), 1), groups = nb_ceildiv(K, group);
    bool blocks = qa->granularity == NB_PER_BLOCK;
    const nb_codes c = nb_codes_expand(qb, b, e->arena);
    int16_t *w = NB_NEW_ARRAY(e->arena, int16_t, (size_t)(K * N) + 1);
    for (int64_t i = 0; i < K * N; i++)
        w[i] = (int16_t)(nb_tensor_get_int(b, i) - nb_codes_zero(&c, i));
    int32_t *codes = NB_NEW_ARRAY(e->arena, int32_t, (size_t)K + 1);
    int64_t *sums = NB_NEW_ARRAY(e->arena, int64_t, (size_t)N + 1);
    for (int64_t r = 0; r < rows; r++) {
        float *y = (float *)out->data + r * N;
        for (int64_t k = 0; k < K; k++) {
            codes[k] = (int32_t)nb_tensor_get_int(a, r * K + k);
            if (codes[k] > nb_quant_max(qa))
                return nb_eval_error(e, "code %d of the activations is above %lld", codes[k],
                                     (long long)nb_quant_max(qa));
            codes[k] -= (int32_t)qa->zero;
        }
        for (int64_t g = 0; g < groups; g++) {
            int64_t k = g * group, length = nb_min_i64(group, K - k);
            integer_sums(codes + k, w + k * N, length, N, sums);
            for (int64_t n = 0; n < N; n++) {
                float f = (float)sums[n];
                if (blocks) f = f * a->scales[r * groups + g];
                y[n] = fmaf(f, nb_codes_scale(&c, k * N + n), y[n]);
            }
        }
        float scale = blocks ? 1.0f : a->scales ? a->scales[r] : nb_quant_scale(qa, 0);
        for (int64_t n = 0; n < N; n++) {
            if (!blocks) y[n] = y[n] * scale;
            if (bias) y[n] = y[n] + ((const float *)bias->data)[n];
            if (residual) y[n] = y[n] + ((const float *)residual->data)[r * N + n];
        }
    }
    return NB_OK;
}

/* The sums themselves. */
static nb_status sums_of_codes(const nb_evaluating *e) {
    const nb_tensor *a = &e->in[0], *b = &e->in[1];
    const int64_t K = b->dims[0], N = b->dims[1], zero = nb_in(e->op, 0)->type->quant->zero;
    const nb_codes c = nb_codes_expand(nb_in(e->op, 1)->type->quant, b, e->arena);
    for (int64_t i = 0, n = nb_tensor_count(e->out); i < n; i++) {
        int64_t sum = 0;
        for (int64_t k = 0; k < K; k++) {
            const int64_t at = k * N + i % N;
            sum += (nb_tensor_get_int(a, i / N * K + k) - zero) *
                   (nb_tensor_get_int(b, at) - nb_codes_zero(&c, at));
        }
        nb_tensor_set_int(e->out, i, sum);
    }
    return NB_OK;
}

typedef nb_status product_fn(const nb_evaluating *e, const nb_tensor *a, const nb_quant *qa,
                             const nb_tensor *b, const nb_quant *qb, const nb_tensor *bias,
                             const nb_tensor *residual, nb_tensor *out);

/* A product with all that may follow it. */
static nb_status product(const nb_evaluating *e, product_fn *of) {
    const bool codes = nb_attr_of(e->op, "to")->set;
    nb_tensor floats = codes ? floats_like(e) : *e->out;
    NB_TRY(of(e, &e->in[0], nb_in(e->op, 0)->type->quant, &e->in[1], nb_in(e->op, 1)->type->quant,
              nb_given(e, 2) ? &e->in[2] : NULL, nb_given(e, 3) ? &e->in[3] : NULL, &floats));
    if (codes) quantize(e, &floats);
    return NB_OK;
}

nb_status nb_eval_qmatmul(const nb_evaluating *e) {
    return nb_attr_bool(e->op, "sums") ? sums_of_codes(e) : product(e, nb_eval_product_of_codes);
}

nb_status nb_eval_qdepthwise(const nb_evaluating *e) {
    return product(e, nb_eval_depthwise_of_codes);
}
