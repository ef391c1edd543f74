/* Run-time indices (index.h). */
#include "codegen/kernels/index.h"

cg_val nb_index_at(nb_lower *l, cg_val length, cg_val i) {
    cg *g = l->g;
    const nb_operand *index = &l->in[1];
    cg_val raw = index->immediate;
    if (!raw) raw = cg_buf_load(g, &index->buf, cg_buf_row(g, &index->buf, 0, i));
    bool is_signed = nb_elems[index->buf.elem].class_ == NB_CLASS_INT;
    cg_val wide = is_signed ? cg_sext(g, raw, CG_I64) : cg_zext(g, raw, CG_I64);
    if (!is_signed) return wide;
    return cg_select(g, cg_cmpi(g, CG_LT, wide, 0), cg_add(g, wide, length), wide);
}

cg_val nb_index_check(nb_lower *l, cg_val length) {
    cg *g = l->g;
    cg_var bad = cg_var_new(g, cg_i1(g, false));
    CG_FOR(g, i, cg_i64(g, 0), cg_buf_count(g, &l->in[1].buf), cg_i64(g, 1)) {
        cg_val outside = cg_cmp(g, CG_UGE, nb_index_at(l, length, i), length);
        cg_set(g, bad, cg_or(g, cg_get(g, bad), outside));
    }
    return cg_get(g, bad);
}

cg_buf nb_tail_of(const cg_buf *b, int from, cg_val base) {
    cg_buf r = *b;
    r.base = base;
    r.rank = b->rank - from;
    for (int i = 0; i < r.rank; i++) {
        r.dims[i] = b->dims[from + i];
        r.strides[i] = b->strides[from + i];
        r.dense[i] = b->dense[from + i];
    }
    return r;
}

nb_status nb_index_accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    NB_TRY(nb_accept_plain(op, cpu, diags));
    if (nb_elems[nb_in(op, 1)->type->elem].class_ == NB_CLASS_BOOL)
        return nb_refuse(op, diags, "the indices are bools");
    return NB_OK;
}
