/* quantize: f32 to codes; one row of the last axis is one item.
 *
 * Dynamic descriptors find the largest |x| of the row (or block) as a bit pattern, which a NaN
 * wins, then round x * (limit / amax). Static ones round x / scale and add the zero point. */
#include "codegen/kernels/codes.h"

/* A run of values that share a scale. */
typedef struct run {
    nb_lower *l;
    const nb_quant *q;
    cg_val from, from_stride, to; /* first element in memory, codes behind each other */
    cg_var top;                   /* <16 x i32>: largest |x| as bits */
    cg_val inverse, dead;         /* f32; i1: all codes are 0 */
    cg_val scale, zero;           /* static: f32, f32 */
} run;

static cg_val load(const run *r, cg_val i, cg_val n) {
    cg *g = r->l->g;
    const cg_buf *x = &r->l->in[0].buf;
    if (r->l->in[0].immediate) return cg_splat(g, r->l->in[0].immediate, CG_LANES);
    return cg_buf_load_part(g, x, cg_buf_step(g, x, r->from, cg_mul(g, i, r->from_stride)),
                            r->from_stride, n);
}

static void store_codes(const run *r, cg_val i, cg_val n, cg_val codes) {
    cg *g = r->l->g;
    cg_kind kind = cg_storage_kind(r->q->storage);
    cg_val at = cg_index(g, r->to, kind, i), narrow = cg_narrow(g, codes, kind);
    if (n)
        cg_store_part(g, narrow, at, n);
    else
        cg_store(g, narrow, at, 0);
}

static void largest(cg *g, void *user, cg_val i, cg_val n) {
    run *r = user;
    cg_val bits = cg_andi(g, cg_bits(g, load(r, i, n)), 0x7fffffff);
    cg_set(g, r->top, cg_smax(g, cg_get(g, r->top), bits));
}

static void round_dynamic(cg *g, void *user, cg_val i, cg_val n) {
    const run *r = user;
    cg_val limit = cg_splat(g, cg_f32(g, (float)r->q->amax_code), CG_LANES);
    cg_val v = cg_rint(g, cg_mul(g, load(r, i, n), r->inverse));
    v = cg_select(g, cg_cmp(g, CG_GT, v, limit), limit, v);
    v = cg_select(g, cg_cmp(g, CG_LT, v, cg_neg(g, limit)), cg_neg(g, limit), v);
    /* A dead row may hold NaN here: its codes are zero whatever it holds. */
    v = cg_select(g, cg_splat(g, r->dead, CG_LANES), cg_splat(g, cg_f32(g, 0), CG_LANES), v);
    store_codes(r, i, n, cg_float_to_sint(g, v, CG_I32));
}

static void round_static(cg *g, void *user, cg_val i, cg_val n) {
    const run *r = user;
    cg_val v = cg_rint(g, cg_fdiv(g, load(r, i, n), r->scale));
    v = cg_select(g, cg_is_nan(g, v), cg_splat(g, cg_f32(g, 0), CG_LANES), v);
    /* Bounds before the zero point is added: the sum is then exact. */
    float zero = (float)r->q->zero;
    cg_val low = cg_splat(g, cg_f32(g, (float)nb_quant_min(r->q) - zero), CG_LANES),
           high = cg_splat(g, cg_f32(g, (float)nb_quant_max(r->q) - zero), CG_LANES);
    v = cg_select(g, cg_cmp(g, CG_LT, v, low), low, v);
    v = cg_select(g, cg_cmp(g, CG_GT, v, high), high, v);
    cg_val codes = cg_add(g, cg_float_to_sint(g, v, CG_I32),
                          cg_splat(g, cg_i32(g, (int32_t)r->q->zero), CG_LANES));
    store_codes(r, i, n, codes);
}

/* Quantizes `length` values and returns their scale. */
static cg_val dynamic_run(run *r, cg_val length) {
    cg *g = r->l->g;
    r->top = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    cg_for16(g, length, largest, r);
    cg_val bits = cg_fold16(g, cg_get(g, r->top), cg_smax),
           limit = cg_f32(g, (float)r->q->amax_code);
    cg_val amax = cg_from_bits(g, bits), infinite = cg_cmpi(g, CG_GE, bits, 0x7f800000);
    r->inverse = cg_fdiv(g, limit, amax);
    cg_val tiny = cg_cmp(g, CG_EQ, r->inverse, cg_f32(g, __builtin_inff()));
    r->dead = cg_or(g, infinite, tiny); /* amax = 0 makes the inverse infinite too */
    cg_for16(g, length, round_dynamic, r);
    cg_val scale = cg_fdiv(g, amax, limit);
    scale = cg_select(g, tiny, cg_f32(g, 0), scale);
    return cg_select(g, infinite, cg_from_bits(g, cg_i32(g, 0x7fc00000)), scale);
}

static bool is_dynamic(const nb_quant *q) {
    return q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    run r = {.l = l, .q = l->out[0].value->type->quant, .from_stride = x->strides[x->rank - 1]};
    cg_val length = x->dims[x->rank - 1], one = cg_i64(g, 1);
    cg_kind kind = cg_storage_kind(r.q->storage);
    if (!is_dynamic(r.q))
        r.scale = cg_splat(g, nb_scale_at(l, &l->out[0], r.q, cg_i64(g, 0)), CG_LANES);
    CG_FOR(g, row, begin, end, one) {
        cg_val from = cg_buf_row(g, x, 1, row), to = cg_buf_row(g, y, 1, row);
        r.from = from;
        r.to = to;
        if (!is_dynamic(r.q)) {
            cg_for16(g, length, round_static, &r);
        } else if (r.q->granularity == NB_PER_TOKEN) {
            cg_store(g, dynamic_run(&r, length), cg_index(g, l->out[0].scales, CG_F32, row), 0);
        } else {
            cg_val group = cg_i64(g, r.q->group), blocks = cg_ceildiv(g, length, group);
            CG_FOR(g, b, cg_i64(g, 0), blocks, one) {
                cg_val at = cg_mul(g, b, group), n = cg_smin(g, group, cg_sub(g, length, at));
                r.from = cg_buf_step(g, x, from, cg_mul(g, at, r.from_stride));
                r.to = cg_index(g, to, kind, at);
                cg_val index = cg_add(g, cg_mul(g, row, blocks), b);
                cg_store(g, dynamic_run(&r, n), cg_index(g, l->out[0].scales, CG_F32, index), 0);
            }
        }
    }
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[l->in[0].buf.rank - 1], 2);
}

/* Activations are quantized to i8 and i16; constants were quantized when the model was compiled. */
static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    const nb_quant *q = nb_out(op)->type->quant;
    if (q->storage != NB_I8 && q->storage != NB_I16)
        return nb_refuse(op, diags, "codes of %s at run time", nb_elems[q->storage].text);
    if (q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP)
        return nb_refuse(op, diags, "run-time quantization along an axis");
    return nb_in(op, 0)->type->rank ? NB_OK : nb_refuse(op, diags, "a scalar");
}

const nb_lowering nb_lower_quantize = {
    .accept = accept, .items = nb_items_rows, .work = work, .body = body};
