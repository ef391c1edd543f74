/* gather: slices of x along an axis, picked by run-time indices.
 *
 * An item is one (outer, index) pair: it copies the elements behind the axis. Indices are checked
 * before anything is written; a negative one counts from the end. */
#include "codegen/lower.h"

typedef struct view {
    int axis, index_rank;
    cg_val outer, n_index, inner; /* numbers of elements */
} view;

static view view_of(nb_lower *l) {
    const cg_buf *x = &l->in[0].buf, *index = &l->in[1].buf;
    view v = {.axis = (int)nb_attr_int(l->op, "axis"), .index_rank = index->rank};
    v.outer = cg_buf_count_range(l->g, x, 0, v.axis);
    v.n_index = cg_buf_count(l->g, index);
    v.inner = cg_buf_count_range(l->g, x, v.axis + 1, x->rank);
    return v;
}

/* Index number `i` as i64, from the end when negative. */
static cg_val index_at(nb_lower *l, cg_val i) {
    cg *g = l->g;
    const nb_operand *index = &l->in[1];
    cg_val raw = index->immediate;
    if (!raw) raw = cg_buf_load(g, &index->buf, cg_buf_row(g, &index->buf, 0, i));
    bool is_signed = nb_elems[index->buf.elem].class_ == NB_CLASS_INT;
    cg_val wide = is_signed ? cg_sext(g, raw, CG_I64) : cg_zext(g, raw, CG_I64);
    if (!is_signed) return wide;
    cg_val length = l->in[0].buf.dims[nb_attr_int(l->op, "axis")];
    return cg_select(g, cg_cmpi(g, CG_LT, wide, 0), cg_add(g, wide, length), wide);
}

static cg_val check(nb_lower *l) {
    cg *g = l->g;
    const view v = view_of(l);
    cg_var bad = cg_var_new(g, cg_i1(g, false));
    CG_FOR(g, i, cg_i64(g, 0), v.n_index, cg_i64(g, 1)) {
        cg_val outside = cg_cmp(g, CG_UGE, index_at(l, i), l->in[0].buf.dims[v.axis]);
        cg_set(g, bad, cg_or(g, cg_get(g, bad), outside));
    }
    return cg_get(g, bad);
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    const view v = view_of(l);
    return cg_mul(l->g, v.outer, v.n_index);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return view_of(l).inner;
}

/* The axes behind `axis` of a buffer, as a buffer of their own at `base`. */
static cg_buf tail_of(const cg_buf *b, int from, cg_val base) {
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

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const view v = view_of(l);
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    const int inner_rank = x->rank - v.axis - 1;
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        cg_val outer = cg_udiv(g, item, v.n_index), i = cg_urem(g, item, v.n_index);
        cg_buf outer_axes = *x;
        outer_axes.rank = v.axis;
        cg_val from = cg_buf_row_offset(g, &outer_axes, 0, outer);
        from = cg_add(g, from, cg_mul(g, index_at(l, i), x->strides[v.axis]));
        cg_buf source = tail_of(x, v.axis + 1, cg_buf_step(g, x, x->base, from));
        cg_buf target = tail_of(y, y->rank - inner_rank, cg_buf_row(g, y, inner_rank, item));
        nb_stream_loop copy = nb_stream_copy(&target, &source);
        nb_stream_collapse(l, &copy);
        nb_stream_body(l, &copy, cg_i64(g, 0), nb_stream_items(l, &copy));
    }
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    NB_TRY(nb_accept_plain(op, cpu, diags));
    if (nb_elems[nb_in(op, 1)->type->elem].class_ == NB_CLASS_BOOL)
        return nb_refuse(op, diags, "the indices are bools");
    return NB_OK;
}

const nb_lowering nb_lower_gather = {
    .accept = accept, .items = items, .work = work, .body = body, .check = check};
