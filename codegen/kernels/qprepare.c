/* qmatmul, phase 0: brings activations into the form that the dot product takes (qproduct.h). */
#include "codegen/kernels/qproduct.h"

/* Inputs of all rows of a tile that are prepared together: their words lie between each other, and
 * stay in the first-level cache until all rows are there. */
#define PIECE 1024

typedef struct preparing {
    const nb_qproduct *p;
    cg_val first, after; /* groups of the piece at hand */
    nb_qrow row;
    cg_val group;
    cg_val from, word; /* codes of the group; its first word */
    cg_val span_from, span_word;
    cg_var sum[2]; /* <16 x i32> */
} preparing;

/* In each unit of 16 lanes the even ones, then the odd ones. */
static cg_val evens_first(cg *g, cg_val v, int64_t unit) {
    int picks[CG_LANES];
    for (int i = 0; i < CG_LANES; i++) {
        int at = i % (int)unit, half = (int)unit / 2;
        picks[i] = i - at + (at < half ? 2 * at : 2 * (at - half) + 1);
    }
    return cg_shuffle(g, v, NULL, CG_LANES, picks);
}

/* Words of 4 bytes go to their places, one by one. */
static void store_codes(const preparing *q, cg_val codes, int plane, cg_val i, cg_val n) {
    cg *g = q->p->l->g;
    const nb_qproduct *p = q->p;
    const int bytes = p->dot->act_bytes, words = CG_LANES * bytes / 4;
    if (bytes == 2) codes = evens_first(g, codes, p->s.unit);
    codes = cg_narrow(g, codes, bytes == 2 ? CG_I16 : CG_I8);
    if (p->centered && bytes == 1 && plane == 0) codes = cg_xor(g, codes, cg_like(g, codes, 128));
    cg_val first = cg_add(g, q->span_word, cg_lshri(g, cg_muli(g, i, bytes), 2)),
           all = cg_bitcast(g, codes, (cg_type){CG_I32, words}), count = cg_i64(g, words);
    if (n) { /* whole units: lanes that are not there were loaded as 0 */
        cg_val inputs = cg_andi(g, cg_addi(g, n, p->s.unit - 1), -p->s.unit);
        count = cg_lshri(g, cg_muli(g, inputs, bytes), 2);
    }
    for (int w = 0; w < words; w++) {
        cg_val to = nb_qproduct_word(p, &q->row, cg_addi(g, first, w));
        to = cg_offset(g, to, cg_muli(g, q->row.rows, 4 * plane));
        if (!n) {
            cg_store(g, cg_lane(g, all, w), to, 4);
            continue;
        }
        CG_IF(g, cg_cmp(g, CG_LT, cg_i64(g, w), count)) { cg_store(g, cg_lane(g, all, w), to, 4); }
    }
}

static void prepare_16(cg *g, void *user, cg_val i, cg_val n) {
    preparing *q = user;
    const cg_buf *a = &q->p->l->in[0].buf;
    cg_type type = CG_V(cg_storage_kind(a->elem));
    cg_val at = cg_index(g, q->span_from, type.kind, i), plane[2];
    cg_val codes = n ? cg_load_part(g, type, at, n) : cg_load(g, type, at, 0);
    if (a->elem == NB_U8) {
        /* Less 128; lanes that are not there stay 0. */
        cg_val lower = cg_xor(g, codes, cg_like(g, codes, 128));
        if (n) {
            cg_val there = cg_cmp(g, CG_LT, cg_iota(g, CG_I64), cg_splat(g, n, CG_LANES));
            lower = cg_select(g, there, lower, codes);
        }
        codes = lower;
    }
    plane[0] = cg_sext(g, codes, CG_I32);
    if (q->p->planes == 2) {
        cg_val x = plane[0];
        /* The low one has a sign, or what 32768 more has for it. */
        plane[0] = cg_ashri(g, q->p->centered ? x : cg_addi(g, x, 128), 8);
        plane[1] = cg_sub(g, x, cg_shli(g, plane[0], 8));
    }
    for (int k = 0; k < q->p->planes; k++) {
        store_codes(q, plane[k], k, i, n);
        if (q->p->centered) continue;
        cg_set(g, q->sum[k], cg_add(g, cg_get(g, q->sum[k]), plane[k]));
    }
}

static void prepare_span(preparing *q, cg_val span, int64_t length) {
    const nb_qproduct *p = q->p;
    cg *g = p->l->g;
    cg_val first = cg_muli(g, span, p->span);
    q->span_from = cg_index(g, q->from, cg_storage_kind(p->l->in[0].buf.elem), first);
    q->span_word = cg_add(g, q->word, cg_lshri(g, cg_muli(g, first, p->dot->act_bytes), 2));
    for (int k = 0; k < p->planes; k++) q->sum[k] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    cg_for16(g, cg_i64(g, length), prepare_16, q);
    if (p->centered) return;
    cg_val number = cg_add(g, cg_muli(g, q->group, p->spans), span);
    for (int k = 0; k < p->planes; k++) {
        cg_val sum = cg_muli(g, cg_fold16(g, cg_get(g, q->sum[k]), cg_add), nb_qproduct_factor(p));
        cg_val to = nb_qproduct_sum(p, &q->row, number);
        cg_store(g, sum, cg_offset(g, to, cg_muli(g, q->row.rows, 4 * k)), 4);
    }
}

/* Span `span` of the groups at hand, of all rows of the tile. */
static void prepare_rows(void *user, cg_val span, int64_t length) {
    preparing *q = user;
    const nb_qproduct *p = q->p;
    cg *g = p->l->g;
    const cg_buf *a = &p->l->in[0].buf;
    cg_val end = cg_add(g, q->row.first, q->row.rows);
    CG_FOR(g, row, q->row.first, end, cg_i64(g, 1)) {
        cg_val from = cg_buf_row(g, a, 1, row);
        q->row.row = row;
        CG_FOR(g, group, q->first, q->after, cg_i64(g, 1)) {
            q->group = group;
            q->from = cg_index(g, from, cg_storage_kind(a->elem), cg_muli(g, group, p->s.group));
            q->word = cg_muli(g, group, nb_qshape_padded(&p->s, 0) * p->dot->act_bytes / 4);
            prepare_span(q, span, length);
        }
    }
}

/* Groups [first, after) of the tile, equally long. */
static void prepare_groups(preparing *q, int64_t first, int64_t after) {
    const nb_qproduct *p = q->p;
    cg *g = p->l->g;
    const int64_t length = nb_qshape_length(&p->s, first), each = nb_max_i64(PIECE / length, 1);
    CG_FOR(g, group, cg_i64(g, first), cg_i64(g, after), cg_i64(g, each)) {
        q->first = group;
        q->after = cg_smin(g, cg_addi(g, group, each), cg_i64(g, after));
        nb_each_span(p, length, prepare_rows, q);
    }
}

void nb_qproduct_prepare(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    const int64_t last = p->s.groups - 1;
    preparing q = {.p = p};
    CG_FOR(g, tile, begin, end, cg_i64(g, 1)) {
        q.row = (nb_qrow){.first = nb_rows_first(g, &p->cut, tile),
                          .rows = nb_rows_of(g, &p->cut, tile)};
        /* All whole groups, then the last one, which may be shorter. */
        if (last > 0) prepare_groups(&q, 0, last);
        if (last >= 0) prepare_groups(&q, last, last + 1);
    }
}
