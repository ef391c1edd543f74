/* Reductions over any axes. An item is one result element. When the reduced axes are one run of
 * memory with a fixed stride (after merging), elements are read 16 at a time; otherwise one by one
 * into 16 accumulators, which is the same sum. Products, f64 and means of integers go in order. */
#include "codegen/kernels/conv.h"

#include <math.h>

typedef struct reduction {
    nb_lower *l;
    cg_buf kept, result; /* x and y over the axes that stay */
    cg_buf reduced;      /* x over the axes that go; base is set for each item */
    cg_val length;
    bool u;          /* unsigned or bool */
    cg_val identity; /* scalar, compute kind */
    cg_var acc;      /* 16 lanes */
    cg_val slots;    /* the accumulators in memory, for one-by-one */
} reduction;

static cg_buf pick(const cg_buf *b, const bool *take, int rank) {
    cg_buf r = *b;
    r.rank = 0;
    int last = -1;
    for (int i = 0; i < rank; i++) {
        if (!take[i]) continue;
        if (last >= 0 && last != i - 1) r.dense[r.rank - 1] = false;
        r.dims[r.rank] = b->dims[i];
        r.strides[r.rank] = b->strides[i];
        r.dense[r.rank++] = b->dense[i];
        last = i;
    }
    return r;
}

static cg_val limit(nb_lower *l, bool largest) {
    cg *g = l->g;
    nb_elem e = l->in[0].buf.elem;
    cg_type type = CG_S(cg_compute_kind(e));
    if (type.kind == CG_I1) return cg_i1(g, largest);
    if (type.kind == CG_F32) return cg_f32(g, largest ? HUGE_VALF : -HUGE_VALF);
    if (type.kind == CG_F64) return cg_f64(g, largest ? HUGE_VAL : -HUGE_VAL);
    if (e == NB_U64) return cg_const(g, type, largest ? -1 : 0);
    return cg_const(g, type, largest ? nb_elem_max(e) : nb_elem_min(e));
}

static reduction open(nb_lower *l) {
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    const nb_attr *axes = nb_attr_of(l->op, "axes");
    bool goes[NB_MAX_RANK], stays[NB_MAX_RANK], all[NB_MAX_RANK];
    for (int i = 0; i < x->rank; i++) goes[i] = axes->ints.count == 0;
    for (size_t i = 0; i < axes->ints.count; i++) goes[axes->ints.items[i]] = true;
    for (int i = 0; i < x->rank; i++) {
        stays[i] = !goes[i];
        all[i] = true;
    }
    reduction r = {.l = l};
    r.kept = pick(x, stays, x->rank);
    r.reduced = pick(x, goes, x->rank);
    r.result = nb_attr_bool(l->op, "keep") ? pick(y, stays, x->rank) : pick(y, all, y->rank);
    r.reduced = cg_buf_collapse(g, &r.reduced);
    r.length = cg_buf_count(g, &r.reduced);
    nb_elem_class c = nb_elems[x->elem].class_;
    r.u = c == NB_CLASS_UINT || c == NB_CLASS_BOOL;
    cg_type type = CG_S(cg_compute_kind(x->elem));
    switch (l->op->kind) {
    case NB_OP_reduce_max:
        r.identity = limit(l, false);
        break;
    case NB_OP_reduce_min:
        r.identity = limit(l, true);
        break;
    case NB_OP_reduce_prod:
        r.identity = cg_const(g, type, 1);
        break;
    default:
        r.identity = cg_zero(g, type);
        break;
    }
    return r;
}

/* One step, of scalars or vectors. */
static cg_val combine(const reduction *r, cg_val a, cg_val b) {
    cg *g = r->l->g;
    cg_kind kind = cg_type_of(a).kind;
    bool f = cg_kind_is_float(kind);
    switch (r->l->op->kind) {
    case NB_OP_reduce_max:
        if (kind == CG_I1) return cg_or(g, a, b);
        return f ? cg_fmax(g, a, b) : r->u ? cg_umax(g, a, b) : cg_smax(g, a, b);
    case NB_OP_reduce_min:
        if (kind == CG_I1) return cg_and(g, a, b);
        return f ? cg_fmin(g, a, b) : r->u ? cg_umin(g, a, b) : cg_smin(g, a, b);
    case NB_OP_reduce_prod:
        return cg_mul(g, a, b);
    default:
        return cg_add(g, a, b);
    }
}

/* The fixed tree: j and j+8, j+4, j+2, 0 and 1. */
static cg_val tree(const reduction *r, cg_val v) {
    cg *g = r->l->g;
    for (int half = CG_LANES / 2; half > 1; half /= 2)
        v = combine(r, cg_slice(g, v, 0, half), cg_slice(g, v, half, half));
    return combine(r, cg_lane(g, v, 0), cg_lane(g, v, 1));
}

static void step16(cg *g, void *user, cg_val i, cg_val n) {
    const reduction *r = (const reduction *)user;
    const cg_buf *b = &r->reduced;
    cg_val stride = b->strides[0];
    cg_val at = cg_buf_step(g, b, b->base, cg_mul(g, i, stride));
    cg_val v = cg_buf_load_part(g, b, at, stride, n);
    if (n) v = cg_select(g, cg_lane_mask(g, n), v, cg_splat(g, r->identity, CG_LANES));
    cg_set(g, r->acc, combine(r, cg_get(g, r->acc), v));
}

static cg_val in_vectors(reduction *r) {
    cg *g = r->l->g;
    r->acc = cg_var_new(g, cg_splat(g, r->identity, CG_LANES));
    cg_for16(g, r->length, step16, r);
    return tree(r, cg_get(g, r->acc));
}

static cg_val one_by_one(reduction *r) {
    cg *g = r->l->g;
    cg_kind kind = cg_type_of(r->identity).kind;
    cg_val slots = cg_stack(g, 8 * CG_LANES, 64);
    cg_type memory = CG_S(kind == CG_I1 ? CG_I8 : kind);
    for (int i = 0; i < CG_LANES; i++) {
        cg_val start = kind == CG_I1 ? cg_zext(g, r->identity, CG_I8) : r->identity;
        cg_store(g, start, cg_index(g, slots, memory.kind, cg_i64(g, i)), 0);
    }
    CG_FOR(g, i, cg_i64(g, 0), r->length, cg_i64(g, 1)) {
        cg_val v = cg_buf_load(g, &r->reduced, cg_buf_row(g, &r->reduced, 0, i));
        cg_val slot = cg_index(g, slots, memory.kind, cg_andi(g, i, CG_LANES - 1));
        cg_val old = cg_load(g, memory, slot, 0);
        if (kind == CG_I1) old = cg_narrow(g, old, CG_I1);
        cg_val next = combine(r, old, v);
        cg_store(g, kind == CG_I1 ? cg_zext(g, next, CG_I8) : next, slot, 0);
    }
    cg_val v = cg_load(g, CG_V(memory.kind), slots, 0);
    return tree(r, kind == CG_I1 ? cg_narrow(g, v, CG_I1) : v);
}

/* The largest or smallest f64 so far: the first, then what compares better; a NaN stays. */
static cg_val better_f64(const reduction *r, cg_val i, cg_val best, cg_val v) {
    cg *g = r->l->g;
    cg_pred pred = r->l->op->kind == NB_OP_reduce_max ? CG_GT : CG_LT;
    cg_val take = cg_or(g, cg_cmp(g, pred, v, best), cg_is_nan(g, v));
    take = cg_or(g, take, cg_cmpi(g, CG_EQ, i, 0));
    take = cg_and(g, take, cg_not(g, cg_is_nan(g, best)));
    return cg_select(g, take, v, best);
}

static bool is_extreme(const reduction *r) {
    return r->l->op->kind == NB_OP_reduce_max || r->l->op->kind == NB_OP_reduce_min;
}

static bool is_f64(const reduction *r) { return r->l->in[0].buf.elem == NB_F64; }

/* Integers are summed in 64 bits for a mean. */
static bool is_int_mean(const reduction *r) {
    return r->l->op->kind == NB_OP_reduce_mean && nb_elem_is_integer(r->l->in[0].buf.elem);
}

static cg_val in_order(reduction *r) {
    cg *g = r->l->g;
    cg_val start = r->identity;
    if (is_int_mean(r)) start = cg_i64(g, 0);
    if (is_f64(r) && is_extreme(r)) start = cg_f64(g, 0);
    cg_var acc = cg_var_new(g, start);
    CG_FOR(g, i, cg_i64(g, 0), r->length, cg_i64(g, 1)) {
        cg_val v = r->l->in[0].immediate;
        if (!v) v = cg_buf_load(g, &r->reduced, cg_buf_row(g, &r->reduced, 0, i));
        if (is_int_mean(r)) v = r->u ? cg_zext(g, v, CG_I64) : cg_sext(g, v, CG_I64);
        cg_val old = cg_get(g, acc);
        cg_set(g, acc, is_f64(r) && is_extreme(r) ? better_f64(r, i, old, v) : combine(r, old, v));
    }
    return cg_get(g, acc);
}

static cg_val mean_of(const reduction *r, cg_val sum) {
    cg *g = r->l->g;
    cg_kind kind = cg_type_of(sum).kind;
    if (!is_int_mean(r)) return cg_fdiv(g, sum, cg_sint_to_float(g, r->length, kind));
    cg_val n = cg_smax(g, r->length, cg_i64(g, 1));
    bool wide = r->l->in[0].buf.elem == NB_U64;
    cg_val mean = wide ? cg_udiv(g, sum, n) : cg_sdiv(g, sum, n);
    return cg_sext(g, mean, cg_compute_kind(r->l->in[0].buf.elem));
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    if (nb_is_pool(l)) {
        nb_pool_body(l, begin, end);
        return;
    }
    reduction r = open(l);
    CG_FOR(g, i, begin, end, cg_i64(g, 1)) {
        r.reduced.base = cg_buf_row(g, &r.kept, 0, i);
        cg_val v;
        if (l->in[0].immediate || l->op->kind == NB_OP_reduce_prod || is_f64(&r) ||
            is_int_mean(&r)) {
            v = in_order(&r);
        } else if (r.reduced.rank == 1) {
            v = in_vectors(&r);
        } else {
            v = one_by_one(&r);
        }
        if (l->op->kind == NB_OP_reduce_mean) v = mean_of(&r, v);
        cg_buf_store(g, &r.result, cg_buf_row(g, &r.result, 0, i), v);
    }
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    if (nb_is_pool(l)) return nb_pool_items(l);
    const reduction r = open(l);
    return cg_buf_count(l->g, &r.kept);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return nb_is_pool(l) ? nb_pool_work(l) : open(l).length;
}

const nb_lowering nb_lower_reduce = {
    .accept = nb_accept_plain, .items = items, .work = work, .body = body};
