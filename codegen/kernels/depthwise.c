/* depthwise: channels are the lanes, and lie next to each other. Some outputs next to each other
 * along the last axis make a tile: they share weights, and inputs where the kernel overlaps itself.
 * One item is a row of outputs: batch and all axes but the last. */
#include "codegen/kernels/conv.h"
#include "ir/eval.h"

#define MAX_TILE 8

typedef struct row {
    nb_lower *l;
    cg_val x, y; /* the first input and output of the row, of the first channel */
    int rows;    /* outputs in a tile */
    cg_val from[MAX_TILE];
    cg_val channel, n; /* of 16 channels the first, and how many count, or NULL: all */
    cg_var acc[MAX_TILE];
} row;

/* How far output `index` along the last axis is from the first, in elements of x. */
static cg_val along(const row *r, cg_val index) {
    const cg_buf *x = &r->l->in[0].buf;
    return nb_conv_offset(r->l->g, r->l->op, x, x->rank - 3, index, "strides");
}

static void add_product(void *user, cg_val x, cg_val w) {
    const row *r = user;
    cg *g = r->l->g;
    const cg_buf *in = &r->l->in[0].buf, *kernel = &r->l->in[1].buf;
    cg_val one = cg_i64(g, 1), C = kernel->dims[kernel->rank - 1];
    cg_val at = cg_add(g, cg_mul(g, w, C), r->channel);
    cg_val weights =
        cg_buf_load_part(g, kernel, cg_buf_step(g, kernel, kernel->base, at), one, r->n);
    for (int i = 0; i < r->rows; i++) {
        cg_val v = cg_buf_load_part(g, in, cg_buf_step(g, in, r->from[i], x), one, r->n);
        cg_set(g, r->acc[i], cg_fma(g, v, weights, cg_get(g, r->acc[i])));
    }
}

/* `rows` outputs from number `at` of the row on. */
static void tile(row r, cg_val at, int rows) {
    cg *g = r.l->g;
    const cg_buf *in = &r.l->in[0].buf, *out = &r.l->out[0].buf, *bias = &r.l->in[2].buf;
    cg_val one = cg_i64(g, 1), first = cg_add(g, along(&r, at), r.channel);
    cg_val x = cg_buf_step(g, in, r.x, first);
    r.rows = rows;
    for (int i = 0; i < rows; i++) {
        r.from[i] = cg_buf_step(g, in, x, along(&r, cg_i64(g, i)));
        r.acc[i] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
    }
    nb_conv_positions(r.l, cg_i64(g, 0), cg_i64(g, 0), add_product, &r);
    for (int i = 0; i < rows; i++) {
        cg_val v = cg_get(g, r.acc[i]);
        if (r.l->in[2].value) {
            cg_val from = cg_buf_step(g, bias, bias->base, cg_mul(g, r.channel, bias->strides[0]));
            v = cg_add(g, v,
                       r.l->in[2].immediate
                           ? cg_splat(g, r.l->in[2].immediate, CG_LANES)
                           : cg_buf_load_part(g, bias, from, bias->strides[0], r.n));
        }
        cg_val to = cg_mul(g, cg_addi(g, at, i), out->strides[out->rank - 2]);
        cg_buf_store_part(g, out, cg_buf_step(g, out, r.y, cg_add(g, to, r.channel)), one, v, r.n);
    }
}

/* As many accumulators as stay in registers beside the weights and an input. */
static int tile_rows(const cg *g) {
    const cg_isa *isa = cg_isa_of(g);
    int per_row = (int)nb_max_i64(1, 4 * CG_LANES / isa->vector_bytes);
    return (int)nb_min_i64(MAX_TILE, nb_max_i64(1, (isa->registers - 1 - per_row) / per_row));
}

/* The last tile overlaps the one before it; a row that is shorter goes one by one. */
static void channels(cg *g, void *user, cg_val channel, cg_val n) {
    row r = *(const row *)user;
    const cg_buf *out = &r.l->out[0].buf;
    const int rows = tile_rows(g);
    cg_val zero = cg_i64(g, 0), count = out->dims[out->rank - 2], last = cg_addi(g, count, -rows);
    r.channel = channel;
    r.n = n;
    CG_IF(g, cg_cmp(g, CG_GE, last, zero)) {
        CG_FOR(g, at, zero, count, cg_i64(g, rows)) { tile(r, cg_smin(g, at, last), rows); }
    }
    CG_ELSE(g) {
        CG_FOR(g, at, zero, count, cg_i64(g, 1)) { tile(r, at, 1); }
    }
}

static void one_row(nb_lower *l, cg_val at) {
    cg *g = l->g;
    const cg_buf *in = &l->in[0].buf, *out = &l->out[0].buf;
    row r = {.l = l};
    cg_val x, y;
    nb_conv_row(g, l->op, in, out, at, &x, &y);
    r.x = cg_buf_step(g, in, in->base, x);
    r.y = cg_buf_step(g, out, out->base, y);
    cg_for16(g, out->dims[out->rank - 1], channels, &r);
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    return cg_buf_count_range(l->g, &l->out[0].buf, 0, l->out[0].buf.rank - 2);
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    const cg_buf *out = &l->out[0].buf;
    return cg_mul(l->g, cg_buf_count(l->g, &l->in[1].buf), out->dims[out->rank - 2]);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    CG_FOR(l->g, at, begin, end, cg_i64(l->g, 1)) { one_row(l, at); }
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    if (nb_is_product_of_codes(op))
        return nb_refuse(op, diags,
                         "a product of dequantized tensors; run fuse-dequant before plan-memory");
    return nb_accept_plain(op, cpu, diags);
}

const nb_lowering nb_lower_depthwise = {
    .accept = accept, .items = items, .work = work, .body = body};
