/* matmul: each output is a sequence of fma over k. A tile is some rows by one or more panels of 16
 * columns: the columns are the lanes, an element of the left operand is broadcast.
 *
 * Phase 0 transposes the left operand where that pays, so that a tile reads it front to back
 * (matmul_pack.c); elsewhere tiles read rows where they stand. In phase 1 an item is a panel and a
 * block of rows. k comes in blocks: while the tiles of all rows pass over a block of a panel, it
 * stays in the first-level cache; sums wait on the stack between blocks, which changes no bit of
 * them. */
#include "codegen/kernels/matmul.h"

#include "ir/eval.h"

/* Rows in a block: their sums stay in caches. */
#define BLOCK_ROWS 128
/* Where there are few panels, blocks of rows are the work to share. */
#define FEW_PANELS     16
#define FEW_BLOCK_ROWS 48
/* Where there are many panels, it pays to copy the left operand into tiles first. */
#define MANY_PANELS 64
/* More rows share the lines of panels that are loaded. */
#define MAX_ROWS 12
/* A single tile waits for memory: its panel is asked for this many bytes ahead. */
#define AHEAD 512
/* Steps of k in a block, times panels beside each other: 16 KB of f32 that stay in the first-level
 * cache while all tiles of rows pass over them. */
#define BLOCK 256
/* Panels that wait for each other at the end of a block of k: meanwhile the same block of left
 * operands is used again and stays in the second-level cache. A multiple of NB_MATMUL_WIDE. */
#define CHUNK 8

/* ---- shape ---------------------------------------------------------------------------------- */

/* A constant matrix serves all batches: their rows are one long list, if they lie evenly. */
static bool rows_are_even(const cg_buf *a, const cg_buf *y) {
    for (int d = 0; d + 2 < y->rank; d++) {
        if (!y->dense[d]) return false;
    }
    for (int d = 0; d + 2 < a->rank; d++) {
        if (!a->dense[d]) return false;
    }
    return a->rank == y->rank;
}

/* As many sums as stay in registers beside a line of each panel and an element of a row, loads per
 * product as few as can be: CPUs of two products a cycle load little more than one vector. */
static void choose_tile(nb_mshape *s) {
    const cg_isa *isa = cg_isa_of(s->l->g);
    int each = CG_LANES * cg_kind_bytes(s->kind) / isa->vector_bytes;
    if (each < 1) each = 1;
    s->wide = isa->registers / each >= 32 ? NB_MATMUL_WIDE : 1;
    int rows = (isa->registers - 2) / each / s->wide - 1;
    s->tall = rows > MAX_ROWS ? MAX_ROWS : rows < 1 ? 1 : rows;
    s->steps = BLOCK / s->wide;
}

static void cut_rows(nb_mshape *s) {
    cg *g = s->l->g;
    cg_val one = cg_i64(g, 1);
    s->cut = nb_rows_cut(g, s->rows, s->tall, s->direct); /* a single row has code of its own */
    cg_val few = cg_cmpi(g, CG_LT, s->n_panels, FEW_PANELS);
    cg_val most = cg_select(g, few, cg_i64(g, nb_max_i64(1, FEW_BLOCK_ROWS / s->tall)),
                            cg_i64(g, nb_max_i64(1, BLOCK_ROWS / s->tall)));
    s->blocks = cg_ceildiv(g, s->cut.tiles, most);
    s->block_tiles = cg_ceildiv(g, s->cut.tiles, s->blocks);
    s->length = cg_i64(g, s->steps);
    /* A single tile gains nothing by blocks. */
    cg_val alone = cg_cmpi(g, CG_EQ, s->cut.tiles, 1);
    if (s->panels) s->length = cg_select(g, alone, cg_smax(g, s->K, one), s->length);
    s->packed = cg_and(g, cg_not(g, alone), cg_cmpi(g, CG_GE, s->n_panels, MANY_PANELS));
    if (!s->direct) s->packed = cg_i1(g, true);
}

nb_mshape nb_mshape_of(nb_lower *l) {
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf, *y = &l->out[0].buf;
    nb_mshape s = {.l = l, .kind = cg_compute_kind(y->elem)};
    s.panels = nb_matmul_in_panels(l->op) && !l->in[1].immediate;
    s.codes = l->in[1].value->type->quant != NULL;
    s.flat = (s.panels || s.codes) && rows_are_even(a, y);
    s.direct = !l->in[0].immediate && cg_is(a->strides[a->rank - 1], 1) &&
               cg_storage_kind(a->elem) == s.kind;
    s.rows = s.flat ? cg_buf_count_range(g, y, 0, y->rank - 1) : y->dims[y->rank - 2];
    s.K = a->dims[a->rank - 1];
    s.N = y->dims[y->rank - 1];
    s.n_panels = cg_ceildiv(g, s.N, cg_i64(g, CG_LANES));
    choose_tile(&s);
    cut_rows(&s);
    return s;
}

/* The same product where it has one row: more panels at once, so that more sums and more streams of
 * memory are under way. */
static nb_mshape one_row(const nb_mshape *s) {
    nb_mshape one = *s;
    one.rows = cg_i64(s->l->g, 1);
    one.single = true;
    one.wide = NB_MATMUL_WIDE;
    one.steps = BLOCK / one.wide;
    cut_rows(&one);
    return one;
}

cg_val nb_mshape_alone(const nb_mshape *s) {
    return s->direct ? cg_cmpi(s->l->g, CG_EQ, s->rows, 1) : cg_i1(s->l->g, false);
}

cg_val nb_matmul_batch(const nb_mshape *s, const cg_buf *b, int inner, cg_val batch) {
    const cg_buf *y = &s->l->out[0].buf;
    int lead = y->rank - 2;
    if (s->flat || lead == 0) return b->base;
    cg_buf wide = *b;
    wide.rank = b->rank - inner;
    if (wide.rank > 0) wide.dense[wide.rank - 1] = false;
    wide = cg_buf_broadcast(s->l->g, &wide, lead, y->dims);
    return cg_buf_row(s->l->g, &wide, 0, batch);
}

/* ---- phase 1 -------------------------------------------------------------------------------- */

/* A chunk of panels in a block of rows. */
typedef struct part {
    const nb_mshape *s;
    cg_val left, right, y; /* of the batch */
    cg_val tile, end_tile; /* of the block of rows */
    cg_val panel, end_panel;
    cg_val sums, lines; /* stack: sums between blocks of k; a copied block of panels */
    cg_val k, steps;    /* the block of k */
    cg_val last;        /* i1: is it the last one? */
} part;

/* Rows in a block at most. */
static int64_t most_rows(const nb_mshape *s) {
    return s->single ? 1 : nb_max_i64(BLOCK_ROWS, s->tall);
}

static cg_val bytes_of(const nb_mshape *s, cg_val n) {
    return cg_muli(s->l->g, n, cg_kind_bytes(s->kind));
}

/* How far behind a block of `wide` panels the next block lies, in bytes. */
static cg_val next_block(const part *p, int wide, cg_val panel) {
    cg *g = p->s->l->g;
    cg_val next = cg_addi(g, panel, wide), over = cg_cmp(g, CG_GE, next, p->end_panel);
    cg_val back = cg_and(g, over, cg_not(g, p->last));
    cg_val panels = cg_sub(g, cg_select(g, back, p->panel, next), panel);
    cg_val lines = cg_select(g, back, p->steps, cg_select(g, over, cg_neg(g, p->k), cg_i64(g, 0)));
    return cg_muli(g, cg_add(g, cg_mul(g, panels, p->s->K), lines), NB_MATMUL_LINE);
}

/* Can a tile write its sums to the result as they are? */
static bool plain_result(const nb_mshape *s) {
    const cg_buf *y = &s->l->out[0].buf;
    return cg_storage_kind(y->elem) == s->kind && cg_is(y->strides[y->rank - 1], 1) &&
           !y->canonical;
}

/* Stores sums of `rows` rows, [rows][wide][16], of which the first `columns` columns count. */
static void finish(const part *p, const nb_mtile *t, cg_val sums, cg_val to, cg_val rows,
                   cg_val columns) {
    const nb_mshape *s = p->s;
    cg *g = s->l->g;
    const cg_buf *y = &s->l->out[0].buf;
    cg_val row = y->strides[y->rank - 2], column = y->strides[y->rank - 1];
    bool tail = !cg_is(cg_andi(g, s->N, CG_LANES - 1), 0);
    CG_FOR(g, r, cg_i64(g, 0), rows, cg_i64(g, 1)) {
        for (int i = 0; i < t->wide; i++) {
            cg_val n = cg_addi(g, columns, -(int64_t)i * CG_LANES);
            cg_val from = cg_muli(g, cg_addi(g, cg_muli(g, r, t->wide), i), CG_LANES);
            cg_val sum = cg_load(g, CG_V(s->kind), cg_index(g, sums, s->kind, from), 64);
            cg_val at = cg_buf_step(
                g, y, to, cg_add(g, cg_mul(g, row, r), cg_muli(g, column, (int64_t)i * CG_LANES)));
            if (i + 1 < t->wide || !tail) {
                cg_buf_store16(g, y, at, column, sum);
                continue;
            }
            CG_IF(g, cg_cmpi(g, CG_GE, n, CG_LANES)) { cg_buf_store16(g, y, at, column, sum); }
            CG_ELSE(g) { cg_buf_store_part(g, y, at, column, sum, n); }
        }
    }
}

/* The left operand of a tile: where it stands or in the copy. */
static void find_rows(const part *p, nb_mtile *t, cg_val row) {
    const nb_mshape *s = p->s;
    cg *g = s->l->g;
    const cg_buf *a = &s->l->in[0].buf;
    cg_val at = cg_add(g, cg_mul(g, p->k, s->rows), cg_mul(g, row, p->steps));
    t->row_step = cg_i64(g, 0);
    if (s->direct) {
        cg_val stride = a->strides[a->rank - 2];
        at = cg_select(g, s->packed, at, cg_add(g, cg_mul(g, row, stride), p->k));
        t->row_step = bytes_of(s, stride);
    }
    t->left = cg_index(g, p->left, s->kind, at);
}

/* All tiles of rows pass over a block of k of `t->wide` panels. */
static void pass(const part *p, nb_mtile *t, cg_val panel) {
    const nb_mshape *s = p->s;
    cg *g = s->l->g;
    const cg_buf *y = &s->l->out[0].buf;
    cg_val zero = cg_i64(g, 0), null = cg_zero(g, CG_S(CG_PTR));
    cg_val column = cg_muli(g, panel, CG_LANES), first = nb_rows_first(g, &s->cut, p->tile);
    cg_val columns = cg_sub(g, s->N, column);
    /* Whole tiles go to the result, others and what is to be converted through `sums`. */
    bool whole = cg_is(cg_andi(g, s->N, CG_LANES - 1), 0), plain = plain_result(s);
    cg_val out = plain ? p->last : cg_i1(g, false);
    if (!whole) out = cg_and(g, out, cg_cmpi(g, CG_GE, columns, (int64_t)t->wide * CG_LANES));
    t->to_step = cg_select(g, out, bytes_of(s, y->strides[y->rank - 2]),
                           bytes_of(s, cg_i64(g, (int64_t)t->wide * CG_LANES)));
    cg_val sums = cg_muli(g, cg_sub(g, panel, p->panel), most_rows(s));
    /* Meanwhile the next block is asked for, a share of it by each tile. A single tile asks for
     * what it needs itself a little later. */
    cg_val share = zero, next = zero;
    if (s->panels) {
        cg_val stream = cg_cmpi(g, CG_EQ, s->cut.tiles, 1);
        share = cg_udiv(g, cg_i64(g, NB_MATMUL_LINE), cg_sub(g, p->end_tile, p->tile));
        next = cg_select(g, stream, cg_i64(g, AHEAD), next_block(p, t->wide, panel));
    }
    t->next_step = share;
    CG_FOR(g, tile, p->tile, p->end_tile, cg_i64(g, 1)) {
        cg_val row = nb_rows_first(g, &s->cut, tile), rows = nb_rows_of(g, &s->cut, tile);
        find_rows(p, t, row);
        cg_val to = cg_buf_step(g, y, p->y,
                                cg_add(g, cg_mul(g, row, y->strides[y->rank - 2]),
                                       cg_mul(g, column, y->strides[y->rank - 1])));
        cg_val lines = cg_add(g, sums, cg_muli(g, cg_sub(g, row, first), t->wide));
        cg_val kept = cg_index(g, p->sums, s->kind, cg_muli(g, lines, CG_LANES));
        t->from = cg_select(g, cg_cmpi(g, CG_EQ, p->k, 0), null, kept);
        t->to = cg_select(g, out, to, kept);
        t->next = cg_offset(
            g, t->right,
            cg_add(g, next, cg_mul(g, cg_sub(g, tile, p->tile), cg_mul(g, t->steps, share))));
        nb_matmul_tile(t, rows);
        if (!plain || !whole) CG_IF(g, cg_and(g, p->last, cg_not(g, out))) {
                finish(p, t, kept, to, rows, columns);
            }
    }
}

/* The block of the panels from `panel` on: where they lie or, copied, on the stack. */
static void find_panels(const part *p, nb_mtile *t, cg_val panel) {
    const nb_mshape *s = p->s;
    cg *g = s->l->g;
    if (s->panels) {
        cg_val line = cg_add(g, cg_mul(g, panel, s->K), p->k);
        t->right = cg_index(g, p->right, CG_F32, cg_muli(g, line, CG_LANES));
        t->distance = cg_muli(g, s->K, NB_MATMUL_LINE);
        return;
    }
    const nb_operand *b = &s->l->in[1];
    const cg_val *strides = &b->buf.strides[b->buf.rank - 2];
    t->right = p->lines;
    t->distance = bytes_of(s, cg_i64(g, s->steps * CG_LANES));
    for (int i = 0; i < t->wide; i++) {
        cg_val column = cg_muli(g, cg_addi(g, panel, i), CG_LANES), from = NULL,
               to = cg_offset(g, t->right, cg_muli(g, t->distance, i));
        if (s->codes) {
            nb_matmul_copy_codes(s, to, p->k, column, t->steps);
            continue;
        }
        if (!b->immediate)
            from =
                cg_buf_step(g, &b->buf, p->right,
                            cg_add(g, cg_mul(g, p->k, strides[0]), cg_mul(g, column, strides[1])));
        nb_matmul_copy_panel(s, to, from, t->steps, cg_sub(g, s->N, column));
    }
}

static void chunk(part *p) {
    const nb_mshape *s = p->s;
    cg *g = s->l->g;
    CG_FOR(g, k, cg_i64(g, 0), cg_smax(g, s->K, cg_i64(g, 1)), s->length) {
        cg_val rest = cg_sub(g, s->K, k), from = p->panel;
        p->k = k;
        p->steps = cg_smin(g, s->length, rest);
        p->last = cg_cmp(g, CG_LE, rest, s->length);
        nb_mtile t = {.s = s, .steps = p->steps};
        /* As many panels at once as a tile takes, then two, whose sums do not wait for each other,
         * then single ones. */
        for (t.wide = s->wide;; t.wide = t.wide > 2 ? 2 : 1) {
            cg_val n = cg_sub(g, p->end_panel, from);
            cg_val end = cg_sub(g, p->end_panel, cg_urem(g, n, cg_i64(g, t.wide)));
            CG_FOR(g, panel, from, end, cg_i64(g, t.wide)) {
                find_panels(p, &t, panel);
                pass(p, &t, panel);
            }
            if (t.wide == 1) break;
            from = end;
        }
    }
}

static void multiply(const nb_mshape *s, cg_val begin, cg_val end) {
    cg *g = s->l->g;
    const nb_operand *a = &s->l->in[0], *b = &s->l->in[1];
    const cg_buf *y = &s->l->out[0].buf;
    cg_buf lefts = nb_matmul_lefts(s);
    part p = {.s = s};
    int64_t line = (int64_t)CG_LANES * cg_kind_bytes(s->kind);
    p.sums = cg_stack(g, most_rows(s) * CHUNK * line, 64);
    if (!s->panels) p.lines = cg_stack(g, s->steps * s->wide * line, 64);
    /* An outer step is a batch and a block of rows. */
    CG_FOR(g, outer, cg_udiv(g, begin, s->n_panels), cg_ceildiv(g, end, s->n_panels),
           cg_i64(g, 1)) {
        cg_val batch = cg_udiv(g, outer, s->blocks), block = cg_urem(g, outer, s->blocks);
        cg_val origin = cg_mul(g, outer, s->n_panels);
        cg_val first = cg_smax(g, cg_sub(g, begin, origin), cg_i64(g, 0));
        cg_val last = cg_smin(g, cg_sub(g, end, origin), s->n_panels);
        p.tile = cg_mul(g, block, s->block_tiles);
        p.end_tile = cg_smin(g, cg_add(g, p.tile, s->block_tiles), s->cut.tiles);
        p.left = nb_matmul_batch(s, &lefts, 1, batch);
        if (s->direct)
            p.left = cg_select(g, s->packed, p.left, nb_matmul_batch(s, &a->buf, 2, batch));
        if (!b->immediate && !s->codes) p.right = nb_matmul_batch(s, &b->buf, 2, batch);
        p.y = nb_matmul_batch(s, y, 2, batch);
        CG_FOR(g, panel, first, last, cg_i64(g, CHUNK)) {
            p.panel = panel;
            p.end_panel = cg_smin(g, cg_addi(g, panel, CHUNK), last);
            chunk(&p);
        }
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static int phases(const nb_op *op) {
    (void)op;
    return 2;
}

static cg_val items(nb_lower *l, int phase) {
    cg *g = l->g;
    nb_mshape s = nb_mshape_of(l);
    if (phase == 0) return nb_matmul_left_items(&s);
    const cg_buf *y = &l->out[0].buf;
    cg_val batches = s.flat ? cg_i64(g, 1) : cg_buf_count_range(g, y, 0, y->rank - 2);
    return cg_mul(g, cg_mul(g, batches, s.blocks), s.n_panels);
}

static cg_val work(nb_lower *l, int phase) {
    cg *g = l->g;
    nb_mshape s = nb_mshape_of(l);
    cg_val rows = cg_muli(g, s.block_tiles, s.tall);
    return phase == 0 ? cg_muli(g, s.K, s.tall) : cg_muli(g, cg_mul(g, s.K, rows), CG_LANES);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    cg *g = l->g;
    nb_mshape s = nb_mshape_of(l), one = one_row(&s);
    if (phase == 0) {
        nb_matmul_pack_left(&s, begin, end);
        return;
    }
    CG_IF(g, nb_mshape_alone(&s)) { multiply(&one, begin, end); }
    CG_ELSE(g) { multiply(&s, begin, end); }
}

static cg_val scratch(nb_lower *l) {
    cg *g = l->g;
    nb_mshape s = nb_mshape_of(l);
    return cg_select(g, s.packed, bytes_of(&s, cg_buf_count(g, &l->in[0].buf)), cg_i64(g, 0));
}

static const nb_layout *layout(const nb_op *op, uint32_t index, const cg_cpu *cpu) {
    (void)cpu;
    return index == 1 && nb_matmul_in_panels(op) ? &nb_matmul_panels : NULL;
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    /* Its operands were dequantized to floats here, but its meaning is the product of codes. */
    if (nb_is_product_of_codes(op))
        return nb_refuse(op, diags,
                         "a product of dequantized tensors; run fuse-dequant before plan-memory");
    if (nb_out(op)->type->elem == NB_F64 && !cpu->isa->fma)
        return nb_refuse(op, diags, "f64 products on a CPU without fused multiply-add");
    return nb_in(op, 1)->type->quant ? NB_OK : nb_accept_plain(op, cpu, diags);
}

const nb_lowering nb_lower_matmul = {.accept = accept,
                                     .phases = phases,
                                     .items = items,
                                     .work = work,
                                     .body = body,
                                     .scratch = scratch,
                                     .layout = layout};
