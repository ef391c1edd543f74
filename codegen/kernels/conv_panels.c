/* conv by constant f32 weights with many output channels: 16 channels are the lanes, an input is
 * broadcast, and some outputs next to each other make a tile. So strides, dilations and ranks cost
 * nothing: they only say where the tile's inputs are.
 *
 * Weights are packed into panels of 16 channels, [M/16][C/groups * K...][16], padded with zeros. A
 * tile is rows by panels beside each other, as many as sums stay in registers: so that inputs and
 * weights are loaded for several products. It ends up with channels as lanes and is turned before
 * it is stored, since channels are far from each other in memory. One item is a run of outputs of
 * one batch for the panels of a tile; a run is never shorter than a tile unless all outputs are,
 * and its last tile overlaps the one before.
 *
 * Fewer outputs than a tile has, as of networks for sound, are tiles of 4, 2 or 1 rows. One item is
 * then all outputs of GROUP panels. */
#include "codegen/kernels/conv.h"
#include "codegen/kernels/turn.h"
#include "codegen/pack.h"
#include "ir/conv.h"

#include <string.h>

#define MAX_ROWS 8 /* of a tile */
#define MAX_SUMS 16
#define RUN      128 /* outputs in an item, at least */
#define GROUP    4   /* panels in an item where outputs are few; the most that a tile has */
#define HALF     (CG_LANES / 2)

/* ---- packing -------------------------------------------------------------------------------- */

static int64_t factors_of(const nb_type *w) {
    int64_t n = 1;
    for (int d = 1; d < w->rank; d++) n *= w->dims[d]->value;
    return n;
}

static int64_t panels_of(const nb_type *w) { return nb_ceildiv(w->dims[0]->value, CG_LANES); }

static bool panels_size(const nb_value *w, int64_t *bytes) {
    return nb_mul_i64(panels_of(w->type), factors_of(w->type), bytes) &&
           nb_mul_i64(*bytes, CG_LANES * 4, bytes);
}

static void write_panels(const nb_value *w, nb_arena *arena, nb_sink *sink) {
    (void)arena;
    int64_t K = factors_of(w->type), M = w->type->dims[0]->value;
    const char *data = w->blob->data;
    for (int64_t first = 0; first < M; first += CG_LANES) {
        for (int64_t k = 0; k < K; k++) {
            float line[CG_LANES] = {0};
            for (int64_t m = first; m < M && m < first + CG_LANES; m++)
                memcpy(&line[m - first], data + (m * K + k) * 4, 4);
            nb_sink_write(sink, line, sizeof line);
        }
    }
}

const nb_layout nb_conv_panels = {
    .name = "f32-conv-panels", .size = panels_size, .write = write_panels};

bool nb_conv_has_panels(const nb_op *op) {
    const nb_value *w = nb_in(op, 1);
    int64_t groups = nb_conv_groups(op), M = w->type->dims[0]->value;
    return nb_is_const(w) && w->type->elem == NB_F32 && M / groups >= HALF &&
           (groups == 1 || M / groups % CG_LANES == 0);
}

/* ---- a tile --------------------------------------------------------------------------------- */

typedef struct tile {
    nb_lower *l;
    int rows;           /* outputs next to each other */
    int wide;           /* panels next to each other */
    int lanes;          /* of a panel: 8 where there is one and it has no more channels */
    int channels;       /* of the last panel */
    int64_t distance;   /* from a panel to the next, in weights */
    cg_val weights;     /* of the first panel */
    cg_val bias[GROUP]; /* of each panel: vectors or NULL */
    cg_val x[MAX_ROWS]; /* the first input of each row */
    cg_val y;           /* the first output, of the first panel's first channel */
    cg_var acc[MAX_SUMS];
} tile;

/* As many accumulators as stay in registers beside weights and an input. */
static int most_sums(const cg *g, int lanes) {
    const cg_isa *isa = cg_isa_of(g);
    int each = (int)nb_max_i64(1, 4 * lanes / isa->vector_bytes);
    return (int)nb_min_i64(MAX_SUMS, nb_max_i64(1, (isa->registers - 1 - each) / each));
}

/* Rows of the highest tile of an op. */
static int most_rows(const nb_lower *l) {
    const int lanes = l->in[1].value->type->dims[0]->value <= HALF ? HALF : CG_LANES;
    return (int)nb_min_i64(MAX_ROWS, most_sums(l->g, lanes));
}

/* The next fewer rows of a tile. */
static int fewer_rows(int rows) { return rows > 4 ? 4 : rows > 2 ? 2 : 1; }

/* Panels beside each other in a tile of so few rows: inputs and weights are loaded for several
 * products. */
static int panels_beside(const nb_lower *l, int rows) {
    if (nb_conv_groups(l->op) > 1) return 1; /* each may have inputs of its own */
    const int most = most_sums(l->g, CG_LANES) / rows;
    return most >= GROUP ? GROUP : most >= 2 ? 2 : 1;
}

static void add_products(void *user, cg_val x, cg_val w) {
    const tile *t = (const tile *)user;
    cg *g = t->l->g;
    const cg_buf *in = &t->l->in[0].buf;
    cg_val weights[GROUP];
    for (int p = 0; p < t->wide; p++) {
        cg_val at = cg_addi(g, cg_muli(g, w, CG_LANES), p * t->distance);
        weights[p] = cg_load(g, (cg_type){CG_F32, t->lanes}, cg_index(g, t->weights, CG_F32, at),
                             4 * t->lanes);
    }
    for (int r = 0; r < t->rows; r++) {
        cg_val v = cg_splat(g, cg_buf_load(g, in, cg_buf_step(g, in, t->x[r], x)), t->lanes);
        for (int p = 0; p < t->wide; p++) {
            cg_var acc = t->acc[r * t->wide + p];
            cg_set(g, acc, cg_fma(g, v, weights[p], cg_get(g, acc)));
        }
    }
}

static cg_val channel_at(const tile *t, int channel, int row) {
    cg *g = t->l->g;
    const cg_buf *y = &t->l->out[0].buf;
    return cg_index(g, t->y, CG_F32, cg_addi(g, cg_muli(g, y->strides[1], channel), row));
}

/* Panel p: fours that overlap where the rows are no multiple, or one by one. */
static void store(const tile *t, int p, const cg_val *v) {
    cg *g = t->l->g;
    const int channel = p * CG_LANES, channels = p == t->wide - 1 ? t->channels : CG_LANES;
    if (t->rows < 4) {
        for (int i = 0; i < t->rows * channels; i++)
            cg_store(g, cg_lane(g, v[i % t->rows], i / t->rows),
                     channel_at(t, channel + i / t->rows, i % t->rows), 0);
        return;
    }
    for (int row = 0; row < t->rows; row += 4) {
        int first = (int)nb_min_i64(row, t->rows - 4);
        cg_val four[4] = {v[first], v[first + 1], v[first + 2], v[first + 3]};
        nb_turn(g, t->lanes, four);
        for (int c = 0; c < channels; c++)
            cg_store(g, cg_slice(g, four[c % 4], c / 4 * 4, 4), channel_at(t, channel + c, first),
                     0);
    }
}

/* The inputs of output number `at` of the axes that the kernel slides along. */
static cg_val inputs_of(nb_lower *l, cg_val x, cg_val at) {
    cg *g = l->g;
    const cg_buf *in = &l->in[0].buf, *y = &l->out[0].buf;
    for (int axis = y->rank - 3; axis >= 0; axis--) {
        cg_val index = axis ? cg_urem(g, at, y->dims[axis + 2]) : at;
        if (axis) at = cg_udiv(g, at, y->dims[axis + 2]);
        x = cg_buf_step(g, in, x, nb_conv_offset(g, l->op, in, axis, index, "strides"));
    }
    return x;
}

static void run_tile(const tile *base, cg_val x, cg_val at, int rows) {
    cg *g = base->l->g;
    tile t = *base;
    t.rows = rows;
    t.y = cg_index(g, base->y, CG_F32, at);
    for (int r = 0; r < rows; r++) t.x[r] = inputs_of(t.l, x, cg_addi(g, at, r));
    for (int i = 0; i < rows * t.wide; i++)
        t.acc[i] = cg_var_new(g, cg_zero(g, (cg_type){CG_F32, t.lanes}));
    nb_conv_factors(t.l, add_products, &t);
    for (int p = 0; p < t.wide; p++) {
        cg_val v[MAX_ROWS];
        for (int r = 0; r < rows; r++) {
            v[r] = cg_get(g, t.acc[r * t.wide + p]);
            if (t.bias[p]) v[r] = cg_add(g, v[r], t.bias[p]);
            if (t.l->out[0].buf.canonical) v[r] = cg_canonical_bits(g, v[r]);
        }
        store(&t, p, v);
    }
}

/* ---- items ---------------------------------------------------------------------------------- */

static cg_val positions(nb_lower *l) {
    const cg_buf *y = &l->out[0].buf;
    return cg_buf_count_range(l->g, y, 2, y->rank);
}

static cg_val runs(nb_lower *l) {
    cg *g = l->g;
    return cg_smax(g, cg_udiv(g, positions(l), cg_i64(g, RUN)), cg_i64(g, 1));
}

static int64_t panels(const nb_lower *l) { return panels_of(l->in[1].value->type); }

/* i1: are there fewer outputs than a tile has rows? */
static cg_val are_few(nb_lower *l) { return cg_cmpi(l->g, CG_LT, positions(l), most_rows(l)); }

/* An item is a run of outputs of a group of panels, in tiles of some rows by some panels. */
typedef struct cut {
    nb_lower *l;
    int rows, wide, group;
    cg_val runs;
} cut;

static cut many(nb_lower *l) {
    const int rows = most_rows(l), wide = panels_beside(l, rows);
    return (cut){.l = l, .rows = rows, .wide = wide, .group = wide, .runs = runs(l)};
}

static cut few(nb_lower *l, int rows) {
    const int wide = panels_beside(l, rows);
    return (cut){.l = l, .rows = rows, .wide = wide, .group = GROUP, .runs = cg_i64(l->g, 1)};
}

static cg_val items_in(const cut *c) {
    return cg_muli(c->l->g, c->runs, nb_ceildiv(panels(c->l), c->group));
}

cg_val nb_conv_panel_items(nb_lower *l) {
    cg *g = l->g;
    const cut m = many(l), f = few(l, 1);
    return cg_mul(g, l->out[0].buf.dims[0], cg_select(g, are_few(l), items_in(&f), items_in(&m)));
}

cg_val nb_conv_panel_work(nb_lower *l) {
    cg *g = l->g;
    const cut m = many(l), f = few(l, 1);
    cg_val group = cg_select(g, are_few(l), cg_i64(g, f.group), cg_i64(g, m.group));
    cg_val outputs = cg_udiv(g, positions(l), runs(l));
    return cg_mul(g, nb_conv_work(l), cg_mul(g, outputs, cg_muli(g, group, CG_LANES)));
}

/* Panels beside each other from `panel` on, and the first input of their batch. */
static tile tile_of(nb_lower *l, cg_val batch, cg_val panel, int wide, int channels, cg_val *x) {
    cg *g = l->g;
    const cg_buf *in = &l->in[0].buf, *y = &l->out[0].buf, *bias = &l->in[2].buf;
    const nb_type *w = l->in[1].value->type;
    int64_t per_group = w->dims[0]->value / nb_conv_groups(l->op);
    cg_val first = cg_muli(g, panel, CG_LANES), group = cg_udiv(g, first, cg_i64(g, per_group));
    tile t = {.l = l,
              .wide = wide,
              .channels = channels,
              .lanes = wide == 1 && channels <= HALF ? HALF : CG_LANES,
              .distance = factors_of(w) * CG_LANES};
    t.weights = cg_index(g, l->in[1].buf.base, CG_F32, cg_muli(g, first, factors_of(w)));
    cg_val at = cg_add(g, cg_mul(g, batch, y->strides[0]), cg_mul(g, first, y->strides[1]));
    t.y = cg_buf_step(g, y, y->base, at);
    for (int p = 0; p < wide && l->in[2].value; p++) {
        cg_val n = p == wide - 1 && channels < CG_LANES ? cg_i64(g, channels) : NULL;
        cg_val from = cg_mul(g, cg_addi(g, first, p * CG_LANES), bias->strides[0]);
        t.bias[p] =
            cg_buf_load_part(g, bias, cg_buf_step(g, bias, bias->base, from), bias->strides[0], n);
        if (t.lanes < CG_LANES) t.bias[p] = cg_slice(g, t.bias[p], 0, t.lanes);
    }
    cg_val channel = cg_muli(g, group, w->dims[1]->value);
    *x = cg_buf_step(
        g, in, in->base,
        cg_add(g, cg_mul(g, batch, in->strides[0]), cg_mul(g, channel, in->strides[1])));
    return t;
}

/* Outputs [begin, end), at least as many as a tile has. */
static void run_of(const cut *c, cg_val batch, cg_val panel, int wide, int channels, cg_val begin,
                   cg_val end) {
    cg *g = c->l->g;
    cg_val x, last = cg_addi(g, end, -c->rows);
    const tile t = tile_of(c->l, batch, panel, wide, channels, &x);
    CG_FOR(g, at, begin, end, cg_i64(g, c->rows)) {
        run_tile(&t, x, cg_smin(g, at, last), c->rows);
    }
}

/* ---- a group of panels ---------------------------------------------------------------------- */

/* A run of outputs of a group of panels, some at a time. The last ones of all may be fewer, and the
 * last panel of those a part of one. */
static void one_item(const cut *c, cg_val item) {
    nb_lower *l = c->l;
    cg *g = l->g;
    const int64_t M = l->in[1].value->type->dims[0]->value,
                  groups = nb_ceildiv(panels(l), c->group);
    const int few = (int)(panels(l) % c->wide), part = (int)(M % CG_LANES);
    cg_val run = cg_urem(g, item, c->runs), row = cg_udiv(g, item, c->runs), all = positions(l);
    cg_val begin = cg_udiv(g, cg_mul(g, all, run), c->runs);
    cg_val end = cg_udiv(g, cg_mul(g, all, cg_addi(g, run, 1)), c->runs);
    cg_val batch = cg_udiv(g, row, cg_i64(g, groups));
    cg_val from = cg_muli(g, cg_urem(g, row, cg_i64(g, groups)), c->group);
    cg_val until = cg_smin(g, cg_addi(g, from, c->group), cg_i64(g, panels(l)));
    CG_FOR(g, panel, from, until, cg_i64(g, c->wide)) {
        CG_IF(g, cg_cmpi(g, CG_LE, panel, M / CG_LANES - c->wide)) {
            run_of(c, batch, panel, c->wide, CG_LANES, begin, end);
        }
        CG_ELSE(g) {
            if (few || part)
                run_of(c, batch, panel, few ? few : c->wide, part ? part : CG_LANES, begin, end);
        }
    }
}

static void items_of(const cut *c, cg_val begin, cg_val end) {
    CG_FOR(c->l->g, item, begin, end, cg_i64(c->l->g, 1)) { one_item(c, item); }
}

/* In tiles of `rows`, or of fewer where there are not as many outputs. */
static void few_outputs(nb_lower *l, cg_val begin, cg_val end, int rows) {
    cg *g = l->g;
    int64_t n;
    if (rows > 1 && cg_known(positions(l), &n) && n < rows) {
        few_outputs(l, begin, end, fewer_rows(rows));
        return;
    }
    const cut c = few(l, rows);
    CG_IF(g, cg_cmpi(g, CG_GE, positions(l), rows)) { items_of(&c, begin, end); }
    CG_ELSE(g) {
        if (rows > 1 && !cg_known(positions(l), &n)) few_outputs(l, begin, end, fewer_rows(rows));
    }
}

static void many_outputs(nb_lower *l, cg_val begin, cg_val end) {
    const cut c = many(l);
    items_of(&c, begin, end);
}

void nb_conv_panel_body(nb_lower *l, cg_val begin, cg_val end) {
    cg *g = l->g;
    const int most = most_rows(l);
    int64_t n;
    const bool known = cg_known(positions(l), &n);
    if (known && n >= most) {
        many_outputs(l, begin, end);
    } else if (known) {
        few_outputs(l, begin, end, fewer_rows(most));
    } else {
        CG_IF(g, are_few(l)) { few_outputs(l, begin, end, fewer_rows(most)); }
        CG_ELSE(g) { many_outputs(l, begin, end); }
    }
}
