/* Conversions, and what an element looks like in memory and in arithmetic. */
#include "codegen/cg_private.h"

#include <assert.h>

cg_kind cg_storage_kind(nb_elem e) {
    if (e == NB_F32) return CG_F32;
    if (e == NB_F64) return CG_F64;
    switch (nb_elems[e].bits) {
    case 64:
        return CG_I64;
    case 32:
        return CG_I32;
    case 16:
        return CG_I16;
    default:
        return CG_I8;
    }
}

cg_kind cg_compute_kind(nb_elem e) {
    if (e == NB_F64) return CG_F64;
    if (nb_elem_is_float(e)) return CG_F32;
    return e == NB_BOOL ? CG_I1 : cg_storage_kind(e);
}

static LLVMTypeRef lanes_of(cg *g, cg_val like, cg_kind kind) {
    return cg_llvm_type(g->m, (cg_type){kind, cg_lanes(like)});
}

cg_val cg_bits(cg *g, cg_val a) {
    cg_kind kind = cg_kind_of(a) == CG_F32 ? CG_I32 : CG_I64;
    return LLVMBuildBitCast(g->b, a, lanes_of(g, a, kind), "");
}

cg_val cg_from_bits(cg *g, cg_val a) {
    cg_kind kind = cg_kind_of(a) == CG_I32 ? CG_F32 : CG_F64;
    return LLVMBuildBitCast(g->b, a, lanes_of(g, a, kind), "");
}

cg_val cg_bitcast(cg *g, cg_val a, cg_type type) {
    return LLVMBuildBitCast(g->b, a, cg_llvm_type(g->m, type), "");
}

cg_val cg_address(cg *g, cg_val pointer) {
    return LLVMBuildPtrToInt(g->b, pointer, g->m->kinds[CG_I64], "");
}

cg_val cg_sext(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildIntCast2(g->b, a, lanes_of(g, a, kind), 1, "");
}

cg_val cg_zext(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildIntCast2(g->b, a, lanes_of(g, a, kind), 0, "");
}

cg_val cg_narrow(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildTrunc(g->b, a, lanes_of(g, a, kind), "");
}

cg_val cg_sint_to_float(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildSIToFP(g->b, a, lanes_of(g, a, kind), "");
}

cg_val cg_uint_to_float(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildUIToFP(g->b, a, lanes_of(g, a, kind), "");
}

cg_val cg_float_to_sint(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildFPToSI(g->b, a, lanes_of(g, a, kind), "");
}

cg_val cg_float_to_int_sat(cg *g, cg_val a, cg_kind kind, bool is_signed) {
    cg_type types[2] = {{kind, cg_lanes(a)}, cg_type_of(a)};
    return cg_intrinsic(g, is_signed ? "llvm.fptosi.sat" : "llvm.fptoui.sat", 2, types, 1, &a);
}

cg_val cg_float_to_float(cg *g, cg_val a, cg_kind kind) {
    return LLVMBuildFPCast(g->b, a, lanes_of(g, a, kind), "");
}

/* ---- 16-bit floats ------------------------------------------------------------------------- */

static LLVMTypeRef half_type(cg *g, cg_val like) {
    LLVMTypeRef half = LLVMHalfTypeInContext(g->m->context);
    return cg_is_vector(like) ? LLVMVectorType(half, (unsigned)cg_lanes(like)) : half;
}

/* Shifted into place, exponent and mantissa are those of the value times 2^-112; the multiplication
 * is exact and turns denormals into normal numbers. Infinity and NaN get their exponent. */
cg_val cg_f16_to_f32(cg *g, cg_val bits) {
    if (cg_isa_of(g)->f16)
        return LLVMBuildFPExt(g->b, LLVMBuildBitCast(g->b, bits, half_type(g, bits), ""),
                              lanes_of(g, bits, CG_F32), "");
    cg_val wide = cg_zext(g, bits, CG_I32);
    cg_val magnitude = cg_andi(g, wide, 0x7fff), shifted = cg_shli(g, magnitude, 13);
    cg_val scaled = cg_mul(g, cg_from_bits(g, shifted), cg_f32(g, 0x1p112F));
    cg_val special = cg_or(g, shifted, cg_like(g, shifted, 0x7f800000));
    cg_val r = cg_select(g, cg_cmpi(g, CG_GE, magnitude, 0x7c00), special, cg_bits(g, scaled));
    cg_val sign = cg_shli(g, cg_andi(g, wide, 0x8000), 16);
    return cg_from_bits(g, cg_or(g, r, sign));
}

cg_val cg_bf16_to_f32(cg *g, cg_val bits) {
    return cg_from_bits(g, cg_shli(g, cg_zext(g, bits, CG_I32), 16));
}

cg_val cg_f32_to_f16(cg *g, cg_val a) {
    cg_val wide;
    if (cg_isa_of(g)->f16) {
        cg_val half = LLVMBuildFPTrunc(g->b, a, half_type(g, a), "");
        cg_val bits = LLVMBuildBitCast(g->b, half, lanes_of(g, a, CG_I16), "");
        return cg_select(g, cg_is_nan(g, a), cg_like(g, bits, 0x7e00), bits);
    }
    cg_val bits = cg_bits(g, a);
    cg_val magnitude = cg_andi(g, bits, 0x7fffffff);
    /* Below 2^-14: adding 0.5 puts the rounded denormal into the low bits. */
    cg_val small = cg_sub(g, cg_bits(g, cg_add(g, cg_from_bits(g, magnitude), cg_f32(g, 0.5F))),
                          cg_like(g, bits, 0x3f000000));
    /* Otherwise: rebias the exponent and round half to even; too large becomes infinity. */
    cg_val odd = cg_andi(g, cg_lshri(g, magnitude, 13), 1);
    cg_val rebias = cg_like(g, bits, 0xfff - (INT64_C(112) << 23));
    cg_val normal = cg_lshri(g, cg_add(g, magnitude, cg_add(g, rebias, odd)), 13);
    wide = cg_select(g, cg_cmpi(g, CG_LT, magnitude, INT64_C(113) << 23), small, normal);
    wide = cg_select(g, cg_cmpi(g, CG_GE, magnitude, INT64_C(143) << 23), cg_like(g, bits, 0x7c00),
                     wide);
    wide = cg_or(g, wide, cg_andi(g, cg_lshri(g, bits, 16), 0x8000));
    wide = cg_select(g, cg_is_nan(g, a), cg_like(g, bits, 0x7e00), wide);
    return cg_narrow(g, wide, CG_I16);
}

cg_val cg_f32_to_bf16(cg *g, cg_val a) {
    cg_val bits = cg_bits(g, a);
    cg_val odd = cg_andi(g, cg_lshri(g, bits, 16), 1);
    cg_val rounded = cg_lshri(g, cg_add(g, bits, cg_addi(g, odd, 0x7fff)), 16);
    rounded = cg_select(g, cg_is_nan(g, a), cg_like(g, bits, 0x7fc0), rounded);
    return cg_narrow(g, rounded, CG_I16);
}

/* ---- elements ------------------------------------------------------------------------------ */

cg_val cg_decode(cg *g, nb_elem e, cg_val stored) {
    switch (e) {
    case NB_F16:
        return cg_f16_to_f32(g, stored);
    case NB_BF16:
        return cg_bf16_to_f32(g, stored);
    case NB_BOOL:
        return cg_cmpi(g, CG_NE, stored, 0);
    default:
        return stored;
    }
}

cg_val cg_encode(cg *g, nb_elem e, cg_val computed) {
    switch (e) {
    case NB_F16:
        return cg_f32_to_f16(g, computed);
    case NB_BF16:
        return cg_f32_to_bf16(g, computed);
    case NB_BOOL:
        return cg_zext(g, computed, CG_I8);
    default:
        return computed;
    }
}
