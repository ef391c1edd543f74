/* cumsum, cumprod and topk: what goes along an axis in order. An item is one column, all elements
 * along the axis. */
#include "codegen/lower.h"

typedef struct column {
    const cg_buf *buf;
    cg_buf others; /* the axes but this one */
    cg_val stride;
    cg_val at; /* its element 0 */
} column;

static int axis_of(const nb_lower *l) { return (int)nb_attr_int(l->op, "axis"); }

static column column_of(const nb_lower *l, const cg_buf *b) {
    const int axis = axis_of(l);
    column c = {.buf = b, .others = *b, .stride = b->strides[axis]};
    cg_buf *r = &c.others;
    for (int i = axis; i + 1 < r->rank; i++) {
        r->dims[i] = b->dims[i + 1];
        r->strides[i] = b->strides[i + 1];
        r->dense[i] = b->dense[i + 1];
    }
    if (axis > 0) r->dense[axis - 1] = false;
    r->rank--;
    return c;
}

static void enter(const nb_lower *l, column *c, cg_val item) {
    c->at = cg_buf_row(l->g, &c->others, 0, item);
}

static cg_val address(const nb_lower *l, const column *c, cg_val i) {
    return cg_buf_step(l->g, c->buf, c->at, cg_mul(l->g, i, c->stride));
}

static cg_val load(const nb_lower *l, const column *c, cg_val i) {
    return cg_buf_load(l->g, c->buf, address(l, c, i));
}

static void store(const nb_lower *l, const column *c, cg_val i, cg_val v) {
    cg_buf_store(l->g, c->buf, address(l, c, i), v);
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    column c = column_of(l, &l->in[0].buf);
    return cg_buf_count(l->g, &c.others);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[axis_of(l)], 4);
}

/* ---- cumsum, cumprod
 * -------------------------------------------------------------------------------- */

static void cumsum(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    column x = column_of(l, &l->in[0].buf), y = column_of(l, &l->out[0].buf);
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        enter(l, &x, item);
        enter(l, &y, item);
        cg_type type = CG_S(cg_compute_kind(x.buf->elem));
        bool product = l->op->kind == NB_OP_cumprod;
        cg_var sum = cg_var_new(g, cg_const(g, type, product));
        CG_FOR(g, i, cg_i64(g, 0), x.buf->dims[axis_of(l)], cg_i64(g, 1)) {
            cg_val v = load(l, &x, i);
            cg_set(g, sum, product ? cg_mul(g, cg_get(g, sum), v) : cg_add(g, cg_get(g, sum), v));
            store(l, &y, i, cg_get(g, sum));
        }
    }
}

const nb_lowering nb_lower_cumsum = {
    .accept = nb_accept_plain, .items = items, .work = work, .body = cumsum};

/* ---- topk ---------------------------------------------------------------------------------- */

/* Does a stand before b? Neither of two equal ones does. */
static cg_val better(const nb_lower *l, cg_val a, cg_val b) {
    cg *g = l->g;
    if (nb_attr_bool(l->op, "smallest")) {
        cg_val swap = a;
        a = b;
        b = swap;
    }
    bool u = nb_elems[l->in[0].buf.elem].class_ == NB_CLASS_UINT;
    if (!cg_kind_is_float(cg_type_of(a).kind)) return cg_cmp(g, u ? CG_UGT : CG_GT, a, b);
    cg_val above = cg_and(g, cg_is_nan(g, a), cg_not(g, cg_is_nan(g, b)));
    return cg_or(g, cg_cmp(g, CG_GT, a, b), above);
}

typedef struct best {
    column values, places;
    cg_val k;
} best;

static void move(const nb_lower *l, const best *b, cg_val from, cg_val to) {
    store(l, &b->values, to, load(l, &b->values, from));
    store(l, &b->places, to, load(l, &b->places, from));
}

/* Puts v, element i of the axis, among the best before it: insertion, which most elements of a
 * long axis leave after one comparison. */
static void insert(nb_lower *l, const best *b, cg_val i, cg_val v) {
    cg *g = l->g;
    cg_val one = cg_i64(g, 1), last = cg_sub(g, b->k, one);
    cg_val full = cg_cmp(g, CG_GE, i, b->k);
    /* Where there is no element yet, one that exists is read instead. */
    cg_val worst = load(l, &b->values, cg_select(g, full, last, cg_i64(g, 0)));
    CG_IF(g, cg_or(g, cg_not(g, full), better(l, v, worst))) {
        cg_var at = cg_var_new(g, cg_smin(g, i, last));
        cg_var moving = cg_var_new(g, cg_i1(g, true));
        CG_WHILE(g, cg_get(g, moving)) {
            cg_val j = cg_get(g, at), before = cg_smax(g, cg_sub(g, j, one), cg_i64(g, 0));
            cg_val goes_on =
                cg_and(g, cg_cmpi(g, CG_GT, j, 0), better(l, v, load(l, &b->values, before)));
            CG_IF(g, goes_on) {
                move(l, b, before, j);
                cg_set(g, at, before);
            }
            cg_set(g, moving, goes_on);
        }
        store(l, &b->values, cg_get(g, at), v);
        store(l, &b->places, cg_get(g, at), i);
    }
}

static void topk(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    column x = column_of(l, &l->in[0].buf);
    best b = {.values = column_of(l, &l->out[0].buf),
              .places = column_of(l, &l->out[1].buf),
              .k = l->out[0].buf.dims[axis_of(l)]};
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        enter(l, &x, item);
        enter(l, &b.values, item);
        enter(l, &b.places, item);
        cg_val n = x.buf->dims[axis_of(l)];
        n = cg_select(g, cg_cmpi(g, CG_GT, b.k, 0), n, cg_i64(g, 0));
        CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) { insert(l, &b, i, load(l, &x, i)); }
    }
}

static cg_val too_many(nb_lower *l) {
    return cg_cmp(l->g, CG_GT, l->out[0].buf.dims[axis_of(l)], l->in[0].buf.dims[axis_of(l)]);
}

const nb_lowering nb_lower_topk = {
    .accept = nb_accept_plain, .items = items, .work = work, .body = topk, .check = too_many};
