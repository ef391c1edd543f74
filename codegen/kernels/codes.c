/* Codes, scales and zero points (codes.h). */
#include "codegen/kernels/codes.h"

cg_val nb_code_at(cg *g, nb_elem elem, cg_val base, cg_val index) {
    int bits = nb_elems[elem].bits;
    bool is_signed = nb_elems[elem].class_ == NB_CLASS_INT;
    if (bits >= 8) {
        cg_val code = cg_load(g, CG_S(cg_storage_kind(elem)),
                              cg_index(g, base, cg_storage_kind(elem), index), 0);
        cg_kind wide = bits < 32 ? CG_I32 : CG_I64;
        return is_signed ? cg_sext(g, code, wide) : cg_zext(g, code, wide);
    }
    /* The first element of a byte stands in its low bits. */
    int per = 8 / bits, log = bits == 4 ? 1 : 2;
    cg_val byte = cg_zext(
        g, cg_load(g, CG_S(CG_I8), cg_index(g, base, CG_I8, cg_lshri(g, index, log)), 0), CG_I32);
    cg_val shift = cg_muli(g, cg_narrow(g, cg_andi(g, index, per - 1), CG_I32), bits);
    cg_val up = cg_sub(g, cg_i32(g, 32 - bits), shift);
    cg_val high = cg_shl(g, byte, up);
    return is_signed ? cg_ashri(g, high, 32 - bits) : cg_lshri(g, high, 32 - bits);
}

cg_val nb_scale_at(nb_lower *l, const nb_operand *o, const nb_quant *q, cg_val run) {
    if (!q->scales) return cg_f32(l->g, q->scale);
    return cg_load(l->g, CG_S(CG_F32), cg_index(l->g, o->quant_scales, CG_F32, run), 0);
}

cg_val nb_zero_at(nb_lower *l, const nb_operand *o, const nb_quant *q, cg_val run) {
    if (!q->zeros)
        return cg_const(l->g, CG_S(nb_elems[q->storage].bits < 32 ? CG_I32 : CG_I64), q->zero);
    return nb_code_at(l->g, q->storage, o->quant_zeros, run);
}

cg_val nb_real_of(cg *g, cg_val code, cg_val zero, cg_val scale) {
    return cg_mul(g, cg_sint_to_float(g, cg_sub(g, code, zero), CG_F32), scale);
}
