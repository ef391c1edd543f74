/* qmatmul, phase 1: tiles of some rows by the 16 columns of a panel (qproduct.h).
 *
 * A panel is read once for each tile of rows. Integer sums of a span stay in registers; sums of
 * floats are needed once a group. */
#include "codegen/kernels/qproduct.h"

#define MAX_ROWS 8
/* This many units of a span are written out; longer spans loop over as many. */
#define UNROLL 4
/* A single row waits for memory: its weights are asked for this many bytes ahead. */
#define AHEAD 2048

typedef struct tile {
    const nb_qproduct *p;
    int rows;
    cg_val row;             /* first row */
    cg_val first;           /* first column */
    cg_val left;            /* columns, 1..15; NULL: 16 */
    cg_val weights;         /* this panel */
    cg_val codes[MAX_ROWS]; /* prepared rows */
    cg_var acc[MAX_ROWS];   /* <16 x float> */
    cg_val group;
    cg_var sum[2][MAX_ROWS];    /* <16 x i32> of the span at hand */
    cg_var total[MAX_ROWS];     /* <16 x double> of a group of several spans */
    cg_val narrow[2][MAX_ROWS]; /* sums that the dot product makes first, if it does */
} tile;

/* ---- integer sums --------------------------------------------------------------------------- */

static void multiply_part(tile *t, cg_val part, cg_val at) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < p->planes; k++) {
            cg_val from = cg_offset(g, t->codes[r], cg_addi(g, at, k * p->plane_bytes));
            cg_val word = cg_load(g, CG_S(CG_I32), from, 4),
                   sum = p->dot->steps ? t->narrow[k][r] : cg_get(g, t->sum[k][r]);
            sum = p->dot->step(g, sum, part, word);
            if (t->rows > 1) sum = cg_pin(g, sum);
            if (p->dot->steps)
                t->narrow[k][r] = sum;
            else
                cg_set(g, t->sum[k][r], sum);
        }
    }
}

/* `n` units one after the other, at most UNROLL; `at`: of their prepared activations, in bytes. */
static void multiply_run(tile *t, cg_val weights, cg_val at, int64_t n) {
    const nb_qproduct *p = t->p;
    const nb_dot *dot = p->dot;
    cg *g = p->l->g;
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < p->planes; k++) t->narrow[k][r] = cg_zero(g, (cg_type){CG_I16, 32});
    }
    const int parts = nb_dot_parts(dot, p->s.bits);
    for (int64_t i = 0; i < n * parts; i++) {
        cg_val from = cg_offset(g, weights, cg_i64(g, i / parts * 64));
        /* A part is unpacked where it is used: tall tiles have no registers for several. */
        if (t->rows > 1)
            cg_fence(g);
        else if (i % parts == 0)
            cg_prefetch(g, cg_offset(g, from, cg_i64(g, AHEAD)), 3);
        cg_val unit = cg_load(g, (cg_type){CG_I8, 64}, from, 64);
        multiply_part(t, dot->unpack(g, p->s.bits, unit, (int)(i % parts)), cg_addi(g, at, 4 * i));
    }
    for (int r = 0; dot->steps && r < t->rows; r++) {
        for (int k = 0; k < p->planes; k++)
            cg_set(g, t->sum[k][r], dot->end(g, cg_get(g, t->sum[k][r]), t->narrow[k][r]));
    }
}

static void multiply_units(tile *t, cg_val weights, cg_val at, int64_t units) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const int64_t each = p->s.unit * p->dot->act_bytes;
    int64_t whole = units / UNROLL * UNROLL;
    if (whole > UNROLL) {
        CG_FOR(g, u, cg_i64(g, 0), cg_i64(g, whole), cg_i64(g, UNROLL)) {
            multiply_run(t, cg_offset(g, weights, cg_muli(g, u, 64)),
                         cg_add(g, at, cg_muli(g, u, each)), UNROLL);
        }
    } else {
        whole = 0;
    }
    for (int64_t i = whole; i < units; i += UNROLL)
        multiply_run(t, cg_offset(g, weights, cg_i64(g, 64 * i)), cg_addi(g, at, each * i),
                     nb_min_i64(UNROLL, units - i));
}

/* What a span's sums start from: zero points and offset, times minus the sum of the activations. */
static void start_span(tile *t, cg_val span) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    cg_val zeros = NULL, number = cg_add(g, cg_muli(g, t->group, p->spans), span);
    if (p->s.zeros) {
        cg_val at = cg_addi(g, cg_muli(g, t->group, CG_LANES), nb_qshape_zeros_at(&p->s));
        zeros = cg_load(g, CG_V(CG_I8), cg_offset(g, t->weights, at), CG_LANES);
        zeros = cg_zext(g, zeros, CG_I32);
    }
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < p->planes; k++) {
            cg_val sum =
                cg_load(g, CG_S(CG_I32), nb_qproduct_sum(p, cg_addi(g, t->row, r), k, number), 0);
            sum = cg_splat(g, sum, CG_LANES);
            cg_set(g, t->sum[k][r], zeros ? cg_mul(g, zeros, sum) : sum);
        }
    }
}

/* The exact sum of row r: i32, or f64 where 32 bits do not hold it. */
static cg_val span_sum(const tile *t, int r) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    cg_val low = cg_get(g, t->sum[p->planes - 1][r]);
    if (p->planes == 1) return low;
    cg_val high = cg_get(g, t->sum[0][r]);
    if (p->fits) return cg_add(g, cg_shli(g, high, 8), low);
    high = cg_mul(g, cg_sint_to_float(g, high, CG_F64), cg_splat(g, cg_f64(g, 256), CG_LANES));
    return cg_add(g, high, cg_sint_to_float(g, low, CG_F64));
}

static void multiply_span(void *user, cg_val span, int64_t length) {
    tile *t = user;
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    int64_t padded = nb_qshape_padded(&p->s, 0);
    cg_val input = cg_add(g, cg_muli(g, t->group, padded), cg_muli(g, span, p->span));
    start_span(t, span);
    multiply_units(t, cg_offset(g, t->weights, cg_muli(g, input, 64 / p->s.unit)),
                   cg_muli(g, input, p->dot->act_bytes), nb_ceildiv(length, p->s.unit));
    for (int r = 0; p->spans > 1 && r < t->rows; r++) {
        cg_val sum = span_sum(t, r);
        if (cg_type_of(sum).kind == CG_I32) sum = cg_sint_to_float(g, sum, CG_F64);
        cg_set(g, t->total[r], cg_add(g, cg_get(g, t->total[r]), sum));
    }
}

/* ---- groups --------------------------------------------------------------------------------- */

static cg_val group_scales(const tile *t) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    int64_t each = CG_LANES * nb_qshape_scale_bytes(&p->s);
    cg_val at = cg_addi(g, cg_muli(g, t->group, each), nb_qshape_scales_at(&p->s));
    at = cg_offset(g, t->weights, at);
    if (!p->s.half) return cg_load(g, CG_V(CG_F32), at, (int)each);
    return cg_f16_to_f32(g, cg_load(g, CG_V(CG_I16), at, (int)each));
}

/* The scale of the activations of the row's block that is this group, or NULL. */
static cg_val block_scale(const tile *t, int r) {
    const nb_operand *a = &t->p->l->in[0];
    cg *g = t->p->l->g;
    if (a->value->type->quant->granularity != NB_PER_BLOCK) return NULL;
    cg_val index = cg_add(g, cg_muli(g, cg_addi(g, t->row, r), t->p->s.groups), t->group);
    return cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, index), 0);
}

static void multiply_group(tile *t, cg_val group, int64_t length) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    t->group = group;
    for (int r = 0; p->spans > 1 && r < t->rows; r++)
        t->total[r] = cg_var_new(g, cg_zero(g, CG_V(CG_F64)));
    nb_each_span(p, length, multiply_span, t);
    cg_val scales = group_scales(t);
    for (int r = 0; r < t->rows; r++) {
        cg_val sum = p->spans > 1 ? cg_get(g, t->total[r]) : span_sum(t, r),
               block = block_scale(t, r);
        cg_val f = cg_type_of(sum).kind == CG_I32 ? cg_sint_to_float(g, sum, CG_F32)
                                                  : cg_float_to_float(g, sum, CG_F32);
        if (block) f = cg_mul(g, f, cg_splat(g, block, CG_LANES));
        cg_set(g, t->acc[r], cg_fma(g, f, scales, cg_get(g, t->acc[r])));
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* Scale of the activations of a row; NULL when it was applied group by group. */
static cg_val row_scale(const tile *t, int r) {
    nb_lower *l = t->p->l;
    cg *g = l->g;
    const nb_operand *a = &l->in[0];
    const nb_quant *q = a->value->type->quant;
    if (q->granularity == NB_PER_BLOCK) return NULL;
    if (q->granularity == NB_PER_TOKEN)
        return cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, cg_addi(g, t->row, r)), 0);
    return q->scales ? cg_load(g, CG_S(CG_F32), a->quant_scales, 0) : cg_f32(g, q->scale);
}

/* What the epilogue adds to these columns of a row. */
static cg_val addend(const tile *t, const nb_operand *o, cg_val row) {
    cg *g = t->p->l->g;
    const cg_buf *b = &o->buf;
    if (o->immediate) return cg_splat(g, o->immediate, CG_LANES);
    cg_val stride = b->strides[b->rank - 1], from = row ? cg_buf_row(g, b, 1, row) : b->base;
    return cg_buf_load_part(g, b, cg_buf_step(g, b, from, cg_mul(g, t->first, stride)), stride,
                            t->left);
}

/* y = acc * scale (+ bias) (+ residual) */
static void store_rows(const tile *t) {
    nb_lower *l = t->p->l;
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf;
    for (int r = 0; r < t->rows; r++) {
        cg_val v = cg_get(g, t->acc[r]), scale = row_scale(t, r), row = cg_addi(g, t->row, r);
        if (scale) v = cg_mul(g, v, cg_splat(g, scale, CG_LANES));
        if (l->in[2].value) v = cg_add(g, v, addend(t, &l->in[2], NULL));
        if (l->in[3].value) v = cg_add(g, v, addend(t, &l->in[3], row));
        cg_val stride = y->strides[y->rank - 1],
               to = cg_buf_step(g, y, cg_buf_row(g, y, 1, row), cg_mul(g, t->first, stride));
        cg_buf_store_part(g, y, to, stride, v, t->left);
    }
}

static void multiply_tile(tile *t, cg_val row, int rows) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const int64_t last = p->s.groups - 1;
    t->row = row;
    t->rows = rows;
    for (int r = 0; r < rows; r++) {
        t->codes[r] = cg_offset(g, p->codes, cg_muli(g, cg_addi(g, row, r), p->row_bytes));
        t->acc[r] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
        for (int k = 0; k < p->planes; k++) t->sum[k][r] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    }
    if (last > 0) {
        CG_FOR(g, group, cg_i64(g, 0), cg_i64(g, last), cg_i64(g, 1)) {
            multiply_group(t, group, nb_qshape_length(&p->s, 0));
        }
    }
    if (last >= 0) multiply_group(t, cg_i64(g, last), nb_qshape_length(&p->s, last));
    store_rows(t);
}

/* Rows in a tile: their integer sums stay in registers. */
static int tile_rows(const nb_qproduct *p) {
    const cg_isa *isa = cg_isa_of(p->l->g);
    int per_row = 64 / isa->vector_bytes * p->planes,
        rows = (isa->registers - 4) / (per_row ? per_row : 1);
    return rows > MAX_ROWS ? MAX_ROWS : rows < 1 ? 1 : rows;
}

void nb_qproduct_multiply(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    tile t = {.p = p};
    CG_FOR(g, panel, begin, end, cg_i64(g, 1)) {
        t.first = cg_muli(g, panel, CG_LANES);
        if (p->s.N % CG_LANES)
            t.left = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, cg_i64(g, p->s.N), t.first));
        t.weights =
            cg_offset(g, p->l->in[1].buf.base, cg_muli(g, panel, nb_qshape_panel_bytes(&p->s)));
        /* Tall tiles, then half as tall for what is left, down to single rows. */
        cg_val done = cg_i64(g, 0);
        for (int rows = tile_rows(p); rows > 0; rows /= 2) {
            cg_val left = cg_sub(g, p->rows, done),
                   next = cg_sub(g, p->rows, cg_srem(g, left, cg_i64(g, rows)));
            CG_FOR(g, row, done, next, cg_i64(g, rows)) { multiply_tile(&t, row, rows); }
            done = next;
        }
    }
}
