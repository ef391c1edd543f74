/* Reductions of what a kernel sees (pooling): `reduce_*` whose patches stay in registers, and of
 * sums of codes what those stand for.
 *
 * 16 places next to each other along the last axis are the lanes; each element that the kernel sees
 * is a vector of them. A sum is that of sum16 (ir/NUMBERS.md): element i belongs to accumulator i
 * mod 16, which starts at +0, and the accumulators are added as a tree, those without elements
 * being +0, which changes nothing. One item is a row of places. */
#include "codegen/kernels/codes.h"
#include "codegen/kernels/conv.h"
#include "ir/conv.h"

typedef struct pool {
    nb_lower *l;
    const nb_op *patches;
    const nb_quant *q; /* of the codes that patches are, or NULL */
    int axes;
    cg_val from, to; /* the first place's first input and result of the row at hand */
} pool;

static pool pool_of(nb_lower *l) {
    const nb_op *const *ops = l->chain.ops.items;
    return (pool){.l = l,
                  .patches = ops[0],
                  .q = l->chain.ops.count > 2 ? nb_out(ops[1])->type->quant : NULL,
                  .axes = l->in[0].buf.rank - 2};
}

bool nb_is_pool(const nb_lower *l) { return l->chain.ops.count > 1; }

static bool is_sum(const nb_op *op) {
    return op->kind == NB_OP_reduce_sum || op->kind == NB_OP_reduce_mean;
}

/* Element number `k` of the places from `first` on: `n` of them, or 16. */
static cg_val element(const pool *p, int64_t k, cg_val first, cg_val n) {
    cg *g = p->l->g;
    const cg_buf *x = &p->l->in[0].buf;
    const nb_attr *kernel = nb_attr_of(p->patches, "kernel");
    cg_val at = cg_i64(g, 0);
    for (int d = p->axes - 1; d >= 0; d--) {
        const int64_t length = kernel->ints.items[d];
        at = cg_add(g, at, nb_conv_offset(g, p->patches, x, d, cg_i64(g, k % length), "dilations"));
        k /= length;
    }
    at = cg_add(g, at, nb_conv_offset(g, p->patches, x, p->axes - 1, first, "strides"));
    cg_val step = cg_muli(g, x->strides[x->rank - 1], nb_conv_stride(p->patches, p->axes - 1));
    cg_val v = nb_conv_load(g, x, cg_buf_step(g, x, p->from, at), step, n);
    return p->q ? nb_real_of(g, p->q, v) : v;
}

static cg_val larger(const pool *p, cg_val a, cg_val b) {
    cg *g = p->l->g;
    const bool max = p->l->op->kind == NB_OP_reduce_max;
    if (cg_kind_is_float(cg_type_of(a).kind)) return max ? cg_fmax(g, a, b) : cg_fmin(g, a, b);
    if (nb_elems[p->l->in[0].buf.elem].class_ == NB_CLASS_UINT)
        return max ? cg_umax(g, a, b) : cg_umin(g, a, b);
    return max ? cg_smax(g, a, b) : cg_smin(g, a, b);
}

static cg_val extreme(const pool *p, int64_t count, cg_val first, cg_val n) {
    cg_val v = element(p, 0, first, n);
    for (int64_t k = 1; k < count; k++) v = larger(p, v, element(p, k, first, n));
    return v;
}

static cg_val sum(const pool *p, int64_t count, cg_val first, cg_val n) {
    cg *g = p->l->g;
    cg_val acc[CG_LANES] = {NULL};
    for (int64_t k = 0; k < count; k++) {
        cg_val *a = &acc[k % CG_LANES];
        *a = cg_add(g, *a ? *a : cg_zero(g, CG_V(CG_F32)), element(p, k, first, n));
    }
    for (int half = CG_LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            if (acc[i + half]) acc[i] = cg_add(g, acc[i], acc[i + half]);
    }
    return acc[0];
}

static void places(const pool *p, cg_val first, cg_val n) {
    cg *g = p->l->g;
    const cg_buf *y = &p->l->out[0].buf;
    const nb_type *seen = nb_out(p->patches)->type;
    const int64_t count = seen->dims[seen->rank - 1]->value;
    cg_val v = is_sum(p->l->op) ? sum(p, count, first, n) : extreme(p, count, first, n);
    if (p->l->op->kind == NB_OP_reduce_mean)
        v = cg_fdiv(g, v, cg_splat(g, cg_f32(g, (float)count), CG_LANES));
    cg_val stride = y->strides[p->axes];
    cg_buf_store_part(g, y, cg_buf_step(g, y, p->to, cg_mul(g, first, stride)), stride, v, n);
}

cg_val nb_pool_items(nb_lower *l) {
    return cg_buf_count_range(l->g, &l->out[0].buf, 0, pool_of(l).axes);
}

cg_val nb_pool_work(nb_lower *l) {
    const nb_type *seen = nb_out(pool_of(l).patches)->type;
    return cg_muli(l->g, l->out[0].buf.dims[pool_of(l).axes], seen->dims[seen->rank - 1]->value);
}

void nb_pool_body(nb_lower *l, cg_val begin, cg_val end) {
    cg *g = l->g;
    pool p = pool_of(l);
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) {
        cg_val from, to;
        nb_conv_row(g, p.patches, x, y, row, &from, &to);
        p.from = cg_buf_step(g, x, x->base, from);
        p.to = cg_buf_step(g, y, y->base, to);
        /* The last 16 overlap those before. */
        cg_val count = y->dims[p.axes], last = cg_addi(g, count, -CG_LANES), zero = cg_i64(g, 0);
        CG_IF(g, cg_cmp(g, CG_GE, last, zero)) {
            CG_FOR(g, i, zero, count, cg_i64(g, CG_LANES)) {
                places(&p, cg_smin(g, i, last), NULL);
            }
        }
        CG_ELSE(g) {
            CG_IF(g, cg_cmp(g, CG_GT, count, zero)) { places(&p, zero, count); }
        }
    }
}
