/* The functions of ir/scalar.h in vectors (or scalars): the same steps in the same order, so the
 * same bits. Read the two side by side. */
#include "codegen/cg_private.h"

#include "ir/support/poly.h"

#include <math.h>

static cg_val f32(cg *g, float value) { return cg_f32(g, value); }

static cg_val horner(cg *g, const float *c, int n, cg_val x) {
    cg_val p = cg_likef(g, x, (double)c[0]);
    for (int i = 1; i < n; i++) p = cg_fma(g, p, x, f32(g, c[i]));
    return p;
}

static cg_val horner_f64(cg *g, const double *c, int n, cg_val x) {
    cg_val p = cg_likef(g, x, c[0]);
    for (int i = 1; i < n; i++) p = cg_fma(g, p, x, cg_f64(g, c[i]));
    return p;
}

/* a where `pred` holds between x and limit, else b. */
static cg_val where(cg *g, cg_pred pred, cg_val x, cg_val limit, cg_val a, cg_val b) {
    return cg_select(g, cg_cmp(g, pred, x, limit), a, b);
}

static cg_val keep_nan(cg *g, cg_val x, cg_val y) { return cg_select(g, cg_is_nan(g, x), x, y); }

/* 2^k by its bits. */
static cg_val pow2i(cg *g, cg_val k) { return cg_from_bits(g, cg_shli(g, cg_addi(g, k, 127), 23)); }

/* Sets the sign bit of `a` where x has it. */
static cg_val or_sign(cg *g, cg_val a, cg_val x) {
    cg_val sign = cg_andi(g, cg_bits(g, x), INT64_C(0x80000000));
    return cg_from_bits(g, cg_or(g, cg_bits(g, a), sign));
}

cg_val cg_exp(cg *g, cg_val x) {
    static const float c[] = NB_EXP_POLY;
    cg_val v = where(g, CG_GT, x, f32(g, NB_EXP_MAX), f32(g, NB_EXP_MAX), x);
    v = where(g, CG_LT, v, f32(g, NB_EXP_MIN), f32(g, NB_EXP_MIN), v);
    cg_val magic = f32(g, NB_ROUND_MAGIC);
    cg_val t = cg_fma(g, v, f32(g, NB_LOG2E), magic);
    cg_val n = cg_sub(g, t, magic);
    cg_val k = cg_addi(g, cg_bits(g, t), -(int64_t)NB_ROUND_MAGIC_BITS);
    cg_val r = cg_fma(g, n, f32(g, -NB_LN2_HI), v);
    r = cg_fma(g, n, f32(g, -(NB_LN2_LO)), r);
    cg_val p = horner(g, c, 6, r);
    cg_val y = cg_add(g, cg_fma(g, p, cg_mul(g, r, r), r), f32(g, 1));
    cg_val k1 = cg_ashri(g, k, 1), k2 = cg_sub(g, k, k1);
    y = cg_mul(g, cg_mul(g, y, pow2i(g, k1)), pow2i(g, k2));
    return keep_nan(g, x, y);
}

cg_val cg_log(cg *g, cg_val x) {
    static const float c[] = NB_LOG_POLY;
    cg_val tiny = cg_cmp(g, CG_LT, x, f32(g, 1.17549435e-38F));
    cg_val v = cg_select(g, tiny, cg_mul(g, x, f32(g, 8388608.0F)), x);
    cg_val shifted = cg_addi(g, cg_bits(g, v), -INT64_C(0x3f3504f3));
    cg_val k = cg_ashri(g, shifted, 23);
    cg_val m = cg_from_bits(g, cg_addi(g, cg_andi(g, shifted, 0x007fffff), 0x3f3504f3));
    cg_val less = cg_select(g, tiny, cg_like(g, k, 23), cg_like(g, k, 0));
    cg_val e = cg_sint_to_float(g, cg_sub(g, k, less), CG_F32);
    cg_val z = cg_sub(g, m, f32(g, 1)), zz = cg_mul(g, z, z);
    cg_val y = cg_mul(g, cg_mul(g, horner(g, c, 9, z), z), zz);
    y = cg_fma(g, e, f32(g, NB_LN2_LO), y);
    y = cg_fma(g, zz, f32(g, -0.5F), y);
    cg_val r = cg_add(g, z, y);
    r = cg_fma(g, e, f32(g, NB_LN2_HI), r);
    r = where(g, CG_EQ, x, f32(g, HUGE_VALF), x, r);
    r = where(g, CG_EQ, x, f32(g, 0), f32(g, -HUGE_VALF), r);
    r = where(g, CG_LT, x, f32(g, 0), f32(g, nanf("")), r);
    return keep_nan(g, x, r);
}

cg_val cg_tanh(cg *g, cg_val x) {
    static const float c[] = NB_TANH_POLY;
    cg_val a = cg_abs(g, x), s = cg_mul(g, x, x), one = f32(g, 1);
    cg_val small = cg_fma(g, cg_mul(g, horner(g, c, 5, s), s), x, x);
    cg_val large = cg_add(g, cg_exp(g, cg_add(g, a, a)), one);
    large = cg_sub(g, one, cg_fdiv(g, f32(g, 2), large));
    large = or_sign(g, large, x);
    return keep_nan(g, x, where(g, CG_LT, a, f32(g, NB_TANH_SPLIT), small, large));
}

cg_val cg_erf(cg *g, cg_val x) {
    static const float cs[] = NB_ERF_SMALL, cl[] = NB_ERF_LARGE;
    cg_val a = cg_abs(g, x), s = cg_mul(g, x, x);
    a = where(g, CG_GT, a, f32(g, NB_ERF_MAX), f32(g, NB_ERF_MAX), a);
    cg_val small = cg_fma(g, horner(g, cs, 6, s), x, x);
    cg_val r = horner(g, cl, 7, a);
    cg_val large = cg_sub(g, f32(g, 1), cg_exp(g, cg_fma(g, r, a, cg_neg(g, a))));
    large = or_sign(g, large, x);
    return keep_nan(g, x, where(g, CG_GT, a, f32(g, NB_ERF_SPLIT), large, small));
}

static cg_val sincos_of(cg *g, cg_val x, int cosine) {
    static const float cs[] = NB_SIN_POLY, cc[] = NB_COS_POLY;
    cg_val magic = f32(g, NB_ROUND_MAGIC);
    cg_val t = cg_fma(g, x, f32(g, NB_TWO_OVER_PI), magic);
    cg_val n = cg_sub(g, t, magic);
    cg_val q = cg_addi(g, cg_bits(g, t), cosine - (int64_t)NB_ROUND_MAGIC_BITS);
    cg_val r = cg_fma(g, n, f32(g, -NB_PIO2_1), x);
    r = cg_fma(g, n, f32(g, -NB_PIO2_2), r);
    r = cg_fma(g, n, f32(g, -NB_PIO2_3), r);
    cg_val s = cg_mul(g, r, r);
    cg_val sine = cg_fma(g, cg_mul(g, horner(g, cs, 3, s), s), r, r);
    cg_val tail = cg_fma(g, s, f32(g, -0.5F), f32(g, 1));
    cg_val cosi = cg_fma(g, horner(g, cc, 3, s), cg_mul(g, s, s), tail);
    cg_val y = cg_select(g, cg_cmpi(g, CG_NE, cg_andi(g, q, 1), 0), cosi, sine);
    cg_val flip = cg_shli(g, cg_andi(g, q, 2), 30);
    return cg_from_bits(g, cg_xor(g, cg_bits(g, y), flip));
}

cg_val cg_sin(cg *g, cg_val x) { return sincos_of(g, x, 0); }
cg_val cg_cos(cg *g, cg_val x) { return sincos_of(g, x, 1); }

cg_val cg_atan(cg *g, cg_val x) {
    static const float c[] = NB_ATAN_POLY;
    cg_val one = f32(g, 1), a = cg_abs(g, x);
    cg_val t = where(g, CG_GT, a, one, cg_fdiv(g, one, a), a), s = cg_mul(g, t, t);
    cg_val p = cg_fma(g, cg_mul(g, horner(g, c, 8, s), s), t, t);
    cg_val large = cg_sub(g, f32(g, NB_PIO2_HI), cg_sub(g, p, f32(g, NB_PIO2_LO)));
    return keep_nan(g, x, or_sign(g, where(g, CG_GT, a, one, large, p), x));
}

/* |a| to the b in double precision, rounded to f32. */
static cg_val pow_magnitude(cg *g, cg_val a, cg_val b) {
    static const double cl[] = NB_POW_LOG2_POLY, ce[] = NB_POW_EXP_POLY;
    const int64_t half = INT64_C(0x3fe6a09e667f3bcd), fraction = INT64_C(0x000fffffffffffff);
    cg_val infinity = cg_f64(g, HUGE_VAL), magic = cg_f64(g, NB_ROUND_MAGIC_D);
    cg_val one = cg_f64(g, 1), limit = cg_f64(g, NB_POW_MAX);
    cg_val x = cg_float_to_float(g, cg_abs(g, a), CG_F64);
    cg_val shifted = cg_addi(g, cg_bits(g, x), -half);
    cg_val k = cg_ashri(g, shifted, 52);
    cg_val m = cg_from_bits(g, cg_addi(g, cg_andi(g, shifted, fraction), half));
    cg_val t = cg_fdiv(g, cg_sub(g, m, one), cg_add(g, m, one));
    /* k fits 32 bits, and only that conversion is one instruction everywhere. */
    cg_val whole = cg_sint_to_float(g, cg_narrow(g, k, CG_I32), CG_F64);
    cg_val l = cg_fma(g, horner_f64(g, cl, 7, cg_mul(g, t, t)), t, whole);
    l = where(g, CG_EQ, x, cg_f64(g, 0), cg_f64(g, -HUGE_VAL), l);
    l = where(g, CG_EQ, x, infinity, infinity, l);
    cg_val y = cg_mul(g, cg_float_to_float(g, b, CG_F64), l);
    y = where(g, CG_GT, y, limit, limit, y);
    y = where(g, CG_LT, y, cg_neg(g, limit), cg_neg(g, limit), y);
    cg_val r = cg_add(g, y, magic), n = cg_sub(g, r, magic), f = cg_sub(g, y, n);
    cg_val exponent = cg_addi(g, cg_sub(g, cg_bits(g, r), cg_bits(g, magic)), 1023);
    cg_val scale = cg_from_bits(g, cg_shli(g, exponent, 52));
    cg_val p = horner_f64(g, ce, 11, cg_mul(g, f, cg_f64(g, NB_LN2_D)));
    return cg_float_to_float(g, cg_mul(g, p, scale), CG_F32);
}

cg_val cg_pow(cg *g, cg_val a, cg_val b) {
    cg_match(g, &a, &b);
    cg_val one = f32(g, 1), infinity = f32(g, HUGE_VALF);
    cg_val p = pow_magnitude(g, a, b);
    cg_val half = cg_mul(g, b, f32(g, 0.5F));
    cg_val whole = cg_cmp(g, CG_EQ, cg_floor(g, b), b);
    cg_val odd = cg_and(g, whole, cg_cmp(g, CG_NE, cg_floor(g, half), half));
    p = cg_select(g, odd, or_sign(g, p, a), p);
    cg_val magnitude = cg_abs(g, a);
    cg_val bad = cg_and(g, cg_cmp(g, CG_LT, a, f32(g, 0)), cg_not(g, whole));
    bad = cg_and(g, bad, cg_cmp(g, CG_NE, magnitude, infinity));
    p = cg_select(g, bad, f32(g, nanf("")), p);
    cg_val unit =
        cg_and(g, cg_cmp(g, CG_EQ, magnitude, one), cg_cmp(g, CG_EQ, cg_abs(g, b), infinity));
    p = cg_select(g, unit, one, p);
    p = keep_nan(g, a, p);
    p = keep_nan(g, b, p);
    cg_val sure = cg_or(g, cg_cmp(g, CG_EQ, a, one), cg_cmp(g, CG_EQ, b, f32(g, 0)));
    return cg_select(g, sure, one, p);
}
