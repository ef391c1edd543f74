/* attention: keys in codes of 8 bits by several rows, where a CPU multiplies bytes by fours.
 *
 * Lanes are keys: a panel's are turned round, 4 bytes of each side by side, and made unsigned by
 * adding 128. A query's code is two signed bytes, c = 256 * high + low, which come from memory to
 * all lanes at once. Sums start from -128 times the sum of the codes, modulo 2^32: what they end
 * with fits. */
#include "codegen/kernels/attention.h"
#include "codegen/kernels/dot.h"

#define PLANES   2
#define MAX_ROWS 4 /* of a tile */
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

/* A tile of rows and the panels of a run. */
typedef struct tile {
    const nb_attention *a;
    nb_panel keys[NB_ATTENTION_PANELS];
    cg_val row;
    int rows;
    nb_keys source;
    cg_var sums[MAX_ROWS * PLANES][NB_ATTENTION_PANELS];
} tile;

/* words[w] = bytes d + 4w .. d + 4w + 3 of 16 keys, unsigned; n of the 16 there if not NULL. */
static void turn_keys(const tile *t, const nb_panel *panel, cg_val d, cg_val n,
                      cg_val words[WORDS]) {
    cg *g = t->a->l->g;
    const cg_type type = CG_V(CG_I32);
    cg_val keys[WORDS], flip = cg_splat(g, cg_i32(g, (int32_t)0x80808080), CG_LANES);
    for (int i = 0; i < WORDS; i++)
        keys[i] = cg_bitcast(g, nb_attention_bytes_of_keys(t->a, panel, i, d, n), type);
    nb_attention_turn_words(g, CG_LANES, keys, words);
    for (int w = 0; w < WORDS; w++) words[w] = cg_xor(g, words[w], flip);
}

/* Each word of a query's codes is multiplied by those of all panels: a load for every product would
 * hold the products up. */
static void multiply(cg *g, void *user, cg_val d, cg_val n) {
    const tile *t = user;
    cg_val words[NB_ATTENTION_PANELS][WORDS], first = cg_lshri(g, d, 2);
    if (t->source != NB_KEYS_TURNED) nb_attention_ask_panels(t->a, t->keys, NB_ATTENTION_PANELS, d);
    for (int p = 0; p < NB_ATTENTION_PANELS; p++) {
        if (t->source != NB_KEYS_TURNED) turn_keys(t, &t->keys[p], d, n, words[p]);
        for (int w = 0; w < WORDS; w++) {
            cg_val kept = cg_offset(g, t->keys[p].to, cg_addi(g, cg_muli(g, d, CG_LANES), 64 * w));
            if (t->source == NB_KEYS_TURNED) words[p][w] = cg_load(g, CG_V(CG_I32), kept, 64);
            if (t->source == NB_KEYS_TURN) cg_store(g, words[p][w], kept, 64);
        }
    }
    for (int w = 0; w < WORDS; w++) {
        cg_val digits = digits_at(t->a, cg_addi(g, first, w), t->row);
        for (int i = 0; i < t->rows * PLANES; i++) {
            cg_val at = cg_offset(g, digits, cg_i64(g, 4 * i)),
                   digit = cg_splat(g, cg_load(g, CG_S(CG_I32), at, 4), CG_LANES);
            for (int p = 0; p < NB_ATTENTION_PANELS; p++)
                cg_set(g, t->sums[i][p],
                       cg_isa_of(g)->fours(g, cg_get(g, t->sums[i][p]), words[p][w], digit));
        }
    }
}

static void multiply_tile(const nb_attention *a, cg_val row, int rows, nb_keys source) {
    cg *g = a->l->g;
    tile t = {.a = a, .row = row, .rows = rows, .source = source};
    for (int p = 0; p < NB_ATTENTION_PANELS; p++)
        t.keys[p] = nb_attention_panel(a, cg_i64(g, p), source != NB_KEYS_TURNED);
    for (int r = 0; r < rows; r++) {
        cg_val offset = nb_floats_at(g, a->query_offsets, cg_addi(g, row, r)),
               low = cg_splat(g, cg_load(g, CG_S(CG_I32), offset, 4), CG_LANES);
        for (int p = 0; p < NB_ATTENTION_PANELS; p++) {
            t.sums[PLANES * r][p] = cg_var_new(g, low);
            t.sums[PLANES * r + 1][p] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
        }
    }
    cg_for16(g, a->D, multiply, &t);
    for (int r = 0; r < rows; r++) {
        for (int p = 0; p < NB_ATTENTION_PANELS; p++) {
            cg_val low = cg_get(g, t.sums[PLANES * r][p]),
                   high = cg_get(g, t.sums[PLANES * r + 1][p]);
            nb_attention_store_products(a, cg_i64(g, p), cg_addi(g, row, r),
                                        cg_add(g, low, cg_shli(g, high, 8)));
        }
    }
}

void nb_attention_dots_fours(const nb_attention *a, int height) {
    cg *g = a->l->g;
    const int rows = (int)nb_min_i64(height, MAX_ROWS);
    cg_val zero = cg_i64(g, 0), step = cg_i64(g, rows);
    CG_IF(g, nb_attention_is_tile(a, rows, height)) {
        multiply_tile(a, zero, rows, NB_KEYS_TURN_AND_USE);
    }
    CG_ELSE(g) {
        multiply_tile(a, zero, rows, NB_KEYS_TURN);
        CG_FOR(g, row, step, a->rows, step) { multiply_tile(a, row, rows, NB_KEYS_TURNED); }
    }
}
