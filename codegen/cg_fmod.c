/* The remainder of floats, exact, with the sign of the dividend: long division of the mantissas in
 * integers, one bit a step, lane by lane. C's fmod, without calling it. */
#include "codegen/cg_private.h"

typedef struct format {
    int mantissa;     /* bits */
    int64_t infinity; /* its bit pattern */
    int64_t sign;
} format;

/* The exponent field, 1 for denormals too, and the mantissa with its hidden bit. */
static cg_val split(cg *g, const format *f, cg_val magnitude, cg_val *mantissa) {
    cg_val field = cg_lshri(g, magnitude, f->mantissa);
    cg_val exponent = cg_umax(g, field, cg_like(g, field, 1));
    cg_val hidden = cg_shli(g, cg_addi(g, exponent, -1), f->mantissa);
    *mantissa = cg_sub(g, magnitude, hidden);
    return exponent;
}

/* The bits of fmod for finite x and nonzero y; whatever for others, but it ends. */
static cg_val remainder_bits(cg *g, const format *f, cg_val x, cg_val y) {
    cg_val mx, my;
    cg_val ex = split(g, f, x, &mx), ey = split(g, f, y, &my);
    my = cg_select(g, cg_cmpi(g, CG_EQ, my, 0), cg_like(g, my, 1), my);
    cg_var rest = cg_var_new(g, cg_urem(g, mx, my));
    CG_FOR(g, i, ey, ex, cg_like(g, ey, 1)) {
        cg_val twice = cg_shli(g, cg_get(g, rest), 1);
        cg_val less = cg_sub(g, twice, my);
        cg_set(g, rest, cg_select(g, cg_cmp(g, CG_UGE, twice, my), less, twice));
    }
    /* Back to a hidden bit, as far as the exponent allows. */
    cg_var exponent = cg_var_new(g, ey);
    const int64_t hidden = INT64_C(1) << f->mantissa;
    CG_WHILE(g, cg_and(g, cg_cmpi(g, CG_ULT, cg_get(g, rest), hidden),
                       cg_cmpi(g, CG_GT, cg_get(g, exponent), 1))) {
        cg_set(g, rest, cg_shli(g, cg_get(g, rest), 1));
        cg_set(g, exponent, cg_addi(g, cg_get(g, exponent), -1));
    }
    cg_val field = cg_shli(g, cg_addi(g, cg_get(g, exponent), -1), f->mantissa);
    cg_val bits = cg_add(g, field, cg_get(g, rest));
    return cg_select(g, cg_cmp(g, CG_ULT, x, y), x, bits);
}

static cg_val fmod_scalar(cg *g, cg_val a, cg_val b) {
    const format f32 = {23, 0x7f800000, INT64_C(0x80000000)};
    const format f64 = {52, INT64_C(0x7ff0000000000000), INT64_MIN};
    const format *f = cg_kind_of(a) == CG_F32 ? &f32 : &f64;
    cg_val x = cg_bits(g, cg_abs(g, a)), y = cg_bits(g, cg_abs(g, b));
    cg_val bad = cg_or(g, cg_cmpi(g, CG_UGE, x, f->infinity), cg_cmpi(g, CG_EQ, y, 0));
    bad = cg_or(g, bad, cg_cmpi(g, CG_UGT, y, f->infinity));
    cg_val nan = cg_like(g, x, f->infinity | (INT64_C(1) << (f->mantissa - 1)));
    cg_val bits = cg_or(g, remainder_bits(g, f, x, y), cg_andi(g, cg_bits(g, a), f->sign));
    return cg_from_bits(g, cg_select(g, bad, nan, bits));
}

cg_val cg_fmod(cg *g, cg_val a, cg_val b) {
    cg_match(g, &a, &b);
    if (!cg_is_vector(a)) return fmod_scalar(g, a, b);
    const cg_type type = cg_type_of(a);
    const int64_t bytes = (int64_t)type.lanes * cg_kind_bytes(type.kind);
    cg_val xs = cg_stack(g, bytes, 64), ys = cg_stack(g, bytes, 64);
    cg_store(g, a, xs, 64);
    cg_store(g, b, ys, 64);
    CG_FOR(g, i, cg_i64(g, 0), cg_i64(g, type.lanes), cg_i64(g, 1)) {
        cg_val at = cg_index(g, xs, type.kind, i);
        cg_val y = cg_load(g, CG_S(type.kind), cg_index(g, ys, type.kind, i), 0);
        cg_store(g, fmod_scalar(g, cg_load(g, CG_S(type.kind), at, 0), y), at, 0);
    }
    return cg_load(g, type, xs, 64);
}
