/* qdepthwise: a depthwise convolution of codes. Channels are the lanes, as in depthwise.c, but a
 * word of each lane holds neighbours along the last axis: 4 bytes where the CPU multiplies those,
 * else 2 numbers of 16 bits.
 *
 * Phase 0 writes x once in words, i8 codes as bytes plus 128 where bytes have no sign; an item is a
 * row of x. Phase 1 multiplies, an item is a row of outputs: some next to each other are a tile,
 * whose sums stay in registers. An output begins anywhere in a word, so that weights lie ready
 * shifted by each number of inputs, with zeros around them (qdepthwise_pack.c); nothing moves but
 * words and sums. What was added to the codes, and their zero point, come off through the sums of
 * the weights. Where a row ends in a part of a tile its outputs are computed one by one. */
#include "codegen/kernels/qdepthwise.h"

#include "codegen/kernels/qproduct.h"
#include "ir/conv.h"

#define MAX_TILE 12

typedef struct conv {
    nb_lower *l;
    nb_qdepthwise_shape s;
    const nb_quant *q;        /* of the codes */
    cg_val words;             /* of a row of x and 16 channels */
    cg_val step[NB_MAX_RANK]; /* bytes in scratch from one index to the next; [axes]: batch */
    int64_t stride;           /* along the last axis */
} conv;

static conv conv_of(nb_lower *l) {
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf;
    conv c = {.l = l, .q = nb_in(l->op, 0)->type->quant};
    c.s = nb_qdepthwise_shape_of(nb_in(l->op, 1), nb_qdepthwise_each(cg_isa_of(g)),
                                 nb_qdepthwise_by_runs(l->op));
    c.stride = nb_conv_stride(l->op, c.s.axes - 1);
    c.words = cg_ceildiv(g, x->dims[c.s.axes], cg_i64(g, c.s.each));
    cg_val step = cg_muli(g, c.words, c.s.panels * NB_QDEPTHWISE_WORD);
    for (int d = c.s.axes - 2; d >= 0; d--) {
        c.step[d] = step;
        step = cg_mul(g, step, x->dims[d + 1]);
    }
    c.step[c.s.axes] = step;
    return c;
}

/* What is added to a code in a word. */
static int64_t shift_of(const conv *c) {
    return c->s.each == 4 && c->q->storage == NB_I8 ? 128 : 0;
}

/* ---- phase 0 -------------------------------------------------------------------------------- */

typedef struct copying {
    const conv *c;
    cg_val from, to; /* the row's */
} copying;

/* Word `number` of 16 channels, of which `n` are there: codes behind the row's end are of no use,
 * and `last` is what is read instead (NULL: there are none). */
static void write_word(const copying *k, cg_val channel, cg_val n, cg_val number, cg_val last) {
    const conv *c = k->c;
    cg *g = c->l->g;
    const cg_buf *x = &c->l->in[0].buf;
    const int each = (int)c->s.each;
    cg_val codes[4];
    for (int i = 0; i < each; i++) {
        cg_val place = cg_addi(g, cg_muli(g, number, each), i);
        if (last) place = cg_smin(g, place, last);
        cg_val at = cg_add(g, cg_mul(g, place, x->strides[x->rank - 2]),
                           cg_mul(g, channel, x->strides[x->rank - 1]));
        cg_val v =
            cg_buf_load_part(g, x, cg_buf_step(g, x, k->from, at), x->strides[x->rank - 1], n);
        if (shift_of(c)) v = cg_xor(g, v, cg_like(g, v, 128));
        if (each == 2) v = c->q->storage == NB_I8 ? cg_sext(g, v, CG_I16) : cg_zext(g, v, CG_I16);
        codes[i] = v;
    }
    /* Lane by lane one code of each. */
    int picks[64];
    for (int lane = 0; lane < CG_LANES * each; lane++)
        picks[lane] = lane % each * CG_LANES + lane / each;
    cg_val low = each == 4 ? cg_join(g, codes[0], codes[1]) : codes[0],
           high = each == 4 ? cg_join(g, codes[2], codes[3]) : codes[1];
    cg_val word = cg_shuffle(g, low, high, CG_LANES * each, picks);
    cg_val panel = cg_udiv(g, channel, cg_i64(g, CG_LANES));
    cg_val to = cg_add(g, cg_mul(g, panel, c->words), number);
    cg_store(g, word, cg_offset(g, k->to, cg_muli(g, to, NB_QDEPTHWISE_WORD)), NB_QDEPTHWISE_WORD);
}

static void write_channels(cg *g, void *user, cg_val channel, cg_val n) {
    const copying *k = user;
    const conv *c = k->c;
    cg_val width = c->l->in[0].buf.dims[c->s.axes], whole = cg_udiv(g, width, cg_i64(g, c->s.each));
    CG_FOR(g, i, cg_i64(g, 0), whole, cg_i64(g, 1)) { write_word(k, channel, n, i, NULL); }
    CG_IF(g, cg_cmp(g, CG_LT, whole, c->words)) {
        write_word(k, channel, n, whole, cg_addi(g, width, -1));
    }
}

static void copy_rows(const conv *c, cg_val begin, cg_val end) {
    cg *g = c->l->g;
    const cg_buf *x = &c->l->in[0].buf;
    cg_val bytes = cg_muli(g, c->words, c->s.panels * NB_QDEPTHWISE_WORD);
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) {
        copying k = {.c = c,
                     .from = cg_buf_row(g, x, 2, row),
                     .to = cg_offset(g, c->l->scratch, cg_mul(g, row, bytes))};
        cg_for16(g, x->dims[x->rank - 1], write_channels, &k);
    }
}

/* ---- phase 1 -------------------------------------------------------------------------------- */

typedef struct tile {
    const conv *c;
    int first, outputs; /* of the tile's outputs those that are computed */
    cg_val x, w;        /* the word that the first output of the tile begins in; the panel */
    cg_var sum[MAX_TILE];
} tile;

static cg_val load_words(cg *g, const conv *c, cg_val at) {
    return cg_load(g, (cg_type){c->s.each == 4 ? CG_I8 : CG_I16, CG_LANES * (int)c->s.each}, at,
                   NB_QDEPTHWISE_WORD);
}

static cg_val multiply_words(cg *g, const conv *c, cg_val sum, cg_val x, cg_val w) {
    return c->s.each == 4 ? cg_isa_of(g)->fours(g, sum, x, w) : nb_pairs(g, sum, x, w);
}

/* A run of the kernel, inputs side by side: all its weights, with each word of x read once. */
static void multiply_run(tile *t, cg_val x, cg_val run) {
    const conv *c = t->c;
    cg *g = c->l->g;
    const int64_t each = c->s.each, begin = t->first * c->stride,
                  end = (t->first + t->outputs - 1) * c->stride + c->s.run;
    for (int64_t i = begin / each; i < nb_ceildiv(end, each); i++) {
        cg_val word = NULL;
        for (int r = 0; r < t->outputs; r++) {
            const int64_t at = (t->first + r) * c->stride, j = i - at / each;
            if (j < 0 || j >= nb_qdepthwise_words(&c->s, at % each)) continue;
            if (!word) word = load_words(g, c, cg_offset(g, x, cg_i64(g, i * NB_QDEPTHWISE_WORD)));
            cg_val from =
                cg_add(g, nb_qdepthwise_weights_at(g, &c->s, cg_i64(g, at % each), at % each, run),
                       cg_i64(g, j * NB_QDEPTHWISE_WORD));
            cg_val weights = load_words(g, c, cg_offset(g, t->w, from));
            cg_set(g, t->sum[r], multiply_words(g, c, cg_get(g, t->sum[r]), word, weights));
        }
    }
}

/* A single input of each output, `by` behind its first: in a word that only a run tells. */
static void multiply_one(tile *t, cg_val x, cg_val run, cg_val by) {
    const conv *c = t->c;
    cg *g = c->l->g;
    cg_val each = cg_i64(g, c->s.each);
    for (int r = 0; r < t->outputs; r++) {
        cg_val at = cg_addi(g, by, (t->first + r) * c->stride);
        cg_val word = cg_muli(g, cg_udiv(g, at, each), NB_QDEPTHWISE_WORD);
        cg_val from = nb_qdepthwise_weights_at(g, &c->s, cg_urem(g, at, each), 0, run);
        cg_set(g, t->sum[r],
               multiply_words(g, c, cg_get(g, t->sum[r]), load_words(g, c, cg_offset(g, x, word)),
                              load_words(g, c, cg_offset(g, t->w, from))));
    }
}

/* One loop for each axis of the kernel; `run`: the number of the first. */
static void multiply_axis(tile *t, int axis, cg_val x, cg_val run) {
    const conv *c = t->c;
    cg *g = c->l->g;
    const bool last = axis == c->s.axes - 1;
    const int64_t length = c->s.kernel[axis], by = nb_conv_dilation(c->l->op, axis);
    if (last && c->s.run == length) {
        multiply_run(t, x, run);
        return;
    }
    CG_FOR(g, k, cg_i64(g, 0), cg_i64(g, length), cg_i64(g, 1)) {
        cg_val number = cg_add(g, cg_muli(g, run, length), k);
        if (last)
            multiply_one(t, x, number, cg_muli(g, k, by));
        else
            multiply_axis(t, axis + 1, cg_offset(g, x, cg_muli(g, cg_mul(g, k, c->step[axis]), by)),
                          number);
    }
}

/* Those outputs of the tile whose first is `at` of the row, which has number `row`. */
static void run_tile(tile *t, cg_val row, cg_val at, cg_val panel) {
    const conv *c = t->c;
    nb_lower *l = c->l;
    cg *g = l->g;
    cg_val ends = cg_offset(g, t->w, cg_i64(g, nb_qdepthwise_code_bytes(&c->s)));
    cg_val scales = cg_load(g, CG_V(CG_F32), ends, 64),
           sums = cg_load(g, CG_V(CG_I32), cg_offset(g, ends, cg_i64(g, 64)), 64);
    for (int r = 0; r < t->outputs; r++)
        t->sum[r] = cg_var_new(g, cg_muli(g, sums, -(shift_of(c) + c->q->zero)));
    multiply_axis(t, 0, t->x, cg_i64(g, 0));
    for (int r = 0; r < t->outputs; r++) {
        cg_val v = cg_get(g, t->sum[r]);
        if (!nb_attr_bool(l->op, "sums"))
            v = cg_fma(g, cg_sint_to_float(g, v, CG_F32), scales, cg_zero(g, CG_V(CG_F32)));
        nb_qproduct_store(l, v, cg_f32(g, c->q->scale),
                          cg_add(g, row, cg_addi(g, at, t->first + r)), panel, NULL);
    }
}

/* Outputs of a tile: the sums stay in registers beside a word, and each tile begins with a word. */
static int tile_of(const conv *c) {
    const cg_isa *isa = cg_isa_of(c->l->g);
    int least = 1;
    while (least * c->stride % c->s.each) least++;
    const cg_buf *y = &c->l->out[0].buf;
    int64_t width, best = least;
    const int64_t most = nb_min_i64(MAX_TILE, (isa->registers - 2) / (64 / isa->vector_bytes));
    const bool known = cg_known(y->dims[y->rank - 2], &width);
    for (int64_t n = least; n <= most; n += least)
        if (!known || width % n <= width % best) best = n;
    return (int)best;
}

static void run_panel(const conv *c, cg_val row, cg_val from, cg_val panel) {
    cg *g = c->l->g;
    const cg_buf *y = &c->l->out[0].buf;
    const int outputs = tile_of(c);
    cg_val width = y->dims[y->rank - 2], size = cg_i64(g, outputs), number = cg_mul(g, row, width),
           whole = cg_mul(g, cg_udiv(g, width, size), size);
    cg_val step = cg_i64(g, outputs * c->stride / c->s.each * NB_QDEPTHWISE_WORD);
    from = cg_offset(g, from, cg_mul(g, panel, cg_muli(g, c->words, NB_QDEPTHWISE_WORD)));
    tile t = {.c = c, .outputs = outputs};
    t.w = cg_offset(g, c->l->in[1].buf.base, cg_muli(g, panel, nb_qdepthwise_panel_bytes(&c->s)));
    CG_FOR(g, at, cg_i64(g, 0), whole, size) {
        t.x = cg_offset(g, from, cg_mul(g, cg_udiv(g, at, size), step));
        run_tile(&t, number, at, panel);
    }
    t.x = cg_offset(g, from, cg_mul(g, cg_udiv(g, whole, size), step));
    t.outputs = 1;
    for (t.first = 0; t.first < outputs - 1; t.first++) {
        CG_IF(g, cg_cmp(g, CG_LT, cg_addi(g, whole, t.first), width)) {
            run_tile(&t, number, whole, panel);
        }
    }
}

static void run_row(const conv *c, cg_val row) {
    cg *g = c->l->g;
    const cg_buf *y = &c->l->out[0].buf;
    cg_val at = cg_i64(g, 0), rest = row;
    for (int d = c->s.axes - 2; d >= 0; d--) {
        cg_val index = cg_muli(g, cg_urem(g, rest, y->dims[d + 1]), nb_conv_stride(c->l->op, d));
        rest = cg_udiv(g, rest, y->dims[d + 1]);
        at = cg_add(g, at, cg_mul(g, index, c->step[d]));
    }
    at = cg_add(g, at, cg_mul(g, rest, c->step[c->s.axes]));
    cg_val from = cg_offset(g, c->l->scratch, at);
    CG_FOR(g, panel, cg_i64(g, 0), cg_i64(g, c->s.panels), cg_i64(g, 1)) {
        run_panel(c, row, from, panel);
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static int phases(const nb_op *op) {
    (void)op;
    return 2;
}

static cg_val items(nb_lower *l, int phase) {
    const cg_buf *b = phase == 0 ? &l->in[0].buf : &l->out[0].buf;
    return cg_buf_count_range(l->g, b, 0, b->rank - 2);
}

static cg_val work(nb_lower *l, int phase) {
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    if (phase == 0) return cg_mul(g, x->dims[x->rank - 2], x->dims[x->rank - 1]);
    return cg_mul(g, cg_buf_count(g, &l->in[1].buf), y->dims[y->rank - 2]);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    const conv c = conv_of(l);
    if (phase == 0)
        copy_rows(&c, begin, end);
    else
        CG_FOR(l->g, row, begin, end, cg_i64(l->g, 1)) { run_row(&c, row); }
}

static cg_val scratch(nb_lower *l) {
    const conv c = conv_of(l);
    return cg_mul(l->g, l->in[0].buf.dims[0], c.step[c.s.axes]);
}

static const nb_layout *layout(const nb_op *op, uint32_t index, const cg_cpu *cpu) {
    return index == 1 ? nb_qdepthwise_layout(op, cpu) : NULL;
}

const nb_lowering nb_lower_qdepthwise = {.phases = phases,
                                         .items = items,
                                         .work = work,
                                         .body = body,
                                         .scratch = scratch,
                                         .layout = layout};
