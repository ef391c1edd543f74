/* qmatmul, phase 1: tiles of some rows by the 16 columns of a panel (qproduct.h).
 *
 * A panel is taken in blocks of inputs that fit the first-level cache. For several rows, a block's
 * weights are unpacked once, then each tile multiplies them; integer sums of a tile stay in
 * registers over a span, and what goes from block to block is kept in memory, a state for each row:
 *
 *   f32 [16]          the result so far
 *   i32 or f64 [16]   sum of the spans of a group, where groups have several
 *
 * A single row waits for memory. It takes several panels side by side, which are as many streams,
 * and unpacks as it multiplies; in this file those panels then stand for the rows of a tile. */
#include "codegen/kernels/qproduct.h"

#define MAX_ROWS 8
/* Rows whose state is kept: this many tiles share what is unpacked. */
#define TILES 8
/* This many units of a span are written out; longer spans loop over as many. */
#define UNROLL 4
/* Of a single row: panels side by side, and how far ahead their weights are asked for, in bytes. */
#define PANELS 4
#define AHEAD  2048

typedef struct tile {
    const nb_qproduct *p;
    bool single;                /* one row; `rows` are panels */
    int most;                   /* rows of a tall tile */
    cg_val begin, end;          /* rows whose state is kept */
    cg_val states;              /* of row `begin` */
    cg_val panel;               /* the (first) panel: its number */
    cg_val weights;             /* and where it lies */
    cg_val unpacked;            /* room for a block; NULL: unpack where it is used */
    cg_val source, from;        /* the block's weights; input they start with, as packed */
    cg_val group, span;         /* at hand; the span's number in the group */
    int rows;                   /* of this tile */
    cg_val row;                 /* its first one */
    cg_val codes[MAX_ROWS];     /* prepared rows */
    cg_var sum[2][MAX_ROWS];    /* <16 x i32> of the span */
    cg_val narrow[2][MAX_ROWS]; /* sums that the dot product makes first, if it does */
} tile;

/* The row of the activations, and what to add to a place in the first panel, for row `row`. */
static cg_val real_row(const tile *t, cg_val row) {
    return t->single ? cg_i64(t->p->l->g, 0) : row;
}
static cg_val in_panel(const tile *t, cg_val row, cg_val place) {
    cg *g = t->p->l->g;
    return t->single ? cg_offset(g, place, cg_muli(g, row, nb_qshape_panel_bytes(&t->p->s)))
                     : place;
}

/* ---- states --------------------------------------------------------------------------------- */

static int64_t state_bytes(const nb_qproduct *p) {
    return 64 + (p->spans == 1 ? 0 : p->wide ? 128 : 64);
}

static cg_type total_type(const nb_qproduct *p) { return CG_V(p->wide ? CG_F64 : CG_I32); }

static cg_val result_at(const tile *t, cg_val row) {
    cg *g = t->p->l->g;
    return cg_offset(g, t->states, cg_muli(g, cg_sub(g, row, t->begin), state_bytes(t->p)));
}

static cg_val total_at(const tile *t, cg_val row) {
    return cg_offset(t->p->l->g, result_at(t, row), cg_i64(t->p->l->g, 64));
}

/* ---- integer sums --------------------------------------------------------------------------- */

/* Part `i` of a run whose weights are at `from`. */
static cg_val load_part(const tile *t, cg_val from, int64_t i) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const cg_type bytes = {CG_I8, 64};
    if (t->unpacked) return cg_load(g, bytes, cg_offset(g, from, cg_i64(g, 64 * i)), 64);
    cg_val at = cg_offset(g, from, cg_i64(g, i / p->parts * 64));
    if (i % p->parts == 0) cg_prefetch(g, cg_offset(g, at, cg_i64(g, AHEAD)), 3);
    return p->dot->unpack(g, p->s.bits, cg_load(g, bytes, at, 64), (int)(i % p->parts));
}

/* A part times word `at` of row r's activations. */
static void multiply_part(tile *t, int r, cg_val part, cg_val at) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    for (int k = 0; k < p->planes; k++) {
        cg_val from = cg_offset(g, t->codes[r], cg_addi(g, at, k * p->plane_bytes));
        cg_val word = cg_load(g, CG_S(CG_I32), from, 4),
               sum = p->dot->steps ? t->narrow[k][r] : cg_get(g, t->sum[k][r]);
        sum = p->dot->step(g, sum, part, word);
        if (!t->single) sum = cg_pin(g, sum);
        if (p->dot->steps)
            t->narrow[k][r] = sum;
        else
            cg_set(g, t->sum[k][r], sum);
    }
}

/* `n` units one after the other, at most UNROLL; `at`: of their prepared activations, in bytes. */
static void multiply_run(tile *t, cg_val weights, cg_val at, int64_t n) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < p->planes; k++) t->narrow[k][r] = cg_zero(g, (cg_type){CG_I16, 32});
    }
    for (int64_t i = 0; i < n * p->parts; i++) {
        cg_val part = NULL;
        if (!t->single) cg_fence(g);
        for (int r = 0; r < t->rows; r++) {
            if (r == 0 || t->single)
                part = load_part(t, in_panel(t, cg_addi(g, t->row, r), weights), i);
            multiply_part(t, r, part, cg_addi(g, at, 4 * i));
        }
    }
    for (int r = 0; p->dot->steps && r < t->rows; r++) {
        for (int k = 0; k < p->planes; k++)
            cg_set(g, t->sum[k][r], p->dot->end(g, cg_get(g, t->sum[k][r]), t->narrow[k][r]));
    }
}

static void multiply_units(tile *t, cg_val weights, cg_val at, int64_t units) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const int64_t each = 4 * p->parts, bytes = t->unpacked ? 64 * p->parts : 64;
    int64_t whole = units / UNROLL * UNROLL;
    if (whole > UNROLL) {
        CG_FOR(g, u, cg_i64(g, 0), cg_i64(g, whole), cg_i64(g, UNROLL)) {
            multiply_run(t, cg_offset(g, weights, cg_muli(g, u, bytes)),
                         cg_add(g, at, cg_muli(g, u, each)), UNROLL);
        }
    } else {
        whole = 0;
    }
    for (int64_t i = whole; i < units; i += UNROLL)
        multiply_run(t, cg_offset(g, weights, cg_i64(g, bytes * i)), cg_addi(g, at, each * i),
                     nb_min_i64(UNROLL, units - i));
}

/* The group's zero points, for row `row`: <16 x i32>. */
static cg_val group_zeros(const tile *t, cg_val row) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    cg_val at = cg_addi(g, cg_muli(g, t->group, CG_LANES), nb_qshape_zeros_at(&p->s));
    at = in_panel(t, row, cg_offset(g, t->weights, at));
    return cg_zext(g, cg_load(g, CG_V(CG_I8), at, CG_LANES), CG_I32);
}

/* What a span's sums start from: zero points and offset, times minus the sum of the activations. */
static void start_span(tile *t) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    cg_val zeros = NULL, number = cg_add(g, cg_muli(g, t->group, p->spans), t->span);
    for (int r = 0; r < t->rows; r++) {
        cg_val row = cg_addi(g, t->row, r);
        if (p->s.zeros && (r == 0 || t->single)) zeros = group_zeros(t, row);
        for (int k = 0; k < p->planes; k++) {
            cg_val at = nb_qproduct_sum(p, real_row(t, row), k, number),
                   sum = cg_splat(g, cg_load(g, CG_S(CG_I32), at, 0), CG_LANES);
            t->sum[k][r] = cg_var_new(g, zeros ? cg_mul(g, zeros, sum) : sum);
        }
    }
}

/* The exact sum of row r: <16 x i32>. */
static cg_val span_sum(const tile *t, int r) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    cg_val low = cg_get(g, t->sum[p->planes - 1][r]);
    return p->planes == 1 ? low : cg_add(g, cg_shli(g, cg_get(g, t->sum[0][r]), 8), low);
}

/* Leaves the sums of the span at hand, which has `length` inputs, in t->sum. */
static void multiply_span(tile *t, int64_t length) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const int64_t unit = p->s.unit;
    cg_val input = cg_add(g, cg_muli(g, t->group, nb_qshape_padded(&p->s, 0)),
                          cg_muli(g, t->span, p->span)),
           skip = cg_muli(g, cg_sub(g, input, t->from), (t->unpacked ? 64 * p->parts : 64) / unit);
    start_span(t);
    multiply_units(t, cg_offset(g, t->source, skip), cg_muli(g, input, 4 * p->parts / unit),
                   nb_ceildiv(length, unit));
}

/* ---- groups --------------------------------------------------------------------------------- */

static cg_val group_scales(const tile *t, cg_val row) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    int64_t each = CG_LANES * nb_qshape_scale_bytes(&p->s);
    cg_val at = cg_addi(g, cg_muli(g, t->group, each), nb_qshape_scales_at(&p->s));
    at = in_panel(t, row, cg_offset(g, t->weights, at));
    if (!p->s.half) return cg_load(g, CG_V(CG_F32), at, (int)each);
    return cg_f16_to_f32(g, cg_load(g, CG_V(CG_I16), at, (int)each));
}

/* The group's sum for a row, scaled, goes to the row's result. */
static void add_group(const tile *t, cg_val row, cg_val sum, cg_val scales) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const nb_operand *a = &p->l->in[0];
    cg_val f = cg_type_of(sum).kind == CG_I32 ? cg_sint_to_float(g, sum, CG_F32)
                                              : cg_float_to_float(g, sum, CG_F32),
           to = result_at(t, row);
    if (a->value->type->quant->granularity == NB_PER_BLOCK) {
        cg_val index = cg_add(g, cg_muli(g, real_row(t, row), p->s.groups), t->group),
               scale = cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, index), 0);
        f = cg_mul(g, f, cg_splat(g, scale, CG_LANES));
    }
    cg_store(g, cg_fma(g, f, scales, cg_load(g, CG_V(CG_F32), to, 64)), to, 64);
}

/* A whole group in one span. */
static void multiply_group(tile *t, cg_val group, int64_t length) {
    cg *g = t->p->l->g;
    t->group = group;
    t->span = cg_i64(g, 0);
    multiply_span(t, length);
    cg_val scales = NULL;
    for (int r = 0; r < t->rows; r++) {
        cg_val row = cg_addi(g, t->row, r);
        if (r == 0 || t->single) scales = group_scales(t, row);
        add_group(t, row, span_sum(t, r), scales);
    }
}

/* One of several spans. */
static void add_span(tile *t, int64_t length) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    multiply_span(t, length);
    for (int r = 0; r < t->rows; r++) {
        cg_val sum = span_sum(t, r), to = total_at(t, cg_addi(g, t->row, r));
        if (p->wide) sum = cg_sint_to_float(g, sum, CG_F64);
        cg_store(g, cg_add(g, cg_load(g, total_type(p), to, 64), sum), to, 64);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* Scale of the activations of a row; NULL when it was applied group by group. */
static cg_val row_scale(const tile *t, cg_val row) {
    nb_lower *l = t->p->l;
    cg *g = l->g;
    const nb_operand *a = &l->in[0];
    const nb_quant *q = a->value->type->quant;
    if (q->granularity == NB_PER_BLOCK) return NULL;
    if (q->granularity == NB_PER_TOKEN)
        return cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, row), 0);
    return q->scales ? cg_load(g, CG_S(CG_F32), a->quant_scales, 0) : cg_f32(g, q->scale);
}

/* Columns of a row's panel: the first, and how many, 1..15, or NULL: 16. */
typedef struct columns {
    cg_val first, left;
} columns;

static columns columns_of(const tile *t, cg_val row) {
    cg *g = t->p->l->g;
    const int64_t N = t->p->s.N;
    columns c = {.first = cg_muli(g, t->single ? cg_add(g, t->panel, row) : t->panel, CG_LANES)};
    if (N % CG_LANES) c.left = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, cg_i64(g, N), c.first));
    return c;
}

/* What the epilogue adds to these columns of a row. */
static cg_val addend(cg *g, const nb_operand *o, cg_val row, columns c) {
    const cg_buf *b = &o->buf;
    if (o->immediate) return cg_splat(g, o->immediate, CG_LANES);
    cg_val stride = b->strides[b->rank - 1], from = row ? cg_buf_row(g, b, 1, row) : b->base;
    return cg_buf_load_part(g, b, cg_buf_step(g, b, from, cg_mul(g, c.first, stride)), stride,
                            c.left);
}

/* y = result * scale (+ bias) (+ residual) */
static void store_row(const tile *t, cg_val row) {
    nb_lower *l = t->p->l;
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf;
    const columns c = columns_of(t, row);
    cg_val real = real_row(t, row), v = cg_load(g, CG_V(CG_F32), result_at(t, row), 64),
           scale = row_scale(t, real);
    if (scale) v = cg_mul(g, v, cg_splat(g, scale, CG_LANES));
    if (l->in[2].value) v = cg_add(g, v, addend(g, &l->in[2], NULL, c));
    if (l->in[3].value) v = cg_add(g, v, addend(g, &l->in[3], real, c));
    cg_val stride = y->strides[y->rank - 1],
           to = cg_buf_step(g, y, cg_buf_row(g, y, 1, real), cg_mul(g, c.first, stride));
    cg_buf_store_part(g, y, to, stride, v, c.left);
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* Makes the weights of `inputs` inputs (packed, from input `from` on) ready for all tiles. */
static void enter_block(tile *t, cg_val from, cg_val inputs) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const cg_type bytes = {CG_I8, 64};
    t->from = from;
    t->source = cg_offset(g, t->weights, cg_muli(g, from, 64 / p->s.unit));
    if (!t->unpacked || p->parts == 1) return;
    CG_FOR(g, u, cg_i64(g, 0), cg_udiv(g, inputs, cg_i64(g, p->s.unit)), cg_i64(g, 1)) {
        cg_val unit = cg_load(g, bytes, cg_offset(g, t->source, cg_muli(g, u, 64)), 64);
        for (int k = 0; k < p->parts; k++) {
            cg_val to = cg_offset(g, t->unpacked, cg_addi(g, cg_muli(g, u, 64 * p->parts), 64 * k));
            cg_store(g, p->dot->unpack(g, p->s.bits, unit, k), to, 64);
        }
    }
    t->source = t->unpacked;
}

/* Tall tiles, then half as tall for what is left, down to single rows. What they do: groups
 * [group, after) of `length` inputs each; after NULL: the span at hand, of `length` inputs. */
static void run_tiles(tile *t, cg_val group, cg_val after, int64_t length) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    cg_val done = t->begin;
    for (t->rows = t->most; t->rows > 0; t->rows /= 2) {
        cg_val each = cg_i64(g, t->rows),
               next = t->rows == 1 ? t->end
                                   : cg_sub(g, t->end, cg_urem(g, cg_sub(g, t->end, done), each));
        CG_FOR(g, row, done, next, each) {
            t->row = row;
            for (int r = 0; r < t->rows; r++)
                t->codes[r] = cg_offset(g, p->codes,
                                        cg_muli(g, real_row(t, cg_addi(g, row, r)), p->row_bytes));
            if (after) {
                CG_FOR(g, i, group, after, cg_i64(g, 1)) { multiply_group(t, i, length); }
            } else {
                add_span(t, length);
            }
        }
        done = next;
    }
}

/* Groups [first, after), all of `length` inputs, which are short: some in each block. */
static void short_groups(tile *t, int64_t first, int64_t after, int64_t length) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    int64_t padded = nb_ceildiv(length, p->s.unit) * p->s.unit,
            each = t->unpacked ? nb_max_i64(p->block / nb_max_i64(padded, 1), 1) : after - first;
    if (first >= after) return;
    CG_FOR(g, group, cg_i64(g, first), cg_i64(g, after), cg_i64(g, each)) {
        cg_val end = cg_smin(g, cg_addi(g, group, each), cg_i64(g, after)),
               from = cg_muli(g, group, nb_qshape_padded(&p->s, 0));
        enter_block(t, from, cg_muli(g, cg_sub(g, end, group), padded));
        run_tiles(t, group, end, length);
    }
}

static void one_span(void *user, cg_val span, int64_t length) {
    tile *t = user;
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    t->span = span;
    enter_block(
        t, cg_add(g, cg_muli(g, t->group, nb_qshape_padded(&p->s, 0)), cg_muli(g, span, p->span)),
        cg_i64(g, nb_ceildiv(length, p->s.unit) * p->s.unit));
    run_tiles(t, NULL, NULL, length);
}

/* Groups [first, after), all of `length` inputs, which are long: a block is a span. */
static void long_groups(tile *t, int64_t first, int64_t after, int64_t length) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    if (first >= after) return;
    CG_FOR(g, group, cg_i64(g, first), cg_i64(g, after), cg_i64(g, 1)) {
        t->group = group;
        nb_each_span(p, length, one_span, t);
        CG_FOR(g, row, t->begin, t->end, cg_i64(g, 1)) {
            cg_val total = total_at(t, row);
            add_group(t, row, cg_load(g, total_type(p), total, 64), group_scales(t, row));
            cg_store(g, cg_zero(g, total_type(p)), total, 64);
        }
    }
}

/* ---- panels --------------------------------------------------------------------------------- */

/* Rows in a tile: their integer sums stay in registers. */
static int tile_rows(const nb_qproduct *p) {
    const cg_isa *isa = cg_isa_of(p->l->g);
    int per_row = 64 / isa->vector_bytes * p->planes,
        rows = (isa->registers - 4) / (per_row ? per_row : 1);
    return rows > MAX_ROWS ? MAX_ROWS : rows < 1 ? 1 : rows;
}

/* Rows [begin, end) of a panel. */
static void multiply_rows(tile *t, cg_val begin, cg_val end) {
    const nb_qproduct *p = t->p;
    cg *g = p->l->g;
    const int64_t whole = p->s.K / p->s.group, rest = p->s.K % p->s.group;
    t->begin = begin;
    t->end = end;
    cg_memset(g, t->states, 0, cg_muli(g, cg_sub(g, end, begin), state_bytes(p)));
    void (*groups)(tile *, int64_t, int64_t, int64_t) = p->spans == 1 ? short_groups : long_groups;
    groups(t, 0, whole, p->s.group);
    if (rest) groups(t, whole, whole + 1, rest);
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) { store_row(t, row); }
}

static void enter_panel(tile *t, cg_val panel) {
    cg *g = t->p->l->g;
    t->panel = panel;
    t->weights =
        cg_offset(g, t->p->l->in[1].buf.base, cg_muli(g, panel, nb_qshape_panel_bytes(&t->p->s)));
}

static void multiply_single(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    tile t = {.p = p, .single = true, .most = PANELS};
    while (t.most > tile_rows(p)) t.most /= 2;
    t.states = cg_stack(g, t.most * state_bytes(p), 64);
    CG_FOR(g, panel, begin, end, cg_i64(g, t.most)) {
        enter_panel(&t, panel);
        multiply_rows(&t, cg_i64(g, 0), cg_smin(g, cg_i64(g, t.most), cg_sub(g, end, panel)));
    }
}

static void multiply_several(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    tile t = {.p = p, .most = tile_rows(p)};
    const int64_t rows = TILES * t.most;
    t.states = cg_stack(g, rows * state_bytes(p), 64);
    t.unpacked = cg_stack(g, p->parts == 1 ? 64 : p->block / p->s.unit * p->parts * 64, 64);
    CG_FOR(g, panel, begin, end, cg_i64(g, 1)) {
        enter_panel(&t, panel);
        CG_FOR(g, row, cg_i64(g, 0), p->rows, cg_i64(g, rows)) {
            multiply_rows(&t, row, cg_smin(g, cg_addi(g, row, rows), p->rows));
        }
    }
}

void nb_qproduct_multiply(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    CG_IF(g, cg_cmpi(g, CG_EQ, p->rows, 1)) multiply_single(p, begin, end);
    CG_ELSE(g) multiply_several(p, begin, end);
}
