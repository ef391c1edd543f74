/* quantize: f32 to codes; one row of the last axis is one item. At the end of a chain it is part of
 * that (elementwise.c).
 *
 * Dynamic descriptors find the largest |x| of the row (or block) as a bit pattern, which a NaN
 * wins, and round by it; static ones by their scale and zero point (codes.h). */
#include "codegen/kernels/codes.h"
#include "codegen/kernels/elementwise.h"

static cg_val load(const nb_code_run *r, cg_val i, cg_val n) {
    cg *g = r->g;
    if (r->immediate) return cg_splat(g, r->immediate, CG_LANES);
    return cg_buf_load_part(g, r->x, cg_buf_step(g, r->x, r->from, cg_mul(g, i, r->stride)),
                            r->stride, n);
}

static void store_codes(const nb_code_run *r, cg_val i, cg_val n, cg_val codes) {
    cg *g = r->g;
    cg_kind kind = cg_storage_kind(r->q->storage);
    cg_val at = cg_index(g, r->to, kind, i), narrow = cg_narrow(g, codes, kind);
    if (n)
        cg_store_part(g, narrow, at, n);
    else
        cg_store(g, narrow, at, 0);
}

static void largest(cg *g, void *user, cg_val i, cg_val n) {
    nb_code_run *r = user;
    cg_val bits = cg_andi(g, cg_bits(g, load(r, i, n)), 0x7fffffff);
    cg_set(g, r->top, cg_smax(g, cg_get(g, r->top), bits));
}

static void round_dynamic(cg *g, void *user, cg_val i, cg_val n) {
    const nb_code_run *r = user;
    store_codes(r, i, n, nb_round_dynamic(g, &r->rounding, load(r, i, n)));
}

static void round_static(cg *g, void *user, cg_val i, cg_val n) {
    const nb_code_run *r = user;
    store_codes(r, i, n, nb_round_static(g, r->q, r->scale, load(r, i, n)));
}

cg_val nb_codes_dynamic(nb_code_run *r, cg_val length) {
    cg *g = r->g;
    r->top = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    cg_for16(g, length, largest, r);
    r->rounding = nb_rounding_of(g, r->q, cg_fold16(g, cg_get(g, r->top), cg_smax));
    cg_for16(g, length, round_dynamic, r);
    return r->rounding.scale;
}

void nb_codes_static(nb_code_run *r, cg_val length) { cg_for16(r->g, length, round_static, r); }

static bool is_dynamic(const nb_quant *q) {
    return q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
}

static bool ends_chain(const nb_lower *l) { return l->chain.ops.count > 1; }

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    if (ends_chain(l)) {
        nb_chain_body(l, phase, begin, end);
        return;
    }
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    nb_code_run r = {.g = g,
                     .q = l->out[0].value->type->quant,
                     .x = x,
                     .immediate = l->in[0].immediate,
                     .stride = x->strides[x->rank - 1]};
    cg_val length = x->dims[x->rank - 1], one = cg_i64(g, 1);
    cg_kind kind = cg_storage_kind(r.q->storage);
    if (!is_dynamic(r.q))
        r.scale = cg_splat(g, nb_scale_at(l, &l->out[0], r.q, cg_i64(g, 0)), CG_LANES);
    CG_FOR(g, row, begin, end, one) {
        cg_val from = cg_buf_row(g, x, 1, row), to = cg_buf_row(g, y, 1, row);
        r.from = from;
        r.to = to;
        if (!is_dynamic(r.q)) {
            nb_codes_static(&r, length);
        } else if (r.q->granularity == NB_PER_TOKEN) {
            cg_store(g, nb_codes_dynamic(&r, length), cg_index(g, l->out[0].scales, CG_F32, row),
                     0);
        } else {
            cg_val group = cg_i64(g, r.q->group), blocks = cg_ceildiv(g, length, group);
            CG_FOR(g, b, cg_i64(g, 0), blocks, one) {
                cg_val at = cg_mul(g, b, group), n = cg_smin(g, group, cg_sub(g, length, at));
                r.from = cg_buf_step(g, x, from, cg_mul(g, at, r.stride));
                r.to = cg_index(g, to, kind, at);
                cg_val index = cg_add(g, cg_mul(g, row, blocks), b);
                cg_store(g, nb_codes_dynamic(&r, n), cg_index(g, l->out[0].scales, CG_F32, index),
                         0);
            }
        }
    }
}

static cg_val items(nb_lower *l, int phase) {
    return ends_chain(l) ? nb_chain_items(l, phase) : nb_items_rows(l, phase);
}

static cg_val work(nb_lower *l, int phase) {
    if (ends_chain(l)) return nb_chain_work(l, phase);
    return cg_muli(l->g, l->in[0].buf.dims[l->in[0].buf.rank - 1], 2);
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    return nb_accept_codes(op, diags);
}

const nb_lowering nb_lower_quantize = {
    .accept = accept, .items = items, .work = work, .body = body};
