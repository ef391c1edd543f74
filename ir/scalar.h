/* The specified functions of one f32 (NUMBERS.md): plain C whose every rounding is explicit.
 *
 * Only +, -, *, /, fma, floor, comparisons, selects and integer operations on bits, in one straight
 * line, so that the code generator can write the same steps over vectors and get the same bits.
 * Compile with -ffp-contract=off. `a ? b : c` here means a select: both sides are computed. */
#ifndef NB_SCALAR_H
#define NB_SCALAR_H

#include "ir/support/poly.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* A mask of attention that is as small or smaller hides its key (NUMBERS.md, "Products"). */
#define NB_HIDING (-0x1p100F)
/* Attention to codes of 8 bits: the largest code of a query, whose product with 1024 codes fits 32
 * bits, that of a weight, and what exponentials are counted in. */
#define NB_QUERY_CODES  16383
#define NB_WEIGHT_CODES 0x1p23F
#define NB_WEIGHT_UNIT  0x1p-24F

/* Entries of hadamard's next block when `left` > 0 are left of a row (NUMBERS.md, "Layers"). */
static inline int64_t nb_hadamard_block(int64_t block, int64_t left) {
    while (block > left) block /= 2;
    return block;
}

static inline uint32_t nb_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float nb_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint64_t nb_bits_d(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline double nb_from_bits_d(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* c[0] x^(n-1) + ... + c[n-1] by Horner with fma. */
static inline float nb_horner(const float *c, int n, float x) {
    float p = c[0];
    for (int i = 1; i < n; i++) p = fmaf(p, x, c[i]);
    return p;
}

static inline double nb_horner_d(const double *c, int n, double x) {
    double p = c[0];
    for (int i = 1; i < n; i++) p = fma(p, x, c[i]);
    return p;
}

/* 2^n as bits, -126 <= n <= 127. */
static inline float nb_pow2i(int32_t n) { return nb_from_bits((uint32_t)(n + 127) << 23); }

/* Within 1.02 ulp. */
static inline float nb_expf(float x) {
    static const float c[] = NB_EXP_POLY;
    float v = x > NB_EXP_MAX ? NB_EXP_MAX : x;
    v = v < NB_EXP_MIN ? NB_EXP_MIN : v;
    float t = fmaf(v, NB_LOG2E, NB_ROUND_MAGIC);
    float n = t - NB_ROUND_MAGIC;
    int32_t k = (int32_t)(nb_bits(t) - NB_ROUND_MAGIC_BITS);
    float r = fmaf(n, -NB_LN2_HI, v);
    r = fmaf(n, -NB_LN2_LO, r);
    float p = nb_horner(c, 6, r);
    float y = fmaf(p, r * r, r) + 1.0f;
    /* In two factors, so that the one rounding of a denormal result comes last. A NaN makes k
     * anything; shifts of unsigned numbers stay defined, and the NaN is put back. */
    int32_t k1 = k >> 1, k2 = k - k1;
    y = y * nb_from_bits((uint32_t)(k1 + 127) << 23) * nb_from_bits((uint32_t)(k2 + 127) << 23);
    return x != x ? x : y;
}

/* Within 0.84 ulp; negative arguments give NaN, 0 gives -infinity. */
static inline float nb_logf(float x) {
    static const float c[] = NB_LOG_POLY;
    int tiny = x < 1.17549435e-38f;
    float v = tiny ? x * 8388608.0f : x; /* 2^23: denormals become normal */
    uint32_t u = nb_bits(v);
    /* m in [sqrt(1/2), sqrt(2)), v = m * 2^k */
    uint32_t shifted = u - 0x3f3504f3u;
    int32_t k = (int32_t)shifted >> 23;
    float m = nb_from_bits((shifted & 0x007fffffu) + 0x3f3504f3u);
    float e = (float)(k - (tiny ? 23 : 0));
    float z = m - 1.0f, zz = z * z;
    float y = nb_horner(c, 9, z) * z * zz;
    y = fmaf(e, NB_LN2_LO, y);
    y = fmaf(-0.5f, zz, y);
    float r = z + y;
    r = fmaf(e, NB_LN2_HI, r);
    r = x == HUGE_VALF ? x : r;
    r = x == 0.0f ? -HUGE_VALF : r;
    r = x < 0.0f ? nb_from_bits(0x7fc00000u) : r;
    return x != x ? x : r;
}

/* Within 1.4 ulp; -0 gives +0. */
static inline float nb_tanhf(float x) {
    static const float c[] = NB_TANH_POLY;
    float a = fabsf(x), s = x * x;
    float small = fmaf(nb_horner(c, 5, s) * s, x, x);
    float large = 1.0f - 2.0f / (nb_expf(a + a) + 1.0f);
    large = nb_from_bits(nb_bits(large) | (nb_bits(x) & 0x80000000u));
    float y = a < NB_TANH_SPLIT ? small : large;
    return x != x ? x : y;
}

/* Within 1.1 ulp. */
static inline float nb_erff(float x) {
    static const float cs[] = NB_ERF_SMALL, cl[] = NB_ERF_LARGE;
    float a = fabsf(x), s = x * x;
    a = a > NB_ERF_MAX ? NB_ERF_MAX : a;
    float small = fmaf(nb_horner(cs, 6, s), x, x);
    float r = nb_horner(cl, 7, a);
    float large = 1.0f - nb_expf(fmaf(r, a, -a));
    large = nb_from_bits(nb_bits(large) | (nb_bits(x) & 0x80000000u));
    float y = a > NB_ERF_SPLIT ? large : small;
    return x != x ? x : y;
}

/* sin (cosine = 0) or cos (cosine = 1). Within 1.6 ulp for |x| <= 100,000; sin(-0) is +0. From
 * 6.5 million on the same on every machine, but without meaning, even outside of -1..1. */
static inline float nb_sincosf(float x, uint32_t cosine) {
    static const float cs[] = NB_SIN_POLY, cc[] = NB_COS_POLY;
    float t = fmaf(x, NB_TWO_OVER_PI, NB_ROUND_MAGIC);
    float n = t - NB_ROUND_MAGIC;
    uint32_t q = nb_bits(t) - NB_ROUND_MAGIC_BITS + cosine;
    float r = fmaf(n, -NB_PIO2_1, x);
    r = fmaf(n, -NB_PIO2_2, r);
    r = fmaf(n, -NB_PIO2_3, r);
    float s = r * r;
    float sine = fmaf(nb_horner(cs, 3, s) * s, r, r);
    float cosi = fmaf(nb_horner(cc, 3, s), s * s, fmaf(-0.5f, s, 1.0f));
    float y = q & 1 ? cosi : sine;
    return nb_from_bits(nb_bits(y) ^ (q & 2) << 30);
}

static inline float nb_sinf(float x) { return nb_sincosf(x, 0); }
static inline float nb_cosf(float x) { return nb_sincosf(x, 1); }

/* Within 1.5 ulp. */
static inline float nb_atanf(float x) {
    static const float c[] = NB_ATAN_POLY;
    float a = fabsf(x), t = a > 1.0f ? 1.0f / a : a, s = t * t;
    float p = fmaf(nb_horner(c, 8, s) * s, t, t);
    float large = NB_PIO2_HI - (p - NB_PIO2_LO);
    float y = a > 1.0f ? large : p;
    y = nb_from_bits(nb_bits(y) | (nb_bits(x) & 0x80000000u));
    return x != x ? x : y;
}

/* a to the b, through doubles; within 0.51 ulp. Special cases as C's powf. */
static inline float nb_powf(float a, float b) {
    static const double cl[] = NB_POW_LOG2_POLY, ce[] = NB_POW_EXP_POLY;
    double x = (double)fabsf(a);
    uint64_t u = nb_bits_d(x), shifted = u - 0x3fe6a09e667f3bcdu;
    int64_t k = (int64_t)shifted >> 52;
    double m = nb_from_bits_d((shifted & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
    double t = (m - 1.0) / (m + 1.0);
    double l = fma(nb_horner_d(cl, 7, t * t), t, (double)k);
    l = x == 0.0 ? -HUGE_VAL : l;
    l = x == HUGE_VAL ? HUGE_VAL : l;
    double y = (double)b * l;
    y = y > NB_POW_MAX ? NB_POW_MAX : y;
    y = y < -NB_POW_MAX ? -NB_POW_MAX : y;
    double r = y + NB_ROUND_MAGIC_D, n = r - NB_ROUND_MAGIC_D, f = y - n;
    uint64_t exponent = nb_bits_d(r) - nb_bits_d(NB_ROUND_MAGIC_D) + 1023;
    float p = (float)(nb_horner_d(ce, 11, f * NB_LN2_D) * nb_from_bits_d(exponent << 52));
    float half = b * 0.5f;
    int whole = floorf(b) == b, odd = whole && floorf(half) != half;
    p = odd ? nb_from_bits(nb_bits(p) | (nb_bits(a) & 0x80000000u)) : p;
    p = a < 0.0f && !whole && fabsf(a) != HUGE_VALF ? nb_from_bits(0x7fc00000u) : p;
    p = fabsf(a) == 1.0f && fabsf(b) == HUGE_VALF ? 1.0f : p;
    p = a != a ? a : p;
    p = b != b ? b : p;
    return a == 1.0f || b == 0.0f ? 1.0f : p;
}

#endif
