/* nms: non-maximum suppression. An item is the boxes of one class: the best of those that are left
 * is taken, and what overlaps it too much is left no more, until the limit is reached or none is
 * left. Which are left is a byte for each score, in the scratch memory. */
#include "codegen/lower.h"

enum { BOXES, SCORES, LIMIT, OVERLAP, LEAST };

typedef struct box {
    cg_val low[2], high[2], area;
} box;

static cg_val number(nb_lower *l, int i) {
    return l->in[i].immediate ? l->in[i].immediate
                              : cg_buf_load(l->g, &l->in[i].buf, l->in[i].buf.base);
}

static cg_val smaller(cg *g, cg_val a, cg_val b) {
    return cg_select(g, cg_cmp(g, CG_LT, a, b), a, b);
}
static cg_val larger(cg *g, cg_val a, cg_val b) {
    return cg_select(g, cg_cmp(g, CG_GT, a, b), a, b);
}

static box load_box(nb_lower *l, cg_val batch, cg_val i) {
    cg *g = l->g;
    const cg_buf *boxes = &l->in[BOXES].buf;
    cg_val v[4];
    for (int d = 0; d < 4; d++)
        v[d] = cg_buf_load(g, boxes, cg_at(g, boxes, batch, i, cg_i64(g, d)));
    box b;
    for (int d = 0; d < 2; d++) {
        if (nb_attr_bool(l->op, "center")) {
            cg_val half = cg_mul(g, v[d + 2], cg_f32(g, 0.5F));
            b.low[d] = cg_sub(g, v[d], half);
            b.high[d] = cg_add(g, v[d], half);
        } else {
            b.low[d] = smaller(g, v[d], v[d + 2]);
            b.high[d] = larger(g, v[d], v[d + 2]);
        }
    }
    b.area = cg_mul(g, cg_sub(g, b.high[0], b.low[0]), cg_sub(g, b.high[1], b.low[1]));
    return b;
}

static cg_val overlaps(nb_lower *l, const box *a, const box *b) {
    cg *g = l->g;
    cg_val side[2], zero = cg_f32(g, 0);
    for (int d = 0; d < 2; d++)
        side[d] = cg_sub(g, smaller(g, a->high[d], b->high[d]), larger(g, a->low[d], b->low[d]));
    cg_val both = cg_mul(g, side[0], side[1]);
    cg_val any = cg_sub(g, cg_add(g, a->area, b->area), both);
    const cg_val positive[] = {side[0], side[1], a->area, b->area, any};
    cg_val is = cg_cmp(g, CG_GT, cg_fdiv(g, both, any), number(l, OVERLAP));
    for (size_t i = 0; i < NB_COUNT(positive); i++)
        is = cg_and(g, is, cg_cmp(g, CG_GT, positive[i], zero));
    return is;
}

/* One class: its scores, which boxes are left, the places that it gives. */
typedef struct class_ {
    nb_lower *l;
    cg_val batch, row, n, left;
} class_;

static cg_val score(const class_ *c, cg_val i) {
    const cg_buf *scores = &c->l->in[SCORES].buf;
    return cg_buf_load(c->l->g, scores, cg_buf_step(c->l->g, scores, c->row, i));
}

static cg_val left_at(const class_ *c, cg_val i) { return cg_index(c->l->g, c->left, CG_I8, i); }

static cg_val is_left(const class_ *c, cg_val i) {
    cg *g = c->l->g;
    return cg_cmpi(g, CG_NE, cg_load(g, CG_S(CG_I8), left_at(c, i), 1), 0);
}

static void drop(const class_ *c, cg_val i) {
    cg *g = c->l->g;
    cg_store(g, cg_const(g, CG_S(CG_I8), 0), left_at(c, i), 1);
}

/* The first of those with the best score, or -1. */
static cg_val best_left(const class_ *c) {
    cg *g = c->l->g;
    cg_var best = cg_var_new(g, cg_i64(g, -1)), most = cg_var_new(g, cg_f32(g, 0));
    CG_FOR(g, i, cg_i64(g, 0), c->n, cg_i64(g, 1)) {
        CG_IF(g, is_left(c, i)) {
            cg_val s = score(c, i), first = cg_cmpi(g, CG_LT, cg_get(g, best), 0);
            CG_IF(g, cg_or(g, first, cg_cmp(g, CG_GT, s, cg_get(g, most)))) {
                cg_set(g, best, i);
                cg_set(g, most, s);
            }
        }
    }
    return cg_get(g, best);
}

static void drop_overlapping(const class_ *c, cg_val winner) {
    cg *g = c->l->g;
    const box a = load_box(c->l, c->batch, winner);
    drop(c, winner);
    CG_FOR(g, i, cg_i64(g, 0), c->n, cg_i64(g, 1)) {
        CG_IF(g, is_left(c, i)) {
            const box b = load_box(c->l, c->batch, i);
            CG_IF(g, overlaps(c->l, &a, &b)) drop(c, i);
        }
    }
}

static void suppress(const class_ *c, cg_val places) {
    nb_lower *l = c->l;
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf;
    CG_FOR(g, i, cg_i64(g, 0), c->n, cg_i64(g, 1)) {
        cg_val alive = cg_cmp(g, CG_GT, score(c, i), number(l, LEAST));
        cg_store(g, cg_zext(g, alive, CG_I8), left_at(c, i), 1);
        cg_buf_store(g, y, cg_buf_step(g, y, places, i), cg_i64(g, -1));
    }
    cg_var taken = cg_var_new(g, cg_i64(g, 0)), more = cg_var_new(g, cg_i1(g, true));
    CG_WHILE(g, cg_and(g, cg_get(g, more), cg_cmp(g, CG_LT, cg_get(g, taken), number(l, LIMIT)))) {
        cg_val winner = best_left(c);
        cg_set(g, more, cg_cmpi(g, CG_GE, winner, 0));
        CG_IF(g, cg_get(g, more)) {
            cg_buf_store(g, y, cg_buf_step(g, y, places, cg_get(g, taken)), winner);
            cg_set(g, taken, cg_addi(g, cg_get(g, taken), 1));
            drop_overlapping(c, winner);
        }
    }
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    return cg_buf_count_range(l->g, &l->in[SCORES].buf, 0, 2);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[SCORES].buf.dims[2], 16);
}

static cg_val scratch(nb_lower *l) { return cg_buf_count(l->g, &l->in[SCORES].buf); }

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *scores = &l->in[SCORES].buf, *y = &l->out[0].buf;
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        const class_ c = {.l = l,
                          .batch = cg_sdiv(g, item, scores->dims[1]),
                          .row = cg_buf_row(g, scores, 1, item),
                          .n = scores->dims[2],
                          .left = cg_index(g, l->scratch, CG_I8, cg_mul(g, item, scores->dims[2]))};
        suppress(&c, cg_buf_row(g, y, 1, item));
    }
}

const nb_lowering nb_lower_nms = {
    .accept = nb_accept_plain, .items = items, .work = work, .scratch = scratch, .body = body};
