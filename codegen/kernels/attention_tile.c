/* attention: the arithmetic. Accumulators stay in registers: of the scores, lanes are keys and the
 * walk is over d; of the values, lanes are elements and the walk is over keys. A lane is always one
 * sequence in the specified order. */
#include "codegen/kernels/attention.h"

#define MAX_VECTORS 16

static cg_val splat(cg *g, cg_val x) { return cg_splat(g, x, CG_LANES); }
static cg_val load16(cg *g, cg_val p) { return cg_load(g, CG_V(CG_F32), p, 64); }

/* ---- scores --------------------------------------------------------------------------------- */

/* Element d of the queries by that of the keys of one panel; `dot` is the first row's, those of the
 * others lie n apart. */
static void multiply(const nb_attention *a, cg_val row, int rows, cg_val d, cg_val key,
                     const cg_var *dot, int n) {
    cg *g = a->l->g;
    cg_val queries = nb_floats_at(g, a->queries, cg_add(g, cg_mul(g, d, a->padded), row));
    for (int r = 0; r < rows; r++) {
        cg_val q = cg_load(g, CG_S(CG_F32), nb_floats_at(g, queries, cg_i64(g, r)), 4),
               x = splat(g, q);
        cg_set(g, dot[r * n], cg_fma(g, x, key, cg_get(g, dot[r * n])));
    }
}

/* The same for n panels that hold their keys. */
static void multiply_kept(const nb_attention *a, cg_val row, int rows, cg_val d,
                          const nb_panel *keys, int n, const cg_var *dot) {
    cg *g = a->l->g;
    for (int p = 0; p < n; p++) {
        cg_val key = load16(g, nb_floats_at(g, keys[p].to, cg_muli(g, d, CG_LANES)));
        multiply(a, row, rows, d, key, &dot[p], n);
    }
}

/* Turns elements from d on of a panel's keys, and keeps them there. */
static void turn_and_keep(const nb_attention *a, const nb_panel *p, cg_val d) {
    cg *g = a->l->g;
    const int lanes = nb_attention_turned_keys(g), n = nb_attention_turned(a);
    for (int first = 0; first < CG_LANES; first += lanes) {
        cg_val x[NB_ATTENTION_TURNED];
        nb_attention_turn(a, p, d, first, x);
        for (int e = 0; e < n; e++) {
            cg_val to = cg_addi(g, cg_muli(g, cg_addi(g, d, e), CG_LANES), first);
            cg_store(g, x[e], nb_floats_at(g, p->to, to), 4 * lanes);
        }
    }
}

/* All elements, before there are sums in registers. */
static void turn_panel(const nb_attention *a, const nb_panel *p) {
    cg *g = a->l->g;
    const int turned = nb_attention_turned(a);
    cg_val zero = cg_i64(g, 0), whole = cg_andi(g, a->D, -turned);
    CG_FOR(g, d, zero, whole, cg_i64(g, turned)) { turn_and_keep(a, p, d); }
    CG_FOR(g, d, whole, a->D, cg_i64(g, 1)) { nb_attention_turn_one(a, p, d); }
}

/* Dot products of the elements from d on, as many as are turned at once. */
static void dots_of_turned(const nb_attention *a, cg_val row, int rows, cg_val d,
                           const nb_panel *keys, int n, const cg_var *dot) {
    cg *g = a->l->g;
    nb_attention_ask_panels(a, keys, n, d);
    for (int p = 0; p < n; p++) {
        cg_val x[NB_ATTENTION_TURNED];
        nb_attention_turn(a, &keys[p], d, 0, x);
        for (int e = 0; e < nb_attention_turned(a); e++)
            multiply(a, row, rows, cg_addi(g, d, e), x[e], &dot[p], n);
    }
}

void nb_attention_dots(const nb_attention *a, cg_val row, int rows, nb_keys source) {
    cg *g = a->l->g;
    const bool turns = source == NB_KEYS_TURN_AND_USE;
    int n = (int)nb_min_i64(NB_ATTENTION_PANELS, nb_max_i64(1, a->vectors / rows)),
        turned = nb_attention_turned(a);
    cg_val zero = cg_i64(g, 0);
    CG_FOR(g, panel, zero, cg_i64(g, NB_ATTENTION_PANELS), cg_i64(g, n)) {
        nb_panel keys[NB_ATTENTION_PANELS];
        cg_var dot[MAX_VECTORS];
        cg_val whole = turns ? cg_andi(g, a->D, -turned) : zero;
        for (int p = 0; p < n; p++) {
            keys[p] = nb_attention_panel(a, cg_addi(g, panel, p), source != NB_KEYS_TURNED);
            if (source == NB_KEYS_TURN) turn_panel(a, &keys[p]);
        }
        for (int i = 0; i < rows * n; i++) dot[i] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
        if (turns) CG_FOR(g, d, zero, whole, cg_i64(g, turned)) {
                dots_of_turned(a, row, rows, d, keys, n, dot);
            }
        CG_FOR(g, d, whole, a->D, cg_i64(g, 1)) {
            for (int p = 0; p < n && turns; p++) nb_attention_turn_one(a, &keys[p], d);
            if (source == NB_KEYS_TURN) nb_attention_ask_element(a, keys, n, d);
            multiply_kept(a, row, rows, d, keys, n, dot);
        }
        for (int i = 0; i < rows * n; i++) {
            cg_val t = cg_add(g, a->t, cg_muli(g, cg_addi(g, panel, i % n), CG_LANES));
            cg_store(g, cg_get(g, dot[i]), nb_scores_at(a, t, cg_addi(g, row, i / n)), 64);
        }
    }
}

void nb_attention_each_score(const nb_attention *a, void (*f)(const nb_attention *a, cg_val row,
                                                              cg_val t, cg_val n, cg_val at)) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0);
    CG_FOR(g, i, zero, a->n, cg_i64(g, CG_LANES)) {
        cg_val t = cg_add(g, a->t, i), n = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, a->n, i));
        CG_FOR(g, row, zero, a->rows, cg_i64(g, 1)) { f(a, row, t, n, nb_scores_at(a, t, row)); }
    }
}

static cg_val largest_of(const nb_attention *a, cg_val row) {
    return nb_lanes_of(a, a->largest, row);
}

/* scale, mask, largest. Lanes beyond the last key must not count. */
static void finish(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val at) {
    cg *g = a->l->g;
    cg_val scale = cg_f32(g, nb_attr_float(a->l->op, "scale")), largest = largest_of(a, row),
           score = load16(g, at);
    score = nb_is_i8(a->k) ? nb_attention_scaled(a, row, t, n, score)
                           : cg_mul(g, score, splat(g, scale));
    if (a->masked)
        score = nb_attention_mask(a, row, t, n, score);
    else if (a->l->in[3].value)
        score = cg_add(g, score, splat(g, a->l->in[3].immediate));
    score = cg_select(g, cg_lane_mask(g, n), score, splat(g, cg_f32(g, -__builtin_inff())));
    cg_store(g, cg_fmax(g, load16(g, largest), score), largest, 64);
    cg_store(g, score, at, 64);
    if (nb_is_i8(a->v)) nb_attention_note_scales(a, row, t, n, score);
}

void nb_attention_finish_scores(const nb_attention *a) { nb_attention_each_score(a, finish); }

/* ---- softmax -------------------------------------------------------------------------------- */

void nb_attention_find_largest(const nb_attention *a) {
    cg *g = a->l->g;
    CG_FOR(g, row, cg_i64(g, 0), a->rows, cg_i64(g, 1)) {
        cg_val at = largest_of(a, row);
        cg_store(g, splat(g, cg_fold16(g, load16(g, at), cg_fmax)), at, 64);
    }
}

/* Lanes beyond the last key hold -infinity: they become 0, or NaN in a row that is NaN anyway. */
static void exponential(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val at) {
    cg *g = a->l->g;
    (void)t, (void)n;
    cg_val e = cg_exp(g, cg_sub(g, load16(g, at), load16(g, largest_of(a, row))));
    if (a->masked) {
        cg_val zero = cg_cmp(g, CG_EQ, e, cg_zero(g, CG_V(CG_F32)));
        cg_set(g, a->zeros, cg_or(g, cg_get(g, a->zeros), zero));
    }
    cg_store(g, e, at, 64);
}

void nb_attention_add_up(const nb_attention *a) {
    cg *g = a->l->g;
    CG_FOR(g, row, cg_i64(g, 0), a->rows, cg_i64(g, 1)) {
        cg_val at = nb_floats_at(g, a->sums, row);
        cg_var sum = cg_var_new(g, cg_load(g, CG_S(CG_F32), at, 4));
        CG_FOR(g, i, cg_i64(g, 0), a->n, cg_i64(g, 1)) {
            cg_val lane = cg_andi(g, i, CG_LANES - 1), t = cg_add(g, a->t, cg_sub(g, i, lane)),
                   e = nb_floats_at(g, nb_scores_at(a, t, row), lane);
            cg_set(g, sum, cg_add(g, cg_get(g, sum), cg_load(g, CG_S(CG_F32), e, 4)));
        }
        cg_store(g, cg_get(g, sum), at, 4);
    }
}

cg_val nb_attention_exponentials(nb_attention *a) {
    cg *g = a->l->g;
    a->zeros = cg_var_new(g, cg_splat(g, cg_i1(g, false), CG_LANES));
    nb_attention_each_score(a, exponential);
    return cg_any(g, cg_get(g, a->zeros));
}

/* ---- values --------------------------------------------------------------------------------- */

/* n vectors of elements from `e` on; of one, only `part` elements if that is not NULL. `adds`:
 * exponentials are added up meanwhile: one addition waits for the other, and nothing else waits for
 * them. That is kept of the first elements only. */
static void weigh_elements(const nb_attention *a, cg_val row, int rows, cg_val e, int n,
                           cg_val part, bool adds, bool asks) {
    cg *g = a->l->g;
    cg_var acc[MAX_VECTORS], sum[MAX_VECTORS];
    cg_val kept[MAX_VECTORS], zero = cg_i64(g, 0), one = cg_i64(g, 1),
                              sums = nb_floats_at(g, a->sums, row);
    for (int i = 0; i < rows * n; i++) {
        cg_val at = cg_add(g, cg_mul(g, cg_addi(g, row, i / n), a->Epad), e);
        kept[i] = nb_floats_at(g, a->acc, cg_addi(g, at, i % n * CG_LANES));
        acc[i] = cg_var_new(g, load16(g, kept[i]));
    }
    for (int r = 0; r < rows && adds; r++)
        sum[r] = cg_var_new(g, cg_load(g, CG_S(CG_F32), nb_floats_at(g, sums, cg_i64(g, r)), 4));
    CG_FOR(g, panel, zero, a->n, cg_i64(g, CG_LANES)) {
        cg_val weights = nb_scores_at(a, cg_add(g, a->t, panel), row),
               count = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, a->n, panel));
        CG_FOR(g, i, zero, count, one) {
            cg_val value[MAX_VECTORS], p = nb_floats_at(g, weights, i);
            if (asks) nb_attention_ask_value(a, cg_add(g, panel, i), e, n);
            nb_attention_value(a, cg_add(g, panel, i), e, n, part, value);
            for (int r = 0; r < rows; r++) {
                cg_val at = nb_floats_at(g, p, cg_i64(g, r * CG_LANES)),
                       weight = cg_load(g, CG_S(CG_F32), at, 4), x = splat(g, weight);
                if (adds) cg_set(g, sum[r], cg_add(g, cg_get(g, sum[r]), weight));
                for (int j = 0; j < n; j++)
                    cg_set(g, acc[r * n + j], cg_fma(g, x, value[j], cg_get(g, acc[r * n + j])));
            }
        }
    }
    for (int i = 0; i < rows * n; i++) cg_store(g, cg_get(g, acc[i]), kept[i], 64);
    if (!adds) return;
    CG_IF(g, cg_cmpi(g, CG_EQ, e, 0)) {
        for (int r = 0; r < rows; r++)
            cg_store(g, cg_get(g, sum[r]), nb_floats_at(g, sums, cg_i64(g, r)), 4);
    }
}

void nb_attention_weigh(const nb_attention *a, cg_val row, int rows, bool asks) {
    cg *g = a->l->g;
    int most = (int)nb_max_i64(1, a->vectors / rows);
    int64_t known;
    while (most > 1 && cg_known(a->Epad, &known) && known < most * CG_LANES) most /= 2;
    cg_val whole = cg_andi(g, a->E, -CG_LANES),
           wide = cg_sub(g, whole, cg_urem(g, whole, cg_i64(g, most * CG_LANES))),
           begin = cg_i64(g, 0);
    const bool peeled = cg_known(wide, &known) && known > 0;
    if (peeled) {
        weigh_elements(a, row, rows, begin, most, NULL, true, asks);
        begin = cg_i64(g, most * CG_LANES);
    }
    CG_FOR(g, e, begin, wide, cg_i64(g, most * CG_LANES)) {
        weigh_elements(a, row, rows, e, most, NULL, !peeled, asks);
    }
    if (most > 1) CG_FOR(g, e, wide, whole, cg_i64(g, CG_LANES)) {
            weigh_elements(a, row, rows, e, 1, NULL, !peeled, asks);
        }
    cg_val part = cg_sub(g, a->E, whole);
    CG_IF(g, cg_cmpi(g, CG_GT, part, 0)) {
        weigh_elements(a, row, rows, whole, 1, part, !peeled, asks);
    }
}
