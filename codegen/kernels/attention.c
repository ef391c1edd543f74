/* attention: softmax(q.k * scale + mask).v as NUMBERS.md orders it.
 *
 * Work comes in blocks of up to ROWS query rows of one head. For 16 keys at a time, their vectors
 * are turned round on the stack so that the keys are lanes, and each row's scores are sequences of
 * fma over d. Then each row takes its maximum, exponentials, and one walk over the values in order.
 * Scores of a block stand in scratch memory, one part for each thread. */
#include "codegen/lower.h"

#define ROWS     16
#define MAX_HEAD 1024 /* longest head: 64 KiB of stack for 16 keys */

typedef struct view {
    nb_lower *l;
    const cg_buf *q, *k, *v, *y;
    cg_buf mask; /* broadcast to [B,H,S,T] */
    bool masked;
    cg_val H, S, T, D, E, blocks; /* blocks of rows in a head */
    cg_val share;                 /* query heads that share a key head */
    cg_val b, h, kv, first, rows; /* the block at hand */
    cg_val scores;                /* its scratch, [ROWS][T] */
    cg_val keys;                  /* stack, [D][16] */
    cg_val row;                   /* query row within the block */
    cg_var acc;                   /* <16 x float> */
    cg_val max;
} view;

static view view_of(nb_lower *l) {
    cg *g = l->g;
    view v = {.l = l,
              .q = &l->in[0].buf,
              .k = &l->in[1].buf,
              .v = &l->in[2].buf,
              .y = &l->out[0].buf,
              .masked = l->in[3].value != NULL};
    v.H = v.q->dims[1];
    v.S = v.q->dims[2];
    v.D = v.q->dims[3];
    v.T = v.k->dims[2];
    v.E = v.v->dims[3];
    v.blocks = cg_ceildiv(g, v.S, cg_i64(g, ROWS));
    v.share = cg_udiv(g, v.H, v.k->dims[1]);
    if (v.masked) {
        cg_val dims[4] = {v.q->dims[0], v.H, v.S, v.T};
        v.mask = cg_buf_broadcast(g, &l->in[3].buf, 4, dims);
    }
    return v;
}

static cg_val all_blocks(nb_lower *l) {
    cg *g = l->g;
    const cg_buf *q = &l->in[0].buf;
    return cg_mul(g, cg_mul(g, q->dims[0], q->dims[1]), cg_ceildiv(g, q->dims[2], cg_i64(g, ROWS)));
}

/* Each thread takes a run of blocks and a part of the scratch. */
static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    return cg_smin(l->g, l->threads, all_blocks(l));
}

static cg_val scratch(nb_lower *l) {
    return cg_mul(l->g, l->threads, cg_muli(l->g, l->in[1].buf.dims[2], ROWS * 4));
}

/* ---- scores --------------------------------------------------------------------------------- */

/* keys[d][lane] = k[b, kv, t + lane, d]; lanes beyond the last key hold zeros. */
static void turn_keys(view *v, cg_val t, cg_val n) {
    cg *g = v->l->g;
    cg_val stride = v->k->strides[2], from = cg_at(g, v->k, v->b, v->kv, t, cg_i64(g, 0));
    CG_FOR(g, d, cg_i64(g, 0), v->D, cg_i64(g, 1)) {
        cg_val at = cg_buf_step(g, v->k, from, cg_mul(g, d, v->k->strides[3]));
        cg_store(g, cg_buf_load_part(g, v->k, at, stride, n),
                 cg_index(g, v->keys, CG_F32, cg_muli(g, d, CG_LANES)), 64);
    }
}

static cg_val score_at(const view *v, cg_val row, cg_val t) {
    return cg_index(v->l->g, v->scores, CG_F32, cg_add(v->l->g, cg_mul(v->l->g, row, v->T), t));
}

static void score_keys(cg *g, void *user, cg_val t, cg_val n) {
    view *v = user;
    cg_val one = cg_i64(g, 1), zero = cg_i64(g, 0);
    turn_keys(v, t, n);
    CG_FOR(g, row, zero, v->rows, one) {
        cg_val s = cg_add(g, v->first, row), q = cg_at(g, v->q, v->b, v->h, s, zero);
        cg_var dot = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
        CG_FOR(g, d, zero, v->D, one) {
            cg_val x =
                cg_buf_load(g, v->q, cg_buf_step(g, v->q, q, cg_mul(g, d, v->q->strides[3])));
            cg_val keys =
                cg_load(g, CG_V(CG_F32), cg_index(g, v->keys, CG_F32, cg_muli(g, d, CG_LANES)), 64);
            cg_set(g, dot, cg_fma(g, cg_splat(g, x, CG_LANES), keys, cg_get(g, dot)));
        }
        cg_val scale = cg_splat(g, cg_f32(g, nb_attr_float(v->l->op, "scale")), CG_LANES),
               score = cg_mul(g, cg_get(g, dot), scale);
        if (v->masked && v->l->in[3].immediate) {
            score = cg_add(g, score, cg_splat(g, v->l->in[3].immediate, CG_LANES));
        } else if (v->masked) {
            cg_val at = cg_at(g, &v->mask, v->b, v->h, s, t);
            score = cg_add(g, score, cg_buf_load_part(g, &v->mask, at, v->mask.strides[3], n));
        }
        if (n)
            cg_store_part(g, score, score_at(v, row, t), n);
        else
            cg_store(g, score, score_at(v, row, t), 4);
    }
}

/* ---- softmax and values --------------------------------------------------------------------- */

static cg_val load_scores(cg *g, const view *v, cg_val t, cg_val n) {
    cg_val at = score_at(v, v->row, t);
    return n ? cg_load_part(g, CG_V(CG_F32), at, n) : cg_load(g, CG_V(CG_F32), at, 4);
}

static void largest(cg *g, void *user, cg_val t, cg_val n) {
    view *v = user;
    cg_val x = load_scores(g, v, t, n), none = cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES);
    if (n) x = cg_select(g, cg_lane_mask(g, n), x, none);
    cg_set(g, v->acc, cg_fmax(g, cg_get(g, v->acc), x));
}

static void exponentials(cg *g, void *user, cg_val t, cg_val n) {
    const view *v = user;
    cg_val e = cg_exp(g, cg_sub(g, load_scores(g, v, t, n), cg_splat(g, v->max, CG_LANES)));
    if (n)
        cg_store_part(g, e, score_at(v, v->row, t), n);
    else
        cg_store(g, e, score_at(v, v->row, t), 4);
}

/* 16 elements of the output: all keys in order. */
static void weigh_values(cg *g, void *user, cg_val e, cg_val n) {
    const view *v = user;
    cg_val zero = cg_i64(g, 0), stride = v->v->strides[3],
           from = cg_at(g, v->v, v->b, v->kv, zero, e);
    cg_var acc = cg_var_new(g, cg_zero(g, CG_V(CG_F32))), sum = cg_var_new(g, cg_f32(g, 0));
    CG_FOR(g, t, zero, v->T, cg_i64(g, 1)) {
        cg_val p = cg_load(g, CG_S(CG_F32), score_at(v, v->row, t), 4);
        cg_val value = cg_buf_load_part(
            g, v->v, cg_buf_step(g, v->v, from, cg_mul(g, t, v->v->strides[2])), stride, n);
        cg_set(g, sum, cg_add(g, cg_get(g, sum), p));
        cg_set(g, acc, cg_fma(g, cg_splat(g, p, CG_LANES), value, cg_get(g, acc)));
    }
    cg_val y = cg_fdiv(g, cg_get(g, acc), cg_splat(g, cg_get(g, sum), CG_LANES));
    cg_val to = cg_at(g, v->y, v->b, v->h, cg_add(g, v->first, v->row), e);
    cg_buf_store_part(g, v->y, to, v->y->strides[3], y, n);
}

static void attend(view *v, cg_val block) {
    cg *g = v->l->g;
    cg_val head = cg_udiv(g, block, v->blocks);
    v->b = cg_udiv(g, head, v->H);
    v->h = cg_urem(g, head, v->H);
    v->kv = cg_udiv(g, v->h, v->share);
    v->first = cg_muli(g, cg_urem(g, block, v->blocks), ROWS);
    v->rows = cg_smin(g, cg_i64(g, ROWS), cg_sub(g, v->S, v->first));
    cg_for16(g, v->T, score_keys, v);
    CG_FOR(g, row, cg_i64(g, 0), v->rows, cg_i64(g, 1)) {
        v->row = row;
        v->acc = cg_var_new(g, cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES));
        cg_for16(g, v->T, largest, v);
        v->max = cg_fold16(g, cg_get(g, v->acc), cg_fmax);
        cg_for16(g, v->T, exponentials, v);
        cg_for16(g, v->E, weigh_values, v);
    }
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    view v = view_of(l);
    int64_t D = nb_in(l->op, 0)->type->dims[3]->value;
    v.keys = cg_stack(g, D * CG_LANES * 4, 64);
    cg_val blocks = all_blocks(l), n = items(l, 0);
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        v.scores = cg_offset(g, l->scratch, cg_mul(g, item, cg_muli(g, v.T, ROWS * 4)));
        cg_val from = cg_udiv(g, cg_mul(g, item, blocks), n),
               to = cg_udiv(g, cg_mul(g, cg_addi(g, item, 1), blocks), n);
        CG_FOR(g, block, from, to, cg_i64(g, 1)) { attend(&v, block); }
    }
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *q = &l->in[0].buf, *k = &l->in[1].buf;
    cg_val all = cg_mul(g, cg_mul(g, cg_buf_count(g, q), k->dims[2]), cg_i64(g, 2)),
           n = items(l, 0);
    return cg_udiv(g, all, cg_smax(g, n, cg_i64(g, 1)));
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    const nb_dim *d = nb_in(op, 0)->type->dims[3];
    if (!nb_dim_is_const(d) || d->value > MAX_HEAD)
        return nb_refuse(op, diags, "heads whose size is not a constant up to %d", MAX_HEAD);
    return nb_accept_plain(op, cpu, diags);
}

const nb_lowering nb_lower_attention = {
    .accept = accept, .items = items, .work = work, .body = body, .scratch = scratch};
