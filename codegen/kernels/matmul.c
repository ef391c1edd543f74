/* matmul: each output is a sequence of fma over k. A tile is some rows by 16 columns: the columns
 * are the lanes, a row's element is broadcast.
 *
 * A constant matrix of f32 is packed into panels of 16 columns, [N/16][K][16], padded with zeros,
 * so that a panel is read once from front to end for each tile of rows. Other right operands are
 * read where they stand. One item is one panel (of one batch). */
#include "codegen/lower.h"
#include "codegen/pack.h"
#include "ir/eval.h"

#include <string.h>

#define MAX_ROWS 8

/* ---- packing -------------------------------------------------------------------------------- */

static int64_t panels_of(const nb_value *b) {
    return nb_ceildiv(b->type->dims[1]->value, CG_LANES);
}

static bool panel_size(const nb_value *b, int64_t *bytes) {
    return nb_mul_i64(panels_of(b), b->type->dims[0]->value, bytes) &&
           nb_mul_i64(*bytes, CG_LANES * 4, bytes);
}

static void write_panels(const nb_value *b, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    int64_t K = b->type->dims[0]->value, N = b->type->dims[1]->value;
    const char *data = b->blob->data;
    for (int64_t p = 0; p < panels_of(b); p++) {
        for (int64_t k = 0; k < K; k++) {
            float line[CG_LANES] = {0};
            int64_t n = nb_min_i64(CG_LANES, N - p * CG_LANES);
            memcpy(line, data + (k * N + p * CG_LANES) * 4, (size_t)n * 4);
            nb_sink_write(sink, line, sizeof line);
        }
    }
}

static const nb_layout panels = {.name = "f32-panels", .size = panel_size, .write = write_panels};

static bool is_packed(const nb_op *op) {
    const nb_value *b = nb_in(op, 1);
    return nb_is_const(b) && b->type->elem == NB_F32 && b->type->rank == 2 && !b->type->quant;
}

static const nb_layout *layout(const nb_op *op, uint32_t index, const cg_cpu *cpu) {
    (void)cpu;
    return index == 1 && is_packed(op) ? &panels : NULL;
}

/* ---- the kernel ----------------------------------------------------------------------------- */

/* What one item works on. */
typedef struct view {
    nb_lower *l;
    cg_kind kind; /* of arithmetic */
    cg_val rows, K, N, panels;
    cg_val a, a_row, a_k; /* pointer, strides in elements */
    cg_val b, b_k, b_n;   /* likewise; first element of the panel */
    cg_val y, y_row, y_n;
    cg_val left; /* columns in this panel, 1..16 */
} view;

static cg_val load_a(const view *v, cg_val row, cg_val k) {
    cg *g = v->l->g;
    const nb_operand *a = &v->l->in[0];
    if (a->immediate) return a->immediate;
    return cg_buf_load(
        g, &a->buf,
        cg_buf_step(g, &a->buf, v->a, cg_add(g, cg_mul(g, row, v->a_row), cg_mul(g, k, v->a_k))));
}

static cg_val load_b(const view *v, cg_val k) {
    cg *g = v->l->g;
    const nb_operand *b = &v->l->in[1];
    if (b->immediate) return cg_splat(g, b->immediate, CG_LANES);
    if (is_packed(v->l->op))
        return cg_load(g, CG_V(CG_F32), cg_index(g, v->b, CG_F32, cg_muli(g, k, CG_LANES)), 64);
    return cg_buf_load_part(g, &b->buf, cg_buf_step(g, &b->buf, v->b, cg_mul(g, k, v->b_k)), v->b_n,
                            v->left);
}

static void tile(const view *v, cg_val row, int rows) {
    cg *g = v->l->g;
    cg_var acc[MAX_ROWS];
    for (int r = 0; r < rows; r++) acc[r] = cg_var_new(g, cg_zero(g, CG_V(v->kind)));
    CG_FOR(g, k, cg_i64(g, 0), v->K, cg_i64(g, 1)) {
        cg_val b = load_b(v, k);
        for (int r = 0; r < rows; r++) {
            cg_val a = cg_splat(g, load_a(v, cg_addi(g, row, r), k), CG_LANES),
                   sum = cg_get(g, acc[r]);
            cg_set(g, acc[r],
                   cg_kind_is_float(v->kind) ? cg_fma(g, a, b, sum)
                                             : cg_add(g, sum, cg_mul(g, a, b)));
        }
    }
    const cg_buf *y = &v->l->out[0].buf;
    for (int r = 0; r < rows; r++) {
        cg_val at = cg_buf_step(g, y, v->y, cg_mul(g, cg_addi(g, row, r), v->y_row));
        cg_buf_store_part(g, y, at, v->y_n, cg_get(g, acc[r]), v->left);
    }
}

/* Rows in a tile: as many accumulators as stay in registers, with some left for operands. */
static int tile_rows(const cg *g) {
    const cg_isa *isa = cg_isa_of(g);
    int per_row = nb_max_i64(1, 64 / isa->vector_bytes) == 1 ? 1 : 64 / isa->vector_bytes,
        rows = (isa->registers - 4) / per_row;
    for (int n = MAX_ROWS; n > 1; n /= 2) {
        if (n <= rows) return n;
    }
    return 1;
}

static void all_rows(const view *v) {
    cg *g = v->l->g;
    int most = tile_rows(g);
    cg_val whole = cg_sub(g, v->rows, cg_srem(g, v->rows, cg_i64(g, most)));
    if (most > 1) CG_FOR(g, row, cg_i64(g, 0), whole, cg_i64(g, most)) {
            tile(v, row, most);
        }
    CG_FOR(g, row, most > 1 ? whole : cg_i64(g, 0), v->rows, cg_i64(g, 1)) { tile(v, row, 1); }
}

/* A constant matrix serves all batches: their rows are one long list, if they lie evenly. */
static bool rows_are_even(const cg_buf *a, const cg_buf *y) {
    for (int d = 0; d + 2 < y->rank; d++) {
        if (!y->dense[d]) return false;
    }
    for (int d = 0; d + 2 < a->rank; d++) {
        if (!a->dense[d]) return false;
    }
    return a->rank == y->rank;
}

static bool is_flat(nb_lower *l) {
    return is_packed(l->op) && rows_are_even(&l->in[0].buf, &l->out[0].buf);
}

static cg_val panel_count(nb_lower *l) {
    return cg_ceildiv(l->g, l->out[0].buf.dims[l->out[0].buf.rank - 1], cg_i64(l->g, CG_LANES));
}

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    const cg_buf *y = &l->out[0].buf;
    cg_val batches = is_flat(l) ? cg_i64(l->g, 1) : cg_buf_count_range(l->g, y, 0, y->rank - 2);
    return cg_mul(l->g, batches, panel_count(l));
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf, *y = &l->out[0].buf;
    cg_val rows = is_flat(l) ? cg_buf_count_range(g, y, 0, y->rank - 1) : y->dims[y->rank - 2];
    return cg_muli(g, cg_mul(g, a->dims[a->rank - 1], rows), CG_LANES);
}

/* Pointer to the matrix of batch number `batch` (over y's leading axes) of an operand. */
static cg_val batch_base(cg *g, const cg_buf *b, const cg_buf *y, cg_val batch) {
    int lead = y->rank - 2;
    if (lead == 0) return b->base;
    cg_buf wide = *b;
    wide.rank = b->rank - 2;
    if (wide.rank > 0) wide.dense[wide.rank - 1] = false;
    wide = cg_buf_broadcast(g, &wide, lead, y->dims);
    return cg_buf_row(g, &wide, 0, batch);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf, *b = &l->in[1].buf, *y = &l->out[0].buf;
    view v = {.l = l,
              .kind = cg_compute_kind(y->elem),
              .K = a->dims[a->rank - 1],
              .N = y->dims[y->rank - 1],
              .panels = panel_count(l)};
    bool flat = is_flat(l), packed = is_packed(l->op);
    v.rows = flat ? cg_buf_count_range(g, y, 0, y->rank - 1) : y->dims[y->rank - 2];
    v.a_row = a->strides[a->rank - 2];
    v.a_k = a->strides[a->rank - 1];
    v.b_k = b->strides[b->rank - 2];
    v.b_n = b->strides[b->rank - 1];
    v.y_row = y->strides[y->rank - 2];
    v.y_n = y->strides[y->rank - 1];
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        cg_val batch = flat ? cg_i64(g, 0) : cg_udiv(g, item, v.panels),
               panel = flat ? item : cg_urem(g, item, v.panels);
        cg_val first = cg_muli(g, panel, CG_LANES);
        v.left = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, v.N, first));
        v.a = flat ? a->base : batch_base(g, a, y, batch);
        v.y =
            cg_buf_step(g, y, flat ? y->base : batch_base(g, y, y, batch), cg_mul(g, first, v.y_n));
        if (packed)
            v.b = cg_index(g, b->base, CG_F32, cg_mul(g, first, v.K));
        else
            v.b = cg_buf_step(g, b, batch_base(g, b, y, batch), cg_mul(g, first, v.b_n));
        all_rows(&v);
    }
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    /* Its operands were dequantized to floats here, but its meaning is the product of codes. */
    if (nb_is_product_of_codes(op))
        return nb_refuse(op, diags,
                         "a product of dequantized tensors; run fuse-dequant before plan-memory");
    if (nb_out(op)->type->elem == NB_F64 && !cpu->isa->fma)
        return nb_refuse(op, diags, "f64 products on a CPU without fused multiply-add");
    return nb_accept_plain(op, cpu, diags);
}

const nb_lowering nb_lower_matmul = {
    .accept = accept, .items = items, .work = work, .body = body, .layout = layout};
