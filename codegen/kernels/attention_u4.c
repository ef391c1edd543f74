/* attention: keys and values in codes of 4 bits. A run of values becomes floats once, before the
 * tiles of rows read it; keys do so while they are turned. Scales and minima lie token by token,
 * group by group, so that those of 16 keys are a vector. */
#include "codegen/kernels/attention.h"

static cg_val group_size(const nb_attention *a) {
    return cg_i64(a->l->g, nb_attr_int(a->l->op, "group"));
}

/* ---- keys ----------------------------------------------------------------------------------- */

/* As its keys, those of a run that is not full are copied to where there is room for a full one. */
static cg_val whole_run(const nb_attention *a, const cg_buf *b, cg_val room, cg_var stride) {
    cg *g = a->l->g;
    cg_val begin = cg_at(g, b, a->b, a->kv, cg_i64(g, 0), a->t);
    cg_var from = cg_var_new(g, begin);
    CG_IF(g, cg_cmpi(g, CG_LT, a->n, NB_ATTENTION_RUN)) {
        CG_FOR(g, i, cg_i64(g, 0), b->dims[2], cg_i64(g, 1)) {
            cg_memcpy(g, cg_index(g, room, CG_I16, cg_muli(g, i, NB_ATTENTION_RUN)),
                      cg_buf_step(g, b, begin, cg_mul(g, i, b->strides[2])), cg_muli(g, a->n, 2));
        }
        cg_set(g, from, room);
        cg_set(g, stride, cg_i64(g, NB_ATTENTION_RUN));
    }
    return cg_get(g, from);
}

void nb_attention_find_scales(nb_attention *a) {
    cg *g = a->l->g;
    cg_var stride = cg_var_new(g, a->k_scales->strides[2]);
    a->scales_from = whole_run(a, a->k_scales, a->last_scales, stride);
    a->minima_from = whole_run(a, a->k_minima, a->last_minima, stride);
    a->scales_stride = cg_get(g, stride);
}

static cg_val load16(const nb_attention *a, cg_val first, cg_val group) {
    cg *g = a->l->g;
    cg_val at = cg_index(g, first, CG_I16, cg_mul(g, group, a->scales_stride));
    return cg_f16_to_f32(g, cg_load(g, CG_V(CG_I16), at, 2));
}

void nb_attention_load_scales(const nb_attention *a, nb_panel *p, cg_val d) {
    cg_val group = cg_udiv(a->l->g, d, group_size(a));
    p->scales = load16(a, p->scales_from, group);
    p->minima = load16(a, p->minima_from, group);
}

/* ---- values --------------------------------------------------------------------------------- */

typedef struct unpacking {
    cg_val from, to;       /* codes and floats of the group */
    cg_val scale, minimum; /* <16 x f32> */
} unpacking;

/* 16 codes, n of them there, as floats. */
static cg_val codes16(cg *g, cg_val at, cg_val n) {
    static const int in_turn[16] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
    cg_val bytes = n ? cg_slice(g, cg_load_part(g, CG_V(CG_I8), at, cg_lshri(g, n, 1)), 0, 8)
                     : cg_load(g, (cg_type){CG_I8, 8}, at, 1),
           low = cg_andi(g, bytes, 15), high = cg_lshri(g, bytes, 4),
           codes = cg_shuffle(g, low, high, CG_LANES, in_turn);
    return cg_sint_to_float(g, cg_zext(g, codes, CG_I32), CG_F32);
}

static void unpack16(cg *g, void *user, cg_val e, cg_val n) {
    const unpacking *u = user;
    cg_val codes = codes16(g, cg_offset(g, u->from, cg_lshri(g, e, 1)), n);
    cg_store(g, nb_attention_real(g, codes, u->scale, u->minimum), nb_floats_at(g, u->to, e), 64);
}

/* The f16 of value i of the run and group k. */
static cg_val splat_of(const nb_attention *a, const cg_buf *b, cg_val i, cg_val k) {
    cg *g = a->l->g;
    cg_val at = cg_at(g, b, a->b, a->kv, k, cg_add(g, a->t, i));
    return cg_splat(g, cg_buf_load(g, b, at), CG_LANES);
}

void nb_attention_unpack_values(const nb_attention *a) {
    cg *g = a->l->g;
    const cg_buf *v = a->v;
    cg_val zero = cg_i64(g, 0), one = cg_i64(g, 1), size = group_size(a),
           codes = cg_at(g, v, a->b, a->kv, a->t, zero);
    CG_FOR(g, i, zero, a->n, one) {
        cg_val row = cg_mul(g, i, v->strides[2]), from = cg_offset(g, codes, row),
               to = nb_floats_at(g, a->values, cg_mul(g, i, a->Epad));
        CG_FOR(g, at, zero, v->dims[3], cg_i64(g, 64)) {
            nb_attention_ask(a, cg_add(g, row, at), 64);
        }
        CG_FOR(g, k, zero, a->v_scales->dims[2], one) {
            cg_val e = cg_mul(g, k, size);
            unpacking u = {.from = cg_offset(g, from, cg_lshri(g, e, 1)),
                           .to = nb_floats_at(g, to, e),
                           .scale = splat_of(a, a->v_scales, i, k),
                           .minimum = splat_of(a, a->v_minima, i, k)};
            cg_for16(g, cg_smin(g, size, cg_sub(g, a->E, e)), unpack16, &u);
        }
    }
}
