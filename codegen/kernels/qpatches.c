/* qpatches: codes of what a kernel sees, without writing down the floats in between. And patches of
 * bytes, which go the same way.
 *
 * 16 places of the kernel next to each other are the lanes: what they see of one input lies side by
 * side in x. Codes of four words of 4 bytes for each of the 16 places are turned into 16 bytes of
 * each place's row. One item is a run of places along the last axis; its last 16 overlap those
 * before where the run is no multiple. Where a row has few places, each is collected in a line of
 * floats by itself, and inputs are the lanes. A kernel of one element that moves by one sees x
 * itself: its places are one long axis. */
#include "codegen/kernels/codes.h"
#include "codegen/kernels/conv.h"
#include "codegen/kernels/turn.h"
#include "ir/conv.h"

#define RUN        64   /* places in an item, at least, unless a row has fewer */
#define FEW        8    /* places that are collected one by one, at most */
#define MOST_TABLE 4096 /* inputs whose offsets, or values, are kept in a table on the stack */

typedef struct reading {
    nb_lower *l;
    const nb_quant *q; /* NULL: bytes stay as they are */
    cg_buf x, y;       /* [B,C,D...]; codes [B,places of D...,inputs] */
    int axes;
    int64_t inputs; /* of a place */
    cg_val table;   /* i64[inputs]: how far each is from the first, or NULL: it is computed */
    cg_val line;    /* f32[inputs]: a place's; NULL: they are bytes, or too many */
    /* Of the 16 places at hand: */
    cg_val from, to;  /* the first one's inputs and codes */
    cg_val n;         /* how many there are, or NULL: 16 */
    cg_var top;       /* <16 x i32>: largest |x| as bits */
    nb_rounding made; /* dynamic */
    cg_val scale;     /* static */
} reading;

static int64_t kernel_length(const reading *r, int axis) {
    return nb_attr_of(r->l->op, "kernel")->ints.items[axis];
}

static bool is_dynamic(const reading *r) { return r->q && r->q->granularity == NB_PER_TOKEN; }
static int code_bytes(const reading *r) { return r->q ? nb_elems[r->q->storage].bits / 8 : 1; }

/* Does each place see one element of each channel, side by side? */
static bool is_pointwise(const reading *r) {
    for (int d = 0; d < r->axes; d++) {
        if (kernel_length(r, d) != 1 || nb_conv_stride(r->l->op, d) != 1) return false;
        if (d + 1 < r->axes && !r->x.dense[d + 2]) return false;
    }
    return true;
}

static reading begin_reading(nb_lower *l) {
    reading r = {.l = l, .q = l->out[0].value->type->quant, .x = l->in[0].buf, .y = l->out[0].buf};
    r.axes = r.x.rank - 2;
    r.inputs = l->out[0].value->type->dims[r.y.rank - 1]->value;
    if (r.axes < 2 || !is_pointwise(&r)) return r;
    r.x = cg_buf_merge(l->g, &r.x, 2, r.x.rank);
    r.y = cg_buf_merge(l->g, &r.y, 1, r.y.rank - 1);
    r.axes = 1;
    return r;
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* How far input number `k` of a place is from its first, in elements. */
static cg_val offset_of(const reading *r, cg_val k) {
    cg *g = r->l->g;
    cg_val at = cg_i64(g, 0);
    /* Places that are one axis have no other in their kernel. */
    for (int d = r->axes - 1; d >= 0 && r->axes == r->l->in[0].buf.rank - 2; d--) {
        const int64_t length = kernel_length(r, d);
        if (length == 1) continue;
        cg_val index = cg_urem(g, k, cg_i64(g, length));
        k = cg_udiv(g, k, cg_i64(g, length));
        index = cg_muli(g, index, nb_conv_dilation(r->l->op, d));
        at = cg_add(g, at, cg_mul(g, index, r->x.strides[d + 2]));
    }
    return cg_add(g, at, cg_mul(g, k, r->x.strides[1]));
}

static void make_table(reading *r) {
    cg *g = r->l->g;
    int64_t size = 1;
    for (int d = 0; d < r->l->in[0].buf.rank - 2; d++) size *= kernel_length(r, d);
    if (size == 1 || r->inputs > MOST_TABLE) return;
    cg_val table = cg_stack(g, 8 * r->inputs, 64);
    CG_FOR(g, k, cg_i64(g, 0), cg_i64(g, r->inputs), cg_i64(g, 1)) {
        cg_store(g, offset_of(r, k), cg_index(g, table, CG_I64, k), 8);
    }
    r->table = table;
}

/* How far a place is from the one before. */
static cg_val step_of(const reading *r) {
    return cg_muli(r->l->g, r->x.strides[r->x.rank - 1], nb_conv_stride(r->l->op, r->axes - 1));
}

/* Where input number `k` of the first place at hand is. */
static cg_val input_at(const reading *r, cg_val k) {
    cg *g = r->l->g;
    cg_val at =
        r->table ? cg_load(g, CG_S(CG_I64), cg_index(g, r->table, CG_I64, k), 8) : offset_of(r, k);
    return cg_buf_step(g, &r->x, r->from, at);
}

/* Input number `k` of the places at hand. */
static cg_val load(const reading *r, cg_val k) {
    return nb_conv_load(r->l->g, &r->x, input_at(r, k), step_of(r), r->n);
}

static cg_val code(const reading *r, cg_val k) {
    cg *g = r->l->g;
    cg_val v = load(r, k);
    if (!r->q) return cg_zext(g, v, CG_I32);
    return is_dynamic(r) ? nb_round_dynamic(g, &r->made, v) : nb_round_static(g, r->q, r->scale, v);
}

static void find_scales(reading *r, cg_val row) {
    cg *g = r->l->g;
    r->top = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
    CG_FOR(g, k, cg_i64(g, 0), cg_i64(g, r->inputs), cg_i64(g, 1)) {
        cg_val bits = cg_andi(g, cg_bits(g, load(r, k)), 0x7fffffff);
        cg_set(g, r->top, cg_smax(g, cg_get(g, r->top), bits));
    }
    r->made = nb_rounding_of(g, r->q, cg_get(g, r->top));
    cg_val to = cg_index(g, r->l->out[0].scales, CG_F32, row);
    if (r->n)
        cg_store_part(g, r->made.scale, to, r->n);
    else
        cg_store(g, r->made.scale, to, 4);
}

/* ---- codes ---------------------------------------------------------------------------------- */

/* Codes of inputs k .. k + count - 1, no more than fill 16 bytes. */
static void store_codes(const reading *r, cg_val k, int count) {
    cg *g = r->l->g;
    const int bytes = code_bytes(r);
    cg_val codes[CG_LANES];
    for (int i = 0; i < count; i++) codes[i] = code(r, cg_addi(g, k, i));
    nb_turn_codes(g, codes, count, bytes, cg_offset(g, r->to, cg_muli(g, k, bytes)),
                  r->inputs * bytes, r->n);
}

/* ---- places --------------------------------------------------------------------------------- */

/* Place number `place` of row `row`. */
static void one_place(reading r, cg_val row, cg_val place) {
    cg *g = r.l->g;
    const cg_buf *y = &r.y;
    cg_val number = cg_add(g, cg_mul(g, row, y->dims[y->rank - 2]), place);
    cg_val to = cg_buf_row(g, y, 1, number), inputs = cg_i64(g, r.inputs);
    r.from = cg_buf_step(g, &r.x, r.from, cg_mul(g, place, step_of(&r)));
    CG_FOR(g, k, cg_i64(g, 0), inputs, cg_i64(g, 1)) {
        if (r.line)
            cg_store(g, cg_buf_load(g, &r.x, input_at(&r, k)), cg_index(g, r.line, CG_F32, k), 4);
        else
            cg_store(g, cg_load(g, CG_S(CG_I8), input_at(&r, k), 1), cg_index(g, to, CG_I8, k), 1);
    }
    if (!r.line) return;
    const cg_buf line = cg_buf_dense(g, r.line, NB_F32, 1, &inputs);
    nb_code_run codes = {.g = g,
                         .q = r.q,
                         .x = &line,
                         .from = r.line,
                         .stride = line.strides[0],
                         .to = to,
                         .scale = r.scale};
    if (is_dynamic(&r))
        cg_store(g, nb_codes_dynamic(&codes, inputs),
                 cg_index(g, r.l->out[0].scales, CG_F32, number), 4);
    else
        nb_codes_static(&codes, inputs);
}

/* 16 places from number `first` of row `row` on, or the first n of them. */
static void sixteen(reading r, cg_val row, cg_val first, cg_val n) {
    cg *g = r.l->g;
    const cg_buf *y = &r.y;
    const int each = 16 / code_bytes(&r); /* in 16 bytes */
    cg_val number = cg_add(g, cg_mul(g, row, y->dims[y->rank - 2]), first);
    r.n = n;
    r.from = cg_buf_step(g, &r.x, r.from, cg_mul(g, first, step_of(&r)));
    r.to = cg_buf_row(g, y, 1, number);
    if (is_dynamic(&r)) find_scales(&r, number);
    CG_FOR(g, k, cg_i64(g, 0), cg_i64(g, r.inputs / each * each), cg_i64(g, each)) {
        store_codes(&r, k, each);
    }
    if (r.inputs % each) store_codes(&r, cg_i64(g, r.inputs / each * each), (int)(r.inputs % each));
}

/* Places [begin, end) of a row, fewer than 16. */
static void short_run(const reading *r, cg_val row, cg_val begin, cg_val end) {
    cg *g = r->l->g;
    const bool collects = r->inputs <= MOST_TABLE;
    cg_val n = cg_sub(g, end, begin);
    CG_IF(g, cg_cmpi(g, CG_LE, n, collects ? FEW : 0)) {
        if (collects) {
            CG_FOR(g, place, begin, end, cg_i64(g, 1)) { one_place(*r, row, place); }
        }
    }
    CG_ELSE(g) { sixteen(*r, row, begin, n); }
}

/* Places [begin, end) of a row. */
static void run_of(const reading *r, cg_val row, cg_val begin, cg_val end) {
    cg *g = r->l->g;
    cg_val last = cg_addi(g, end, -CG_LANES);
    CG_IF(g, cg_cmp(g, CG_GE, last, begin)) {
        CG_FOR(g, at, begin, end, cg_i64(g, CG_LANES)) {
            sixteen(*r, row, cg_smin(g, at, last), NULL);
        }
    }
    CG_ELSE(g) { short_run(r, row, begin, end); }
}

static cg_val runs(const reading *r) {
    cg *g = r->l->g;
    return cg_smax(g, cg_udiv(g, r->y.dims[r->y.rank - 2], cg_i64(g, RUN)), cg_i64(g, 1));
}

/* The first input of the first place of row number `row`: batch, then all axes but the last. */
static cg_val first_input(const reading *r, cg_val row) {
    cg *g = r->l->g;
    const cg_buf *x = &r->x, *y = &r->y;
    cg_val at = cg_i64(g, 0);
    for (int d = r->axes - 2; d >= 0; d--) {
        cg_val index = cg_urem(g, row, y->dims[d + 1]);
        row = cg_udiv(g, row, y->dims[d + 1]);
        index = cg_muli(g, index, nb_conv_stride(r->l->op, d));
        at = cg_add(g, at, cg_mul(g, index, x->strides[d + 2]));
    }
    return cg_buf_step(g, x, x->base, cg_add(g, at, cg_mul(g, row, x->strides[0])));
}

/* ---- the table ------------------------------------------------------------------------------ */

static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    const reading r = begin_reading(l);
    return cg_mul(l->g, cg_buf_count_range(l->g, &r.y, 0, r.y.rank - 2), runs(&r));
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    const reading r = begin_reading(l);
    return cg_muli(l->g, cg_udiv(l->g, r.y.dims[r.y.rank - 2], runs(&r)), 2 * r.inputs);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    reading r = begin_reading(l);
    if (r.q && !is_dynamic(&r))
        r.scale = cg_splat(g, nb_scale_at(l, &l->out[0], r.q, cg_i64(g, 0)), CG_LANES);
    make_table(&r);
    if (r.q && r.inputs <= MOST_TABLE) r.line = cg_stack(g, 4 * r.inputs, 64);
    cg_val n = runs(&r), all = r.y.dims[r.y.rank - 2];
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        cg_val run = cg_urem(g, item, n), row = cg_udiv(g, item, n);
        r.from = first_input(&r, row);
        run_of(&r, row, cg_udiv(g, cg_mul(g, all, run), n),
               cg_udiv(g, cg_mul(g, all, cg_addi(g, run, 1)), n));
    }
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    return nb_accept_codes(op, diags);
}

cg_val nb_byte_patches_items(nb_lower *l) { return items(l, 0); }
cg_val nb_byte_patches_work(nb_lower *l) { return work(l, 0); }
void nb_byte_patches_body(nb_lower *l, cg_val begin, cg_val end) { body(l, 0, begin, end); }

const nb_lowering nb_lower_qpatches = {
    .accept = accept, .items = items, .work = work, .body = body};
