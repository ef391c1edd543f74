/* attention: keys in codes of 8 bits by several rows, where a CPU multiplies bytes by fours.
 *
 * Lanes are keys: a panel's are turned round, 4 bytes of each side by side, and made unsigned by
 * adding 128. A query's code is two signed bytes, c = 256 * high + low, which come from memory to
 * all lanes at once. Sums start from -128 times the sum of the codes, modulo 2^32: what they end
 * with fits. */
#include "codegen/kernels/attention.h"
#include "codegen/kernels/dot.h"

#define PLANES   2
#define MAX_ROWS 8
#define WORDS    4 /* of 4 bytes: what is turned at once */

/* ---- queries -------------------------------------------------------------------------------- */

/* Where word `w` of the bytes of a row's codes is: its low plane, then its high one. */
static cg_val digits_at(const nb_attention *a, cg_val w, cg_val row) {
    cg *g = a->l->g;
    cg_val word = cg_add(g, cg_mul(g, w, a->padded), row);
    return nb_floats_at(g, a->query_planes, cg_muli(g, word, PLANES));
}

typedef struct query {
    const nb_attention *a;
    cg_val row;
    cg_var sums; /* <16 x i32> */
} query;

static void split_codes(cg *g, void *user, cg_val d, cg_val n) {
    const query *q = user;
    (void)n; /* zeros follow */
    cg_val at = cg_add(g, cg_mul(g, q->row, q->a->Dpad), d),
           codes = cg_load(g, CG_V(CG_I16), cg_index(g, q->a->query_codes, CG_I16, at), 0),
           c = cg_sext(g, codes, CG_I32), low = cg_ashri(g, cg_shli(g, c, 24), 24),
           planes[PLANES] = {low, cg_ashri(g, cg_sub(g, c, low), 8)}, first = cg_lshri(g, d, 2);
    cg_set(g, q->sums, cg_add(g, cg_get(g, q->sums), c));
    for (int p = 0; p < PLANES; p++) {
        cg_val words = cg_bitcast(g, cg_narrow(g, planes[p], CG_I8), (cg_type){CG_I32, WORDS});
        for (int w = 0; w < WORDS; w++) {
            cg_val to = digits_at(q->a, cg_addi(g, first, w), q->row);
            cg_store(g, cg_lane(g, words, w), cg_offset(g, to, cg_i64(g, 4 * p)), 4);
        }
    }
}

void nb_attention_split_queries(const nb_attention *a) {
    cg *g = a->l->g;
    CG_FOR(g, row, cg_i64(g, 0), a->padded, cg_i64(g, 1)) {
        query q = {.a = a, .row = row, .sums = cg_var_new(g, cg_zero(g, CG_V(CG_I32)))};
        cg_for16(g, a->D, split_codes, &q);
        cg_val sum = cg_fold16(g, cg_get(g, q.sums), cg_add);
        cg_store(g, cg_sub(g, cg_i32(g, 0), cg_shli(g, sum, 7)),
                 nb_floats_at(g, a->query_offsets, row), 4);
    }
}

/* ---- products ------------------------------------------------------------------------------- */

/* A tile of rows and a panel of keys. */
typedef struct tile {
    const nb_attention *a;
    nb_panel keys;
    cg_val row;
    int rows;
    nb_keys source;
    cg_var sums[MAX_ROWS * PLANES];
} tile;

/* words[w] = bytes d + 4w .. d + 4w + 3 of 16 keys, unsigned; n of the 16 there if not NULL. */
static void turn_keys(const tile *t, cg_val d, cg_val n, cg_val words[WORDS]) {
    cg *g = t->a->l->g;
    const cg_type type = CG_V(CG_I32);
    cg_val keys[WORDS], flip = cg_splat(g, cg_i32(g, (int32_t)0x80808080), CG_LANES);
    for (int i = 0; i < WORDS; i++)
        keys[i] = cg_bitcast(g, nb_attention_bytes_of_keys(t->a, &t->keys, i, d, n), type);
    nb_attention_turn_words(g, CG_LANES, keys, words);
    for (int w = 0; w < WORDS; w++) words[w] = cg_xor(g, words[w], flip);
}

static void multiply(cg *g, void *user, cg_val d, cg_val n) {
    const tile *t = user;
    const bool turns = t->source != NB_KEYS_TURNED;
    cg_val words[WORDS], kept = cg_offset(g, t->keys.to, cg_muli(g, d, CG_LANES));
    if (turns) {
        nb_attention_ask_keys(t->a, &t->keys, d);
        turn_keys(t, d, n, words);
    }
    for (int w = 0; w < WORDS; w++) {
        cg_val at = cg_offset(g, kept, cg_i64(g, 64 * w)),
               digits = digits_at(t->a, cg_addi(g, cg_lshri(g, d, 2), w), t->row);
        if (!turns) words[w] = cg_load(g, CG_V(CG_I32), at, 64);
        if (t->source == NB_KEYS_TURN) cg_store(g, words[w], at, 64);
        for (int i = 0; i < t->rows * PLANES; i++) {
            cg_val digit = cg_load(g, CG_S(CG_I32), cg_offset(g, digits, cg_i64(g, 4 * i)), 4);
            cg_set(g, t->sums[i],
                   cg_isa_of(g)->fours(g, cg_get(g, t->sums[i]), words[w],
                                       cg_splat(g, digit, CG_LANES)));
        }
    }
}

static void multiply_tile(const nb_attention *a, cg_val row, int rows, nb_keys source) {
    cg *g = a->l->g;
    CG_FOR(g, panel, cg_i64(g, 0), cg_i64(g, NB_ATTENTION_PANELS), cg_i64(g, 1)) {
        tile t = {.a = a, .row = row, .rows = rows, .source = source};
        t.keys = nb_attention_panel(a, panel, source != NB_KEYS_TURNED);
        for (int r = 0; r < rows; r++) {
            cg_val offset = nb_floats_at(g, a->query_offsets, cg_addi(g, row, r)),
                   low = cg_splat(g, cg_load(g, CG_S(CG_I32), offset, 4), CG_LANES);
            t.sums[PLANES * r] = cg_var_new(g, low);
            t.sums[PLANES * r + 1] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
        }
        cg_for16(g, a->D, multiply, &t);
        for (int r = 0; r < rows; r++) {
            cg_val low = cg_get(g, t.sums[PLANES * r]), high = cg_get(g, t.sums[PLANES * r + 1]);
            nb_attention_store_products(a, panel, cg_addi(g, row, r),
                                        cg_add(g, low, cg_shli(g, high, 8)));
        }
    }
}

void nb_attention_dots_fours(const nb_attention *a, int height) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0), rows = cg_i64(g, height);
    CG_IF(g, nb_attention_is_tile(a, height, height)) {
        multiply_tile(a, zero, height, NB_KEYS_TURN_AND_USE);
    }
    CG_ELSE(g) {
        multiply_tile(a, zero, height, NB_KEYS_TURN);
        CG_FOR(g, row, rows, a->rows, rows) { multiply_tile(a, row, height, NB_KEYS_TURNED); }
    }
}
