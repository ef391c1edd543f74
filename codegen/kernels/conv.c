/* conv: each output is a sequence of fma over the channels of its group and the positions of the
 * kernel. This file has the loops over both, and the way that works for every conv: 16 outputs
 * next to each other along the last axis are the lanes, a weight is broadcast. One item is such a
 * row of outputs. Wide convolutions by constant weights go the other way, conv_panels.c. */
#include "codegen/kernels/conv.h"

#include "codegen/lower.h"
#include "ir/conv.h"

#define MAX_VECTORS 4

/* The first axis that the kernel slides along: depthwise has its channels last. */
static int first_of_x(const nb_op *op) { return op->kind == NB_OP_depthwise ? 1 : 2; }
static int first_of_kernel(const nb_op *op) { return op->kind == NB_OP_depthwise ? 0 : 2; }

cg_val nb_conv_offset(cg *g, const nb_op *op, const cg_buf *x, int axis, cg_val index,
                      const char *step) {
    int64_t by = nb_conv_step(op, step, axis);
    return cg_muli(g, cg_mul(g, index, x->strides[axis + first_of_x(op)]), by);
}

void nb_conv_row(cg *g, const nb_op *op, const cg_buf *x, const cg_buf *y, cg_val row, cg_val *from,
                 cg_val *to) {
    *from = *to = cg_i64(g, 0);
    for (int d = x->rank - 3; d >= 0; d--) {
        cg_val index = d ? cg_urem(g, row, y->dims[d]) : row;
        if (d) row = cg_udiv(g, row, y->dims[d]);
        *to = cg_add(g, *to, cg_mul(g, index, y->strides[d]));
        *from = cg_add(g, *from,
                       d ? nb_conv_offset(g, op, x, d - 1, index, "strides")
                         : cg_mul(g, index, x->strides[0]));
    }
}

/* Positions along the last axis of a kernel that are written out, if they are no more. */
#define WRITTEN_OUT 5

static void positions(nb_lower *l, int axis, cg_val x, cg_val w, nb_conv_step_fn *step, void *user);

static cg_val length_of(const nb_lower *l, int axis) {
    return l->in[1].buf.dims[axis + first_of_kernel(l->op)];
}

/* Position k of an axis, and all of the axes behind it. */
static void position(nb_lower *l, int axis, cg_val x, cg_val w, cg_val k, nb_conv_step_fn *step,
                     void *user) {
    cg *g = l->g;
    positions(l, axis + 1,
              cg_add(g, x, nb_conv_offset(g, l->op, &l->in[0].buf, axis, k, "dilations")),
              cg_add(g, cg_mul(g, w, length_of(l, axis)), k), step, user);
}

/* One loop for each axis of the kernel, inside those before it. */
static void positions(nb_lower *l, int axis, cg_val x, cg_val w, nb_conv_step_fn *step,
                      void *user) {
    cg *g = l->g;
    const int axes = l->in[0].buf.rank - 2;
    if (axis == axes) {
        step(user, x, w);
        return;
    }
    cg_val length = length_of(l, axis);
    int64_t n;
    if (axis == axes - 1 && cg_known(length, &n) && n <= WRITTEN_OUT) {
        for (int64_t k = 0; k < n; k++) position(l, axis, x, w, cg_i64(g, k), step, user);
        return;
    }
    CG_FOR(g, k, cg_i64(g, 0), length, cg_i64(g, 1)) { position(l, axis, x, w, k, step, user); }
}

void nb_conv_positions(nb_lower *l, cg_val x, cg_val w, nb_conv_step_fn *step, void *user) {
    positions(l, 0, x, w, step, user);
}

void nb_conv_factors(nb_lower *l, nb_conv_step_fn *step, void *user) {
    cg *g = l->g;
    CG_FOR(g, c, cg_i64(g, 0), l->in[1].buf.dims[1], cg_i64(g, 1)) {
        nb_conv_positions(l, cg_mul(g, c, l->in[0].buf.strides[1]), c, step, user);
    }
}

/* ---- rows of outputs ------------------------------------------------------------------------ */

typedef struct row {
    nb_lower *l;
    cg_val x, w, y, bias;     /* first input, first weight, first output; scalar or NULL */
    int vectors;              /* that are computed together */
    cg_val from[MAX_VECTORS]; /* first input of each */
    cg_var acc[MAX_VECTORS];
    cg_val n; /* lanes that count, or NULL: all */
} row;

static cg_val x_stride(const nb_lower *l) {
    const cg_buf *x = &l->in[0].buf;
    return cg_muli(l->g, x->strides[x->rank - 1], nb_conv_stride(l->op, x->rank - 3));
}

/* Every second element of 31, or of 2n - 1: two loads, and lanes come out by one shuffle. */
static cg_val load_even(cg *g, const cg_buf *x, cg_val at, cg_val n) {
    static const int picks[CG_LANES] = {0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31};
    cg_val one = cg_i64(g, 1), first = NULL, second = NULL;
    if (n) {
        cg_val all = cg_addi(g, cg_shli(g, n, 1), -1);
        first = cg_smin(g, all, cg_i64(g, CG_LANES));
        second = cg_smax(g, cg_addi(g, all, 1 - CG_LANES), cg_i64(g, 0));
    }
    cg_val low = cg_buf_load_part(g, x, at, one, first);
    cg_val up = cg_buf_step(g, x, at, cg_i64(g, CG_LANES - 1));
    return cg_shuffle(g, low, cg_buf_load_part(g, x, up, one, second), CG_LANES, picks);
}

cg_val nb_conv_load(cg *g, const cg_buf *x, cg_val at, cg_val stride, cg_val n) {
    return cg_is(stride, 2) ? load_even(g, x, at, n) : cg_buf_load_part(g, x, at, stride, n);
}

static void add_product(void *user, cg_val x, cg_val w) {
    const row *r = (const row *)user;
    cg *g = r->l->g;
    const cg_buf *in = &r->l->in[0].buf, *kernel = &r->l->in[1].buf;
    cg_val weight = cg_buf_load(g, kernel, cg_buf_step(g, kernel, r->w, w));
    cg_val stride = x_stride(r->l), all = cg_splat(g, weight, CG_LANES);
    for (int i = 0; i < r->vectors; i++) {
        cg_val at = cg_buf_step(g, in, r->from[i], x);
        cg_val v = nb_conv_load(g, in, at, stride, r->n);
        cg_set(g, r->acc[i], cg_fma(g, v, all, cg_get(g, r->acc[i])));
    }
}

/* `vectors` of outputs, 16 of each or the first `n`. */
static void tile(row r, int vectors, const cg_val *at, cg_val n) {
    cg *g = r.l->g;
    const cg_buf *x = &r.l->in[0].buf, *y = &r.l->out[0].buf;
    r.vectors = vectors;
    r.n = n;
    for (int i = 0; i < vectors; i++) {
        r.from[i] = cg_buf_step(g, x, r.x, cg_mul(g, at[i], x_stride(r.l)));
        r.acc[i] = cg_var_new(g, cg_zero(g, CG_V(cg_compute_kind(y->elem))));
    }
    nb_conv_factors(r.l, add_product, &r);
    for (int i = 0; i < vectors; i++) {
        cg_val v = cg_get(g, r.acc[i]), stride = y->strides[y->rank - 1];
        if (r.bias) v = cg_add(g, v, cg_splat(g, r.bias, CG_LANES));
        cg_val to = cg_buf_step(g, y, r.y, cg_mul(g, at[i], stride));
        cg_buf_store_part(g, y, to, stride, v, n);
    }
}

/* As many vectors at once as leave the fewest to be computed twice; more where it is the same. */
static int best_vectors(cg_val count) {
    int64_t length, least = INT64_MAX;
    int best = 1;
    if (!cg_known(count, &length)) return MAX_VECTORS;
    for (int n = 1; n <= MAX_VECTORS; n++) {
        int64_t all = nb_ceildiv(nb_ceildiv(length, CG_LANES), n) * n;
        if (all <= least) best = n;
        least = nb_min_i64(least, all);
    }
    return best;
}

/* The vectors from `first` on, at most n; those that would reach beyond `last` stand there. */
static void some_vectors(const row *r, int n, cg_val first, cg_val last) {
    cg *g = r->l->g;
    cg_val at[MAX_VECTORS];
    for (int i = 0; i < n; i++) at[i] = cg_smin(g, cg_addi(g, first, i * CG_LANES), last);
    tile(*r, n, at, NULL);
}

/* Vectors that would reach beyond the row end with it, and so overlap those before. A row shorter
 * than a vector is part of one. Where its length is not known, what is left of it behind whole
 * tiles is a tile of as many vectors as it takes. */
static void all_vectors(const row *r, cg_val count) {
    cg *g = r->l->g;
    int n = best_vectors(count);
    cg_val last = cg_addi(g, count, -CG_LANES), zero = cg_i64(g, 0);
    CG_IF(g, cg_cmpi(g, CG_GE, last, 0)) {
        int64_t length;
        cg_val each = cg_i64(g, n * CG_LANES);
        if (cg_known(count, &length)) {
            CG_FOR(g, first, zero, count, each) { some_vectors(r, n, first, last); }
        } else {
            cg_val whole = cg_sub(g, count, cg_urem(g, count, each)),
                   rest = cg_sub(g, count, whole);
            CG_FOR(g, first, zero, whole, each) { some_vectors(r, n, first, last); }
            for (int k = 1; k <= n; k++) {
                cg_val more = cg_cmpi(g, CG_GT, rest, (k - 1) * CG_LANES),
                       enough = cg_cmpi(g, CG_LE, rest, k * CG_LANES);
                CG_IF(g, cg_and(g, more, enough)) { some_vectors(r, k, whole, last); }
            }
        }
    }
    CG_ELSE(g) {
        CG_IF(g, cg_cmpi(g, CG_GT, count, 0)) { tile(*r, 1, &zero, count); }
    }
}

/* Number `at` of a row of outputs: batch, channel, then all axes but the last. */
static void one_row(nb_lower *l, cg_val at) {
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *kernel = &l->in[1].buf, *bias = &l->in[2].buf,
                 *y = &l->out[0].buf;
    cg_val index[NB_MAX_RANK], x_at = cg_i64(g, 0), y_at = cg_i64(g, 0);
    for (int d = y->rank - 2; d >= 0; d--) {
        index[d] = d ? cg_urem(g, at, y->dims[d]) : at;
        if (d) at = cg_udiv(g, at, y->dims[d]);
        y_at = cg_add(g, y_at, cg_mul(g, index[d], y->strides[d]));
        if (d >= 2) x_at = cg_add(g, x_at, nb_conv_offset(g, l->op, x, d - 2, index[d], "strides"));
    }
    int64_t per_group = l->in[1].value->type->dims[0]->value / nb_conv_groups(l->op);
    cg_val group = cg_udiv(g, index[1], cg_i64(g, per_group));
    cg_val channel = cg_mul(g, group, kernel->dims[1]);
    x_at = cg_add(g, x_at, cg_mul(g, index[0], x->strides[0]));
    x_at = cg_add(g, x_at, cg_mul(g, channel, x->strides[1]));
    row r = {.l = l,
             .x = cg_buf_step(g, x, x->base, x_at),
             .w = cg_buf_step(g, kernel, kernel->base, cg_mul(g, index[1], kernel->strides[0])),
             .y = cg_buf_step(g, y, y->base, y_at)};
    if (l->in[2].value)
        r.bias = l->in[2].immediate ? l->in[2].immediate
                                    : cg_buf_load(g, bias, cg_at(g, bias, index[1]));
    all_vectors(&r, y->dims[y->rank - 1]);
}

/* ---- lowering ------------------------------------------------------------------------------- */

cg_val nb_conv_work(nb_lower *l) {
    return cg_buf_count_range(l->g, &l->in[1].buf, 1, l->in[1].buf.rank);
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    const cg_buf *y = &l->out[0].buf;
    if (nb_conv_has_panels(l->op)) return nb_conv_panel_items(l);
    return cg_buf_count_range(l->g, y, 0, y->rank - 1);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    if (nb_conv_has_panels(l->op)) return nb_conv_panel_work(l);
    return cg_mul(l->g, nb_conv_work(l), l->out[0].buf.dims[l->out[0].buf.rank - 1]);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    if (nb_conv_has_panels(l->op)) {
        nb_conv_panel_body(l, begin, end);
        return;
    }
    CG_FOR(l->g, at, begin, end, cg_i64(l->g, 1)) { one_row(l, at); }
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    if (nb_out(op)->type->elem == NB_F64 && !cpu->isa->fma)
        return nb_refuse(op, diags, "f64 products on a CPU without fused multiply-add");
    return nb_accept_plain(op, cpu, diags);
}

static const nb_layout *layout(const nb_op *op, uint32_t index, const cg_cpu *cpu) {
    (void)cpu;
    return index == 1 && nb_conv_has_panels(op) ? &nb_conv_panels : NULL;
}

const nb_lowering nb_lower_conv = {
    .accept = accept, .items = items, .work = work, .body = body, .layout = layout};
