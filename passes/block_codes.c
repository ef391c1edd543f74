/* Blocks of weights as GGUF has them (block_codes.h). */
#include "passes/block_codes.h"

#include "ir/minifloat.h"
#include "passes/grid.h"

/* Nothing below this counts as a weight, or as a scale. */
#define NOTHING 1e-15F

static uint16_t half_of(float x) { return (uint16_t)nb_float_encode(NB_F16, x); }
static float value_of(uint16_t half) { return nb_float_decode(NB_F16, half); }

/* The weight of the largest magnitude, the first of equals; 0 of zeros. */
static float largest(const float *w, int64_t n) {
    float amax = 0, found = 0;
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(w[i]) <= amax) continue;
        amax = fabsf(w[i]);
        found = w[i];
    }
    return found;
}

static float inverse_of(float scale) { return scale != 0 ? 1 / scale : 0; }

/* ---- one scale, in f16; codes by the scale before it is rounded ---------------------------- */

static void round_q8_0(const float *w, int64_t n, nb_block *out) {
    const float scale = fabsf(largest(w, n)) / 127, inverse = inverse_of(scale);
    out->scale = half_of(scale);
    for (int64_t i = 0; i < n; i++) {
        const float code = roundf(w[i] * inverse); /* NaN where the scale is nearly nothing */
        out->codes[i] = (int8_t)(code >= -127 ? code <= 127 ? code : 127 : -127);
    }
}

static void round_q4_0(const float *w, int64_t n, nb_block *out) {
    const float scale = largest(w, n) / -8, inverse = inverse_of(scale);
    out->scale = half_of(scale);
    for (int64_t i = 0; i < n; i++) {
        const float code = w[i] * inverse + 8.5F; /* half way up, by truncation */
        out->codes[i] = (int8_t)((code > 0 ? code < 15 ? (int)code : 15 : 0) - 8);
    }
}

/* ---- Q6_K ---------------------------------------------------------------------------------- */

/* The scale of one part, and codes of -top .. top-1. */
static float fit_symmetric(const float *w, int64_t n, int top, int8_t *codes) {
    const float extreme = largest(w, n), low = (float)-top, high = (float)(top - 1);
    float scale = 0, best = 0;
    for (int64_t i = 0; i < n; i++) codes[i] = (int8_t)-top;
    if (fabsf(extreme) < NOTHING) return 0;
    for (int try = 0; try < 19; try++) {
        const int step = try == 0 ? 0 : try <= 9 ? try - 10 : try - 9; /* 0, -9..-1, 1..9 */
        const float inverse = -((float)top + 0.1F * (float)step) / extreme;
        float products = 0, squares = 0; /* sums of w^2 * w * code, w^2 * code^2 */
        for (int64_t i = 0; i < n; i++) {
            const float code = nb_nearest_step(inverse * w[i], low, high), weight = w[i] * w[i];
            products += weight * w[i] * code;
            squares += weight * code * code;
        }
        if (try > 0 && !(squares > 0 && products * products > best * squares)) continue;
        for (int64_t i = 0; i < n; i++)
            codes[i] = (int8_t)nb_nearest_step(inverse * w[i], low, high);
        scale = squares != 0 ? products / squares : 0;
        best = scale * products;
    }
    return scale;
}

static void round_q6_k(const float *w, int64_t n, nb_block *out) {
    const int64_t part = nb_block_q6_k.part, parts = nb_ceildiv(n, part);
    float scales[NB_BLOCK_PARTS] = {0};
    for (int64_t p = 0; p < parts; p++) {
        const int64_t at = p * part;
        scales[p] = fit_symmetric(w + at, nb_min_i64(part, n - at), 32, out->codes + at);
    }
    const float extreme = largest(scales, parts);
    if (fabsf(extreme) < NOTHING) {
        for (int64_t i = 0; i < n; i++) out->codes[i] = -32;
        for (int64_t p = 0; p < parts; p++) out->scales[p] = 0;
        out->scale = 0;
        return;
    }
    const float inverse = -128 / extreme;
    out->scale = half_of(1 / inverse);
    for (int64_t p = 0; p < parts; p++) {
        const int64_t at = p * part, end = nb_min_i64(at + part, n);
        out->scales[p] = (int8_t)nb_nearest_step(inverse * scales[p], -128, 127);
        const float scale = value_of(out->scale) * (float)out->scales[p];
        for (int64_t i = at; i < end && scale != 0; i++)
            out->codes[i] = (int8_t)nb_nearest_step(w[i] / scale, -32, 31);
    }
}

/* ---- Q4_K, Q5_K ---------------------------------------------------------------------------- */

/* The largest code, and how far from it the scales begin that are tried, of so many. */
typedef struct range {
    float top, from;
    int tries;
} range;

/* A scale and a minimum of one part, and how well they do. */
typedef struct line {
    float scale, minimum, error;
} line;

static float weighted_error(const line *l, const float *w, const float *weights, int64_t n,
                            const int8_t *codes) {
    float error = 0;
    for (int64_t i = 0; i < n; i++) {
        const float d = l->scale * (float)codes[i] + l->minimum - w[i];
        error += weights[i] * (d * d);
    }
    return error;
}

static void codes_above(const float *w, int64_t n, float minimum, float inverse, float top,
                        int8_t *codes) {
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int8_t)nb_nearest_step(inverse * (w[i] - minimum), 0, top);
}

/* Weighted least squares of w over codes, the minimum not above 0; false when codes are all one. */
static bool fit_line(const float *w, const float *weights, int64_t n, const int8_t *codes,
                     line *out) {
    float sum = 0, x = 0, c = 0, cc = 0, cx = 0;
    for (int64_t i = 0; i < n; i++) {
        const float code = (float)codes[i];
        sum += weights[i];
        x += weights[i] * w[i];
        c += weights[i] * code;
        cc += weights[i] * code * code;
        cx += weights[i] * code * w[i];
    }
    const float determinant = sum * cc - c * c;
    if (!(determinant > 0)) return false;
    out->scale = (sum * cx - x * c) / determinant;
    out->minimum = (cc * x - c * cx) / determinant;
    if (out->minimum > 0) {
        out->minimum = 0;
        out->scale = cx / cc;
    }
    out->error = weighted_error(out, w, weights, n, codes);
    return true;
}

static line fit_asymmetric(const range *r, const float *w, int64_t n, int8_t *codes) {
    float weights[NB_BLOCK_MAX], squares = 0, low = w[0], high = w[0];
    for (int64_t i = 0; i < n; i++) {
        squares += w[i] * w[i];
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    const float rms = sqrtf(squares / (float)n);
    for (int64_t i = 0; i < n; i++) weights[i] = rms + fabsf(w[i]);
    if (low > 0) low = 0;
    for (int64_t i = 0; i < n; i++) codes[i] = 0;
    if (low == high) return (line){.minimum = low};
    line best = {.scale = 1 / (r->top / (high - low)), .minimum = low};
    codes_above(w, n, low, r->top / (high - low), r->top, codes);
    best.error = weighted_error(&best, w, weights, n, codes);
    for (int try = 0; try < r->tries; try++) {
        /* The best minimum so far is the lower end of the range. */
        const float inverse = (r->from + 0.1F * (float)try + r->top) / (high - best.minimum);
        int8_t tried[NB_BLOCK_MAX];
        line l;
        codes_above(w, n, best.minimum, inverse, r->top, tried);
        if (!fit_line(w, weights, n, tried, &l) || !(l.error < best.error)) continue;
        best = l;
        for (int64_t i = 0; i < n; i++) codes[i] = tried[i];
    }
    return best;
}

/* Six-bit codes of numbers of 0 or more, the largest of which gets 63; returns what they are
 * multiplied by. */
static float six_bits(const float *numbers, int64_t n, int8_t *codes) {
    float top = 0;
    for (int64_t i = 0; i < n; i++) top = numbers[i] > top ? numbers[i] : top;
    const float inverse = top > 0 ? 63 / top : 0;
    for (int64_t i = 0; i < n; i++) codes[i] = (int8_t)nb_nearest_step(inverse * numbers[i], 0, 63);
    return top / 63;
}

static void round_asymmetric(const range *r, const float *w, int64_t n, nb_block *out) {
    const int64_t part = nb_block_q4_k.part, parts = nb_ceildiv(n, part);
    float scales[NB_BLOCK_PARTS] = {0}, depths[NB_BLOCK_PARTS] = {0};
    for (int64_t p = 0; p < parts; p++) {
        const int64_t at = p * part;
        const line l = fit_asymmetric(r, w + at, nb_min_i64(part, n - at), out->codes + at);
        scales[p] = l.scale;
        depths[p] = -l.minimum;
    }
    out->scale = half_of(six_bits(scales, parts, out->scales));
    out->minimum = half_of(-six_bits(depths, parts, out->minima));
    for (int64_t p = 0; p < parts; p++) {
        const int64_t at = p * part, end = nb_min_i64(at + part, n);
        const float scale = value_of(out->scale) * (float)out->scales[p],
                    minimum = value_of(out->minimum) * (float)out->minima[p];
        for (int64_t i = at; i < end && scale != 0; i++)
            out->codes[i] = (int8_t)nb_nearest_step((w[i] - minimum) / scale, 0, r->top);
    }
}

static void round_q4_k(const float *w, int64_t n, nb_block *out) {
    round_asymmetric(&(range){15, -1, 21}, w, n, out);
}
static void round_q5_k(const float *w, int64_t n, nb_block *out) {
    round_asymmetric(&(range){31, -0.5F, 16}, w, n, out);
}

const nb_block_form nb_block_q8_0 = {NB_I8, 32, 32, NB_F16, false, round_q8_0},
                    nb_block_q4_0 = {NB_I4, 32, 32, NB_F16, false, round_q4_0},
                    nb_block_q6_k = {NB_I6, 256, 16, NB_I8, false, round_q6_k},
                    nb_block_q4_k = {NB_U4, 256, 32, NB_U6, true, round_q4_k},
                    nb_block_q5_k = {NB_U5, 256, 32, NB_U6, true, round_q5_k};
