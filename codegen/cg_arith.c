/* Arithmetic: one LLVM instruction where every CPU has it, written out where one would otherwise
 * become a call of the C library (fma, rounding). */
#include "codegen/cg_private.h"

#include <assert.h>

void cg_match(cg *g, LLVMValueRef *a, LLVMValueRef *b) {
    int la = cg_lanes(*a), lb = cg_lanes(*b);
    if (la == lb) return;
    if (!la)
        *a = cg_splat(g, *a, lb);
    else
        *b = cg_splat(g, *b, la);
}

/* LLVM folds constants as they are built, but not x + 0 or x * 1; sizes and strides are known to be
 * constant or not while kernels are written, so these matter. */
cg_val cg_add(cg *g, cg_val a, cg_val b) {
    if (cg_is(a, 0)) return b;
    if (cg_is(b, 0)) return a;
    cg_match(g, &a, &b);
    return cg_is_float(a) ? LLVMBuildFAdd(g->b, a, b, "") : LLVMBuildAdd(g->b, a, b, "");
}

cg_val cg_sub(cg *g, cg_val a, cg_val b) {
    if (cg_is(b, 0)) return a;
    cg_match(g, &a, &b);
    return cg_is_float(a) ? LLVMBuildFSub(g->b, a, b, "") : LLVMBuildSub(g->b, a, b, "");
}

cg_val cg_mul(cg *g, cg_val a, cg_val b) {
    if (cg_is(a, 1) || (cg_is(b, 0) && !cg_is_vector(a))) return b;
    if (cg_is(b, 1) || (cg_is(a, 0) && !cg_is_vector(b))) return a;
    cg_match(g, &a, &b);
    return cg_is_float(a) ? LLVMBuildFMul(g->b, a, b, "") : LLVMBuildMul(g->b, a, b, "");
}

cg_val cg_udiv(cg *g, cg_val a, cg_val b) {
    if (cg_is(b, 1)) return a;
    cg_match(g, &a, &b);
    return LLVMBuildUDiv(g->b, a, b, "");
}

cg_val cg_urem(cg *g, cg_val a, cg_val b) {
    if (cg_is(b, 1)) return cg_like(g, a, 0);
    cg_match(g, &a, &b);
    return LLVMBuildURem(g->b, a, b, "");
}

#define BINARY(name, build)                  \
    cg_val name(cg *g, cg_val a, cg_val b) { \
        cg_match(g, &a, &b);                 \
        return build(g->b, a, b, "");        \
    }
BINARY(cg_fdiv, LLVMBuildFDiv)
BINARY(cg_sdiv, LLVMBuildSDiv)
BINARY(cg_srem, LLVMBuildSRem)
BINARY(cg_shl, LLVMBuildShl)
BINARY(cg_lshr, LLVMBuildLShr)
BINARY(cg_ashr, LLVMBuildAShr)

/* Bitwise operations work on the bits of floats. */
#define BITWISE(name, build)                                                   \
    cg_val name(cg *g, cg_val a, cg_val b) {                                   \
        cg_match(g, &a, &b);                                                   \
        if (!cg_is_float(a)) return build(g->b, a, b, "");                     \
        return cg_from_bits(g, build(g->b, cg_bits(g, a), cg_bits(g, b), "")); \
    }
BITWISE(cg_and, LLVMBuildAnd)
BITWISE(cg_or, LLVMBuildOr)
BITWISE(cg_xor, LLVMBuildXor)

cg_val cg_not(cg *g, cg_val a) { return LLVMBuildNot(g->b, a, ""); }

cg_val cg_neg(cg *g, cg_val a) {
    return cg_is_float(a) ? LLVMBuildFNeg(g->b, a, "") : LLVMBuildNeg(g->b, a, "");
}

cg_val cg_abs(cg *g, cg_val a) {
    if (cg_is_float(a)) return cg_unary_intrinsic(g, "llvm.fabs", a);
    return cg_select(g, cg_cmpi(g, CG_LT, a, 0), cg_neg(g, a), a);
}

cg_val cg_addi(cg *g, cg_val a, int64_t b) { return cg_add(g, a, cg_like(g, a, b)); }
cg_val cg_muli(cg *g, cg_val a, int64_t b) { return cg_mul(g, a, cg_like(g, a, b)); }
cg_val cg_andi(cg *g, cg_val a, int64_t b) { return cg_and(g, a, cg_like(g, a, b)); }
cg_val cg_shli(cg *g, cg_val a, int b) { return cg_shl(g, a, cg_like(g, a, b)); }
cg_val cg_lshri(cg *g, cg_val a, int b) { return cg_lshr(g, a, cg_like(g, a, b)); }
cg_val cg_ashri(cg *g, cg_val a, int b) { return cg_ashr(g, a, cg_like(g, a, b)); }

static cg_val with_overflow(cg *g, const char *name, cg_val a, cg_val b, cg_var overflow) {
    cg_type type = CG_S(CG_I64);
    cg_val pair = cg_intrinsic(g, name, 1, &type, 2, (cg_val[]){a, b});
    cg_val flag = LLVMBuildExtractValue(g->b, pair, 1, "");
    cg_set(g, overflow, cg_or(g, cg_get(g, overflow), flag));
    return LLVMBuildExtractValue(g->b, pair, 0, "");
}

cg_val cg_add_checked(cg *g, cg_val a, cg_val b, cg_var overflow) {
    if (cg_is(a, 0) || cg_is(b, 0)) return cg_add(g, a, b);
    return with_overflow(g, "llvm.sadd.with.overflow", a, b, overflow);
}

cg_val cg_mul_checked(cg *g, cg_val a, cg_val b, cg_var overflow) {
    if (cg_is(a, 1) || cg_is(b, 1)) return cg_mul(g, a, b);
    return with_overflow(g, "llvm.smul.with.overflow", a, b, overflow);
}

cg_val cg_ceildiv(cg *g, cg_val a, cg_val b) {
    return cg_udiv(g, cg_add(g, a, cg_addi(g, b, -1)), b);
}

/* ---- comparison ---------------------------------------------------------------------------- */

cg_val cg_cmp(cg *g, cg_pred pred, cg_val a, cg_val b) {
    static const LLVMIntPredicate integer[] = {
        [CG_EQ] = LLVMIntEQ,   [CG_NE] = LLVMIntNE,   [CG_LT] = LLVMIntSLT,  [CG_LE] = LLVMIntSLE,
        [CG_GT] = LLVMIntSGT,  [CG_GE] = LLVMIntSGE,  [CG_ULT] = LLVMIntULT, [CG_ULE] = LLVMIntULE,
        [CG_UGT] = LLVMIntUGT, [CG_UGE] = LLVMIntUGE,
    };
    static const LLVMRealPredicate real[] = {
        [CG_EQ] = LLVMRealOEQ,  [CG_NE] = LLVMRealUNE,        [CG_LT] = LLVMRealOLT,
        [CG_LE] = LLVMRealOLE,  [CG_GT] = LLVMRealOGT,        [CG_GE] = LLVMRealOGE,
        [CG_ULT] = LLVMRealULT, [CG_ULE] = LLVMRealULE,       [CG_UGT] = LLVMRealUGT,
        [CG_UGE] = LLVMRealUGE, [CG_UNORDERED] = LLVMRealUNO,
    };
    cg_match(g, &a, &b);
    if (cg_is_float(a)) return LLVMBuildFCmp(g->b, real[pred], a, b, "");
    assert(pred != CG_UNORDERED);
    return LLVMBuildICmp(g->b, integer[pred], a, b, "");
}

cg_val cg_cmpi(cg *g, cg_pred pred, cg_val a, int64_t b) {
    return cg_cmp(g, pred, a, cg_like(g, a, b));
}

cg_val cg_is_nan(cg *g, cg_val a) { return cg_cmp(g, CG_UNORDERED, a, a); }

cg_val cg_select(cg *g, cg_val cond, cg_val a, cg_val b) {
    cg_match(g, &a, &b);
    int lanes = cg_lanes(cond);
    if (lanes && !cg_is_vector(a)) {
        a = cg_splat(g, a, lanes);
        b = cg_splat(g, b, lanes);
    }
    return LLVMBuildSelect(g->b, cond, a, b, "");
}

#define CHOOSE(name, pred)                                \
    cg_val name(cg *g, cg_val a, cg_val b) {              \
        cg_match(g, &a, &b);                              \
        return cg_select(g, cg_cmp(g, pred, a, b), a, b); \
    }
CHOOSE(cg_smin, CG_LT)
CHOOSE(cg_smax, CG_GT)
CHOOSE(cg_umin, CG_ULT)
CHOOSE(cg_umax, CG_UGT)

/* max:  a NaN -> NaN;  a == b -> a & b (so that -0, +0 gives +0);  else the larger.
 * min:  the same with | and the smaller. */
static cg_val choose_float(cg *g, cg_val a, cg_val b, bool max) {
    cg_match(g, &a, &b);
    if (cg_isa_of(g)->maximum) {
        cg_type type = cg_type_of(a);
        return cg_intrinsic(g, max ? "llvm.maximum" : "llvm.minimum", 1, &type, 2,
                            (cg_val[]){a, b});
    }
    cg_val equal = max ? cg_and(g, a, b) : cg_or(g, a, b);
    cg_val r = cg_select(g, cg_cmp(g, max ? CG_GT : CG_LT, a, b), a, b);
    r = cg_select(g, cg_cmp(g, CG_EQ, a, b), equal, r);
    return cg_select(g, cg_cmp(g, CG_UNORDERED, a, b), cg_add(g, a, b), r);
}

cg_val cg_fmin(cg *g, cg_val a, cg_val b) { return choose_float(g, a, b, false); }
cg_val cg_fmax(cg *g, cg_val a, cg_val b) { return choose_float(g, a, b, true); }

cg_val cg_canonical_bits(cg *g, cg_val a) {
    cg_val bits = cg_bits(g, a);
    int64_t nan = cg_kind_of(a) == CG_F32 ? 0x7fc00000 : INT64_C(0x7ff8000000000000);
    return cg_select(g, cg_is_nan(g, a), cg_like(g, bits, nan), bits);
}

/* ---- rounding ------------------------------------------------------------------------------ */

cg_val cg_sqrt(cg *g, cg_val a) { return cg_unary_intrinsic(g, "llvm.sqrt", a); }

static cg_val with_sign(cg *g, cg_val magnitude, cg_val sign) {
    int64_t bit = cg_kind_of(sign) == CG_F32 ? INT64_C(0x80000000) : INT64_MIN;
    cg_val s = cg_andi(g, cg_bits(g, sign), bit);
    return cg_from_bits(g, cg_or(g, cg_bits(g, cg_abs(g, magnitude)), s));
}

/* Adding and subtracting 2^23 (2^52) leaves an integral value, rounded half to even; anything that
 * large is integral already. */
cg_val cg_rint(cg *g, cg_val a) {
    if (cg_isa_of(g)->round) return cg_unary_intrinsic(g, "llvm.roundeven", a);
    double limit = cg_kind_of(a) == CG_F32 ? 8388608.0 : 4503599627370496.0;
    cg_val big = cg_likef(g, a, limit), magnitude = cg_abs(g, a);
    cg_val r = cg_sub(g, cg_add(g, magnitude, big), big);
    return cg_select(g, cg_cmp(g, CG_LT, magnitude, big), with_sign(g, r, a), a);
}

cg_val cg_floor(cg *g, cg_val a) {
    if (cg_isa_of(g)->round) return cg_unary_intrinsic(g, "llvm.floor", a);
    cg_val r = cg_rint(g, a);
    cg_val lower = cg_sub(g, r, cg_likef(g, a, 1));
    return with_sign(g, cg_select(g, cg_cmp(g, CG_GT, r, a), lower, r), a);
}

cg_val cg_ceil(cg *g, cg_val a) {
    if (cg_isa_of(g)->round) return cg_unary_intrinsic(g, "llvm.ceil", a);
    return cg_neg(g, cg_floor(g, cg_neg(g, a)));
}

cg_val cg_trunc(cg *g, cg_val a) {
    if (cg_isa_of(g)->round) return cg_unary_intrinsic(g, "llvm.trunc", a);
    return with_sign(g, cg_floor(g, cg_abs(g, a)), a);
}

/* ---- fma ----------------------------------------------------------------------------------- */

/* a + b rounded to odd, f64: two-sum finds the error exactly, and it decides the last bit. */
static cg_val add_to_odd(cg *g, cg_val a, cg_val b) {
    cg_val s = cg_add(g, a, b), v = cg_sub(g, s, a);
    cg_val e = cg_add(g, cg_sub(g, a, cg_sub(g, s, v)), cg_sub(g, b, v));
    cg_val bits = cg_bits(g, s), zero = cg_likef(g, e, 0);
    cg_val inexact = cg_or(g, cg_cmp(g, CG_LT, e, zero), cg_cmp(g, CG_GT, e, zero));
    /* An even last bit moves away from zero when error and sum have the same sign, else towards it.
     * Masks instead of selects: the smallest CPUs have no 64-bit comparisons. */
    cg_val one = cg_like(g, bits, 1);
    cg_val direction = cg_or(g, cg_ashri(g, cg_xor(g, bits, cg_bits(g, e)), 63), one);
    cg_val even = cg_sub(g, cg_and(g, bits, one), one);
    cg_val step = cg_and(g, cg_and(g, direction, even), cg_sext(g, inexact, CG_I64));
    return cg_from_bits(g, cg_add(g, bits, step));
}

static cg_val widen(cg *g, cg_val a) { return cg_float_to_float(g, a, CG_F64); }

/* fma(a, b, c) of f32 as a function: the sum rounded to odd, after which the rounding to f32 is the
 * only one that counts, since 53 >= 24 + 2 (Boldo, Melquiond: "Emulation of FMA and correctly
 * rounded sums", 2008). */
static cg_val rare_fma(cg_module *m, cg_type type) {
    LLVMValueRef *known = &m->rare_fma[type.lanes];
    if (!*known) {
        const cg_type params[] = {type, type, type};
        cg *g = cg_function(m, "rare_fma", type, 3, params, CG_NOINLINE);
        cg_val p = cg_mul(g, widen(g, cg_param(g, 0)), widen(g, cg_param(g, 1)));
        cg_val s = add_to_odd(g, p, widen(g, cg_param(g, 2)));
        cg_return(g, cg_float_to_float(g, s, CG_F32));
        *known = cg_finish(g);
    }
    return *known;
}

/* a*b+c of f32 through f64: the product is exact, so there are two roundings, of the sum to f64 and
 * to f32. They differ from a single one only when the f64 lies exactly between two f32, which shows
 * in the 29 bits that are dropped, or when the f32 is denormal. Then `rare_fma` does it again. */
static cg_val fma_f32(cg *g, cg_val a, cg_val b, cg_val c) {
    const cg_type type = cg_type_of(a);
    cg_val s = cg_add(g, cg_mul(g, widen(g, a), widen(g, b)), widen(g, c));
    cg_val dropped = cg_andi(g, cg_narrow(g, cg_bits(g, s), CG_I32), 0x1fffffff);
    cg_val magnitude = cg_abs(g, s);
    cg_val tiny = cg_and(g, cg_cmp(g, CG_LT, magnitude, cg_f64(g, 0x1p-125)),
                         cg_cmp(g, CG_GT, magnitude, cg_f64(g, 0)));
    cg_val rare = cg_or(g, tiny, cg_cmpi(g, CG_EQ, dropped, 0x10000000));
    if (type.lanes) {
        LLVMTypeRef mask = LLVMIntTypeInContext(g->m->context, (unsigned)type.lanes);
        cg_val all = LLVMBuildBitCast(g->b, rare, mask, "");
        rare = LLVMBuildICmp(g->b, LLVMIntNE, all, LLVMConstNull(mask), "");
    }
    cg_var r = cg_var_new(g, cg_float_to_float(g, s, CG_F32));
    CG_IF(g, rare) cg_set(g, r, cg_call(g, rare_fma(g->m, type), 3, (cg_val[]){a, b, c}));
    return cg_get(g, r);
}

/* sum + error = a + b, exactly. */
static cg_val two_sum(cg *g, cg_val a, cg_val b, cg_val *error) {
    cg_val s = cg_add(g, a, b), v = cg_sub(g, s, a);
    *error = cg_add(g, cg_sub(g, a, cg_sub(g, s, v)), cg_sub(g, b, v));
    return s;
}

/* product + error = a * b, exactly, by splitting both into halves of 26 bits (Dekker, 1971). */
static cg_val two_product(cg *g, cg_val a, cg_val b, cg_val *error) {
    cg_val splitter = cg_likef(g, a, 134217729.0), high[2], low[2], x[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        cg_val t = cg_mul(g, x[i], splitter);
        high[i] = cg_sub(g, t, cg_sub(g, t, x[i]));
        low[i] = cg_sub(g, x[i], high[i]);
    }
    cg_val p = cg_mul(g, a, b);
    cg_val e = cg_sub(g, cg_mul(g, high[0], high[1]), p);
    e = cg_add(g, e, cg_mul(g, high[0], low[1]));
    e = cg_add(g, e, cg_mul(g, low[0], high[1]));
    *error = cg_add(g, e, cg_mul(g, low[0], low[1]));
    return p;
}

/* Also after Boldo and Melquiond; exact unless something over- or underflows. */
static cg_val fma_f64(cg *g, cg_val a, cg_val b, cg_val c) {
    cg_val low, rest, error;
    cg_val high = two_product(g, a, b, &low);
    cg_val t = two_sum(g, c, low, &rest);
    cg_val v = two_sum(g, high, t, &error);
    return cg_add(g, v, add_to_odd(g, rest, error));
}

cg_val cg_fma(cg *g, cg_val a, cg_val b, cg_val c) {
    cg_match(g, &a, &b);
    cg_match(g, &a, &c);
    cg_match(g, &b, &c);
    if (cg_isa_of(g)->fma) {
        cg_type type = cg_type_of(a);
        return cg_intrinsic(g, "llvm.fma", 1, &type, 3, (cg_val[]){a, b, c});
    }
    return cg_kind_of(a) == CG_F32 ? fma_f32(g, a, b, c) : fma_f64(g, a, b, c);
}
