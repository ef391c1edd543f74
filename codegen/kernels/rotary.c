/* rotary: rotates pairs of x[B,H,S,D] by cos and sin [B or 1,S,D/2]. Halves pair i with i + D/2,
 * interleaved pairs 2i with 2i + 1. */
#include "codegen/lower.h"

typedef struct row {
    nb_lower *l;
    cg_val x, y, cosine, sine; /* where the row starts */
    cg_val second;             /* elements from the first of a pair to the other */
    int64_t step;              /* elements from one pair to the next */
} row;

static cg_val load(const row *r, const nb_operand *o, cg_val base, cg_val offset, int64_t step,
                   cg_val n) {
    cg *g = r->l->g;
    const cg_buf *b = &o->buf;
    cg_val stride = b->strides[b->rank - 1];
    if (o->immediate) return cg_splat(g, o->immediate, CG_LANES);
    return cg_buf_load_part(g, b, cg_buf_step(g, b, base, cg_mul(g, offset, stride)),
                            cg_muli(g, stride, step), n);
}

static void rotate(cg *g, void *user, cg_val i, cg_val n) {
    const row *r = (const row *)user;
    const nb_lower *l = r->l;
    const cg_buf *y = &l->out[0].buf;
    cg_val at = cg_muli(g, i, r->step), other = cg_add(g, at, r->second);
    cg_val a = load(r, &l->in[0], r->x, at, r->step, n);
    cg_val b = load(r, &l->in[0], r->x, other, r->step, n);
    cg_val c = load(r, &l->in[1], r->cosine, i, 1, n), s = load(r, &l->in[2], r->sine, i, 1, n);
    cg_val low = cg_add(g, cg_mul(g, a, c), cg_mul(g, cg_neg(g, b), s));
    cg_val high = cg_add(g, cg_mul(g, b, c), cg_mul(g, a, s));
    cg_val stride = y->strides[3], step = cg_muli(g, stride, r->step);
    cg_buf_store_part(g, y, cg_buf_step(g, y, r->y, cg_mul(g, at, stride)), step, low, n);
    cg_buf_store_part(g, y, cg_buf_step(g, y, r->y, cg_mul(g, other, stride)), step, high, n);
}

/* Row (b, s) of cos or sin. */
static cg_val angle_row(cg *g, const nb_operand *o, cg_val b, cg_val s) {
    const cg_buf *t = &o->buf;
    if (o->immediate) return NULL;
    cg_val batch = cg_is(t->dims[0], 1) ? cg_i64(g, 0) : b;
    return cg_at(g, t, batch, s, cg_i64(g, 0));
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    const bool interleaved = nb_attr_bool(l->op, "interleaved");
    cg_val half = cg_lshri(g, x->dims[3], 1);
    row r = {.l = l, .step = interleaved ? 2 : 1};
    r.second = interleaved ? cg_i64(g, 1) : half;
    CG_FOR(g, i, begin, end, cg_i64(g, 1)) {
        cg_val s = cg_urem(g, i, x->dims[2]);
        cg_val b = cg_udiv(g, i, cg_mul(g, x->dims[1], x->dims[2]));
        r.x = cg_buf_row(g, x, 1, i);
        r.y = cg_buf_row(g, y, 1, i);
        r.cosine = angle_row(g, &l->in[1], b, s);
        r.sine = angle_row(g, &l->in[2], b, s);
        cg_for16(g, half, rotate, &r);
    }
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[3], 2);
}

const nb_lowering nb_lower_rotary = {
    .accept = nb_accept_plain, .items = nb_items_rows, .work = work, .body = body};
