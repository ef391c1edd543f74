/* Codes, scales and zero points (codes.h). */
#include "codegen/kernels/codes.h"

#include "ir/minifloat.h"

static cg_val byte_of_bit(cg *g, cg_val base, cg_val bit) {
    cg_val at = cg_index(g, base, CG_I8, cg_lshri(g, bit, 3));
    return cg_zext(g, cg_load(g, CG_S(CG_I8), at, 0), CG_I32);
}

cg_val nb_code_at(cg *g, nb_elem elem, cg_val base, cg_val index) {
    int bits = nb_elems[elem].bits;
    bool is_signed = nb_elems[elem].class_ == NB_CLASS_INT;
    if (bits >= 8) {
        cg_val code = cg_load(g, CG_S(cg_storage_kind(elem)),
                              cg_index(g, base, cg_storage_kind(elem), index), 0);
        cg_kind wide = bits < 32 ? CG_I32 : CG_I64;
        return is_signed ? cg_sext(g, code, wide) : cg_zext(g, code, wide);
    }
    /* The byte of its first bit, and that of its last where they may differ (ir/elems.def). */
    cg_val at = cg_muli(g, index, bits), code = byte_of_bit(g, base, at);
    if (8 % bits) {
        cg_val last = byte_of_bit(g, base, cg_addi(g, at, bits - 1));
        code = cg_or(g, code, cg_shli(g, last, 8));
    }
    cg_val shift = cg_narrow(g, cg_andi(g, at, 7), CG_I32);
    cg_val high = cg_shl(g, code, cg_sub(g, cg_i32(g, 32 - bits), shift));
    return is_signed ? cg_ashri(g, high, 32 - bits) : cg_lshri(g, high, 32 - bits);
}

/* The value of a code of floats, from a table of all. */
static cg_val value_of(cg *g, nb_elem elem, cg_val code) {
    float values[256];
    const uint32_t n = UINT32_C(1) << nb_elems[elem].bits;
    for (uint32_t i = 0; i < n; i++) values[i] = nb_float_decode(elem, i);
    cg_val table = cg_table(g, values, n * sizeof *values, 64);
    return cg_load(g, CG_S(CG_F32), cg_index(g, table, CG_F32, cg_zext(g, code, CG_I64)), 0);
}

/* Number `run` of a constant of scales or minima at `base`; codes lie there as floats. */
static cg_val number_at(cg *g, const nb_value *v, cg_val base, cg_val run) {
    const nb_elem e = v->type->quant ? NB_F32 : v->type->elem;
    if (nb_elems[e].bits < 16) return value_of(g, e, nb_code_at(g, e, base, run));
    const cg_kind kind = cg_storage_kind(e);
    return cg_decode(g, e, cg_load(g, CG_S(kind), cg_index(g, base, kind, run), 0));
}

cg_val nb_scale_at(nb_lower *l, const nb_operand *o, const nb_quant *q, cg_val run) {
    if (!q->scales) return cg_f32(l->g, q->scale);
    cg_val number = number_at(l->g, q->scales, o->quant_scales, run);
    return nb_quant_has_small_scales(q) ? cg_mul(l->g, number, cg_f32(l->g, q->scale)) : number;
}

/* As codes are. */
static cg_val zero_at(nb_lower *l, const nb_operand *o, const nb_quant *q, cg_val run) {
    if (!q->zeros)
        return cg_const(l->g, CG_S(nb_elems[q->storage].bits < 32 ? CG_I32 : CG_I64), q->zero);
    return nb_code_at(l->g, q->storage, o->quant_zeros, run);
}

/* Number of the run (scale, zero point) that element `k` of row `row` belongs to. */
static cg_val run_of(cg *g, const nb_operand *o, cg_val row, cg_val k) {
    const nb_type *t = o->value->type;
    const nb_quant *q = t->quant;
    const cg_buf *b = &o->buf;
    int last = t->rank - 1, axis = q->axis;
    cg_val group = q->group ? cg_i64(g, q->group) : NULL;
    switch (q->granularity) {
    case NB_PER_TENSOR:
        return cg_i64(g, 0);
    case NB_PER_TOKEN:
        return row;
    case NB_PER_BLOCK:
        return cg_add(g, cg_mul(g, row, cg_ceildiv(g, b->dims[last], group)), cg_udiv(g, k, group));
    case NB_PER_AXIS:
        if (axis == last) return k;
        return cg_urem(g, cg_udiv(g, row, cg_buf_count_range(g, b, axis + 1, last)), b->dims[axis]);
    case NB_PER_GROUP:
        break;
    }
    if (axis == last)
        return cg_add(g, cg_mul(g, row, cg_ceildiv(g, b->dims[last], group)), cg_udiv(g, k, group));
    /* row = (outer * length + i) * inner + j, all but the last axis */
    cg_val inner = cg_buf_count_range(g, b, axis + 1, last), j = cg_urem(g, row, inner),
           above = cg_udiv(g, row, inner);
    cg_val i = cg_urem(g, above, b->dims[axis]), outer = cg_udiv(g, above, b->dims[axis]);
    cg_val groups = cg_ceildiv(g, b->dims[axis], group);
    cg_val run =
        cg_add(g, cg_mul(g, cg_add(g, cg_mul(g, outer, groups), cg_udiv(g, i, group)), inner), j);
    return cg_add(g, cg_mul(g, run, b->dims[last]), k);
}

/* What codes of run `run` stand for, `number` without its scale: one, or 16. */
static cg_val scaled(nb_lower *l, const nb_operand *o, cg_val number, cg_val run) {
    cg *g = l->g;
    const nb_quant *q = o->value->type->quant;
    cg_val scale = o->scales ? cg_load(g, CG_S(CG_F32), cg_index(g, o->scales, CG_F32, run), 0)
                             : nb_scale_at(l, o, q, run);
    cg_val real = cg_mul(g, number, scale);
    if (!nb_quant_has_minima(q)) return real;
    return cg_add(
        g, real, q->minima ? number_at(g, q->minima, o->quant_minima, run) : cg_f32(g, q->minimum));
}

/* Integer codes, one or 16, less their zero point. */
static cg_val without_zero(nb_lower *l, const nb_operand *o, cg_val code, cg_val run) {
    cg *g = l->g;
    cg_val zero = o->scales ? cg_like(g, code, 0) : zero_at(l, o, o->value->type->quant, run);
    return cg_sint_to_float(g, cg_sub(g, code, zero), CG_F32);
}

cg_val nb_real_of(cg *g, const nb_quant *q, cg_val codes) {
    codes = q->storage == NB_I8 ? cg_sext(g, codes, CG_I32) : cg_zext(g, codes, CG_I32);
    cg_val number = cg_sint_to_float(g, cg_addi(g, codes, -q->zero), CG_F32);
    return cg_mul(g, number, cg_f32(g, q->scale));
}

cg_val nb_real_at(nb_lower *l, const nb_operand *o, cg_val row, cg_val k) {
    cg *g = l->g;
    const nb_type *t = o->value->type;
    cg_val run = run_of(g, o, row, k), length = o->buf.dims[t->rank - 1];
    cg_val code = nb_code_at(g, t->elem, o->buf.base, cg_add(g, cg_mul(g, row, length), k));
    cg_val number =
        nb_elem_is_float(t->elem) ? value_of(g, t->elem, code) : without_zero(l, o, code, run);
    return scaled(l, o, number, run);
}

bool nb_has_rows_of_a_scale(const nb_type *t) {
    const nb_granularity by = t->quant->granularity;
    const int bits = nb_elems[t->elem].bits;
    return nb_elem_is_integer(t->elem) && (bits == 8 || bits == 16) &&
           (by == NB_PER_TENSOR || by == NB_PER_TOKEN);
}

cg_val nb_reals_at(nb_lower *l, const nb_operand *o, cg_val row, cg_val k, cg_val n) {
    cg *g = l->g;
    const nb_type *t = o->value->type;
    cg_val run = run_of(g, o, row, k), length = o->buf.dims[t->rank - 1];
    const cg_type type = CG_V(cg_storage_kind(t->elem));
    cg_val at = cg_index(g, o->buf.base, type.kind, cg_add(g, cg_mul(g, row, length), k));
    cg_val codes = n ? cg_load_part(g, type, at, n) : cg_load(g, type, at, 0);
    codes = nb_elems[t->elem].class_ == NB_CLASS_INT ? cg_sext(g, codes, CG_I32)
                                                     : cg_zext(g, codes, CG_I32);
    return scaled(l, o, without_zero(l, o, codes, run), run);
}

/* ---- making codes --------------------------------------------------------------------------- */

nb_rounding nb_rounding_of(cg *g, const nb_quant *q, cg_val largest) {
    cg_val amax = cg_from_bits(g, largest), limit = cg_likef(g, amax, (double)q->amax_code);
    cg_val infinite = cg_cmpi(g, CG_GE, largest, 0x7f800000);
    nb_rounding r = {.inverse = cg_fdiv(g, limit, amax)};
    cg_val tiny = cg_cmp(g, CG_EQ, r.inverse, cg_likef(g, amax, (double)__builtin_inff()));
    r.dead = cg_or(g, infinite, tiny); /* amax = 0 makes the inverse infinite too */
    r.scale = cg_select(g, tiny, cg_likef(g, amax, 0), cg_fdiv(g, amax, limit));
    cg_val nan = cg_from_bits(g, cg_like(g, largest, 0x7fc00000));
    r.scale = cg_select(g, infinite, nan, r.scale);
    return r;
}

/* 1.5 * 2^23: added to a number below 2^22 it leaves no room for a fraction, so that the sum's low
 * bits are the nearest integer, half to even. */
#define NO_FRACTION 0x4b400000

static cg_val round_small(cg *g, cg_val v) {
    cg_val sum = cg_add(g, v, cg_from_bits(g, cg_const(g, CG_V(CG_I32), NO_FRACTION)));
    return cg_addi(g, cg_bits(g, sum), -NO_FRACTION);
}

/* x * (limit / amax) exceeds the limit by rounding at most, which rint takes off again: there is
 * nothing to clip. */
cg_val nb_round_dynamic(cg *g, const nb_rounding *r, cg_val values) {
    cg_val codes = round_small(g, cg_mul(g, values, r->inverse)), dead = r->dead;
    if (!cg_type_of(dead).lanes) dead = cg_splat(g, dead, CG_LANES);
    /* A dead run may hold NaN: its codes are zero whatever it holds. */
    return cg_select(g, dead, cg_zero(g, CG_V(CG_I32)), codes);
}

cg_val nb_round_static(cg *g, const nb_quant *q, cg_val scale, cg_val values) {
    cg_val v = cg_fdiv(g, values, scale);
    v = cg_select(g, cg_is_nan(g, v), cg_likef(g, v, 0), v);
    /* Bounds before the zero point is added: the sum is then exact. */
    cg_val low = cg_likef(g, v, (double)(nb_quant_min(q) - q->zero)),
           high = cg_likef(g, v, (double)(nb_quant_max(q) - q->zero));
    v = cg_select(g, cg_cmp(g, CG_LT, v, low), low, v);
    v = cg_select(g, cg_cmp(g, CG_GT, v, high), high, v);
    return cg_addi(g, round_small(g, v), q->zero);
}

/* Constants were quantized when the model was compiled. */
nb_status nb_accept_codes(const nb_op *op, nb_diags *diags) {
    const nb_quant *q = nb_out(op)->type->quant;
    const bool dynamic = q->granularity != NB_PER_TENSOR;
    if (q->storage != NB_I8 && q->storage != NB_I16 && (q->storage != NB_U8 || dynamic))
        return nb_refuse(op, diags, "codes of %s at run time", nb_elems[q->storage].text);
    if (q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP)
        return nb_refuse(op, diags, "run-time quantization along an axis");
    return nb_in(op, 0)->type->rank ? NB_OK : nb_refuse(op, diags, "a scalar");
}
