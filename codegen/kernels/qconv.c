/* qmatmul of patches that stay in registers, or of codes that are pixels: a convolution of codes
 * (qconv.h).
 *
 * Phase 0 writes x once as unsigned bytes, or as numbers of 16 bits, with channels last: i8 codes
 * plus 128, u8 codes as they are, f32 rounded first. An item is a row of x. Where x is that already
 * there is nothing to write. Phase 1 multiplies:
 * some places next to each other along the last axis by some panels of 16 columns are a tile, whose
 * sums stay in registers; a word of inputs is broadcast. What was added to the codes, and their
 * zero point, come off again through the sums of the weights. An item is a row of places by the
 * panels of a tile; the last tile of a row overlaps the one before. */
#include "codegen/kernels/qconv.h"

#include "codegen/kernels/codes.h"
#include "codegen/kernels/qproduct.h"
#include "codegen/kernels/turn.h"
#include "ir/conv.h"

#define MAX_PLACES 12
#define MAX_PANELS 4
#define UNROLL     4 /* words of a run that are written out, unless it has few more */
#define WRITTEN    8 /* so many */
/* Bytes that a word, or a vector of channels, may reach behind the last input. */
#define BEHIND 64

typedef struct conv {
    nb_lower *l;
    nb_qconv op;
    nb_qconv_shape s;
    const nb_quant *q; /* of the codes */
    const nb_dot *dot;
    cg_val D[NB_MAX_RANK];    /* lengths of x along the axes of the kernel */
    cg_val step[NB_MAX_RANK]; /* bytes from one index to the next, as phase 0 writes x; [axes]:
                                 batch */
    int places, panels;       /* of a tile */
} conv;

/* Registers hold the sums, beside the weights of a word and two of its inputs. */
static void choose_tile(conv *c) {
    const cg_isa *isa = cg_isa_of(c->l->g);
    const int each = 64 / isa->vector_bytes;
    const cg_buf *y = &c->l->out[0].buf;
    int64_t width, most = nb_min_i64(nb_max_i64((isa->registers - 4) / each, 1), MAX_PLACES);
    if (cg_known(y->dims[y->rank - 2], &width) && width > 0)
        most = nb_ceildiv(width, nb_ceildiv(width, most));
    c->places = (int)most;
    int64_t panels = (isa->registers - 2) / each / (most + 1);
    panels = nb_min_i64(nb_max_i64(panels, 1), MAX_PANELS);
    c->panels = (int)nb_ceildiv(c->s.panels, nb_max_i64(nb_ceildiv(c->s.panels, panels), 1));
    if (c->panels < 1) c->panels = 1;
}

static conv conv_of(nb_lower *l) {
    cg *g = l->g;
    const nb_dot *dot = nb_dot_of(cg_isa_of(g), 8, NB_I8, false);
    conv c = {.l = l, .dot = dot, .q = nb_in(l->op, 0)->type->quant};
    if (!nb_can_convolve(l->op, &c.op)) return c;
    c.s = nb_qconv_shape_of(l->op, dot->act_bytes);
    const cg_buf *x = &l->in[0].buf;
    cg_val step = cg_i64(g, c.s.channels * dot->act_bytes);
    for (int d = c.s.axes - 1; d >= 0; d--) {
        c.D[d] = x->dims[d + (c.op.last ? 1 : 2)];
        c.step[d] = step;
        step = cg_mul(g, step, c.D[d]);
    }
    c.step[c.s.axes] = step;
    choose_tile(&c);
    return c;
}

static bool of_floats(const conv *c) {
    return c->op.patches && c->op.patches->kind == NB_OP_qpatches;
}

static int64_t stride_of(const conv *c, int axis) {
    return c->op.patches ? nb_conv_stride(c->op.patches, axis) : 1;
}

/* What is added to a code, so that it has no sign. */
static int64_t shift_of(const conv *c) { return c->q->storage == NB_I8 ? 128 : 0; }

/* Is x what phase 0 would write, with whole words in each run? */
static bool is_written(const conv *c) {
    return c->op.last && !of_floats(c) && c->q->storage == NB_U8 && c->dot->act_bytes == 1 &&
           c->s.run % c->s.each == 0 && cg_buf_is_dense(&c->l->in[0].buf);
}

/* ---- phase 0 -------------------------------------------------------------------------------- */

typedef struct copying {
    const conv *c;
    cg_val scale;    /* f32 to codes */
    cg_val from, to; /* the row's, or its 16 places' */
    cg_val stride;   /* from element to element of what is read */
    cg_val n;        /* of 16 places how many there are, or NULL */
} copying;

static cg_val code_of(const copying *k, cg_val v) {
    cg *g = k->c->l->g;
    const conv *c = k->c;
    if (of_floats(c)) return cg_addi(g, nb_round_static(g, c->q, k->scale, v), shift_of(c));
    return cg_zext(g, shift_of(c) ? cg_xor(g, v, cg_like(g, v, 128)) : v, CG_I32);
}

/* Where channels lie side by side in x too. */
static void copy_16(cg *g, void *user, cg_val i, cg_val n) {
    const copying *k = user;
    const cg_buf *x = &k->c->l->in[0].buf;
    const cg_kind kind = k->c->dot->act_bytes == 1 ? CG_I8 : CG_I16;
    cg_val from = cg_buf_step(g, x, k->from, cg_mul(g, i, k->stride));
    cg_val codes = cg_narrow(g, code_of(k, cg_buf_load_part(g, x, from, k->stride, n)), kind);
    cg_val to = cg_index(g, k->to, kind, i);
    if (n)
        cg_store_part(g, codes, to, n);
    else
        cg_store(g, codes, to, 0);
}

/* Channels [first, first + count) of the places at hand. */
static void turn_channels(const copying *k, cg_val first, int count) {
    cg *g = k->c->l->g;
    const cg_buf *x = &k->c->l->in[0].buf;
    const int bytes = k->c->dot->act_bytes;
    cg_val codes[CG_LANES];
    for (int i = 0; i < count; i++) {
        cg_val at = cg_mul(g, cg_addi(g, first, i), x->strides[1]);
        codes[i] =
            code_of(k, cg_buf_load_part(g, x, cg_buf_step(g, x, k->from, at), k->stride, k->n));
    }
    nb_turn_codes(g, codes, count, bytes, cg_offset(g, k->to, cg_muli(g, first, bytes)),
                  k->c->s.channels * bytes, k->n);
}

static void turn_places(copying k, cg_val first, cg_val n) {
    cg *g = k.c->l->g;
    const int each = 16 / k.c->dot->act_bytes;
    const int64_t C = k.c->s.channels;
    k.from = cg_buf_step(g, &k.c->l->in[0].buf, k.from, cg_mul(g, first, k.stride));
    k.to = cg_offset(g, k.to, cg_muli(g, first, C * k.c->dot->act_bytes));
    k.n = n;
    CG_FOR(g, i, cg_i64(g, 0), cg_i64(g, C / each * each), cg_i64(g, each)) {
        turn_channels(&k, i, each);
    }
    if (C % each) turn_channels(&k, cg_i64(g, C / each * each), (int)(C % each));
}

static void copy_row(copying *k, cg_val row) {
    const conv *c = k->c;
    cg *g = c->l->g;
    const cg_buf *x = &c->l->in[0].buf;
    const int axes = c->s.axes;
    cg_val width = c->D[axes - 1], zero = cg_i64(g, 0);
    k->to = cg_offset(g, c->l->scratch, cg_mul(g, row, cg_mul(g, width, c->step[axes - 1])));
    k->stride = x->strides[x->rank - 1];
    if (c->op.last) {
        k->from = cg_buf_row(g, x, 2, row);
        cg_for16(g, cg_muli(g, width, c->s.channels), copy_16, k);
        return;
    }
    cg_val at = zero;
    for (int d = axes - 2; d >= 0; d--) {
        at = cg_add(g, at, cg_mul(g, cg_urem(g, row, c->D[d]), x->strides[d + 2]));
        row = cg_udiv(g, row, c->D[d]);
    }
    k->from = cg_buf_step(g, x, x->base, cg_add(g, at, cg_mul(g, row, x->strides[0])));
    if (c->s.channels == 1) {
        cg_for16(g, width, copy_16, k);
        return;
    }
    cg_val last = cg_addi(g, width, -CG_LANES);
    CG_IF(g, cg_cmp(g, CG_GE, last, zero)) {
        CG_FOR(g, i, zero, width, cg_i64(g, CG_LANES)) {
            turn_places(*k, cg_smin(g, i, last), NULL);
        }
    }
    CG_ELSE(g) {
        CG_IF(g, cg_cmpi(g, CG_GT, width, 0)) { turn_places(*k, zero, width); }
    }
}

/* ---- phase 1: tiles ------------------------------------------------------------------------- */

typedef struct tile {
    const conv *c;
    int places, panels;
    cg_val x, w; /* the first place's first input; the first panel */
    cg_var sum[MAX_PLACES][MAX_PANELS];
} tile;

/* 64 bytes that the dot product takes: word `i` of those at `w`, panel p. */
static cg_val load_part(const tile *t, cg_val w, int64_t i, int p) {
    const nb_qconv_shape *s = &t->c->s;
    cg *g = t->c->l->g;
    cg_val at =
        cg_offset(g, w, cg_i64(g, p * nb_qconv_panel_bytes(s) + i * nb_qconv_word_bytes(s)));
    if (s->each == 4) return cg_load(g, (cg_type){CG_I8, 64}, at, 64);
    return cg_sext(g, cg_load(g, (cg_type){CG_I8, 32}, at, 32), CG_I16);
}

static void multiply_word(tile *t, cg_val x, cg_val w, int64_t i) {
    const nb_dot *dot = t->c->dot;
    cg *g = t->c->l->g;
    cg_val part[MAX_PANELS], step = t->c->step[t->c->s.axes - 1];
    const int64_t stride = stride_of(t->c, t->c->s.axes - 1);
    cg_fence(g);
    for (int p = 0; p < t->panels; p++) part[p] = load_part(t, w, i, p);
    for (int r = 0; r < t->places; r++) {
        cg_val from = cg_offset(g, x, cg_addi(g, cg_muli(g, step, r * stride), 4 * i));
        cg_val word = cg_load(g, CG_S(CG_I32), from, 1);
        for (int p = 0; p < t->panels; p++) {
            cg_val sum = cg_get(g, t->sum[r][p]);
            sum = dot->act_bytes == 1 ? dot->by_unsigned(g, sum, part[p], word)
                                      : dot->step(g, sum, part[p], word);
            cg_set(g, t->sum[r][p], cg_pin(g, sum));
        }
    }
}

/* A run of inputs: x and w are its first. */
static void multiply_run(tile *t, cg_val x, cg_val w) {
    const nb_qconv_shape *s = &t->c->s;
    cg *g = t->c->l->g;
    const int64_t together = s->words <= WRITTEN ? s->words : UNROLL,
                  whole = together ? s->words / together * together : 0;
    if (whole == together) {
        for (int64_t i = 0; i < whole; i++) multiply_word(t, x, w, i);
    } else {
        CG_FOR(g, i, cg_i64(g, 0), cg_i64(g, whole), cg_i64(g, together)) {
            cg_val from = cg_offset(g, x, cg_muli(g, i, 4)),
                   weights = cg_offset(g, w, cg_muli(g, i, nb_qconv_word_bytes(s)));
            for (int64_t k = 0; k < together; k++) multiply_word(t, from, weights, k);
        }
    }
    for (int64_t i = whole; i < s->words; i++) multiply_word(t, x, w, i);
}

/* All runs: one loop for each axis of the kernel. `number`: of the first one. */
static void multiply_axis(tile *t, int axis, cg_val x, cg_val number) {
    const conv *c = t->c;
    cg *g = c->l->g;
    if (axis == c->s.axes || (axis == c->s.axes - 1 && c->s.run != c->s.channels)) {
        const int64_t bytes = c->s.words * nb_qconv_word_bytes(&c->s);
        multiply_run(t, x, cg_offset(g, t->w, cg_muli(g, number, bytes)));
        return;
    }
    const nb_op *patches = c->op.patches;
    const int64_t length = patches ? nb_attr_of(patches, "kernel")->ints.items[axis] : 1;
    if (length == 1) {
        multiply_axis(t, axis + 1, x, number);
        return;
    }
    cg_val step = cg_muli(g, c->step[axis], nb_conv_dilation(patches, axis));
    CG_FOR(g, k, cg_i64(g, 0), cg_i64(g, length), cg_i64(g, 1)) {
        multiply_axis(t, axis + 1, cg_offset(g, x, cg_mul(g, k, step)),
                      cg_add(g, cg_muli(g, number, length), k));
    }
}

/* Places [first, first + places) of a row, `row` being the number of its first, and panels from
 * `panel` on. */
static void run_tile(tile *t, cg_val row, cg_val first, cg_val panel) {
    const conv *c = t->c;
    nb_lower *l = c->l;
    cg *g = l->g;
    const int64_t shift = shift_of(c) + c->q->zero;
    const bool exact = nb_attr_bool(l->op, "sums");
    cg_val scales[MAX_PANELS];
    for (int p = 0; p < t->panels; p++) {
        cg_val at = cg_offset(
            g, t->w, cg_i64(g, p * nb_qconv_panel_bytes(&c->s) + nb_qconv_code_bytes(&c->s)));
        scales[p] = cg_load(g, CG_V(CG_F32), at, 64);
        cg_val sums = cg_load(g, CG_V(CG_I32), cg_offset(g, at, cg_i64(g, 64)), 64);
        for (int r = 0; r < t->places; r++) t->sum[r][p] = cg_var_new(g, cg_muli(g, sums, -shift));
    }
    multiply_axis(t, 0, t->x, cg_i64(g, 0));
    cg_val scale = cg_f32(g, c->q->scale);
    for (int r = 0; r < t->places; r++) {
        for (int p = 0; p < t->panels; p++) {
            cg_val v = cg_get(g, t->sum[r][p]);
            if (!exact)
                v = cg_fma(g, cg_sint_to_float(g, v, CG_F32), scales[p], cg_zero(g, CG_V(CG_F32)));
            nb_qproduct_store(l, v, scale, cg_add(g, row, cg_addi(g, first, r)),
                              cg_addi(g, panel, p), NULL);
        }
    }
}

/* ---- phase 1: rows -------------------------------------------------------------------------- */

/* Rows of places: the batch and all axes but the last. */
static cg_val rows_of(const conv *c) {
    const cg_buf *y = &c->l->out[0].buf;
    return cg_buf_count_range(c->l->g, y, 0, y->rank - 2);
}

static void run_row(const conv *c, cg_val row, cg_val panel, int panels) {
    cg *g = c->l->g;
    const cg_buf *y = &c->l->out[0].buf;
    const int axes = c->s.axes;
    cg_val width = y->dims[y->rank - 2], zero = cg_i64(g, 0), at = zero, rest = row;
    for (int d = axes - 2; d >= 0; d--) {
        cg_val index = cg_urem(g, rest, y->dims[d + 1]);
        rest = cg_udiv(g, rest, y->dims[d + 1]);
        index = cg_muli(g, index, stride_of(c, d));
        at = cg_add(g, at, cg_mul(g, index, c->step[d]));
    }
    at = cg_add(g, at, cg_mul(g, rest, c->step[axes]));
    cg_val from = cg_offset(g, is_written(c) ? c->l->in[0].buf.base : c->l->scratch, at),
           number = cg_mul(g, row, width);
    cg_val step = cg_muli(g, c->step[axes - 1], stride_of(c, axes - 1));
    tile t = {.c = c, .places = c->places, .panels = panels};
    t.w = cg_offset(g, c->l->in[1].buf.base, cg_muli(g, panel, nb_qconv_panel_bytes(&c->s)));
    cg_val last = cg_addi(g, width, -t.places);
    CG_IF(g, cg_cmp(g, CG_GE, last, zero)) {
        CG_FOR(g, i, zero, width, cg_i64(g, t.places)) {
            cg_val first = cg_smin(g, i, last);
            t.x = cg_offset(g, from, cg_mul(g, first, step));
            run_tile(&t, number, first, panel);
        }
    }
    CG_ELSE(g) {
        t.places = 1;
        CG_FOR(g, i, zero, width, cg_i64(g, 1)) {
            t.x = cg_offset(g, from, cg_mul(g, i, step));
            run_tile(&t, number, i, panel);
        }
    }
}

static void multiply(const conv *c, cg_val begin, cg_val end) {
    cg *g = c->l->g;
    const int left = (int)(c->s.panels % c->panels);
    const int64_t whole = c->s.panels / c->panels;
    cg_val rows = rows_of(c);
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        cg_val part = cg_udiv(g, item, rows), row = cg_urem(g, item, rows);
        cg_val panel = cg_muli(g, part, c->panels);
        if (!left) {
            run_row(c, row, panel, c->panels);
            continue;
        }
        CG_IF(g, cg_cmpi(g, CG_LT, part, whole)) { run_row(c, row, panel, c->panels); }
        CG_ELSE(g) { run_row(c, row, panel, left); }
    }
}

/* ---- what qmatmul.c asks -------------------------------------------------------------------- */

cg_val nb_qconv_scratch(nb_lower *l) {
    const conv c = conv_of(l);
    cg_val batch = l->in[0].buf.dims[0];
    if (is_written(&c)) return cg_i64(l->g, 0);
    return cg_addi(l->g, cg_mul(l->g, batch, c.step[c.s.axes]), BEHIND);
}

cg_val nb_qconv_items(nb_lower *l, int phase) {
    cg *g = l->g;
    const conv c = conv_of(l);
    if (phase == 1) return cg_muli(g, rows_of(&c), nb_ceildiv(c.s.panels, c.panels));
    if (is_written(&c)) return cg_i64(g, 0);
    cg_val rows = l->in[0].buf.dims[0];
    for (int d = 0; d < c.s.axes - 1; d++) rows = cg_mul(g, rows, c.D[d]);
    return rows;
}

cg_val nb_qconv_work(nb_lower *l, int phase) {
    cg *g = l->g;
    const conv c = conv_of(l);
    if (phase == 0) return cg_muli(g, c.D[c.s.axes - 1], 2 * c.s.channels);
    const cg_buf *y = &l->out[0].buf;
    return cg_muli(g, y->dims[y->rank - 2], 4 * c.panels * c.s.run * c.s.runs);
}

void nb_qconv_body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    cg *g = l->g;
    const conv c = conv_of(l);
    if (phase == 1) {
        multiply(&c, begin, end);
        return;
    }
    copying k = {.c = &c, .scale = cg_splat(g, cg_f32(g, c.q->scale), CG_LANES)};
    CG_FOR(g, row, begin, end, cg_i64(g, 1)) { copy_row(&k, row); }
}
