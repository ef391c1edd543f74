/* transpose: a copy between two views with the same dims.
 *
 * Where the last axis of the result lies apart in x, and another one side by side, 4-byte elements
 * go by tiles of 4 along the former and 16 along the latter, which are turned in registers. One
 * item is then a run along the last axis, through all of the other; its last tiles overlap those
 * before. */
#include "codegen/kernels/turn.h"
#include "codegen/lower.h"

#define RUN  64 /* elements of the last axis in an item, at least, unless there are fewer */
#define TALL 4

static cg_buf permuted(nb_lower *l) {
    const nb_attr *perm = nb_attr_of(l->op, "perm");
    const cg_buf *x = &l->in[0].buf;
    cg_buf r = *x;
    for (int i = 0; i < x->rank; i++) {
        int from = (int)perm->ints.items[i];
        int next = i + 1 < x->rank ? (int)perm->ints.items[i + 1] : x->rank;
        r.dims[i] = x->dims[from];
        r.strides[i] = x->strides[from];
        r.dense[i] = next == from + 1 && x->dense[from];
    }
    return r;
}

static nb_stream_loop copy_loop(nb_lower *l) {
    cg_buf view = permuted(l);
    nb_stream_loop loop = nb_stream_copy_of(&l->out[0].buf, &l->in[0], &view);
    nb_stream_collapse(l, &loop);
    return loop;
}

/* ---- tiles ---------------------------------------------------------------------------------- */

typedef struct tiles {
    nb_lower *l;
    cg_buf to, from; /* the same dims; the last axis of `to` has stride 1 */
    int wide;        /* the axis that has stride 1 in `from` */
    cg_val x, y;     /* where the rows at hand begin */
} tiles;

/* False where x is read along its own last axis, or elements are not of 4 bytes. */
static bool has_tiles(nb_lower *l, tiles *t) {
    const nb_stream_loop loop = copy_loop(l);
    *t = (tiles){.l = l, .to = loop.streams[0], .from = loop.streams[1], .wide = -1};
    const int last = t->to.rank - 1;
    if (loop.immediate[1] || nb_elems[t->to.elem].bits != 32 || t->to.elem != t->from.elem ||
        !cg_is(t->to.strides[last], 1) || cg_is(t->from.strides[last], 1))
        return false;
    for (int d = 0; d < last; d++) {
        if (cg_is(t->from.strides[d], 1)) t->wide = d;
    }
    return t->wide >= 0;
}

static cg_val load(const tiles *t, cg_type type, cg_val row, cg_val column) {
    cg *g = t->l->g;
    cg_val at = cg_mul(g, row, t->from.strides[t->from.rank - 1]);
    at = cg_buf_step(g, &t->from, t->x, cg_add(g, at, column));
    cg_val v = cg_load(g, type, at, 4);
    return t->to.canonical ? cg_canonical_bits(g, v) : v;
}

static void store(const tiles *t, cg_val v, cg_val row, cg_val column) {
    cg *g = t->l->g;
    cg_val at = cg_add(g, cg_mul(g, column, t->to.strides[t->wide]), row);
    cg_store(g, v, cg_buf_step(g, &t->to, t->y, at), 4);
}

/* Elements row .. row + 3 of the last axis, 16 from `column` on of the wide one. */
static void one_tile(const tiles *t, cg_val row, cg_val column) {
    cg *g = t->l->g;
    cg_val v[TALL];
    for (int i = 0; i < TALL; i++)
        v[i] = load(t, CG_V(cg_storage_kind(t->from.elem)), cg_addi(g, row, i), column);
    nb_turn(g, CG_LANES, v);
    for (int c = 0; c < CG_LANES; c++)
        store(t, cg_slice(g, v[c % TALL], c / TALL * TALL, TALL), row, cg_addi(g, column, c));
}

/* Elements [begin, end) of the last axis. */
static void run_of(const tiles *t, cg_val begin, cg_val end) {
    cg *g = t->l->g;
    cg_val zero = cg_i64(g, 0), width = t->to.dims[t->wide];
    cg_val last_row = cg_addi(g, end, -TALL), last_column = cg_addi(g, width, -CG_LANES);
    cg_val room = cg_and(g, cg_cmp(g, CG_GE, last_row, begin), cg_cmpi(g, CG_GE, last_column, 0));
    CG_IF(g, room) {
        CG_FOR(g, column, zero, width, cg_i64(g, CG_LANES)) {
            CG_FOR(g, row, begin, end, cg_i64(g, TALL)) {
                one_tile(t, cg_smin(g, row, last_row), cg_smin(g, column, last_column));
            }
        }
    }
    CG_ELSE(g) {
        CG_FOR(g, column, zero, width, cg_i64(g, 1)) {
            CG_FOR(g, row, begin, end, cg_i64(g, 1)) {
                store(t, load(t, CG_S(cg_storage_kind(t->from.elem)), row, column), row, column);
            }
        }
    }
}

static cg_val runs(const tiles *t) {
    cg *g = t->l->g;
    return cg_smax(g, cg_udiv(g, t->to.dims[t->to.rank - 1], cg_i64(g, RUN)), cg_i64(g, 1));
}

/* Axes that are neither the last nor the wide one. */
static cg_val others(const tiles *t) {
    cg_val n = cg_i64(t->l->g, 1);
    for (int d = 0; d + 1 < t->to.rank; d++) {
        if (d != t->wide) n = cg_mul(t->l->g, n, t->to.dims[d]);
    }
    return n;
}

static void tiled(tiles *t, cg_val begin, cg_val end) {
    cg *g = t->l->g;
    const int last = t->to.rank - 1;
    cg_val n = runs(t), all = t->to.dims[last];
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        cg_val run = cg_urem(g, item, n), row = cg_udiv(g, item, n);
        t->x = t->from.base;
        t->y = t->to.base;
        for (int d = last - 1; d >= 0; d--) {
            if (d == t->wide) continue;
            cg_val index = cg_urem(g, row, t->to.dims[d]);
            row = cg_udiv(g, row, t->to.dims[d]);
            t->x = cg_buf_step(g, &t->from, t->x, cg_mul(g, index, t->from.strides[d]));
            t->y = cg_buf_step(g, &t->to, t->y, cg_mul(g, index, t->to.strides[d]));
        }
        run_of(t, cg_udiv(g, cg_mul(g, all, run), n),
               cg_udiv(g, cg_mul(g, all, cg_addi(g, run, 1)), n));
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    tiles t;
    if (has_tiles(l, &t)) return cg_mul(l->g, others(&t), runs(&t));
    const nb_stream_loop loop = copy_loop(l);
    return nb_stream_items(l, &loop);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    tiles t;
    if (has_tiles(l, &t))
        return cg_mul(l->g, t.to.dims[t.wide], cg_udiv(l->g, t.to.dims[t.to.rank - 1], runs(&t)));
    const nb_stream_loop loop = copy_loop(l);
    return nb_stream_work(l, &loop);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    tiles t;
    if (has_tiles(l, &t)) {
        tiled(&t, begin, end);
        return;
    }
    const nb_stream_loop loop = copy_loop(l);
    nb_stream_body(l, &loop, begin, end);
}

const nb_lowering nb_lower_transpose = {
    .accept = nb_accept_plain, .items = items, .work = work, .body = body};
