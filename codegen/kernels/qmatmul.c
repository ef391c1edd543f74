/* qmatmul: exact integer products of codes, one conversion and one fma per group (NUMBERS.md).
 *
 * Phase 0 prepares the activations, a row at a time: codes padded as the weight's groups are,
 * 16-bit codes split into two planes of signed bytes (x = 256*h + l), and the sum of each group,
 * which takes the weights' offset and zero points off again. Phase 1 multiplies: an item is a panel
 * of 16 columns, which is read once for each tile of rows. */
#include "codegen/kernels/qmatmul.h"

#include "codegen/kernels/dot.h"

#define MAX_ROWS 8
/* This many units of a group are written out; longer groups loop over as many. */
#define UNROLL 4
/* A single row waits for memory: its weights are asked for this many bytes ahead. */
#define AHEAD 2048

/* Scratch: planes of all rows, then sums of all rows, negative (i32 [row][plane][group]). */
typedef struct view {
    nb_lower *l;
    nb_qshape s;
    int planes;        /* 1 (i8) or 2 (i16: high, then low) */
    int64_t row_bytes; /* of prepared codes, all planes */
    cg_val rows;
    cg_val codes, sums; /* of row 0 */
} view;

static view view_of(nb_lower *l) {
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf;
    view v = {.l = l, .s = nb_qshape_of(nb_in(l->op, 1)), .planes = a->elem == NB_I16 ? 2 : 1};
    v.row_bytes = v.planes * nb_qshape_row(&v.s);
    v.rows = cg_buf_count_range(g, a, 0, a->rank - 1);
    if (!l->scratch) return v;
    v.codes = l->scratch;
    /* Behind the codes, on the next 64 bytes. */
    cg_val bytes = cg_muli(g, v.rows, v.row_bytes);
    v.sums = cg_offset(g, l->scratch, cg_muli(g, cg_lshri(g, cg_addi(g, bytes, 63), 6), 64));
    return v;
}

static cg_val scratch(nb_lower *l) {
    nb_qshape s = nb_qshape_of(nb_in(l->op, 1));
    int64_t planes = nb_in(l->op, 0)->type->elem == NB_I16 ? 2 : 1;
    const cg_buf *a = &l->in[0].buf;
    cg_val rows = cg_buf_count_range(l->g, a, 0, a->rank - 1);
    return cg_addi(l->g, cg_muli(l->g, rows, planes * (nb_qshape_row(&s) + 4 * s.groups)), 128);
}

/* ---- phase 0 -------------------------------------------------------------------------------- */

typedef struct preparing {
    const view *v;
    cg_val from, to[2]; /* codes, planes */
    cg_var sum[2];      /* <16 x i32> */
} preparing;

static void split(cg *g, void *user, cg_val i, cg_val n) {
    preparing *p = user;
    const cg_buf *a = &p->v->l->in[0].buf;
    cg_val at = cg_index(g, p->from, cg_storage_kind(a->elem), i), plane[2];
    cg_type type = CG_V(cg_storage_kind(a->elem));
    cg_val x = cg_sext(g, n ? cg_load_part(g, type, at, n) : cg_load(g, type, at, 0), CG_I32);
    plane[0] = x;
    if (p->v->planes == 2) {
        plane[0] = cg_ashri(g, cg_addi(g, x, 128), 8);
        plane[1] = cg_sub(g, x, cg_shli(g, plane[0], 8));
    }
    for (int k = 0; k < p->v->planes; k++) {
        cg_val bytes = cg_narrow(g, plane[k], CG_I8), to = cg_offset(g, p->to[k], i);
        if (n)
            cg_store_part(g, bytes, to, n);
        else
            cg_store(g, bytes, to, 0);
        /* Lanes that are not there were loaded as 0. */
        cg_set(g, p->sum[k], cg_add(g, cg_get(g, p->sum[k]), plane[k]));
    }
}

static void prepare_group(preparing *p, cg_val row, cg_val from, cg_val to_row, cg_val group,
                          int64_t length) {
    const view *v = p->v;
    cg *g = v->l->g;
    cg_kind kind = cg_storage_kind(v->l->in[0].buf.elem);
    int64_t padded = nb_qshape_padded(&v->s, 0);
    p->from = cg_index(g, from, kind, cg_muli(g, group, v->s.group));
    for (int k = 0; k < v->planes; k++) {
        p->to[k] =
            cg_offset(g, to_row, cg_addi(g, cg_muli(g, group, padded), k * nb_qshape_row(&v->s)));
        p->sum[k] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    }
    cg_for16(g, cg_i64(g, length), split, p);
    for (int k = 0; k < v->planes; k++) {
        cg_val index =
            cg_add(g, cg_addi(g, cg_muli(g, row, v->planes * v->s.groups), k * v->s.groups), group);
        /* Negative, and times what zero point and offset are together if that is one number. */
        cg_val sum = cg_muli(g, cg_fold16(g, cg_get(g, p->sum[k]), cg_add),
                             v->s.zeros ? -1 : -(v->s.zero + v->s.offset));
        cg_store(g, sum, cg_index(g, v->sums, CG_I32, index), 0);
    }
}

static void prepare(nb_lower *l, cg_val begin, cg_val end) {
    cg *g = l->g;
    view v = view_of(l);
    preparing p = {.v = &v};
    int64_t last = v.s.groups - 1;
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) {
        cg_val from = cg_buf_row(g, &l->in[0].buf, 1, row),
               to = cg_offset(g, v.codes, cg_muli(g, row, v.row_bytes));
        cg_memset(g, to, 0, cg_i64(g, v.row_bytes));
        if (last > 0) CG_FOR(g, group, cg_i64(g, 0), cg_i64(g, last), cg_i64(g, 1)) {
                prepare_group(&p, row, from, to, group, v.s.group);
            }
        if (last >= 0)
            prepare_group(&p, row, from, to, cg_i64(g, last), nb_qshape_length(&v.s, last));
    }
}

/* ---- phase 1 -------------------------------------------------------------------------------- */

typedef struct tile {
    const view *v;
    int rows;
    cg_val row;              /* first row */
    cg_val left;             /* columns, 1..16 */
    cg_val weights;          /* this panel */
    cg_val codes[MAX_ROWS];  /* prepared rows */
    cg_var acc[MAX_ROWS];    /* <16 x float> */
    cg_var dot[2][MAX_ROWS]; /* <16 x i32> of the group at hand */
    bool narrow;             /* sums are made in 16 bits first: */
    cg_val sums[2][MAX_ROWS];
} tile;

/* One unit: 64 bytes of weights times 4 or 8 inputs of every row. */
static void multiply_unit(tile *t, cg_val weights, cg_val input) {
    const view *v = t->v;
    cg *g = v->l->g;
    cg_type bytes = {CG_I8, 64};
    cg_val w = cg_load(g, bytes, weights, 64), part[2] = {w, NULL};
    if (t->rows == 1) cg_prefetch(g, cg_offset(g, weights, cg_i64(g, AHEAD)), 3);
    if (v->s.bits == 4) {
        cg_val words = cg_bitcast(g, w, CG_V(CG_I32));
        part[0] = cg_bitcast(g, cg_andi(g, words, 0x0f0f0f0f), bytes);
        part[1] = cg_bitcast(g, cg_andi(g, cg_lshri(g, words, 4), 0x0f0f0f0f), bytes);
    }
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < v->planes; k++) {
            cg_val at = cg_offset(g, t->codes[r], cg_addi(g, input, k * nb_qshape_row(&v->s)));
            for (int h = 0; h < (part[1] ? 2 : 1); h++) {
                cg_val a = cg_load(g, CG_S(CG_I32), cg_offset(g, at, cg_i64(g, 4 * h)), 4);
                if (t->narrow)
                    t->sums[k][r] = cg_isa_of(g)->narrow_step(g, t->sums[k][r], part[h], a);
                else
                    cg_set(g, t->dot[k][r],
                           nb_dot4(g, v->s.bits == 4, cg_get(g, t->dot[k][r]), part[h], a));
            }
        }
    }
}

/* `n` units one after the other, at most UNROLL. */
static void multiply_run(tile *t, cg_val weights, cg_val input, int64_t n) {
    const view *v = t->v;
    cg *g = v->l->g;
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < v->planes; k++) t->sums[k][r] = cg_zero(g, (cg_type){CG_I16, 32});
    }
    for (int64_t i = 0; i < n; i++)
        multiply_unit(t, cg_offset(g, weights, cg_i64(g, 64 * i)),
                      cg_addi(g, input, v->s.unit * i));
    for (int r = 0; t->narrow && r < t->rows; r++) {
        for (int k = 0; k < v->planes; k++)
            cg_set(g, t->dot[k][r],
                   cg_isa_of(g)->narrow_end(g, cg_get(g, t->dot[k][r]), t->sums[k][r]));
    }
}

static void multiply_units(tile *t, cg_val weights, cg_val input, int64_t units) {
    const view *v = t->v;
    cg *g = v->l->g;
    int64_t whole = units / UNROLL * UNROLL;
    if (whole > UNROLL) {
        CG_FOR(g, u, cg_i64(g, 0), cg_i64(g, whole), cg_i64(g, UNROLL)) {
            multiply_run(t, cg_offset(g, weights, cg_muli(g, u, 64)),
                         cg_add(g, input, cg_muli(g, u, v->s.unit)), UNROLL);
        }
    } else {
        whole = 0;
    }
    for (int64_t i = whole; i < units; i += UNROLL)
        multiply_run(t, cg_offset(g, weights, cg_i64(g, 64 * i)), cg_addi(g, input, v->s.unit * i),
                     nb_min_i64(UNROLL, units - i));
}

/* What prepare_group kept of plane k of row r. */
static cg_val group_sum(const tile *t, int k, int r, cg_val group) {
    const view *v = t->v;
    cg *g = v->l->g;
    cg_val index = cg_add(
        g, cg_addi(g, cg_muli(g, cg_addi(g, t->row, r), v->planes * v->s.groups), k * v->s.groups),
        group);
    return cg_load(g, CG_S(CG_I32), cg_index(g, v->sums, CG_I32, index), 0);
}

/* The group's contribution as f32: sums of products, the two planes combined. */
static cg_val group_value(const tile *t, int r) {
    cg *g = t->v->l->g;
    cg_val low = cg_sint_to_float(g, cg_get(g, t->dot[t->v->planes - 1][r]), CG_F32);
    if (t->v->planes == 1) return low;
    cg_val high = cg_sint_to_float(g, cg_get(g, t->dot[0][r]), CG_F32);
    return cg_fma(g, high, cg_splat(g, cg_f32(g, 256), CG_LANES), low);
}

/* What the group's sum of products starts from: zero points and offset, times minus the sum of the
 * activations. */
static void start_group(tile *t, cg_val group) {
    const view *v = t->v;
    cg *g = v->l->g;
    cg_val zeros = NULL;
    if (v->s.zeros) {
        cg_val at = cg_offset(g, t->weights,
                              cg_addi(g, cg_muli(g, group, CG_LANES), nb_qshape_zeros_at(&v->s)));
        zeros = cg_zext(g, cg_load(g, CG_V(CG_I8), at, CG_LANES), CG_I32);
    }
    for (int r = 0; r < t->rows; r++) {
        for (int k = 0; k < v->planes; k++) {
            cg_val sum = cg_splat(g, group_sum(t, k, r, group), CG_LANES);
            cg_set(g, t->dot[k][r], zeros ? cg_mul(g, zeros, sum) : sum);
        }
    }
}

static cg_val group_scales(const tile *t, cg_val group) {
    const view *v = t->v;
    cg *g = v->l->g;
    int64_t each = CG_LANES * nb_qshape_scale_bytes(&v->s);
    cg_val at =
        cg_offset(g, t->weights, cg_addi(g, cg_muli(g, group, each), nb_qshape_scales_at(&v->s)));
    if (!v->s.half) return cg_load(g, CG_V(CG_F32), at, (int)each);
    return cg_f16_to_f32(g, cg_load(g, CG_V(CG_I16), at, (int)each));
}

static void multiply_group(tile *t, cg_val group, int64_t padded) {
    const view *v = t->v;
    cg *g = v->l->g;
    int64_t first = nb_qshape_padded(&v->s, 0);
    start_group(t, group);
    multiply_units(t,
                   cg_offset(g, t->weights, cg_muli(g, group, nb_qshape_code_bytes(&v->s, first))),
                   cg_muli(g, group, first), padded / v->s.unit);
    cg_val scales = group_scales(t, group);
    const nb_operand *a = &v->l->in[0];
    bool blocks = a->value->type->quant->granularity == NB_PER_BLOCK;
    for (int r = 0; r < t->rows; r++) {
        cg_val f = group_value(t, r);
        if (blocks) {
            cg_val index = cg_add(g, cg_muli(g, cg_addi(g, t->row, r), v->s.groups), group);
            f = cg_mul(g, f,
                       cg_splat(g,
                                cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, index), 0),
                                CG_LANES));
        }
        cg_set(g, t->acc[r], cg_fma(g, f, scales, cg_get(g, t->acc[r])));
    }
}

/* Scale of the activations of a row; NULL when it was applied group by group. */
static cg_val row_scale(const tile *t, int r) {
    nb_lower *l = t->v->l;
    cg *g = l->g;
    const nb_operand *a = &l->in[0];
    const nb_quant *q = a->value->type->quant;
    if (q->granularity == NB_PER_BLOCK) return NULL;
    if (q->granularity == NB_PER_TOKEN)
        return cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, cg_addi(g, t->row, r)), 0);
    return q->scales ? cg_load(g, CG_S(CG_F32), a->quant_scales, 0) : cg_f32(g, q->scale);
}

/* y = acc * scale (+ bias) (+ residual) */
static void store_rows(const tile *t, cg_val first) {
    nb_lower *l = t->v->l;
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf;
    const nb_operand *bias = &l->in[2], *residual = &l->in[3];
    for (int r = 0; r < t->rows; r++) {
        cg_val v = cg_get(g, t->acc[r]), scale = row_scale(t, r), row = cg_addi(g, t->row, r);
        if (scale) v = cg_mul(g, v, cg_splat(g, scale, CG_LANES));
        if (bias->value) {
            const cg_buf *b = &bias->buf;
            cg_val stride = bias->immediate ? NULL : b->strides[0];
            v = cg_add(g, v,
                       bias->immediate
                           ? cg_splat(g, bias->immediate, CG_LANES)
                           : cg_buf_load_part(g, b,
                                              cg_buf_step(g, b, b->base, cg_mul(g, first, stride)),
                                              stride, t->left));
        }
        if (residual->value) {
            const cg_buf *b = &residual->buf;
            cg_val stride = b->strides[b->rank - 1],
                   at = cg_buf_step(g, b, cg_buf_row(g, b, 1, row), cg_mul(g, first, stride));
            v = cg_add(g, v,
                       residual->immediate ? cg_splat(g, residual->immediate, CG_LANES)
                                           : cg_buf_load_part(g, b, at, stride, t->left));
        }
        cg_val stride = y->strides[y->rank - 1];
        cg_buf_store_part(g, y,
                          cg_buf_step(g, y, cg_buf_row(g, y, 1, row), cg_mul(g, first, stride)),
                          stride, v, t->left);
    }
}

static void multiply_tile(tile *t, cg_val row, int rows, cg_val first) {
    const view *v = t->v;
    cg *g = v->l->g;
    int64_t last = v->s.groups - 1, padded = nb_qshape_padded(&v->s, 0);
    t->row = row;
    t->rows = rows;
    /* A unit of 4-bit weights is two steps. */
    t->narrow = v->s.bits == 4 && cg_isa_of(g)->narrow_steps >= 2 * UNROLL;
    for (int r = 0; r < rows; r++) {
        t->codes[r] = cg_offset(g, v->codes, cg_muli(g, cg_addi(g, row, r), v->row_bytes));
        t->acc[r] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
        for (int k = 0; k < v->planes; k++) t->dot[k][r] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    }
    if (last > 0) {
        CG_FOR(g, group, cg_i64(g, 0), cg_i64(g, last), cg_i64(g, 1)) {
            multiply_group(t, group, padded);
        }
    }
    if (last >= 0) multiply_group(t, cg_i64(g, last), nb_qshape_padded(&v->s, last));
    store_rows(t, first);
}

/* Rows in a tile: accumulators of integers and floats together stay in registers. */
static int tile_rows(const view *v) {
    const cg_isa *isa = cg_isa_of(v->l->g);
    int per_row = 64 / isa->vector_bytes * v->planes,
        rows = (isa->registers - 6) / (per_row ? per_row : 1);
    for (int n = MAX_ROWS; n > 1; n /= 2) {
        if (n <= rows) return n;
    }
    return 1;
}

static void multiply(nb_lower *l, cg_val begin, cg_val end) {
    cg *g = l->g;
    view v = view_of(l);
    tile t = {.v = &v};
    int most = tile_rows(&v);
    cg_val whole = cg_sub(g, v.rows, cg_srem(g, v.rows, cg_i64(g, most)));
    CG_FOR(g, panel, begin, end, cg_i64(g, 1)) {
        cg_val first = cg_muli(g, panel, CG_LANES);
        t.left = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, cg_i64(g, v.s.N), first));
        t.weights = cg_offset(g, l->in[1].buf.base, cg_muli(g, panel, nb_qshape_panel_bytes(&v.s)));
        if (most > 1) CG_FOR(g, row, cg_i64(g, 0), whole, cg_i64(g, most)) {
                multiply_tile(&t, row, most, first);
            }
        CG_FOR(g, row, most > 1 ? whole : cg_i64(g, 0), v.rows, cg_i64(g, 1)) {
            multiply_tile(&t, row, 1, first);
        }
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static int phases(const nb_op *op) {
    (void)op;
    return 2;
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    if (phase == 0)
        prepare(l, begin, end);
    else
        multiply(l, begin, end);
}

static cg_val items(nb_lower *l, int phase) {
    const cg_buf *a = &l->in[0].buf;
    if (phase == 0) return cg_buf_count_range(l->g, a, 0, a->rank - 1);
    return cg_i64(l->g, nb_qshape_of(nb_in(l->op, 1)).panels);
}

static cg_val work(nb_lower *l, int phase) {
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf;
    cg_val K = a->dims[a->rank - 1];
    if (phase == 0) return cg_ceildiv(g, K, cg_i64(g, 4));
    return cg_mul(g, cg_muli(g, K, 4), cg_buf_count_range(g, a, 0, a->rank - 1));
}

static const nb_layout *layout(const nb_op *op, uint32_t index, const cg_cpu *cpu) {
    (void)op;
    (void)cpu;
    return index == 1 ? &nb_qpanels : NULL;
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    nb_elem a = nb_in(op, 0)->type->elem, w = nb_in(op, 1)->type->elem;
    if (a != NB_I8 && a != NB_I16)
        return nb_refuse(op, diags, "activations of %s", nb_elems[a].text);
    if (w != NB_I8 && w != NB_U8 && w != NB_I4 && w != NB_U4)
        return nb_refuse(op, diags, "weights of %s", nb_elems[w].text);
    return NB_OK;
}

/* The packed form that constants alone decide. */
static const char *key(nb_arena *arena, const nb_op *op) {
    (void)arena;
    return nb_qshape_of(nb_in(op, 1)).half ? "half" : "";
}

const nb_lowering nb_lower_qmatmul = {.accept = accept,
                                      .key = key,
                                      .phases = phases,
                                      .items = items,
                                      .work = work,
                                      .body = body,
                                      .scratch = scratch,
                                      .layout = layout};
