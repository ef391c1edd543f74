/* attention: keys in codes of 8 bits. A query becomes codes of 15 bits, and products with keys are
 * exact integers (NUMBERS.md).
 *
 * Lanes are neighbouring elements here, not keys: a vector holds 8 elements, as words, of keys i,
 * i + 4, i + 8 and i + 12 of a panel, four such vectors its 16 keys, and their sums come together
 * at the end. The first row makes words of the codes and keeps them for the others. Where bytes are
 * multiplied by fours, attention_keys_fours.c has a better way for more rows than one. */
#include "codegen/kernels/attention.h"
#include "codegen/kernels/codes.h"
#include "codegen/kernels/dot.h"
#include "ir/scalar.h"

#define QUARTERS 4

/* ---- queries -------------------------------------------------------------------------------- */

static const nb_quant as_codes = {
    .storage = NB_I16, .granularity = NB_PER_TOKEN, .amax_code = NB_QUERY_CODES};

typedef struct query {
    const nb_attention *a;
    cg_val from, to;
    cg_var top; /* <16 x i32>: largest |x| as bits */
    nb_rounding rounding;
} query;

static cg_val load_query(cg *g, const query *q, cg_val d, cg_val n) {
    return cg_buf_load_part(g, q->a->q, cg_buf_step(g, q->a->q, q->from, d), cg_i64(g, 1), n);
}

static void find_top(cg *g, void *user, cg_val d, cg_val n) {
    const query *q = user;
    cg_val bits = cg_andi(g, cg_bits(g, load_query(g, q, d, n)), 0x7fffffff);
    cg_set(g, q->top, cg_smax(g, cg_get(g, q->top), bits));
}

/* Behind the last element of a query zeros follow. */
static void round_query(cg *g, void *user, cg_val d, cg_val n) {
    const query *q = user;
    cg_val codes = nb_round_dynamic(g, &q->rounding, load_query(g, q, d, n));
    cg_store(g, cg_narrow(g, codes, CG_I16), cg_index(g, q->to, CG_I16, d), 0);
}

void nb_attention_code_queries(const nb_attention *a) {
    cg *g = a->l->g;
    cg_val last = cg_addi(g, a->rows, -1), scale = cg_f32(g, nb_attr_float(a->l->op, "scale"));
    CG_FOR(g, row, cg_i64(g, 0), a->padded, cg_i64(g, 1)) {
        query q = {.a = a,
                   .from = nb_row_pointer(g, a->query_rows, cg_smin(g, row, last)),
                   .to = cg_index(g, a->query_codes, CG_I16, cg_mul(g, row, a->Dpad)),
                   .top = cg_var_new(g, cg_zero(g, CG_V(CG_I32)))};
        cg_for16(g, a->D, find_top, &q);
        q.rounding = nb_rounding_of(g, &as_codes, cg_fold16(g, cg_get(g, q.top), cg_smax));
        cg_for16(g, a->D, round_query, &q);
        cg_store(g, cg_mul(g, q.rounding.scale, scale), nb_floats_at(g, a->query_steps, row), 4);
    }
    if (cg_isa_of(g)->fours) {
        CG_IF(g, cg_cmpi(g, CG_GT, a->rows, 1)) { nb_attention_split_queries(a); }
    }
}

/* ---- products ------------------------------------------------------------------------------- */

cg_val nb_attention_words(cg *g, cg_val bytes, int half) {
    int twice[64];
    for (int i = 0; i < 64; i++) twice[i] = i / 16 * 16 + 8 * half + i % 16 / 2;
    cg_val words = cg_bitcast(g, cg_shuffle(g, bytes, NULL, 64, twice), (cg_type){CG_I16, 32});
    return cg_ashri(g, words, 8);
}

/* A row and a panel of keys. */
typedef struct tile {
    const nb_attention *a;
    nb_panel keys;
    cg_val row;
    nb_keys source;
    cg_var sums[QUARTERS];
} tile;

cg_val nb_attention_bytes_of_keys(const nb_attention *a, const nb_panel *keys, int i, cg_val d,
                                  cg_val n) {
    cg *g = a->l->g;
    cg_val bytes[4];
    for (int k = 0; k < 4; k++) {
        cg_val key = cg_offset(g, keys->from, cg_add(g, cg_muli(g, a->keys_stride, i + 4 * k), d));
        bytes[k] = n ? cg_load_part(g, CG_V(CG_I8), key, n) : cg_load(g, CG_V(CG_I8), key, 1);
    }
    return cg_join_all(g, bytes, 4);
}

/* 8 elements of a query, for each of four keys. */
static cg_val query_words(const tile *t, cg_val d) {
    cg *g = t->a->l->g;
    int same[32];
    for (int i = 0; i < 32; i++) same[i] = i % 8;
    cg_val at = cg_add(g, cg_mul(g, t->row, t->a->Dpad), d),
           words = cg_load(g, (cg_type){CG_I16, 8}, cg_index(g, t->a->query_codes, CG_I16, at), 16);
    return cg_shuffle(g, words, NULL, 32, same);
}

static void multiply(cg *g, void *user, cg_val d, cg_val n) {
    const tile *t = user;
    const bool turns = t->source != NB_KEYS_TURNED;
    cg_val bytes[QUARTERS], kept = cg_offset(g, t->keys.to, cg_muli(g, d, 8 * QUARTERS));
    if (turns) nb_attention_ask_panels(t->a, &t->keys, 1, d);
    for (int i = 0; i < QUARTERS && turns; i++)
        bytes[i] = nb_attention_bytes_of_keys(t->a, &t->keys, i, d, n);
    for (int half = 0; half < 2; half++) {
        cg_val words[QUARTERS];
        for (int i = 0; i < QUARTERS; i++) {
            cg_val at = cg_offset(g, kept, cg_i64(g, 64 * (QUARTERS * half + i)));
            words[i] = turns ? nb_attention_words(g, bytes[i], half)
                             : cg_load(g, (cg_type){CG_I16, 32}, at, 64);
            if (t->source == NB_KEYS_TURN) cg_store(g, words[i], at, 64);
        }
        cg_val q = query_words(t, cg_addi(g, d, 8 * half));
        for (int i = 0; i < QUARTERS; i++)
            cg_set(g, t->sums[i], nb_pairs(g, cg_get(g, t->sums[i]), words[i], q));
    }
}

/* Of each run of 4n lanes, neighbouring pieces of n added: those of a, then those of b. */
static cg_val add_neighbours(cg *g, cg_val a, cg_val b, int n) {
    int even[CG_LANES], odd[CG_LANES];
    for (int i = 0; i < CG_LANES; i++) {
        const int piece = i % (4 * n) / n;
        even[i] = i / (4 * n) * 4 * n + piece % 2 * 2 * n + i % n + (piece < 2 ? 0 : CG_LANES);
        odd[i] = even[i] + n;
    }
    return cg_add(g, cg_shuffle(g, a, b, CG_LANES, even), cg_shuffle(g, a, b, CG_LANES, odd));
}

/* Of 4 or 16 sums. Those of each 4 come together: 16, lane i all of sum i; 4, lane 4q + i the four
 * from lane 4q on of sum i. */
static cg_val gather_sums(cg *g, const cg_var *sums, int count) {
    cg_val s[CG_LANES];
    for (int i = 0; i < count; i++) s[i] = cg_get(g, sums[i]);
    for (int n = count / 2; n; n /= 2)
        for (int i = 0; i < n; i++)
            s[i] = add_neighbours(g, s[2 * i], s[2 * i + 1], n >= count / 4 ? 1 : QUARTERS);
    return s[0];
}

void nb_attention_store_products(const nb_attention *a, cg_val panel, cg_val row, cg_val sums) {
    cg *g = a->l->g;
    cg_val t = cg_add(g, a->t, cg_muli(g, panel, CG_LANES));
    cg_store(g, cg_sint_to_float(g, sums, CG_F32), nb_scores_at(a, t, row), 64);
}

static void multiply_panels(const nb_attention *a, cg_val row, nb_keys source) {
    cg *g = a->l->g;
    CG_FOR(g, panel, cg_i64(g, 0), cg_i64(g, NB_ATTENTION_PANELS), cg_i64(g, 1)) {
        tile t = {.a = a, .row = row, .source = source};
        t.keys = nb_attention_panel(a, panel, source != NB_KEYS_TURNED);
        for (int i = 0; i < QUARTERS; i++) t.sums[i] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
        cg_for16(g, a->D, multiply, &t);
        nb_attention_store_products(a, panel, row, gather_sums(g, t.sums, QUARTERS));
    }
}

/* ---- a row that is alone -------------------------------------------------------------------- */

/* Its keys are not worth a turn: a vector holds 32 elements of one, and more sums come together. */
#define LONG 32
/* So many vectors of a query stay in registers, and a key is read whole or two lines at a time. */
#define AT_ONCE 4

static cg_val long_bytes(cg *g, cg_val key, cg_val n) {
    if (!n) return cg_load(g, (cg_type){CG_I8, LONG}, key, 1);
    cg_val half = cg_i64(g, LONG / 2), more = cg_smax(g, cg_sub(g, n, half), cg_i64(g, 0));
    return cg_join(g, cg_load_part(g, CG_V(CG_I8), key, cg_smin(g, n, half)),
                   cg_load_part(g, CG_V(CG_I8), cg_offset(g, key, half), more));
}

/* `count` times LONG elements of 16 keys, n of them there if that is not NULL: key by key, as they
 * lie in memory. */
static void multiply_long(const nb_attention *a, const nb_panel *keys, cg_val row, cg_val d,
                          int count, cg_val n, const cg_var *sums) {
    cg *g = a->l->g;
    const int asked = count * LONG; /* bytes for each key, whole lines */
    cg_val at = cg_add(g, cg_mul(g, row, a->Dpad), d),
           next = cg_add(g, keys->before, cg_muli(g, d, CG_LANES)), q[AT_ONCE];
    for (int k = 0; k < count; k++) {
        cg_val codes = cg_index(g, a->query_codes, CG_I16, cg_addi(g, at, k * LONG));
        q[k] = cg_load(g, (cg_type){CG_I16, LONG}, codes, 64);
    }
    for (int i = 0; i < CG_LANES; i++) {
        cg_val key = cg_offset(g, keys->from, cg_add(g, cg_muli(g, a->keys_stride, i), d));
        if (i * asked % 64 == 0) nb_attention_ask(a, cg_addi(g, next, i * asked), asked);
        for (int k = 0; k < count; k++) {
            cg_val bytes = long_bytes(g, cg_offset(g, key, cg_i64(g, k * LONG)), n);
            cg_set(g, sums[i], nb_pairs(g, cg_get(g, sums[i]), cg_sext(g, bytes, CG_I16), q[k]));
        }
        cg_set(g, sums[i], cg_settle(g, cg_get(g, sums[i])));
        cg_fence(g);
    }
}

static void multiply_row(const nb_attention *a, cg_val row) {
    cg *g = a->l->g;
    int count = AT_ONCE;
    int64_t known;
    while (count > 1 && cg_known(a->D, &known) && known < count * LONG) count /= 2;
    cg_val zero = cg_i64(g, 0), whole = cg_andi(g, a->D, -LONG), rest = cg_sub(g, a->D, whole),
           many = cg_andi(g, a->D, -count * LONG);
    CG_FOR(g, panel, zero, cg_i64(g, NB_ATTENTION_PANELS), cg_i64(g, 1)) {
        const nb_panel keys = nb_attention_panel(a, panel, true);
        cg_var sums[CG_LANES];
        for (int i = 0; i < CG_LANES; i++) sums[i] = cg_var_new(g, cg_zero(g, CG_V(CG_I32)));
        CG_FOR(g, d, zero, many, cg_i64(g, count * LONG)) {
            multiply_long(a, &keys, row, d, count, NULL, sums);
        }
        if (count > 1) {
            CG_FOR(g, d, many, whole, cg_i64(g, LONG)) {
                multiply_long(a, &keys, row, d, 1, NULL, sums);
            }
        }
        CG_IF(g, cg_cmpi(g, CG_GT, rest, 0)) { multiply_long(a, &keys, row, whole, 1, rest, sums); }
        nb_attention_store_products(a, panel, row, gather_sums(g, sums, CG_LANES));
    }
}

void nb_attention_dots_i8(const nb_attention *a, int height) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0), one = cg_i64(g, 1);
    if (cg_isa_of(g)->fours) {
        if (height == 1)
            multiply_row(a, zero);
        else
            nb_attention_dots_fours(a, height);
        return;
    }
    CG_IF(g, nb_attention_is_tile(a, 1, height)) { multiply_panels(a, zero, NB_KEYS_TURN_AND_USE); }
    CG_ELSE(g) {
        multiply_panels(a, zero, NB_KEYS_TURN);
        CG_FOR(g, row, one, a->rows, one) { multiply_panels(a, row, NB_KEYS_TURNED); }
    }
}

cg_val nb_attention_scaled(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val products) {
    cg *g = a->l->g;
    const cg_buf *s = a->k_scales;
    cg_val from = cg_at(g, s, a->b, a->kv, t, cg_i64(g, 0)),
           scales = cg_buf_load_part(g, s, from, s->strides[2], n),
           step = cg_load(g, CG_S(CG_F32), nb_floats_at(g, a->query_steps, row), 4);
    return cg_mul(g, cg_mul(g, products, scales), cg_splat(g, step, CG_LANES));
}
