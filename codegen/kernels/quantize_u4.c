/* quantize_u4: rows of f32 to codes of 4 bits, two to a byte, with a scale and a minimum for each
 * run of `group`. One row is one item. Codes are made for the scale and minimum as f16 holds them,
 * so that rounding those costs the codes nothing. */
#include "codegen/lower.h"

typedef struct run {
    const cg_buf *x;
    cg_val from, to;         /* its first element, its first byte */
    cg_var low, high;        /* <16 x f32> */
    cg_val minimum, inverse; /* <16 x f32> */
} run;

static cg_val load(cg *g, const run *r, cg_val i, cg_val n) {
    return cg_buf_load_part(g, r->x, cg_buf_step(g, r->x, r->from, i), cg_i64(g, 1), n);
}

static void extremes(cg *g, void *user, cg_val i, cg_val n) {
    const run *r = user;
    cg_val v = load(g, r, i, n), low = v, high = v;
    if (n) { /* lanes beyond the last must not count */
        cg_val there = cg_lane_mask(g, n);
        low = cg_select(g, there, v, cg_splat(g, cg_f32(g, __builtin_inff()), CG_LANES));
        high = cg_select(g, there, v, cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES));
    }
    cg_set(g, r->low, cg_fmin(g, cg_get(g, r->low), low));
    cg_set(g, r->high, cg_fmax(g, cg_get(g, r->high), high));
}

static void store_codes(cg *g, void *user, cg_val i, cg_val n) {
    static const int even[8] = {0, 2, 4, 6, 8, 10, 12, 14}, odd[8] = {1, 3, 5, 7, 9, 11, 13, 15},
                     wide[16] = {0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1};
    const run *r = user;
    cg_val zero = cg_zero(g, CG_V(CG_F32)), top = cg_splat(g, cg_f32(g, 15), CG_LANES),
           v = cg_rint(g, cg_mul(g, cg_sub(g, load(g, r, i, n), r->minimum), r->inverse));
    v = cg_select(g, cg_cmp(g, CG_GT, v, top), top, v);
    v = cg_select(g, cg_cmp(g, CG_GT, v, zero), v, zero); /* NaN is 0 */
    cg_val codes = cg_float_to_sint(g, v, CG_I32),
           high = cg_shli(g, cg_shuffle(g, codes, NULL, 8, odd), 4),
           pairs = cg_or(g, cg_shuffle(g, codes, NULL, 8, even), high),
           bytes = cg_narrow(g, pairs, CG_I8), at = cg_offset(g, r->to, cg_lshri(g, i, 1));
    if (n)
        cg_store_part(g, cg_shuffle(g, bytes, NULL, CG_LANES, wide), at, cg_lshri(g, n, 1));
    else
        cg_store(g, bytes, at, 1);
}

/* Stores x as f16, and returns what f32 that is. */
static cg_val store_f16(cg *g, cg_val x, cg_val at) {
    cg_val bits = cg_f32_to_f16(g, x);
    cg_store(g, bits, at, 2);
    return cg_f16_to_f32(g, bits);
}

static void quantize(cg *g, run *r, cg_val n, cg_val scale_at, cg_val minimum_at) {
    cg_val inf = cg_f32(g, __builtin_inff());
    r->low = cg_var_new(g, cg_splat(g, inf, CG_LANES));
    r->high = cg_var_new(g, cg_splat(g, cg_neg(g, inf), CG_LANES));
    cg_for16(g, n, extremes, r);
    cg_val low = cg_fold16(g, cg_get(g, r->low), cg_fmin),
           high = cg_fold16(g, cg_get(g, r->high), cg_fmax),
           minimum = store_f16(g, low, minimum_at),
           step = cg_fdiv(g, cg_sub(g, high, minimum), cg_f32(g, 15)),
           scale = store_f16(g, step, scale_at);
    r->minimum = cg_splat(g, minimum, CG_LANES);
    r->inverse = cg_splat(g, cg_fdiv(g, cg_f32(g, 1), scale), CG_LANES);
    cg_for16(g, n, store_codes, r);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *scales = &l->out[1].buf, *minima = &l->out[2].buf;
    cg_val one = cg_i64(g, 1), group = cg_i64(g, nb_attr_int(l->op, "group")), S = x->dims[2];
    CG_FOR(g, row, begin, end, one) {
        cg_val from = cg_buf_row(g, x, 1, row), to = cg_buf_row(g, &l->out[0].buf, 1, row),
               head = cg_udiv(g, row, S), s = cg_urem(g, row, S), b = cg_udiv(g, head, x->dims[1]),
               h = cg_urem(g, head, x->dims[1]);
        CG_FOR(g, k, cg_i64(g, 0), scales->dims[2], one) {
            cg_val at = cg_mul(g, k, group), n = cg_smin(g, group, cg_sub(g, x->dims[3], at));
            run r = {.x = x,
                     .from = cg_buf_step(g, x, from, at),
                     .to = cg_offset(g, to, cg_lshri(g, at, 1))};
            quantize(g, &r, n, cg_at(g, scales, b, h, k, s), cg_at(g, minima, b, h, k, s));
        }
    }
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[3], 3);
}

const nb_lowering nb_lower_quantize_u4 = {
    .accept = nb_accept_plain, .items = nb_items_rows, .work = work, .body = body};
