/* attention: keys and values from memory into f32, keys turned round so that they are lanes.
 *
 * A long cache comes from far away, and one stream of it is all that a thread of few rows waits
 * for: memory is asked for it evenly, a fixed way ahead, from the keys on into the values and from
 * those on into the next head's keys. */
#include "codegen/kernels/attention.h"
#include "codegen/kernels/codes.h"

static cg_val element(cg *g, const cg_buf *b, cg_val pointer, cg_val index) {
    return cg_buf_step(g, b, pointer, index);
}

static int bytes_of(const cg_buf *b) { return cg_kind_bytes(cg_storage_kind(b->elem)); }

/* Codes as f32, floats as they are. */
static cg_val as_float(cg *g, cg_val x) {
    return cg_kind_is_float(cg_type_of(x).kind) ? x : cg_sint_to_float(g, x, CG_F32);
}

cg_val nb_attention_real(cg *g, cg_val x, cg_val scale, cg_val minimum) {
    if (!scale) return x;
    /* The product of 4 bits and 11 is exact, so it makes no difference whether it is rounded. */
    if (minimum && cg_isa_of(g)->fma) return cg_fma(g, x, scale, minimum);
    x = cg_mul(g, x, scale);
    return minimum ? cg_add(g, x, minimum) : x;
}

/* One stream of memory brings less than several do, however far ahead it is asked for: 11 GB/s and
 * 15 on an Ice Lake Xeon. So the next WINDOW bytes or more are asked for in pieces side by side, a
 * line of each in turn. */
#define WINDOW     32768
#define PIECES     8
#define LINE_BYTES 64

void nb_attention_ask(const nb_attention *a, cg_val at, int64_t bytes) {
    cg *g = a->l->g;
    const cg_val pieces = cg_i64(g, PIECES), line_bytes = cg_i64(g, LINE_BYTES);
    for (int64_t i = 0; i < bytes; i += LINE_BYTES) {
        cg_val line = cg_udiv(g, cg_addi(g, at, i), line_bytes),
               piece = cg_mul(g, cg_urem(g, line, pieces), a->piece),
               within = cg_mul(g, cg_udiv(g, line, pieces), a->line);
        cg_prefetch(g, cg_offset(g, a->next, cg_add(g, piece, within)), 3);
    }
}

/* ---- runs ----------------------------------------------------------------------------------- */

static cg_val token(const nb_attention *a, const cg_buf *b, cg_val head, cg_val t) {
    return cg_at(a->l->g, b, a->b, head, t, cg_i64(a->l->g, 0));
}

/* Token t + ahead, or as far into what comes behind the last one that is used. */
static cg_val ahead_of(const nb_attention *a, const cg_buf *b, const cg_buf *then, cg_val head) {
    cg *g = a->l->g;
    cg_val t = cg_add(g, a->t, a->ahead), beyond = cg_sub(g, t, a->until);
    return cg_select(g, cg_cmpi(g, CG_LT, beyond, 0), token(a, b, a->kv, t),
                     token(a, then, head, cg_add(g, a->from, beyond)));
}

/* Bytes of a token. */
static cg_val row_bytes(cg *g, const cg_buf *b) { return cg_muli(g, b->dims[3], bytes_of(b)); }

/* Runs of keys whose bytes are asked for together; 0: they have no pieces of whole lines. */
static int64_t runs_in_window(cg *g, const cg_buf *b) {
    int64_t bytes, runs = NB_ATTENTION_VALUES / NB_ATTENTION_RUN;
    if (!cg_known(row_bytes(g, b), &bytes) || !bytes) return 0;
    while (runs * NB_ATTENTION_RUN * bytes < WINDOW) runs *= 2;
    return NB_ATTENTION_RUN * bytes % (PIECES * LINE_BYTES) ? 0 : runs;
}

/* A whole window of what is used is asked for in pieces, the rest as it lies. */
static void find_next(nb_attention *a, const cg_buf *b, const cg_buf *then, cg_val head) {
    cg *g = a->l->g;
    const int64_t tokens = runs_in_window(g, b) * NB_ATTENTION_RUN;
    cg_val pieces = cg_i64(g, PIECES), line = cg_i64(g, LINE_BYTES);
    a->next = ahead_of(a, b, then, head);
    a->piece = line;
    a->line = cg_mul(g, line, pieces);
    if (!tokens) return;
    cg_val passed = cg_andi(g, cg_sub(g, a->t, a->from), tokens - 1),
           first = cg_add(g, cg_sub(g, a->t, passed), a->ahead), row = row_bytes(g, b),
           whole = cg_cmp(g, CG_LE, cg_addi(g, first, tokens), a->until),
           before = cg_udiv(g, cg_mul(g, passed, row), pieces),
           piece = cg_udiv(g, cg_muli(g, row, tokens), pieces),
           from = cg_offset(g, token(a, b, a->kv, first), before);
    a->next = cg_select(g, whole, from, a->next);
    a->piece = cg_select(g, whole, piece, a->piece);
    a->line = cg_select(g, whole, line, a->line);
}

/* A run that is not full is copied to `room`, where there is some for a full one: whatever stands
 * behind its tokens goes nowhere. */
static void find_tokens(const nb_attention *a, const cg_buf *b, cg_val room, cg_val *from,
                        cg_val *stride) {
    cg *g = a->l->g;
    cg_val begin = token(a, b, a->kv, a->t), row = b->dims[3];
    cg_var at = cg_var_new(g, begin), step = cg_var_new(g, b->strides[2]);
    CG_IF(g, cg_cmpi(g, CG_LT, a->n, NB_ATTENTION_RUN)) {
        CG_FOR(g, i, cg_i64(g, 0), a->n, cg_i64(g, 1)) {
            cg_memcpy(g, element(g, b, room, cg_mul(g, i, row)),
                      element(g, b, begin, cg_mul(g, i, b->strides[2])),
                      cg_muli(g, row, bytes_of(b)));
        }
        cg_set(g, at, room);
        cg_set(g, step, row);
    }
    *from = cg_get(g, at);
    *stride = cg_get(g, step);
}

void nb_attention_find_keys(nb_attention *a) {
    find_tokens(a, a->k, a->last_keys, &a->keys_from, &a->keys_stride);
    if (nb_is_u4(a->k)) nb_attention_find_scales(a);
    find_next(a, a->k, a->v, a->kv);
}

void nb_attention_find_values(nb_attention *a) {
    find_next(a, a->v, a->k, cg_addi(a->l->g, a->kv, 1));
    if (nb_is_i8(a->v)) find_tokens(a, a->v, a->last_values, &a->values_from, &a->values_stride);
    if (nb_is_u4(a->v)) nb_attention_unpack_values(a);
}

/* ---- keys ----------------------------------------------------------------------------------- */

nb_panel nb_attention_panel(const nb_attention *a, cg_val panel, bool turns) {
    cg *g = a->l->g;
    const cg_buf *k = a->k;
    cg_val i = cg_muli(g, panel, CG_LANES);
    nb_panel p = {.to = nb_is_i8(k) ? cg_index(g, a->words, CG_I16, cg_mul(g, i, a->Dpad))
                                    : nb_floats_at(g, a->keys, cg_mul(g, i, a->D))};
    if (!turns) return p;
    p.from = element(g, k, a->keys_from, cg_mul(g, i, a->keys_stride));
    p.before = cg_mul(g, i, row_bytes(g, k));
    if (nb_is_u4(k)) {
        p.scales_from = cg_index(g, a->scales_from, CG_I16, i);
        p.minima_from = cg_index(g, a->minima_from, CG_I16, i);
    }
    return p;
}

/* Keys that are turned at once: those that fill a register with 4 words of each. */
int nb_attention_turned_keys(cg *g) { return cg_isa_of(g)->vector_bytes == 64 ? 16 : 8; }

void nb_attention_turn_words(cg *g, int n, const cg_val x[4], cg_val y[4]) {
    int low[16], high[16], even[16], odd[16];
    for (int i = 0; i < n; i++) {
        const int lane = i & ~3, at = i & 3, other = n * (at & 1);
        low[i] = lane + at / 2 + other;
        high[i] = low[i] + 2;
        even[i] = lane + (at & 1) + n * (at / 2);
        odd[i] = even[i] + 2;
    }
    cg_val a = cg_shuffle(g, x[0], x[1], n, low), b = cg_shuffle(g, x[2], x[3], n, low),
           c = cg_shuffle(g, x[0], x[1], n, high), d = cg_shuffle(g, x[2], x[3], n, high);
    y[0] = cg_shuffle(g, a, b, n, even);
    y[1] = cg_shuffle(g, a, b, n, odd);
    y[2] = cg_shuffle(g, c, d, n, even);
    y[3] = cg_shuffle(g, c, d, n, odd);
}

/* Words of 32 bits are turned, whatever elements they hold, and taken apart afterwards: the fewer
 * bits an element has, the fewer shuffles. */
static int parts_in_word(const cg_buf *k) { return nb_is_u4(k) ? 8 : 4 / bytes_of(k); }

/* out[i] becomes element i of each of `n` words, in f32. */
static void parts_of_words(cg *g, const cg_buf *k, cg_val words, int n, cg_val *out) {
    const cg_kind kind = cg_storage_kind(k->elem);
    const int parts = parts_in_word(k);
    /* f16 that lie side by side are converted by one instruction. */
    cg_val halves = NULL;
    if (k->elem == NB_F16) {
        int apart[2 * CG_LANES];
        for (int i = 0; i < 2 * n; i++) apart[i] = 2 * (i % n) + i / n;
        halves = cg_bitcast(g, words, (cg_type){CG_I16, 2 * n});
        halves = cg_shuffle(g, halves, NULL, 2 * n, apart);
    }
    for (int i = 0; i < parts; i++) {
        cg_val part = cg_lshri(g, words, 32 / parts * i);
        cg_val bits = halves        ? cg_slice(g, halves, n * i, n)
                      : parts == 1  ? cg_from_bits(g, words)
                      : nb_is_u4(k) ? cg_andi(g, part, 15)
                                    : cg_narrow(g, part, kind);
        out[i] = as_float(g, cg_decode(g, k->elem, bits));
    }
}

int nb_attention_turned(const nb_attention *a) { return 4 * parts_in_word(a->k); }

/* Element d of a key, in elements of memory. */
static cg_val within(cg *g, const cg_buf *k, cg_val d) {
    return nb_is_u4(k) ? cg_lshri(g, d, 1) : d;
}

/* `keys` of them lie one behind the other; as many bytes as are read of all from element d on. */
static void ask_from(const nb_attention *a, const nb_panel *p, int keys, cg_val d, int64_t bytes) {
    cg *g = a->l->g;
    cg_val at = cg_muli(g, within(g, a->k, d), keys * bytes_of(a->k));
    nb_attention_ask(a, cg_add(g, p->before, at), bytes);
}

void nb_attention_ask_element(const nb_attention *a, const nb_panel *first, int n, cg_val d) {
    ask_from(a, first, n * CG_LANES, d, n * CG_LANES * bytes_of(a->k));
}

void nb_attention_ask_panels(const nb_attention *a, const nb_panel *first, int n, cg_val d) {
    ask_from(a, first, n * CG_LANES, d, 16 * n * CG_LANES);
}

void nb_attention_turn(const nb_attention *a, const nb_panel *panel, cg_val d, int first,
                       cg_val *out) {
    cg *g = a->l->g;
    const cg_buf *k = a->k;
    const int parts = parts_in_word(k), keys = nb_attention_turned_keys(g);
    const cg_type words = {CG_I32, 4};
    nb_panel p = *panel;
    cg_val from = element(g, k, p.from, within(g, k, d)), word[CG_LANES] = {0}, y[4];
    for (int i = 0; i < keys; i++) {
        cg_val key = element(g, k, from, cg_muli(g, a->keys_stride, first + i));
        word[i] = cg_load(g, words, key, bytes_of(k));
    }
    for (int i = 0; i < 4; i++) {
        const cg_val every_fourth[4] = {word[i], word[i + 4], word[i + 8], word[i + 12]};
        word[i] = cg_join_all(g, every_fourth, keys / 4);
    }
    nb_attention_turn_words(g, keys, word, y);
    for (int w = 0; w < 4; w++) parts_of_words(g, k, y[w], keys, &out[w * parts]);
    for (int e = 0; e < 4 * parts; e++) {
        if (nb_is_u4(k) && e % CG_LANES == 0) nb_attention_load_scales(a, &p, cg_addi(g, d, e));
        cg_val scale = p.scales ? cg_slice(g, p.scales, first, keys) : NULL,
               minimum = p.minima ? cg_slice(g, p.minima, first, keys) : NULL;
        out[e] = nb_attention_real(g, out[e], scale, minimum);
    }
}

void nb_attention_turn_one(const nb_attention *a, const nb_panel *panel, cg_val d) {
    cg *g = a->l->g;
    const cg_buf *k = a->k;
    nb_panel p = *panel;
    if (nb_is_u4(k)) nb_attention_load_scales(a, &p, d);
    for (int i = 0; i < CG_LANES; i++) {
        cg_val key = element(g, k, p.from, cg_muli(g, a->keys_stride, i)),
               x = nb_is_u4(k) ? nb_code_at(g, NB_U4, key, d)
                               : cg_buf_load(g, k, element(g, k, key, d)),
               scale = p.scales ? cg_lane(g, p.scales, i) : NULL,
               minimum = p.minima ? cg_lane(g, p.minima, i) : NULL;
        cg_store(g, nb_attention_real(g, as_float(g, x), scale, minimum),
                 nb_floats_at(g, p.to, cg_addi(g, cg_muli(g, d, CG_LANES), i)), 4);
    }
}

/* ---- values --------------------------------------------------------------------------------- */

static cg_val load_value(const nb_attention *a, cg_val i, cg_val e, cg_val n) {
    cg *g = a->l->g;
    const cg_buf *v = a->v;
    if (nb_is_u4(v)) {
        cg_val at = cg_add(g, cg_mul(g, i, a->Epad), e);
        return cg_load(g, CG_V(CG_F32), nb_floats_at(g, a->values, at), 64);
    }
    cg_val from = token(a, v, a->kv, cg_add(g, a->t, i));
    return as_float(g, cg_buf_load_part(g, v, element(g, v, from, e), cg_i64(g, 1), n));
}

void nb_attention_ask_value(const nb_attention *a, cg_val i, cg_val e, int vectors) {
    cg *g = a->l->g;
    const cg_buf *v = a->v;
    if (nb_is_u4(v)) return;
    cg_val at = cg_add(g, cg_mul(g, e, a->n), cg_muli(g, i, vectors * CG_LANES));
    nb_attention_ask(a, cg_muli(g, at, bytes_of(v)), vectors * CG_LANES * bytes_of(v));
}

void nb_attention_value(const nb_attention *a, cg_val i, cg_val e, int vectors, cg_val n,
                        cg_val *out) {
    cg *g = a->l->g;
    for (int j = 0; j < vectors; j++) out[j] = load_value(a, i, cg_addi(g, e, j * CG_LANES), n);
}
