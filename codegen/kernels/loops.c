/* Loops over index spaces of any rank, in vectors of 16 along the last axis: what elementwise ops
 * and data movement share.
 *
 * Axes are merged first where all streams allow it, so that most loops are over one long axis. One
 * item is then a block of elements; otherwise it is a row. */
#include "codegen/lower.h"

#define BLOCK 1024 /* elements in an item of a loop over one axis */

static void drop_axis(cg_buf *b, int axis) {
    if (axis > 0) b->dense[axis - 1] = b->dense[axis - 1] && b->dense[axis];
    for (int i = axis; i + 1 < b->rank; i++) {
        b->dims[i] = b->dims[i + 1];
        b->strides[i] = b->strides[i + 1];
        b->dense[i] = b->dense[i + 1];
    }
    b->rank--;
}

static bool mergeable(const nb_stream_loop *loop, int axis) {
    for (int i = 0; i < loop->n; i++) {
        const cg_buf *b = &loop->streams[i];
        bool still = cg_is(b->strides[axis], 0) && cg_is(b->strides[axis + 1], 0);
        if (!loop->immediate[i] && !b->dense[axis] && !still) return false;
    }
    return true;
}

void nb_stream_collapse(nb_lower *l, nb_stream_loop *loop) {
    cg *g = l->g;
    cg_buf *to = &loop->streams[0];
    for (int axis = to->rank - 1; axis >= 0; axis--) {
        if (!cg_is(to->dims[axis], 1)) continue;
        for (int i = 0; i < loop->n; i++) drop_axis(&loop->streams[i], axis);
    }
    for (int axis = to->rank - 2; axis >= 0; axis--) {
        if (!mergeable(loop, axis)) continue;
        for (int i = 0; i < loop->n; i++)
            loop->streams[i] = cg_buf_merge(g, &loop->streams[i], axis, axis + 2);
    }
    if (to->rank) return;
    for (int i = 0; i < loop->n; i++) {
        cg_buf *b = &loop->streams[i];
        b->rank = 1;
        b->dims[0] = b->strides[0] = cg_i64(g, 1);
        b->dense[0] = true;
    }
}

cg_val nb_stream_items(nb_lower *l, const nb_stream_loop *loop) {
    const cg_buf *to = &loop->streams[0];
    if (to->rank == 1) return cg_ceildiv(l->g, to->dims[0], cg_i64(l->g, BLOCK));
    return cg_buf_count_range(l->g, to, 0, to->rank - 1);
}

cg_val nb_stream_work(nb_lower *l, const nb_stream_loop *loop) {
    const cg_buf *to = &loop->streams[0];
    return to->rank == 1 ? cg_i64(l->g, BLOCK) : to->dims[to->rank - 1];
}

typedef struct run {
    nb_lower *l;
    const nb_stream_loop *loop;
    cg_val at[NB_MAX_STREAMS]; /* where the streams begin */
} run;

static cg_val read(const run *r, int stream, cg_val i, cg_val n) {
    cg *g = r->l->g;
    const cg_buf *b = &r->loop->streams[stream];
    cg_val stride = b->strides[b->rank - 1];
    cg_val at = cg_buf_step(g, b, r->at[stream], cg_mul(g, i, stride));
    return cg_buf_load_part(g, b, at, stride, n);
}

static void write(const run *r, cg_val i, cg_val n, cg_val v) {
    cg *g = r->l->g;
    const cg_buf *b = &r->loop->streams[0];
    cg_val stride = b->strides[b->rank - 1];
    cg_buf_store_part(g, b, cg_buf_step(g, b, r->at[0], cg_mul(g, i, stride)), stride, v, n);
}

static cg_val compute(const run *r, const cg_val *values) {
    return r->loop->compute ? r->loop->compute(r->l, r->loop->user, values) : values[1];
}

static void vector(cg *g, void *user, cg_val i, cg_val n) {
    const run *r = (const run *)user;
    cg_val values[NB_MAX_STREAMS] = {NULL};
    for (int s = 1; s < r->loop->n; s++) {
        cg_val number = r->loop->immediate[s];
        values[s] = number ? cg_splat(g, number, CG_LANES) : read(r, s, i, n);
    }
    write(r, i, n, compute(r, values));
}

/* One loop for whole vectors and the tail; only loads and stores tell them apart. */
static void heavy_loop(const run *r, cg_val count) {
    cg *g = r->l->g;
    CG_FOR(g, i, cg_i64(g, 0), count, cg_i64(g, CG_LANES)) {
        cg_val values[NB_MAX_STREAMS] = {NULL};
        cg_val left = cg_sub(g, count, i), whole = cg_cmpi(g, CG_GE, left, CG_LANES);
        for (int s = 1; s < r->loop->n; s++) {
            values[s] = r->loop->immediate[s];
            if (values[s]) {
                values[s] = cg_splat(g, values[s], CG_LANES);
                continue;
            }
            cg_var v = cg_var_new(g, cg_zero(g, CG_V(cg_compute_kind(r->loop->streams[s].elem))));
            CG_IF(g, whole) { cg_set(g, v, read(r, s, i, NULL)); }
            CG_ELSE(g) { cg_set(g, v, read(r, s, i, left)); }
            values[s] = cg_get(g, v);
        }
        cg_val result = compute(r, values);
        CG_IF(g, whole) { write(r, i, NULL, result); }
        CG_ELSE(g) { write(r, i, left, result); }
    }
}

static void whole_row(const run *r, cg_val count) {
    if (r->loop->heavy)
        heavy_loop(r, count);
    else
        cg_for16(r->l->g, count, vector, (void *)(uintptr_t)r);
}

void nb_stream_body(nb_lower *l, const nb_stream_loop *loop, cg_val begin, cg_val end) {
    cg *g = l->g;
    run r = {.l = l, .loop = loop};
    const cg_buf *to = &loop->streams[0];
    if (to->rank == 1) {
        cg_val first = cg_muli(g, begin, BLOCK);
        cg_val last = cg_smin(g, cg_muli(g, end, BLOCK), to->dims[0]);
        for (int s = 0; s < loop->n; s++) {
            const cg_buf *b = &loop->streams[s];
            if (!loop->immediate[s])
                r.at[s] = cg_buf_step(g, b, b->base, cg_mul(g, first, b->strides[0]));
        }
        whole_row(&r, cg_sub(g, last, first));
        return;
    }
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) {
        for (int s = 0; s < loop->n; s++)
            if (!loop->immediate[s]) r.at[s] = cg_buf_row(g, &loop->streams[s], 1, row);
        whole_row(&r, to->dims[to->rank - 1]);
    }
}

/* An integer element of the same width: moves bits without looking at them. */
static nb_elem raw_elem(nb_elem e) {
    switch (nb_elems[e].bits) {
    case 64:
        return NB_I64;
    case 32:
        return NB_I32;
    case 16:
        return NB_I16;
    default:
        return NB_I8;
    }
}

nb_stream_loop nb_stream_copy(const cg_buf *to, const cg_buf *from) {
    nb_stream_loop loop = {.n = 2, .streams = {*to, *from}};
    if (to->canonical) return loop;
    loop.streams[0].elem = raw_elem(to->elem);
    loop.streams[1].elem = raw_elem(from->elem);
    return loop;
}
