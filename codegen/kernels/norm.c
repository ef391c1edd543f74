/* softmax, rms_norm and layer_norm: one row is one item, in vectors of 16 along the axis, sums in
 * 16 lanes and the fixed tree. */
#include "codegen/lower.h"

/* One row: where it starts in each buffer, its length, strides along the axis. */
typedef struct row {
    nb_lower *l;
    const cg_buf *x, *y;
    cg_val from, to, from_stride, to_stride, length;
    cg_var acc;          /* <16 x float> */
    cg_val max;          /* softmax: largest of the row */
    cg_val sum;          /* softmax: sum of the exponentials */
    cg_val mean, factor; /* norms */
} row;

/* These layers compute in f32, whatever the element. */
static cg_val to_f32(cg *g, cg_val v) {
    return cg_type_of(v).kind == CG_F64 ? cg_float_to_float(g, v, CG_F32) : v;
}

static cg_val load(const row *r, cg_val i, cg_val n) {
    cg *g = r->l->g;
    cg_val number = r->l->in[0].immediate;
    if (number) return to_f32(g, cg_splat(g, number, CG_LANES));
    cg_val at = cg_buf_step(g, r->x, r->from, cg_mul(g, i, r->from_stride));
    return to_f32(g, cg_buf_load_part(g, r->x, at, r->from_stride, n));
}

static void store(const row *r, cg_val i, cg_val n, cg_val v) {
    cg *g = r->l->g;
    if (r->y->elem == NB_F64) v = cg_float_to_float(g, v, CG_F64);
    cg_val at = cg_buf_step(g, r->y, r->to, cg_mul(g, i, r->to_stride));
    cg_buf_store_part(g, r->y, at, r->to_stride, v, n);
}

static cg_val vector_of(cg *g, float value) { return cg_splat(g, cg_f32(g, value), CG_LANES); }

/* Lanes that are not there count as `otherwise`. */
static cg_val only(cg *g, cg_val v, cg_val n, cg_val otherwise) {
    return n ? cg_select(g, cg_lane_mask(g, n), v, otherwise) : v;
}

/* Runs `body` over the row and returns the tree of what it left in acc. */
static cg_val reduce(row *r, cg_val start, void (*body)(cg *g, void *user, cg_val i, cg_val n),
                     cg_val (*fold)(cg *g, cg_val a, cg_val b)) {
    cg *g = r->l->g;
    r->acc = cg_var_new(g, start);
    cg_for16(g, r->length, body, r);
    return cg_fold16(g, cg_get(g, r->acc), fold);
}

/* ---- softmax ------------------------------------------------------------------------------- */

static void largest(cg *g, void *user, cg_val i, cg_val n) {
    row *r = (row *)user;
    cg_val v = only(g, load(r, i, n), n, vector_of(g, -__builtin_inff()));
    cg_set(g, r->acc, cg_fmax(g, cg_get(g, r->acc), v));
}

static cg_val exponential(cg *g, const row *r, cg_val i, cg_val n) {
    return cg_exp(g, cg_sub(g, load(r, i, n), r->max));
}

/* The exponentials are kept in the result when it can hold them, else computed again. */
static bool keeps(const row *r) { return r->y->elem == NB_F32 && !r->y->canonical; }

static void add_exponentials(cg *g, void *user, cg_val i, cg_val n) {
    row *r = (row *)user;
    cg_val e = exponential(g, r, i, n);
    if (keeps(r)) store(r, i, n, e);
    e = only(g, e, n, vector_of(g, 0));
    cg_set(g, r->acc, cg_add(g, cg_get(g, r->acc), e));
}

static void divide(cg *g, void *user, cg_val i, cg_val n) {
    const row *r = (const row *)user;
    cg_val e;
    if (keeps(r)) {
        cg_val at = cg_buf_step(g, r->y, r->to, cg_mul(g, i, r->to_stride));
        e = cg_buf_load_part(g, r->y, at, r->to_stride, n);
    } else {
        e = exponential(g, r, i, n);
    }
    store(r, i, n, cg_fdiv(g, e, r->sum));
}

/* The buffer without `axis`: rows along it start at the elements of this one. */
static cg_buf without(const cg_buf *b, int axis) {
    cg_buf r = *b;
    if (axis > 0) r.dense[axis - 1] = false;
    for (int i = axis; i + 1 < b->rank; i++) {
        r.dims[i] = b->dims[i + 1];
        r.strides[i] = b->strides[i + 1];
        r.dense[i] = b->dense[i + 1];
    }
    r.rank--;
    return r;
}

static void softmax_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const int axis = (int)nb_attr_int(l->op, "axis");
    row r = {.l = l, .x = &l->in[0].buf, .y = &l->out[0].buf};
    cg_buf x_rows = without(r.x, axis), y_rows = without(r.y, axis);
    r.from_stride = r.x->strides[axis];
    r.to_stride = r.y->strides[axis];
    r.length = r.x->dims[axis];
    CG_FOR(g, i, begin, end, cg_i64(g, 1)) {
        r.from = cg_buf_row(g, &x_rows, 0, i);
        r.to = cg_buf_row(g, &y_rows, 0, i);
        r.max = reduce(&r, vector_of(g, -__builtin_inff()), largest, cg_fmax);
        r.sum = reduce(&r, vector_of(g, 0), add_exponentials, cg_add);
        cg_for16(g, r.length, divide, &r);
    }
}

static cg_val softmax_items(nb_lower *l, int phase) {
    (void)phase;
    const cg_buf b = without(&l->in[0].buf, (int)nb_attr_int(l->op, "axis"));
    return cg_buf_count(l->g, &b);
}

static cg_val softmax_work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[nb_attr_int(l->op, "axis")], 16);
}

/* ---- norms --------------------------------------------------------------------------------- */

static void add_values(cg *g, void *user, cg_val i, cg_val n) {
    row *r = (row *)user;
    /* A number that stands for the whole row is in every lane. */
    cg_val x = only(g, load(r, i, n), n, vector_of(g, 0));
    cg_set(g, r->acc, cg_add(g, cg_get(g, r->acc), x));
}

static cg_val centered(cg *g, const row *r, cg_val i, cg_val n) {
    cg_val x = load(r, i, n);
    return r->mean ? cg_sub(g, x, r->mean) : x;
}

static void add_squares(cg *g, void *user, cg_val i, cg_val n) {
    row *r = (row *)user;
    cg_val d = only(g, centered(g, r, i, n), n, vector_of(g, 0));
    cg_set(g, r->acc, cg_add(g, cg_get(g, r->acc), cg_mul(g, d, d)));
}

static cg_val parameter(cg *g, const nb_operand *o, cg_val i, cg_val n) {
    if (o->immediate) return to_f32(g, cg_splat(g, o->immediate, CG_LANES));
    cg_val stride = o->buf.strides[0];
    cg_val at = cg_buf_step(g, &o->buf, o->buf.base, cg_mul(g, i, stride));
    return to_f32(g, cg_buf_load_part(g, &o->buf, at, stride, n));
}

static void scale(cg *g, void *user, cg_val i, cg_val n) {
    const row *r = (const row *)user;
    const nb_lower *l = r->l;
    cg_val v = cg_mul(g, centered(g, r, i, n), r->factor);
    v = cg_mul(g, v, parameter(g, &l->in[1], i, n));
    if (l->op->n_operands > 2 && l->in[2].value) v = cg_add(g, v, parameter(g, &l->in[2], i, n));
    store(r, i, n, v);
}

static void norm_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    row r = {.l = l, .x = &l->in[0].buf, .y = &l->out[0].buf};
    const int last = r.x->rank - 1;
    r.from_stride = r.x->strides[last];
    r.to_stride = r.y->strides[last];
    r.length = r.x->dims[last];
    cg_val count = cg_sint_to_float(g, r.length, CG_F32), one = cg_f32(g, 1);
    CG_FOR(g, i, begin, end, cg_i64(g, 1)) {
        r.from = cg_buf_row(g, r.x, 1, i);
        r.to = cg_buf_row(g, r.y, 1, i);
        r.mean = NULL;
        if (l->op->kind == NB_OP_layer_norm)
            r.mean = cg_fdiv(g, reduce(&r, vector_of(g, 0), add_values, cg_add), count);
        cg_val mean_square = cg_fdiv(g, reduce(&r, vector_of(g, 0), add_squares, cg_add), count);
        cg_val eps = cg_f32(g, nb_attr_float(l->op, "eps"));
        r.factor = cg_fdiv(g, one, cg_sqrt(g, cg_add(g, mean_square, eps)));
        cg_for16(g, r.length, scale, &r);
    }
}

static cg_val norm_work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[l->in[0].buf.rank - 1], 4);
}

/* ---- the table ----------------------------------------------------------------------------- */

const nb_lowering nb_lower_softmax = {
    .accept = nb_accept_plain, .items = softmax_items, .work = softmax_work, .body = softmax_body};
const nb_lowering nb_lower_rms_norm = {
    .accept = nb_accept_plain, .items = nb_items_rows, .work = norm_work, .body = norm_body};
const nb_lowering nb_lower_layer_norm = {
    .accept = nb_accept_plain, .items = nb_items_rows, .work = norm_work, .body = norm_body};
