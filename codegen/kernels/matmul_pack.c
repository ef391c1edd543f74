/* Operands of matmul in the order in which tiles read them.
 *
 * A constant matrix of f32 lies in panels of 16 columns, [N/16][K][16], padded with zeros: one
 * layout for all CPUs and tiles. Other right operands are copied into the same form, a block of k
 * at a time. Left operands that tiles cannot read where they stand, and those of wide products, are
 * transposed tile by tile into scratch memory. */
#include "codegen/kernels/codes.h"
#include "codegen/kernels/matmul.h"

#include <string.h>

/* ---- constants ------------------------------------------------------------------------------ */

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

const nb_layout nb_matmul_panels = {
    .name = "f32-panels", .size = panel_size, .write = write_panels};

bool nb_matmul_in_panels(const nb_op *op) {
    const nb_value *b = nb_in(op, 1);
    return nb_is_const(b) && b->type->elem == NB_F32 && b->type->rank == 2 && !b->type->quant;
}

/* ---- right operands that are not in panels -------------------------------------------------- */

typedef struct copy {
    const nb_mshape *s;
    cg_val to, from;
} copy;

static void copy_lines(const copy *c, cg_val steps, cg_val n) {
    cg *g = c->s->l->g;
    const nb_operand *b = &c->s->l->in[1];
    const cg_buf *buf = &b->buf;
    CG_FOR(g, k, cg_i64(g, 0), steps, cg_i64(g, 1)) {
        cg_val line;
        if (b->immediate) {
            line = cg_splat(g, b->immediate, CG_LANES);
        } else {
            cg_val from = cg_buf_step(g, buf, c->from, cg_mul(g, k, buf->strides[buf->rank - 2]));
            line = cg_buf_load_part(g, buf, from, buf->strides[buf->rank - 1], n);
        }
        cg_store(g, line, cg_index(g, c->to, c->s->kind, cg_muli(g, k, CG_LANES)), 64);
    }
}

void nb_matmul_copy_panel(const nb_mshape *s, cg_val to, cg_val from, cg_val steps, cg_val left) {
    cg *g = s->l->g;
    copy c = {.s = s, .to = to, .from = from};
    CG_IF(g, cg_cmpi(g, CG_GE, left, CG_LANES)) { copy_lines(&c, steps, NULL); }
    CG_ELSE(g) { copy_lines(&c, steps, left); }
}

void nb_matmul_copy_codes(const nb_mshape *s, cg_val to, cg_val k, cg_val column, cg_val steps) {
    cg *g = s->l->g;
    cg_val last = cg_addi(g, s->N, -1);
    CG_FOR(g, i, cg_i64(g, 0), steps, cg_i64(g, 1)) {
        cg_val line = cg_zero(g, CG_V(CG_F32));
        for (int c = 0; c < CG_LANES; c++) {
            /* Columns that are not there repeat the last one: nobody looks at their sums. */
            cg_val at = cg_smin(g, cg_addi(g, column, c), last);
            line = cg_with_lane(g, line, c, nb_real_at(s->l, &s->l->in[1], cg_add(g, k, i), at));
        }
        cg_store(g, line, cg_index(g, to, CG_F32, cg_muli(g, i, CG_LANES)), 64);
    }
}

/* ---- left operands -------------------------------------------------------------------------- */

cg_buf nb_matmul_lefts(const nb_mshape *s) {
    cg *g = s->l->g;
    const cg_buf *a = &s->l->in[0].buf;
    cg_val dims[NB_MAX_RANK];
    int lead = s->flat ? 0 : a->rank - 2;
    for (int i = 0; i < lead; i++) dims[i] = a->dims[i];
    dims[lead] = cg_mul(g, s->rows, s->K);
    const nb_elem elem = s->l->out[0].value->type->elem;
    return cg_buf_dense(g, s->l->scratch, s->kind == CG_F32 ? NB_F32 : elem, lead + 1, dims);
}

cg_val nb_matmul_left_items(const nb_mshape *s) {
    cg *g = s->l->g;
    const cg_buf *a = &s->l->in[0].buf;
    cg_val batches = s->flat ? cg_i64(g, 1) : cg_buf_count_range(g, a, 0, a->rank - 2);
    return cg_select(g, s->packed, cg_mul(g, batches, s->cut.tiles), cg_i64(g, 0));
}

/* Elements of a row that are copied together. */
#define TOGETHER 4

/* Copies `n` elements from `k` on of a row at `from` into a tile of `rows` rows at `to`. */
static void copy_elements(const nb_mshape *s, cg_val to, cg_val from, cg_val k, int n,
                          cg_val rows) {
    cg *g = s->l->g;
    const nb_operand *a = &s->l->in[0];
    cg_val v[TOGETHER];
    for (int i = 0; i < n; i++) {
        cg_val at = cg_mul(g, cg_addi(g, k, i), a->buf.strides[a->buf.rank - 1]);
        v[i] = a->immediate ? a->immediate
                            : cg_buf_load(g, &a->buf, cg_buf_step(g, &a->buf, from, at));
    }
    for (int i = 0; i < n; i++)
        cg_store(g, v[i], cg_index(g, to, s->kind, cg_mul(g, cg_addi(g, k, i), rows)), 0);
}

void nb_matmul_pack_left(const nb_mshape *s, cg_val begin, cg_val end) {
    cg *g = s->l->g;
    const nb_operand *a = &s->l->in[0];
    const cg_val *strides = &a->buf.strides[a->buf.rank - 2];
    cg_val zero = cg_i64(g, 0), one = cg_i64(g, 1), from = NULL;
    CG_FOR(g, item, begin, end, one) {
        cg_val batch = cg_udiv(g, item, s->cut.tiles), tile = cg_urem(g, item, s->cut.tiles);
        cg_val first = nb_rows_first(g, &s->cut, tile), rows = nb_rows_of(g, &s->cut, tile);
        cg_val to = cg_index(g, s->l->scratch, s->kind, cg_mul(g, batch, cg_mul(g, s->rows, s->K)));
        cg_val base = a->immediate || s->flat ? a->buf.base : cg_buf_row(g, &a->buf, 2, batch);
        CG_FOR(g, k, zero, s->K, s->length) {
            cg_val steps = cg_smin(g, s->length, cg_sub(g, s->K, k));
            cg_val whole = cg_andi(g, steps, -TOGETHER);
            cg_val block = cg_add(g, cg_mul(g, k, s->rows), cg_mul(g, first, steps));
            CG_FOR(g, r, zero, rows, one) {
                cg_val row = cg_index(g, to, s->kind, cg_add(g, block, r));
                if (!a->immediate)
                    from = cg_buf_step(g, &a->buf, base,
                                       cg_add(g, cg_mul(g, cg_add(g, first, r), strides[0]),
                                              cg_mul(g, k, strides[1])));
                CG_FOR(g, i, zero, whole, cg_i64(g, TOGETHER)) {
                    copy_elements(s, row, from, i, TOGETHER, rows);
                }
                CG_FOR(g, i, whole, steps, one) { copy_elements(s, row, from, i, 1, rows); }
            }
        }
    }
}
