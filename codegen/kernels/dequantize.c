/* dequantize and qgather: codes back to f32, (code - zero) * scale; one row is one item. */
#include "codegen/kernels/codes.h"

typedef struct converting {
    nb_lower *l;
    cg_val row, to;
} converting;

static void convert_16(cg *g, void *user, cg_val k, cg_val n) {
    const converting *c = user;
    const cg_buf *y = &c->l->out[0].buf;
    cg_val stride = y->strides[y->rank - 1], to = cg_buf_step(g, y, c->to, cg_mul(g, k, stride));
    cg_buf_store_part(g, y, to, stride, nb_reals_at(c->l, &c->l->in[0], c->row, k, n), n);
}

static void convert_row(nb_lower *l, cg_val row, cg_val to, cg_val length) {
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf;
    if (nb_has_rows_of_a_scale(l->in[0].value->type)) {
        converting c = {l, row, to};
        cg_for16(g, length, convert_16, &c);
        return;
    }
    CG_FOR(g, k, cg_i64(g, 0), length, cg_i64(g, 1)) {
        cg_buf_store(g, y, cg_buf_step(g, y, to, cg_mul(g, k, y->strides[y->rank - 1])),
                     nb_real_at(l, &l->in[0], row, k));
    }
}

static void dequantize_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    cg_val length = l->in[0].buf.dims[l->in[0].buf.rank - 1];
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) {
        convert_row(l, row, cg_buf_row(g, &l->out[0].buf, 1, row), length);
    }
}

static cg_val row_work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[l->in[0].buf.rank - 1], 8);
}

static nb_status accept_dequantize(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    return nb_in(op, 0)->type->rank ? NB_OK : nb_refuse(op, diags, "a scalar");
}

/* ---- qgather -------------------------------------------------------------------------------- */

/* Index number `i` as i64, from the end when negative. */
static cg_val index_at(nb_lower *l, cg_val i) {
    cg *g = l->g;
    const nb_operand *index = &l->in[1];
    cg_val raw = index->immediate ? index->immediate
                                  : cg_buf_load(g, &index->buf, cg_buf_row(g, &index->buf, 0, i));
    if (nb_elems[index->buf.elem].class_ != NB_CLASS_INT) return cg_zext(g, raw, CG_I64);
    cg_val wide = cg_sext(g, raw, CG_I64);
    return cg_select(g, cg_cmpi(g, CG_LT, wide, 0), cg_add(g, wide, l->in[0].buf.dims[0]), wide);
}

static cg_val qgather_items(nb_lower *l, int phase) {
    (void)phase;
    return cg_buf_count(l->g, &l->in[1].buf);
}

static cg_val qgather_check(nb_lower *l) {
    cg *g = l->g;
    cg_var bad = cg_var_new(g, cg_i1(g, false));
    CG_FOR(g, i, cg_i64(g, 0), qgather_items(l, 0), cg_i64(g, 1)) {
        cg_set(g, bad,
               cg_or(g, cg_get(g, bad), cg_cmp(g, CG_UGE, index_at(l, i), l->in[0].buf.dims[0])));
    }
    return cg_get(g, bad);
}

static void qgather_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    const int tail = x->rank - 1; /* axes of a slice */
    cg_val length = tail ? x->dims[x->rank - 1] : cg_i64(g, 1);
    cg_val rows = tail ? cg_buf_count_range(g, x, 1, x->rank - 1) : cg_i64(g, 1);
    CG_FOR(g, i, begin, end, cg_i64(g, 1)) {
        cg_val first = cg_mul(g, index_at(l, i), rows);
        CG_FOR(g, r, cg_i64(g, 0), rows, cg_i64(g, 1)) {
            cg_val to = cg_buf_row(g, y, tail ? 1 : 0, cg_add(g, cg_mul(g, i, rows), r));
            convert_row(l, cg_add(g, first, r), to, length);
        }
    }
}

static nb_status accept_qgather(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    return nb_in(op, 0)->type->rank >= 2 ? NB_OK : nb_refuse(op, diags, "a table of scalars");
}

const nb_lowering nb_lower_dequantize = {
    .accept = accept_dequantize, .items = nb_items_rows, .work = row_work, .body = dequantize_body};
const nb_lowering nb_lower_qgather = {.accept = accept_qgather,
                                      .items = qgather_items,
                                      .work = row_work,
                                      .check = qgather_check,
                                      .body = qgather_body};
