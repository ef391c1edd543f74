/* qmatmul, phase 1: panels of 16 columns (qproduct.h).
 *
 * Several rows are cut into tiles of nearly equal height, some tiles into a block whose states
 * (qtile.h) stay in the cache. A panel is taken in blocks of inputs: the weights of a block are
 * unpacked once, then each tile multiplies them. A single row takes some panels side by side. */
#include "codegen/kernels/codes.h"
#include "codegen/kernels/qtile.h"
#include "codegen/kernels/qunpack.h"

/* Tiles that share what is unpacked, as many as this much of the stack holds the states of. */
#define TILES       64
#define STATE_BYTES 49152
/* Results that no second-level cache here keeps: they leave past it, line by line. */
#define STREAM_BYTES (1 << 20)

typedef struct panel {
    const nb_qproduct *p;
    int n;           /* panels side by side */
    cg_val apart;    /* and how many panels they are apart */
    cg_val number;   /* of the (first) panel */
    cg_val weights;  /* where it lies */
    cg_val unpacked; /* room for a block */
    cg_val states;
    cg_val tile, end_tile; /* of the block */
    cg_val row, rows;      /* of the block */
    int64_t length;        /* inputs of the groups at hand */
    cg_val source, from;   /* weights of the block of inputs; the input they start with */
    cg_val closes, ends;   /* is it the last of its group (NULL: groups are whole), of the panel? */
    cg_var ahead;          /* what of the next panel is fetched next */
    cg_val share;          /* and how many bytes with a tile */
    cg_val streams;        /* do results leave past the caches? NULL: never */
} panel;

/* ---- rows ----------------------------------------------------------------------------------- */

/* Of the first panel. */
static cg_val state_of(const panel *w, cg_val row) {
    cg *g = w->p->l->g;
    const int64_t bytes = w->n * nb_qtile_state_bytes(w->p);
    return cg_offset(g, w->states, cg_muli(g, cg_sub(g, row, w->row), bytes));
}

/* Group `group` of the panel, one behind whole ones. */
static cg_val group_at(const panel *w, cg_val group) {
    const nb_qshape *s = &w->p->s;
    cg *g = w->p->l->g;
    return cg_offset(g, w->weights, cg_muli(g, group, nb_qshape_group_bytes(s, s->group)));
}

/* A tile from `row` on, group `group`, still without activations. */
static nb_qtile tile_at(const panel *w, cg_val row, cg_val group) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const nb_operand *a = &p->l->in[0];
    cg_val at = group_at(w, group);
    nb_qtile t = {
        .states = state_of(w, row),
        .scales = cg_offset(g, at, cg_i64(g, nb_qshape_scales_at(&p->s, w->length))),
    };
    t.apart = cg_muli(g, w->apart, nb_qshape_panel_bytes(&p->s));
    if (p->s.zeros) t.zeros = cg_offset(g, at, cg_i64(g, nb_qshape_zeros_at(&p->s, w->length)));
    if (a->value->type->quant->granularity == NB_PER_BLOCK)
        t.act_scales =
            cg_index(g, a->scales, CG_F32, cg_add(g, cg_muli(g, row, p->s.groups), group));
    return t;
}

/* The same with the inputs of the block, from span `span` of the group on: `count` groups or units.
 * `rows`: of the tile. */
static nb_qtile tile_in_block(const panel *w, cg_val row, cg_val rows, cg_val group, cg_val span,
                              cg_val count) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const nb_qrow first = {row, row, rows};
    nb_qtile t = tile_at(w, row, group);
    cg_val units = cg_udiv(g, w->from, cg_i64(g, p->s.unit));
    t.codes = nb_qproduct_word(p, &first, cg_muli(g, units, p->parts));
    t.sums = nb_qproduct_sum(p, &first, cg_add(g, cg_muli(g, group, p->spans), span));
    t.source = w->source;
    t.count = count;
    return t;
}

/* ---- results -------------------------------------------------------------------------------- */

/* Scale of the activations of a row; NULL when it was applied group by group. */
static cg_val row_scale(const nb_qproduct *p, cg_val row) {
    cg *g = p->l->g;
    const nb_operand *a = &p->l->in[0];
    const nb_quant *q = a->value->type->quant;
    if (q->granularity == NB_PER_BLOCK) return NULL;
    if (q->granularity == NB_PER_TOKEN)
        return cg_load(g, CG_S(CG_F32), cg_index(g, a->scales, CG_F32, row), 0);
    return nb_scale_at(p->l, a, q, cg_i64(g, 0));
}

/* Columns of a panel: the first, and how many, 1..15, or NULL: 16. */
typedef struct columns {
    cg_val first, left;
} columns;

/* What the epilogue adds to these columns of a row. */
static cg_val addend(cg *g, const nb_operand *o, cg_val row, columns c) {
    const cg_buf *b = &o->buf;
    if (o->immediate) return cg_splat(g, o->immediate, CG_LANES);
    cg_val stride = b->strides[b->rank - 1], from = row ? cg_buf_row(g, b, 1, row) : b->base;
    return cg_buf_load_part(g, b, cg_buf_step(g, b, from, cg_mul(g, c.first, stride)), stride,
                            c.left);
}

/* y = v * scale (+ bias) (+ residual). */
void nb_qproduct_store(nb_lower *l, cg_val v, cg_val scale, cg_val row, cg_val number,
                       cg_val streams) {
    cg *g = l->g;
    const cg_buf *y = &l->out[0].buf;
    const nb_type *w = nb_in(l->op, 1)->type;
    const int64_t N = w->dims[w->rank - 1]->value;
    columns c = {.first = cg_muli(g, number, CG_LANES)};
    if (N % CG_LANES) c.left = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, cg_i64(g, N), c.first));
    if (scale && !nb_attr_bool(l->op, "sums")) v = cg_mul(g, v, cg_splat(g, scale, CG_LANES));
    if (l->in[2].value) v = cg_add(g, v, addend(g, &l->in[2], NULL, c));
    if (l->in[3].value) v = cg_add(g, v, addend(g, &l->in[3], row, c));
    cg_val stride = y->strides[y->rank - 1],
           to = cg_buf_step(g, y, cg_buf_row(g, y, 1, row), cg_mul(g, c.first, stride));
    const nb_quant *q = l->out[0].value->type->quant;
    if (q) {
        cg_val made = cg_splat(g, nb_scale_at(l, &l->out[0], q, cg_i64(g, 0)), CG_LANES);
        v = cg_narrow(g, nb_round_static(g, q, made, v), CG_I8);
    }
    if (!streams) {
        cg_buf_store_part(g, y, to, stride, v, c.left);
        return;
    }
    CG_IF(g, streams) { cg_buf_stream16(g, y, to, v); }
    CG_ELSE(g) { cg_buf_store_part(g, y, to, stride, v, c.left); }
}

/* i1: results are large, and whole lines. A panel writes one line of each row: through the caches
 * it would be read first, and lines a power of two apart push each other out. */
static cg_val streams(const nb_qproduct *p) {
    cg *g = p->l->g;
    const cg_buf *y = &p->l->out[0].buf;
    if (nb_elems[y->elem].bits != 32 || !cg_buf_is_dense(y) || p->s.N % CG_LANES) return NULL;
    cg_val large = cg_cmpi(g, CG_GE, cg_muli(g, p->rows, 4 * p->s.N), STREAM_BYTES),
           whole = cg_cmpi(g, CG_EQ, cg_andi(g, cg_address(g, y->base), 63), 0);
    return cg_and(g, large, whole);
}

/* Of a row of the block, panel `i` of those side by side. */
static void store_result(const panel *w, cg_val row, cg_val i) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    cg_val number = cg_add(g, w->number, cg_mul(g, i, w->apart)),
           state = cg_offset(g, state_of(w, row), cg_muli(g, i, nb_qtile_state_bytes(p))),
           v = cg_load(g, CG_V(CG_F32), state, 64);
    nb_qproduct_store(p->l, p->exact ? cg_bits(g, v) : v, row_scale(p, row), row, number,
                      w->streams);
}

/* Adds the total of its spans of group `group` to its result. */
static void add_total(const panel *w, cg_val row, cg_val i, cg_val group) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const nb_qtile t = tile_at(w, row, group);
    cg_val state = cg_offset(g, t.states, cg_muli(g, i, nb_qtile_state_bytes(p))),
           total = cg_offset(g, state, cg_i64(g, 64)),
           from = cg_offset(g, t.scales, cg_mul(g, i, t.apart)),
           by_zero = nb_qtile_columns(g, p, from),
           sum = cg_load(g, nb_qtile_total_type(p), total, 64),
           scales = nb_qtile_scales(g, p, from),
           act = t.act_scales ? cg_load(g, CG_S(CG_F32), t.act_scales, 0) : NULL,
           result = cg_load(g, CG_V(CG_F32), state, 64);
    if (by_zero) sum = cg_add(g, sum, by_zero);
    cg_store(g, nb_qtile_add_group(g, p, result, sum, scales, act), state, 64);
    cg_store(g, cg_zero(g, nb_qtile_total_type(p)), total, 64);
}

/* ---- tiles ---------------------------------------------------------------------------------- */

/* What follows the tile of `rows` rows from `row` on. Results leave with their tile, so that the
 * memory they go to is waited for while the next one is multiplied. */
static void finish(const panel *w, cg_val row, cg_val rows, cg_val group) {
    cg *g = w->p->l->g;
    cg_val end = cg_add(g, row, rows), none = cg_i64(g, 0), one = cg_i64(g, 1);
    if (w->closes) {
        CG_IF(g, w->closes) {
            CG_FOR(g, r, row, end, one) {
                CG_FOR(g, i, none, cg_i64(g, w->n), one) { add_total(w, r, i, group); }
            }
        }
    }
    CG_IF(g, w->ends) {
        CG_FOR(g, r, row, end, one) {
            CG_FOR(g, i, none, cg_i64(g, w->n), one) { store_result(w, r, i); }
        }
    }
}

/* With each tile a share of the panel that follows is asked for. */
static void fetch_ahead(const panel *w) {
    cg *g = w->p->l->g;
    cg_val from = cg_get(g, w->ahead);
    CG_FOR(g, at, cg_i64(g, 0), w->share, cg_i64(g, 64)) {
        cg_prefetch(g, cg_offset(g, from, at), 2);
    }
    cg_set(g, w->ahead, cg_offset(g, from, w->share));
}

/* All tiles of the block: groups [group, after), or the span of `units` units (after NULL). */
static void run_tiles(const panel *w, cg_val group, cg_val after, cg_val span, cg_val units) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    cg_val count = after ? cg_sub(g, after, group) : units;
    if (p->single) {
        const nb_qtile t = tile_in_block(w, w->row, w->rows, group, span, count);
        nb_qtile_run(p, 1, w->n, w->length, &t);
        finish(w, w->row, w->rows, group);
        return;
    }
    CG_FOR(g, tile, w->tile, w->end_tile, cg_i64(g, 1)) {
        fetch_ahead(w);
        cg_val row = nb_rows_first(g, &p->cut, tile), rows = nb_rows_of(g, &p->cut, tile);
        const nb_qtile t = tile_in_block(w, row, rows, group, span, count);
        for (int n = p->cut.most; n > 0; n--) {
            if (!nb_rows_occur(&p->cut, n)) continue;
            CG_IF(g, cg_cmpi(g, CG_EQ, rows, n)) { nb_qtile_run(p, n, w->n, w->length, &t); }
        }
        finish(w, row, rows, group);
    }
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* Makes the weights of `inputs` inputs (packed, from input `at` of group `group` on) ready for all
 * tiles: inputs of one group, or of whole groups. */
static void enter_block(panel *w, cg_val group, cg_val at, cg_val inputs) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const int64_t units = nb_ceildiv(w->length, p->s.unit);
    w->from = cg_add(g, cg_muli(g, group, nb_qshape_padded(&p->s, 0)), at);
    w->source = cg_offset(g, group_at(w, group), cg_muli(g, at, nb_qshape_code_bytes(&p->s, 1)));
    if (nb_qtile_is_packed(p)) return;
    cg_val all = cg_udiv(g, inputs, cg_i64(g, p->s.unit));
    CG_FOR(g, first, cg_i64(g, 0), all, cg_i64(g, units)) {
        cg_val number = cg_udiv(g, first, cg_i64(g, units)),
               skip = cg_muli(g, number, nb_qshape_group_bytes(&p->s, w->length)),
               to = cg_muli(g, number, nb_qunpacked_bytes(p, w->n, units));
        cg_val left = cg_sub(g, all, first), whole = cg_i64(g, units);
        nb_qunpack(
            p, w->n, cg_offset(g, w->source, skip), p->spans > 1 ? cg_smin(g, left, whole) : whole,
            cg_offset(g, group_at(w, group), skip), w->length, cg_offset(g, w->unpacked, to));
    }
    w->source = w->unpacked;
}

/* Of so many inputs each. */
static int64_t groups_of_block(const nb_qproduct *p, int panels, int64_t padded) {
    return nb_max_i64(p->block / panels / nb_max_i64(padded, 1), 1);
}

/* Groups [first, after), which are short: some in each block. */
static void short_groups(panel *w, int64_t first, int64_t after) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const int64_t padded = nb_ceildiv(w->length, p->s.unit) * p->s.unit,
                  each = p->single ? after - first : groups_of_block(p, w->n, padded);
    CG_FOR(g, group, cg_i64(g, first), cg_i64(g, after), cg_i64(g, each)) {
        cg_val end = cg_smin(g, cg_addi(g, group, each), cg_i64(g, after));
        enter_block(w, group, cg_i64(g, 0), cg_muli(g, cg_sub(g, end, group), padded));
        w->ends = cg_cmpi(g, CG_EQ, end, p->s.groups);
        run_tiles(w, group, end, cg_i64(g, 0), NULL);
    }
}

/* Groups [first, after), which are long: a block is a span. */
static void long_groups(panel *w, int64_t first, int64_t after) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const int64_t padded = nb_ceildiv(w->length, p->s.unit) * p->s.unit;
    CG_FOR(g, group, cg_i64(g, first), cg_i64(g, after), cg_i64(g, 1)) {
        CG_FOR(g, at, cg_i64(g, 0), cg_i64(g, padded), cg_i64(g, p->span)) {
            cg_val inputs = cg_smin(g, cg_i64(g, p->span), cg_sub(g, cg_i64(g, padded), at));
            enter_block(w, group, at, inputs);
            w->closes = cg_cmpi(g, CG_EQ, cg_add(g, at, inputs), padded);
            w->ends = cg_and(g, w->closes, cg_cmpi(g, CG_EQ, group, p->s.groups - 1));
            run_tiles(w, group, NULL, cg_udiv(g, at, cg_i64(g, p->span)),
                      cg_udiv(g, inputs, cg_i64(g, p->s.unit)));
        }
    }
}

/* ---- panels --------------------------------------------------------------------------------- */

/* The panel after this one, in equal shares for all tiles of all blocks of inputs. */
static void start_fetching(panel *w) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const int64_t bytes = w->n * nb_qshape_panel_bytes(&p->s),
                  inputs = p->spans == 1 ? p->block / w->n : p->span,
                  blocks = nb_max_i64(nb_ceildiv(nb_qshape_row(&p->s), inputs), 1);
    cg_val tiles = cg_muli(g, cg_sub(g, w->end_tile, w->tile), blocks);
    w->share = cg_muli(g, cg_ceildiv(g, cg_i64(g, bytes / 64), tiles), 64);
    w->ahead = cg_var_new(g, cg_offset(g, w->weights, cg_i64(g, bytes)));
}

/* The rows of the block in the panel at hand, from the first input to the results. */
static void multiply_block(panel *w) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const int64_t whole = p->s.K / p->s.group, rest = p->s.K % p->s.group;
    w->weights =
        cg_offset(g, p->l->in[1].buf.base, cg_muli(g, w->number, nb_qshape_panel_bytes(&p->s)));
    cg_memset(g, w->states, 0, cg_muli(g, w->rows, w->n * nb_qtile_state_bytes(p)));
    if (!p->single) start_fetching(w);
    void (*groups)(panel *, int64_t, int64_t) = p->spans == 1 ? short_groups : long_groups;
    w->length = p->s.group;
    if (whole) groups(w, 0, whole);
    w->length = rest;
    if (rest) groups(w, whole, whole + 1);
    if (p->s.groups) return;
    w->closes = NULL;
    w->ends = cg_cmpi(g, CG_EQ, cg_i64(g, 0), 0);
    finish(w, w->row, w->rows, cg_i64(g, 0));
}

/* Neighbouring panels are one stream of memory. There are as many streams as the CPU likes, equally
 * long: a few panels that stayed behind would have the memory to themselves, and leave it idle. Of
 * the last stream some may be missing. */
static void multiply_single(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    const int most = cg_isa_of(g)->streams;
    panel w = {.p = p, .row = cg_i64(g, 0), .rows = cg_i64(g, 1)};
    w.states = cg_stack(g, most * nb_qtile_state_bytes(p), 64);
    w.apart = cg_ceildiv(g, cg_sub(g, end, begin), cg_i64(g, most));
    CG_FOR(g, number, begin, cg_add(g, begin, w.apart), cg_i64(g, 1)) {
        cg_val side_by_side = cg_ceildiv(g, cg_sub(g, end, number), w.apart);
        w.number = number;
        for (w.n = most; w.n > 0; w.n--) {
            CG_IF(g, cg_cmpi(g, CG_EQ, side_by_side, w.n)) { multiply_block(&w); }
        }
    }
}

/* Panels [begin, end), w->n at a time: a block of tiles after the other. */
static void multiply_panels(panel *w, cg_val begin, cg_val end) {
    const nb_qproduct *p = w->p;
    cg *g = p->l->g;
    const int64_t tile_bytes = w->n * p->cut.most * nb_qtile_state_bytes(p),
                  tiles = nb_min_i64(TILES, STATE_BYTES / tile_bytes);
    CG_FOR(g, number, begin, end, cg_i64(g, w->n)) {
        w->number = number;
        CG_FOR(g, tile, cg_i64(g, 0), p->cut.tiles, cg_i64(g, tiles)) {
            w->tile = tile;
            w->end_tile = cg_smin(g, cg_addi(g, tile, tiles), p->cut.tiles);
            w->row = nb_rows_first(g, &p->cut, tile);
            w->rows = cg_sub(g, nb_rows_first(g, &p->cut, w->end_tile), w->row);
            multiply_block(w);
        }
    }
}

/* Bytes of a block, unpacked. */
static int64_t room_of(const nb_qproduct *p, int panels) {
    const int64_t padded = nb_qshape_padded(&p->s, 0);
    return p->spans > 1 ? nb_qunpacked_bytes(p, panels, p->span / p->s.unit)
                        : groups_of_block(p, panels, padded) *
                              nb_qunpacked_bytes(p, panels, padded / p->s.unit);
}

static void multiply_several(const nb_qproduct *p, cg_val begin, cg_val end) {
    cg *g = p->l->g;
    const int most = nb_qtile_panels(p);
    panel w = {.p = p, .n = most, .apart = cg_i64(g, 1), .streams = streams(p)};
    w.states = cg_stack(g, STATE_BYTES, 64);
    if (!nb_qtile_is_packed(p))
        w.unpacked = cg_stack(g, nb_max_i64(room_of(p, most), room_of(p, 1)), 64);
    cg_val left = most > 1 ? cg_urem(g, cg_sub(g, end, begin), cg_i64(g, most)) : cg_i64(g, 0),
           after = cg_sub(g, end, left);
    multiply_panels(&w, begin, after);
    w.n = 1;
    if (most > 1) multiply_panels(&w, after, end);
    if (!w.streams) return;
    CG_IF(g, w.streams) { cg_stream_end(g); }
}

void nb_qproduct_multiply(const nb_qproduct *p, cg_val begin, cg_val end) {
    (p->single ? multiply_single : multiply_several)(p, begin, end);
}
