/* conv by constant f32 weights with many output channels: 16 channels are the lanes, an input is
 * broadcast, and some outputs next to each other make a tile. So strides, dilations and ranks cost
 * nothing: they only say where the tile's inputs are.
 *
 * Weights are packed into panels of 16 channels, [M/16][C/groups * K...][16], padded with zeros. A
 * tile ends up with channels as lanes and is turned before it is stored, since channels are far
 * from each other in memory. One item is one panel for a run of outputs of one batch; a run is
 * never shorter than a tile unless all outputs are, and its last tile overlaps the one before. */
#include "codegen/kernels/conv.h"
#include "codegen/kernels/turn.h"
#include "codegen/pack.h"
#include "ir/conv.h"

#include <string.h>

#define MAX_TILE 8
#define RUN      128 /* outputs in an item, at least */
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
    int rows;             /* outputs next to each other */
    int lanes;            /* of a panel: 8 where the last one has no more channels */
    int channels;         /* of those lanes */
    cg_val weights, bias; /* of the panel; a vector or NULL */
    cg_val x[MAX_TILE];   /* the first input of each row */
    cg_val y;             /* the first output, of the panel's first channel */
    cg_var acc[MAX_TILE];
} tile;

/* As many accumulators as stay in registers beside the weights and an input. */
static int tile_rows(const cg *g, int lanes) {
    const cg_isa *isa = cg_isa_of(g);
    int per_row = (int)nb_max_i64(1, 4 * lanes / isa->vector_bytes);
    return (int)nb_min_i64(MAX_TILE, nb_max_i64(1, (isa->registers - 1 - per_row) / per_row));
}

static void add_products(void *user, cg_val x, cg_val w) {
    const tile *t = (const tile *)user;
    cg *g = t->l->g;
    const cg_buf *in = &t->l->in[0].buf;
    cg_val at = cg_index(g, t->weights, CG_F32, cg_muli(g, w, CG_LANES));
    cg_val weight = cg_load(g, (cg_type){CG_F32, t->lanes}, at, 4 * t->lanes);
    for (int r = 0; r < t->rows; r++) {
        cg_val v = cg_splat(g, cg_buf_load(g, in, cg_buf_step(g, in, t->x[r], x)), t->lanes);
        cg_set(g, t->acc[r], cg_fma(g, v, weight, cg_get(g, t->acc[r])));
    }
}

static cg_val channel_at(const tile *t, int channel, int row) {
    cg *g = t->l->g;
    const cg_buf *y = &t->l->out[0].buf;
    return cg_index(g, t->y, CG_F32, cg_addi(g, cg_muli(g, y->strides[1], channel), row));
}

/* Fours that overlap where the rows are no multiple, or one by one. */
static void store(const tile *t, const cg_val *v) {
    cg *g = t->l->g;
    if (t->rows < 4) {
        for (int i = 0; i < t->rows * t->channels; i++)
            cg_store(g, cg_lane(g, v[i % t->rows], i / t->rows),
                     channel_at(t, i / t->rows, i % t->rows), 0);
        return;
    }
    for (int row = 0; row < t->rows; row += 4) {
        int first = (int)nb_min_i64(row, t->rows - 4);
        cg_val four[4] = {v[first], v[first + 1], v[first + 2], v[first + 3]};
        nb_turn(g, t->lanes, four);
        for (int c = 0; c < t->channels; c++)
            cg_store(g, cg_slice(g, four[c % 4], c / 4 * 4, 4), channel_at(t, c, first), 0);
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
    for (int r = 0; r < rows; r++) {
        t.x[r] = inputs_of(t.l, x, cg_addi(g, at, r));
        t.acc[r] = cg_var_new(g, cg_zero(g, (cg_type){CG_F32, t.lanes}));
    }
    nb_conv_factors(t.l, add_products, &t);
    cg_val v[MAX_TILE];
    for (int r = 0; r < rows; r++) {
        v[r] = cg_get(g, t.acc[r]);
        if (t.bias) v[r] = cg_add(g, v[r], t.bias);
        if (t.l->out[0].buf.canonical) v[r] = cg_canonical_bits(g, v[r]);
    }
    store(&t, v);
}

/* Outputs [begin, end). */
static void run_of(const tile *base, cg_val x, cg_val begin, cg_val end) {
    cg *g = base->l->g;
    int rows = tile_rows(g, base->lanes);
    cg_val last = cg_addi(g, end, -rows);
    CG_IF(g, cg_cmp(g, CG_GE, last, begin)) {
        CG_FOR(g, at, begin, end, cg_i64(g, rows)) {
            run_tile(base, x, cg_smin(g, at, last), rows);
        }
    }
    CG_ELSE(g) {
        CG_FOR(g, at, begin, end, cg_i64(g, 1)) { run_tile(base, x, at, 1); }
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

cg_val nb_conv_panel_items(nb_lower *l) {
    cg *g = l->g;
    return cg_mul(g, cg_muli(g, l->out[0].buf.dims[0], panels(l)), runs(l));
}

cg_val nb_conv_panel_work(nb_lower *l) {
    cg_val outputs = cg_udiv(l->g, positions(l), runs(l));
    return cg_mul(l->g, nb_conv_work(l), cg_muli(l->g, outputs, CG_LANES));
}

static void one_run(nb_lower *l, cg_val batch, cg_val panel, cg_val run, int channels) {
    cg *g = l->g;
    const cg_buf *in = &l->in[0].buf, *y = &l->out[0].buf, *bias = &l->in[2].buf;
    const nb_type *w = l->in[1].value->type;
    int64_t per_group = w->dims[0]->value / nb_conv_groups(l->op);
    cg_val first = cg_muli(g, panel, CG_LANES), group = cg_udiv(g, first, cg_i64(g, per_group));
    tile t = {.l = l, .channels = channels, .lanes = channels <= HALF ? HALF : CG_LANES};
    t.weights = cg_index(g, l->in[1].buf.base, CG_F32, cg_muli(g, first, factors_of(w)));
    cg_val at = cg_add(g, cg_mul(g, batch, y->strides[0]), cg_mul(g, first, y->strides[1]));
    t.y = cg_buf_step(g, y, y->base, at);
    if (l->in[2].value) {
        cg_val n = channels < CG_LANES ? cg_i64(g, channels) : NULL;
        t.bias =
            cg_buf_load_part(g, bias, cg_buf_step(g, bias, bias->base, first), bias->strides[0], n);
        if (t.lanes < CG_LANES) t.bias = cg_slice(g, t.bias, 0, t.lanes);
    }
    cg_val channel = cg_muli(g, group, w->dims[1]->value);
    cg_val x = cg_buf_step(
        g, in, in->base,
        cg_add(g, cg_mul(g, batch, in->strides[0]), cg_mul(g, channel, in->strides[1])));
    cg_val all = positions(l), n = runs(l);
    cg_val begin = cg_udiv(g, cg_mul(g, all, run), n);
    cg_val end = cg_udiv(g, cg_mul(g, all, cg_addi(g, run, 1)), n);
    run_of(&t, x, begin, end);
}

void nb_conv_panel_body(nb_lower *l, cg_val begin, cg_val end) {
    cg *g = l->g;
    int rest = (int)(l->in[1].value->type->dims[0]->value % CG_LANES);
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        cg_val run = cg_urem(g, item, runs(l)), row = cg_udiv(g, item, runs(l));
        cg_val panel = cg_urem(g, row, cg_i64(g, panels(l)));
        cg_val batch = cg_udiv(g, row, cg_i64(g, panels(l)));
        cg_val whole = cg_cmpi(g, CG_LT, panel, panels(l) - (rest > 0));
        CG_IF(g, whole) { one_run(l, batch, panel, run, CG_LANES); }
        CG_ELSE(g) {
            if (rest) one_run(l, batch, panel, run, rest);
        }
    }
}
