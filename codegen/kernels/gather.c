/* gather: slices of x along an axis, picked by run-time indices.
 *
 * An item is one (outer, index) pair: it copies the elements behind the axis. Indices are checked
 * before anything is written; a negative one counts from the end. */
#include "codegen/kernels/index.h"

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

static cg_val length_of(const nb_lower *l) { return l->in[0].buf.dims[nb_attr_int(l->op, "axis")]; }

static cg_val check(nb_lower *l) { return nb_index_check(l, length_of(l)); }

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    const view v = view_of(l);
    return cg_mul(l->g, v.outer, v.n_index);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return view_of(l).inner;
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
        from = cg_add(g, from, cg_mul(g, nb_index_at(l, length_of(l), i), x->strides[v.axis]));
        cg_buf source = nb_tail_of(x, v.axis + 1, cg_buf_step(g, x, x->base, from));
        cg_buf target = nb_tail_of(y, y->rank - inner_rank, cg_buf_row(g, y, inner_rank, item));
        nb_stream_loop copy = nb_stream_copy(&target, &source);
        nb_stream_collapse(l, &copy);
        nb_stream_body(l, &copy, cg_i64(g, 0), nb_stream_items(l, &copy));
    }
}

const nb_lowering nb_lower_gather = {
    .accept = nb_index_accept, .items = items, .work = work, .body = body, .check = check};
