/* attention: keys and values from memory into f32, keys turned round so that they are lanes.
 *
 * Both are read once for a block of rows, here, whatever their element type. A long cache comes
 * from far away: memory is asked for the next ones while tiles compute with these. */
#include "codegen/kernels/attention.h"

static cg_val element(cg *g, const cg_buf *b, cg_val pointer, cg_val index) {
    return cg_buf_step(g, b, pointer, index);
}

/* Codes as f32, floats as they are. */
static cg_val as_float(cg *g, cg_val x) {
    return cg_kind_is_float(cg_type_of(x).kind) ? x : cg_sint_to_float(g, x, CG_F32);
}

/* Four elements of one key beside four of another, as f32. */
static cg_val two_quads(cg *g, const cg_buf *k, cg_val low, cg_val high) {
    cg_type quad = {cg_storage_kind(k->elem), 4};
    cg_val both = cg_join(g, cg_load(g, quad, low, 0), cg_load(g, quad, high, 0));
    return as_float(g, cg_decode(g, k->elem, both));
}

/* The scale of token `t`, or of 16 from it on; of those from n on it is the last one's. */
static cg_val scale_of(const nb_attention *a, const cg_buf *scales, cg_val t) {
    return cg_buf_load(a->l->g, scales, cg_at(a->l->g, scales, a->b, a->kv, t, cg_i64(a->l->g, 0)));
}
static cg_val scales_of(const nb_attention *a, const cg_buf *scales, cg_val t, cg_val n) {
    cg *g = a->l->g;
    cg_val first = cg_at(g, scales, a->b, a->kv, t, cg_i64(g, 0)),
           x = cg_buf_load_part(g, scales, first, scales->strides[2], n);
    if (!n) return x;
    cg_val last = scale_of(a, scales, cg_add(g, t, cg_addi(g, n, -1)));
    return cg_select(g, cg_lane_mask(g, n), x, cg_splat(g, last, CG_LANES));
}

/* x[i] holds elements 0..3 of key i, then of key i + 4; y[e] becomes element e of keys 0..7. */
static void turn_quads(cg *g, const cg_val x[4], cg_val y[4]) {
    static const int low[8] = {0, 8, 1, 9, 4, 12, 5, 13}, high[8] = {2, 10, 3, 11, 6, 14, 7, 15},
                     even[8] = {0, 1, 8, 9, 4, 5, 12, 13}, odd[8] = {2, 3, 10, 11, 6, 7, 14, 15};
    cg_val a = cg_shuffle(g, x[0], x[1], 8, low), b = cg_shuffle(g, x[2], x[3], 8, low),
           c = cg_shuffle(g, x[0], x[1], 8, high), d = cg_shuffle(g, x[2], x[3], 8, high);
    y[0] = cg_shuffle(g, a, b, 8, even);
    y[1] = cg_shuffle(g, a, b, 8, odd);
    y[2] = cg_shuffle(g, c, d, 8, even);
    y[3] = cg_shuffle(g, c, d, 8, odd);
}

void nb_attention_turn_keys(const nb_attention *a, cg_val t, int panel, cg_val n) {
    cg *g = a->l->g;
    const cg_buf *k = a->k;
    cg_val zero = cg_i64(g, 0), from[CG_LANES],
           to = nb_floats_at(g, a->keys, cg_muli(g, a->D, panel * CG_LANES)),
           first = cg_at(g, k, a->b, a->kv, t, zero);
    for (int i = 0; i < CG_LANES; i++) {
        cg_val lane = cg_i64(g, i);
        if (n) lane = cg_smin(g, lane, cg_addi(g, n, -1));
        from[i] = element(g, k, first, cg_mul(g, lane, k->strides[2]));
    }
    cg_val whole = cg_andi(g, a->D, -4), scales = NULL;
    if (a->k_scales) scales = scales_of(a, a->k_scales, t, n);
    CG_FOR(g, d, zero, whole, cg_i64(g, 4)) {
        for (int half = 0; half < 2; half++) {
            cg_val x[4], y[4];
            for (int i = 0; i < 4; i++) {
                cg_val low = element(g, k, from[8 * half + i], d),
                       high = element(g, k, from[8 * half + i + 4], d);
                x[i] = two_quads(g, k, low, high);
            }
            turn_quads(g, x, y);
            for (int e = 0; e < 4; e++) {
                cg_val at = cg_addi(g, cg_muli(g, cg_addi(g, d, e), CG_LANES), 8 * half);
                if (scales) y[e] = cg_mul(g, y[e], cg_slice(g, scales, 8 * half, 8));
                cg_store(g, y[e], nb_floats_at(g, to, at), 32);
            }
        }
    }
    CG_FOR(g, d, whole, a->D, cg_i64(g, 1)) {
        for (int i = 0; i < CG_LANES; i++) {
            cg_val at = cg_addi(g, cg_muli(g, d, CG_LANES), i);
            cg_val x = as_float(g, cg_buf_load(g, k, element(g, k, from[i], d)));
            if (scales) x = cg_mul(g, x, cg_lane(g, scales, i));
            cg_store(g, x, nb_floats_at(g, to, at), 4);
        }
    }
}

void nb_attention_ask_keys(const nb_attention *a, cg_val t, cg_val d) {
    cg *g = a->l->g;
    cg_val next = cg_at(g, a->k, a->b, a->kv, cg_addi(g, t, a->panels * CG_LANES), cg_i64(g, 0));
    cg_prefetch(g, element(g, a->k, next, cg_muli(g, d, CG_LANES)), 2);
}

void nb_attention_ask_values(const nb_attention *a, cg_val t, cg_val e) {
    cg *g = a->l->g;
    cg_val next = cg_addi(g, t, NB_ATTENTION_VALUES);
    cg_prefetch(g, cg_at(g, a->v, a->b, a->kv, next, e), 2);
}

typedef struct copying {
    const nb_attention *a;
    cg_val from, to, scale; /* NULL for floats */
} copying;

static void copy16(cg *g, void *user, cg_val e, cg_val n) {
    const copying *c = user;
    const cg_buf *v = c->a->v;
    cg_val at = element(g, v, c->from, e);
    cg_val x = as_float(g, cg_buf_load_part(g, v, at, cg_i64(g, 1), n));
    if (c->scale) x = cg_mul(g, x, c->scale);
    cg_store(g, x, nb_floats_at(g, c->to, e), 64);
}

void nb_attention_load_values(const nb_attention *a, cg_val t, cg_val n) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0), one = cg_i64(g, 1);
    CG_FOR(g, i, zero, n, one) {
        copying c = {.a = a,
                     .from = cg_at(g, a->v, a->b, a->kv, cg_add(g, t, i), zero),
                     .to = nb_floats_at(g, a->values, cg_mul(g, i, a->Epad))};
        if (a->v_scales) c.scale = cg_splat(g, scale_of(a, a->v_scales, cg_add(g, t, i)), CG_LANES);
        cg_for16(g, a->E, copy16, &c);
    }
    cg_val padded = cg_andi(g, cg_addi(g, n, CG_LANES - 1), -CG_LANES),
           nothing = cg_splat(g, cg_f32(g, -0.0f), CG_LANES);
    CG_FOR(g, at, cg_mul(g, n, a->Epad), cg_mul(g, padded, a->Epad), cg_i64(g, CG_LANES)) {
        cg_store(g, nothing, nb_floats_at(g, a->values, at), 64);
    }
}
