/* qmatmul: exact integer products of codes, one conversion and one fma per group (NUMBERS.md).
 *
 * Phase 0 prepares the activations, an item is a tile of rows (qprepare.c). Phase 1 multiplies, an
 * item is a panel of 16 columns (qpanel.c, qtile.c). Convolutions of codes go another way
 * (qconv.c). */
#include "codegen/kernels/qconv.h"
#include "codegen/kernels/qtile.h"

/* Of unpacked weights: half of the first-level cache of any CPU here. Where tiles are tall, weights
 * that are taken as they lie come from the second level well enough, and sums that last longer are
 * stored less often. */
#define BLOCK_BYTES  16384
#define PACKED_BYTES 65536

/* The largest difference between a weight's code and its zero point. */
static int64_t largest_weight(const nb_qshape *s) {
    int64_t codes = INT64_C(1) << s->bits;
    return s->zeros || s->zero + s->offset != codes / 2 ? codes - 1 : codes / 2;
}

/* Inputs whose products with activations up to 2^bits fit 32 bits, in round numbers. */
static int64_t inputs_that_fit(const nb_qshape *s, int bits) {
    return INT32_MAX / (largest_weight(s) << bits) / 64 * 64;
}

static int64_t offset_of(const nb_op *op) { return nb_quant_offset(nb_in(op, 0)->type->quant); }

static nb_qshape weights_of(const nb_op *op) {
    return nb_qshape_of(nb_in(op, 1), offset_of(op) != 0);
}

/* Weights that are unpacked for several rows are centered on the way, if they still fit what the
 * dot product takes. So are bytes in groups: as they lie, with scales between them, loads would
 * cross lines. */
static bool is_centered(const nb_qproduct *p) {
    if (p->single || p->dot->end) return false;
    if (p->parts > 1 && (p->s.bits < 8 || p->dot->act_bytes == 2)) return true;
    return p->s.groups > 1 && !p->s.zeros && p->s.zero + p->s.offset == 1 << (p->s.bits - 1);
}

/* What constants decide. */
static nb_qproduct shape_of(const cg_isa *isa, const nb_op *op, bool single) {
    const nb_elem act = nb_in(op, 0)->type->elem;
    nb_qproduct p = {.s = weights_of(op),
                     .single = single,
                     .wide = act == NB_I16,
                     .exact = nb_attr_bool(op, "sums"),
                     .offset = offset_of(op)};
    p.dot = nb_dot_of(isa, p.s.bits, act, single);
    p.parts = nb_dot_parts(p.dot, p.s.bits);
    p.planes = p.wide && p.dot->act_bytes == 1 ? 2 : 1;
    p.centered = is_centered(&p);
    const bool packed = p.parts == 1 && !p.centered && isa->vector_bytes == 64;
    p.block = (packed ? PACKED_BYTES : BLOCK_BYTES) / 64 / p.parts * p.s.unit;
    const int64_t group = nb_qshape_padded(&p.s, 0);
    p.span = nb_min_i64(nb_max_i64(group, p.s.unit), p.block);
    const bool apart = p.planes == 2 && !p.centered; /* planes have a sum each */
    if (p.wide) p.span = nb_min_i64(p.span, inputs_that_fit(&p.s, apart ? 7 : 15));
    p.large = p.planes == 2 && p.span > inputs_that_fit(&p.s, 15);
    p.spans = nb_max_i64(nb_ceildiv(group, p.span), 1);
    p.row_spans = p.s.groups * p.spans;
    p.row_words = nb_qshape_row(&p.s) * p.dot->act_bytes / 4;
    return p;
}

nb_qproduct nb_qproduct_of(nb_lower *l, bool single) {
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf;
    nb_qproduct p = shape_of(cg_isa_of(g), l->op, single);
    p.l = l;
    p.rows = cg_buf_count_range(g, a, 0, a->rank - 1);
    if (!l->scratch) return p;
    p.cut = nb_rows_cut(g, p.rows, nb_qtile_most(&p), !single);
    p.codes = l->scratch;
    cg_val bytes = cg_muli(g, p.rows, 4 * p.planes * p.row_words);
    p.sums = cg_offset(g, l->scratch, cg_muli(g, cg_lshri(g, cg_addi(g, bytes, 63), 6), 64));
    return p;
}

int64_t nb_qproduct_factor(const nb_qproduct *p) {
    return p->s.zeros ? -1 : -(p->s.zero + p->s.offset);
}

/* Of `each` words (or sums) in a plane of a row, address of number `i`. */
static cg_val interleaved(const nb_qproduct *p, cg_val base, int64_t each, const nb_qrow *r,
                          cg_val i) {
    cg *g = p->l->g;
    cg_val tile = cg_muli(g, r->first, each * p->planes),
           row =
               cg_add(g, cg_mul(g, cg_muli(g, i, p->planes), r->rows), cg_sub(g, r->row, r->first));
    return cg_index(g, base, CG_I32, cg_add(g, tile, row));
}

cg_val nb_qproduct_word(const nb_qproduct *p, const nb_qrow *r, cg_val word) {
    return interleaved(p, p->codes, p->row_words, r, word);
}

cg_val nb_qproduct_sum(const nb_qproduct *p, const nb_qrow *r, cg_val span) {
    return interleaved(p, p->sums, p->row_spans, r, span);
}

void nb_each_span(const nb_qproduct *p, int64_t length,
                  void (*body)(void *user, cg_val span, int64_t length), void *user) {
    cg *g = p->l->g;
    int64_t whole = length / p->span;
    if (whole == 1) {
        body(user, cg_i64(g, 0), p->span);
    } else if (whole > 1) {
        CG_FOR(g, span, cg_i64(g, 0), cg_i64(g, whole), cg_i64(g, 1)) { body(user, span, p->span); }
    }
    if (length % p->span) body(user, cg_i64(g, whole), length % p->span);
}

/* ---- the table ------------------------------------------------------------------------------ */

static cg_val scratch_of(nb_lower *l, bool single) {
    nb_qproduct p = nb_qproduct_of(l, single);
    int64_t row = 4 * p.planes * (p.row_words + p.row_spans);
    return cg_addi(l->g, cg_muli(l->g, p.rows, row), 128);
}

static cg_val scratch(nb_lower *l) {
    if (nb_is_qconv(l->op)) return nb_qconv_scratch(l);
    return cg_smax(l->g, scratch_of(l, true), scratch_of(l, false));
}

static int phases(const nb_op *op) {
    (void)op;
    return 2;
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    cg *g = l->g;
    if (nb_is_qconv(l->op)) {
        nb_qconv_body(l, phase, begin, end);
        return;
    }
    void (*run)(const nb_qproduct *, cg_val, cg_val) =
        phase == 0 ? nb_qproduct_prepare : nb_qproduct_multiply;
    nb_qproduct one = nb_qproduct_of(l, true), more = nb_qproduct_of(l, false);
    if (phase == 0 && one.dot == more.dot && !more.centered) {
        run(&more, begin, end);
        return;
    }
    CG_IF(g, cg_cmpi(g, CG_EQ, more.rows, 1)) { run(&one, begin, end); }
    CG_ELSE(g) { run(&more, begin, end); }
}

static cg_val items(nb_lower *l, int phase) {
    if (nb_is_qconv(l->op)) return nb_qconv_items(l, phase);
    if (phase == 0) {
        const nb_qproduct p = nb_qproduct_of(l, false);
        return nb_rows_cut(l->g, p.rows, nb_qtile_most(&p), true).tiles;
    }
    return cg_i64(l->g, weights_of(l->op).panels);
}

static cg_val work(nb_lower *l, int phase) {
    if (nb_is_qconv(l->op)) return nb_qconv_work(l, phase);
    cg *g = l->g;
    const cg_buf *a = &l->in[0].buf;
    cg_val K = a->dims[a->rank - 1];
    if (phase == 0) {
        const nb_qproduct p = nb_qproduct_of(l, false);
        return cg_ceildiv(g, cg_muli(g, K, nb_qtile_most(&p)), cg_i64(g, 4));
    }
    return cg_mul(g, cg_muli(g, K, 4), cg_buf_count_range(g, a, 0, a->rank - 1));
}

static const nb_layout *layout(const nb_op *op, uint32_t index, const cg_cpu *cpu) {
    if (index != 1) return NULL;
    if (nb_is_qconv(op)) return nb_qconv_layout(cpu);
    return offset_of(op) ? &nb_qpanels_sums : &nb_qpanels;
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    (void)cpu;
    nb_elem a = nb_in(op, 0)->type->elem, w = nb_in(op, 1)->type->elem;
    if (a != NB_I8 && a != NB_U8 && a != NB_I16)
        return nb_refuse(op, diags, "activations of %s", nb_elems[a].text);
    if (!nb_elem_is_integer(w) || nb_elems[w].bits > 8)
        return nb_refuse(op, diags, "weights of %s", nb_elems[w].text);
    return NB_OK;
}

/* The packed form that constants alone decide. */
static const char *key(nb_arena *arena, const nb_op *op) {
    (void)arena;
    return weights_of(op).half ? "half" : "";
}

/* The query, key and value projections of a layer have one input, and so have gate and up. */
static const char *prepared(nb_arena *arena, const nb_op *op, const cg_cpu *cpu) {
    if (nb_is_qconv(op)) return NULL;
    const nb_value *a = nb_in(op, 0);
    nb_qproduct one = shape_of(cpu->isa, op, true), p = shape_of(cpu->isa, op, false);
    return nb_format(arena, "%p %s%s %s %lld %lld %lld %lld %lld", (const void *)a, p.dot->name,
                     p.centered ? " centered" : "", one.dot->name, (long long)p.s.unit,
                     (long long)p.s.group, (long long)p.span, (long long)one.span,
                     (long long)nb_qproduct_factor(&p));
}

const nb_lowering nb_lower_qmatmul = {.accept = accept,
                                      .key = key,
                                      .phases = phases,
                                      .items = items,
                                      .work = work,
                                      .body = body,
                                      .scratch = scratch,
                                      .prepared = prepared,
                                      .layout = layout};
