/* attention: values in codes of 8 bits. Exponentials times scales become codes of 24 bits, whose
 * products with values are added up as exact integers (NUMBERS.md): in 32 bits for some runs, then
 * in f64, which holds them all.
 *
 * Where a CPU multiplies bytes by fours, a code of a weight is 3 bytes and values of 4 tokens lie
 * side by side; elsewhere it is 2 words, and values of 2 tokens do, as words. Either way these are
 * vectors of 64 bytes, each 16 elements of some tokens, and the codes of 16 tokens take the place
 * of their scores. Of 64 elements, vector j holds numbers 16 * i + 4 * j + 0..3 in its quarter i.
 */
#include "codegen/kernels/attention.h"
#include "codegen/kernels/dot.h"
#include "ir/scalar.h"

#define WIDE     64 /* elements that are turned at once */
#define VECTORS  4  /* that hold them */
#define MAX_SUMS 32

static bool has_fours(cg *g) { return cg_isa_of(g)->fours != NULL; }
/* Bits that a plane of a weight's code holds. */
static int plane_bits(cg *g) { return has_fours(g) ? 8 : 15; }
int nb_attention_planes(cg *g) { return has_fours(g) ? 3 : 2; }
int nb_attention_grouped(cg *g) { return has_fours(g) ? 4 : 2; }

/* Sums of bytes by words of 15 bits fit 32 bits for twice as many tokens. Full runs come to it. */
#define MOST_TOKENS 256

static cg_val lanes64(cg *g, cg_val array, cg_val index) {
    return cg_index(g, array, CG_F64, index);
}

/* Where plane p of the sums of a row is, from element e on. */
static cg_val parts_at(const nb_attention *a, int p, cg_val row, cg_val e) {
    cg *g = a->l->g;
    cg_val rows = cg_add(g, cg_muli(g, a->padded, p), row);
    return nb_floats_at(g, a->parts, cg_add(g, cg_mul(g, rows, a->Ewide), e));
}

static cg_val totals_at(const nb_attention *a, cg_val row, cg_val e) {
    cg *g = a->l->g;
    return lanes64(g, a->totals, cg_add(g, cg_mul(g, row, a->Ewide), e));
}

void nb_attention_begin_sums(const nb_attention *a) {
    cg *g = a->l->g;
    cg_val sums = cg_mul(g, a->padded, a->Ewide), lanes = cg_muli(g, a->padded, CG_LANES);
    cg_memset(g, a->parts, 0, cg_muli(g, sums, 4 * nb_attention_planes(g)));
    cg_memset(g, a->totals, 0, cg_muli(g, sums, 8));
    cg_memset(g, a->counts, 0, cg_muli(g, lanes, 4));
    cg_memset(g, a->all_counts, 0, cg_muli(g, lanes, 8));
    cg_memset(g, a->widest, 0, cg_muli(g, lanes, 4));
}

/* ---- weights -------------------------------------------------------------------------------- */

static cg_val scales16(const nb_attention *a, cg_val t, cg_val n) {
    cg *g = a->l->g;
    const cg_buf *s = a->v_scales;
    cg_val from = cg_at(g, s, a->b, a->kv, t, cg_i64(g, 0));
    return cg_buf_load_part(g, s, from, s->strides[2], n);
}

void nb_attention_note_scales(const nb_attention *a, cg_val row, cg_val t, cg_val n,
                              cg_val scores) {
    cg *g = a->l->g;
    cg_val at = nb_lanes_of(a, a->widest, row),
           none = cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES),
           scales = cg_select(g, cg_cmp(g, CG_EQ, scores, none), cg_zero(g, CG_V(CG_F32)),
                              scales16(a, t, n));
    cg_store(g, cg_fmax(g, cg_load(g, CG_V(CG_F32), at, 64), scales), at, 64);
}

void nb_attention_find_steps(const nb_attention *a) {
    cg *g = a->l->g;
    CG_FOR(g, row, cg_i64(g, 0), a->rows, cg_i64(g, 1)) {
        cg_val at = nb_lanes_of(a, a->widest, row),
               widest = cg_fold16(g, cg_load(g, CG_V(CG_F32), at, 64), cg_fmax),
               inverse = cg_fdiv(g, cg_f32(g, NB_WEIGHT_CODES), widest),
               infinite = cg_cmp(g, CG_EQ, inverse, cg_f32(g, __builtin_inff()));
        cg_store(g, widest, at, 4);
        cg_store(g, cg_select(g, infinite, cg_f32(g, 0), inverse),
                 nb_floats_at(g, a->inverses, row), 4);
    }
}

/* x if it is above 0, which NaN is not; else 0. */
static cg_val positive(cg *g, cg_val x) {
    cg_val zero = cg_zero(g, CG_V(CG_F32));
    return cg_select(g, cg_cmp(g, CG_GT, x, zero), x, zero);
}

static cg_val nearest(cg *g, cg_val x) { return cg_float_to_sint(g, cg_rint(g, x), CG_I32); }

/* 16 codes in planes: bytes, or words of 15 bits, of all tokens one behind the other. */
static cg_val in_planes(cg *g, cg_val codes) {
    int bytes[64];
    if (!has_fours(g))
        return cg_join(g, cg_narrow(g, cg_andi(g, codes, 0x7fff), CG_I16),
                       cg_narrow(g, cg_lshri(g, codes, 15), CG_I16));
    for (int i = 0; i < 64; i++) bytes[i] = 4 * (i % 16) + i / 16;
    return cg_shuffle(g, cg_bitcast(g, codes, (cg_type){CG_I8, 64}), NULL, 64, bytes);
}

static void code_weight(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val at) {
    cg *g = a->l->g;
    const cg_type floats = CG_V(CG_F32), ints = CG_V(CG_I32);
    cg_val largest = cg_load(g, floats, nb_lanes_of(a, a->largest, row), 64),
           e = positive(g, cg_exp(g, cg_sub(g, cg_load(g, floats, at, 64), largest))),
           unit = cg_splat(g, cg_f32(g, 1 / NB_WEIGHT_UNIT), CG_LANES),
           inverse = cg_load(g, CG_S(CG_F32), nb_floats_at(g, a->inverses, row), 4),
           count = nb_lanes_of(a, a->counts, row),
           scales = cg_mul(g, scales16(a, t, n), cg_splat(g, inverse, CG_LANES)),
           codes = nearest(g, positive(g, cg_mul(g, e, scales)));
    cg_store(g, cg_add(g, cg_load(g, ints, count, 64), nearest(g, cg_mul(g, e, unit))), count, 64);
    cg_store(g, in_planes(g, codes), at, 64);
}

void nb_attention_code_weights(const nb_attention *a) { nb_attention_each_score(a, code_weight); }

/* ---- values --------------------------------------------------------------------------------- */

/* 64 elements of a token of the run, n of them there if that is not NULL. */
static cg_val load_value(const nb_attention *a, cg_val i, cg_val e, cg_val n) {
    cg *g = a->l->g;
    cg_val from = cg_offset(g, a->values_from, cg_add(g, cg_mul(g, i, a->values_stride), e)),
           part[WIDE / CG_LANES];
    if (!n) return cg_load(g, (cg_type){CG_I8, WIDE}, from, 1);
    for (int k = 0; k < WIDE / CG_LANES; k++) {
        cg_val left = cg_smax(g, cg_addi(g, n, -k * CG_LANES), cg_i64(g, 0));
        part[k] = cg_load_part(g, CG_V(CG_I8), cg_offset(g, from, cg_i64(g, k * CG_LANES)),
                               cg_smin(g, left, cg_i64(g, CG_LANES)));
    }
    return cg_join_all(g, part, WIDE / CG_LANES);
}

/* In each quarter, `size` bytes of a and as many of b in turn, from its first (half 0) or last 8.
 */
static cg_val interleave(cg *g, cg_val a, cg_val b, int size, int half) {
    int picks[WIDE];
    for (int i = 0; i < WIDE; i++) {
        int j = i % 16;
        picks[i] =
            i / 16 * 16 + 8 * half + j / (2 * size) * size + j % size + (j / size % 2 ? WIDE : 0);
    }
    return cg_shuffle(g, a, b, WIDE, picks);
}

/* Asks memory for as much of n tokens, in the order of memory: they lie one behind the other. */
static void ask(const nb_attention *a, cg_val i, cg_val e, int n) {
    cg *g = a->l->g;
    cg_val at = cg_add(g, cg_mul(g, cg_andi(g, e, -WIDE), a->n), cg_muli(g, i, WIDE));
    nb_attention_ask(a, at, WIDE * n);
}

/* The tokens of a group from number i of the run on. */
static void turn(const nb_attention *a, cg_val i, cg_val e, cg_val n, cg_val out[VECTORS]) {
    cg *g = a->l->g;
    cg_val token[4];
    for (int k = 0; k < nb_attention_grouped(g); k++)
        token[k] = load_value(a, cg_addi(g, i, k), e, n);
    for (int half = 0; half < 2; half++) {
        cg_val first = interleave(g, token[0], token[1], 1, half);
        if (has_fours(g)) {
            cg_val second = interleave(g, token[2], token[3], 1, half);
            for (int k = 0; k < 2; k++) out[2 * half + k] = interleave(g, first, second, 2, k);
        } else {
            for (int k = 0; k < 2; k++) out[2 * half + k] = nb_attention_words(g, first, k);
        }
    }
}

/* Where the vectors of a group are kept, from that of element e on. */
static cg_val kept_at(const nb_attention *a, cg_val group, cg_val e) {
    cg *g = a->l->g;
    cg_val vectors = cg_add(g, cg_mul(g, group, a->Ewide), e);
    return cg_offset(g, a->turned, cg_muli(g, vectors, WIDE / CG_LANES));
}

/* Tokens of the run, in whole panels. */
static cg_val tokens(const nb_attention *a) {
    cg *g = a->l->g;
    return cg_andi(g, cg_addi(g, a->n, CG_LANES - 1), -CG_LANES);
}

static void turn_and_keep(const nb_attention *a, cg_val e, cg_val part) {
    cg *g = a->l->g;
    const int grouped = nb_attention_grouped(g);
    CG_FOR(g, group, cg_i64(g, 0), cg_udiv(g, tokens(a), cg_i64(g, grouped)), cg_i64(g, 1)) {
        cg_val out[VECTORS];
        turn(a, cg_muli(g, group, grouped), e, part, out);
        for (int j = 0; j < VECTORS; j++)
            cg_store(g, out[j], kept_at(a, group, cg_addi(g, e, CG_LANES * j)), 64);
    }
}

/* A tile of rows by n vectors of 64 elements. */
typedef struct tile {
    const nb_attention *a;
    cg_val row;
    int rows, n;
    cg_var sums[MAX_SUMS];
} tile;

/* Adds the tokens of a group, number `k` of a panel. */
static void add_group(const tile *t, cg_val codes, cg_val k, const cg_val *values) {
    cg *g = t->a->l->g;
    const int planes = nb_attention_planes(g), plane_bytes = has_fours(g) ? 16 : 32;
    for (int i = 0; i < t->rows * planes; i++) {
        cg_val at = cg_addi(g, cg_muli(g, k, 4), i / planes * 64 + i % planes * plane_bytes),
               code = cg_splat(g, cg_load(g, CG_S(CG_I32), cg_offset(g, codes, at), 4), CG_LANES);
        for (int j = 0; j < t->n; j++) {
            cg_var sum = t->sums[i * t->n + j];
            cg_val old = cg_get(g, sum), words = cg_bitcast(g, code, (cg_type){CG_I16, 32});
            cg_set(g, sum,
                   has_fours(g) ? cg_isa_of(g)->fours(g, old, code, values[j])
                                : nb_pairs(g, old, values[j], words));
        }
    }
}

/* Elements from e on; `turns`: of values as they lie in memory, WIDE of them. Of each group `asked`
 * tokens are asked for, by one tile of rows after the other. */
static void weigh_vectors(const nb_attention *a, cg_val row, int rows, cg_val e, int n, bool turns,
                          int asked, cg_val part) {
    cg *g = a->l->g;
    const int grouped = nb_attention_grouped(g), planes = nb_attention_planes(g);
    tile t = {.a = a, .row = row, .rows = rows, .n = n};
    cg_val kept[MAX_SUMS], values[VECTORS],
        zero = cg_i64(g, 0), one = cg_i64(g, 1), tiles = cg_udiv(g, row, cg_i64(g, rows)),
        from = cg_andi(g, cg_muli(g, tiles, asked), grouped - 1);
    for (int i = 0; i < rows * planes * n; i++) {
        cg_val r = cg_addi(g, row, i / n / planes), at = cg_addi(g, e, i % n * CG_LANES);
        kept[i] = parts_at(a, i / n % planes, r, at);
        t.sums[i] = cg_var_new(g, cg_load(g, CG_V(CG_I32), kept[i], 64));
    }
    CG_FOR(g, panel, zero, a->n, cg_i64(g, CG_LANES)) {
        cg_val codes = nb_scores_at(a, cg_add(g, a->t, panel), row);
        CG_FOR(g, k, zero, cg_i64(g, CG_LANES / grouped), one) {
            cg_val first = cg_add(g, panel, cg_muli(g, k, grouped)),
                   group = cg_udiv(g, first, cg_i64(g, grouped));
            ask(a, cg_add(g, first, from), e, asked);
            if (turns) turn(a, first, e, part, values);
            for (int j = 0; j < n && !turns; j++)
                values[j] = cg_load(g, (cg_type){CG_I8, WIDE},
                                    kept_at(a, group, cg_addi(g, e, CG_LANES * j)), 64);
            add_group(&t, codes, k, values);
        }
    }
    for (int i = 0; i < rows * planes * n; i++) cg_store(g, cg_get(g, t.sums[i]), kept[i], 64);
}

/* All rows by the 64 elements from e on. */
static void weigh_wide(const nb_attention *a, int height, cg_val e, cg_val part) {
    cg *g = a->l->g;
    const int most = cg_isa_of(g)->vector_bytes == 64 ? 24 : 4, /* sums that registers hold */
        each = most / nb_attention_planes(g);                   /* rows by vectors */
    /* Many vectors, few rows: values come from memory once for several products, and so do codes. A
     * CPU does not load for every product. */
    const int n = (int)nb_min_i64(each, VECTORS), grouped = nb_attention_grouped(g);
    int rows = height; /* whole tiles make a block */
    while (rows * n > each) rows /= 2;
    const int asked = (int)nb_max_i64(1, grouped * rows / height);
    cg_val step = cg_i64(g, CG_LANES * n), zero = cg_i64(g, 0);
    cg_val alone = n == VECTORS ? nb_attention_is_tile(a, rows, height) : cg_i1(g, false);
    CG_IF(g, alone) { weigh_vectors(a, zero, rows, e, n, true, grouped, part); }
    CG_ELSE(g) {
        turn_and_keep(a, e, part);
        CG_FOR(g, row, zero, a->rows, cg_i64(g, rows)) {
            CG_FOR(g, at, e, cg_addi(g, e, WIDE), step) {
                weigh_vectors(a, row, rows, at, n, false, asked, NULL);
            }
        }
    }
}

void nb_attention_weigh_i8(const nb_attention *a, int height) {
    cg *g = a->l->g;
    cg_val whole = cg_andi(g, a->E, -WIDE), part = cg_sub(g, a->E, whole);
    CG_FOR(g, e, cg_i64(g, 0), whole, cg_i64(g, WIDE)) { weigh_wide(a, height, e, NULL); }
    CG_IF(g, cg_cmpi(g, CG_GT, part, 0)) { weigh_wide(a, height, whole, part); }
}

/* ---- sums ----------------------------------------------------------------------------------- */

/* total += 16 integers * unit, which start anew. */
static void move(cg *g, cg_val part, double unit, cg_val total) {
    const cg_type ints = CG_V(CG_I32), doubles = CG_V(CG_F64);
    cg_val x = cg_mul(g, cg_sint_to_float(g, cg_load(g, ints, part, 64), CG_F64),
                      cg_splat(g, cg_f64(g, unit), CG_LANES));
    cg_store(g, cg_add(g, cg_load(g, doubles, total, 64), x), total, 64);
    cg_store(g, cg_zero(g, ints), part, 64);
}

static void move_sums(const nb_attention *a) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0);
    CG_FOR(g, row, zero, a->rows, cg_i64(g, 1)) {
        CG_FOR(g, e, zero, a->Ewide, cg_i64(g, CG_LANES)) {
            for (int p = 0; p < nb_attention_planes(g); p++)
                move(g, parts_at(a, p, row, e), (double)(1 << p * plane_bits(g)),
                     totals_at(a, row, e));
        }
        cg_val total = lanes64(g, a->all_counts, cg_muli(g, row, CG_LANES));
        move(g, nb_lanes_of(a, a->counts, row), 1, total);
    }
}

void nb_attention_end_run(const nb_attention *a) {
    cg *g = a->l->g;
    cg_val until = cg_add(g, a->t, a->n),
           many = cg_andi(g, cg_sub(g, until, a->from), MOST_TOKENS - 1),
           full = cg_cmpi(g, CG_EQ, many, 0), last = cg_cmp(g, CG_GE, until, a->until);
    CG_IF(g, cg_or(g, full, last)) { move_sums(a); }
}

/* 64 elements of the row, the last ones maybe not there. */
static void store_wide(const nb_attention *a, cg_val row, cg_val e, cg_val step, cg_val sum) {
    cg *g = a->l->g;
    cg_val x[VECTORS], quarter[4], one = cg_i64(g, 1);
    for (int j = 0; j < VECTORS; j++) {
        cg_val at = totals_at(a, row, cg_addi(g, e, CG_LANES * j)),
               all = cg_float_to_float(g, cg_load(g, CG_V(CG_F64), at, 64), CG_F32);
        x[j] = cg_fdiv(g, cg_mul(g, all, step), sum);
    }
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < VECTORS; j++) quarter[j] = cg_slice(g, x[j], 4 * i, 4);
        cg_val at = cg_addi(g, e, CG_LANES * i),
               left = cg_smax(g, cg_sub(g, a->E, at), cg_i64(g, 0)),
               to = cg_buf_step(g, a->y, nb_row_pointer(g, a->output_rows, row), at);
        cg_buf_store_part(g, a->y, to, one, cg_join_all(g, quarter, 4),
                          cg_smin(g, left, cg_i64(g, CG_LANES)));
    }
}

void nb_attention_store_i8(const nb_attention *a, cg_val row) {
    cg *g = a->l->g;
    const cg_type one = CG_S(CG_F32);
    cg_val counts = lanes64(g, a->all_counts, cg_muli(g, row, CG_LANES)),
           count = cg_fold16(g, cg_load(g, CG_V(CG_F64), counts, 64), cg_add),
           m = cg_load(g, one, nb_lanes_of(a, a->largest, row), 4),
           sum =
               cg_add(g, cg_mul(g, cg_float_to_float(g, count, CG_F32), cg_f32(g, NB_WEIGHT_UNIT)),
                      cg_sub(g, m, m)), /* NaN, where the largest score is not finite */
        step = cg_mul(g, cg_load(g, one, nb_lanes_of(a, a->widest, row), 4),
                      cg_f32(g, 1 / NB_WEIGHT_CODES));
    CG_FOR(g, e, cg_i64(g, 0), a->E, cg_i64(g, WIDE)) {
        store_wide(a, row, e, cg_splat(g, step, CG_LANES), cg_splat(g, sum, CG_LANES));
    }
}
