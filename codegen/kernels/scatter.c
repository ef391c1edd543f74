/* scatter: a copy of x, then slices put into it at run-time indices.
 *
 * Updates of one place must come in order, so an item is a part of the slices, and goes through all
 * indices. Indices are checked before anything is written. */
#include "codegen/kernels/index.h"

static int phases(const nb_op *op) {
    (void)op;
    return 2;
}

static nb_stream_loop copy_loop(nb_lower *l) {
    nb_stream_loop loop = nb_stream_copy(&l->out[0].buf, &l->in[0].buf);
    nb_stream_collapse(l, &loop);
    return loop;
}

/* values: what stands there, the update. */
static cg_val combine(nb_lower *l, void *user, const cg_val *values) {
    (void)user;
    cg *g = l->g;
    cg_val a = values[1], b = values[2];
    bool f = cg_kind_is_float(cg_type_of(a).kind),
         u = nb_elems[l->in[0].buf.elem].class_ == NB_CLASS_UINT;
    switch (l->op->kind) {
    case NB_OP_scatter_add:
        return cg_add(g, a, b);
    case NB_OP_scatter_mul:
        return cg_mul(g, a, b);
    case NB_OP_scatter_min:
        return f ? cg_fmin(g, a, b) : u ? cg_umin(g, a, b) : cg_smin(g, a, b);
    default:
        return f ? cg_fmax(g, a, b) : u ? cg_umax(g, a, b) : cg_smax(g, a, b);
    }
}

/* Slice `i` of the updates and where it goes; without `i` for the sizes only. */
static nb_stream_loop slice_loop(nb_lower *l, cg_val i) {
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf, *updates = &l->in[2].buf;
    const int inner = y->rank - 1;
    cg_val to = NULL, from = NULL;
    if (i) {
        cg_val at = nb_index_at(l, y->dims[0], i);
        to = cg_buf_step(g, y, y->base, cg_mul(g, at, y->strides[0]));
        from = cg_buf_row(g, updates, inner, i);
    }
    cg_buf target = nb_tail_of(y, 1, to), source = nb_tail_of(updates, updates->rank - inner, from);
    nb_stream_loop loop = nb_stream_copy(&target, &source);
    if (l->op->kind != NB_OP_scatter)
        loop = (nb_stream_loop){.n = 3, .streams = {target, target, source}, .compute = combine};
    nb_stream_collapse(l, &loop);
    return loop;
}

static cg_val items(nb_lower *l, int phase) {
    nb_stream_loop loop = phase ? slice_loop(l, NULL) : copy_loop(l);
    return nb_stream_items(l, &loop);
}

static cg_val work(nb_lower *l, int phase) {
    nb_stream_loop loop = phase ? slice_loop(l, NULL) : copy_loop(l);
    cg_val each = nb_stream_work(l, &loop);
    return phase ? cg_mul(l->g, each, cg_buf_count(l->g, &l->in[1].buf)) : each;
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    cg *g = l->g;
    if (phase == 0) {
        nb_stream_loop copy = copy_loop(l);
        nb_stream_body(l, &copy, begin, end);
        return;
    }
    CG_FOR(g, i, cg_i64(g, 0), cg_buf_count(g, &l->in[1].buf), cg_i64(g, 1)) {
        nb_stream_loop slice = slice_loop(l, i);
        nb_stream_body(l, &slice, begin, end);
    }
}

static cg_val check(nb_lower *l) { return nb_index_check(l, l->in[0].buf.dims[0]); }

const nb_lowering nb_lower_scatter = {.accept = nb_index_accept,
                                      .phases = phases,
                                      .items = items,
                                      .work = work,
                                      .body = body,
                                      .check = check};
