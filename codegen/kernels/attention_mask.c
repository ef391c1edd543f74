/* attention: masks. A mask hides keys from a row (NUMBERS.md): the future in a prompt, padding.
 * Runs of keys that no row of a block sees are left out; elsewhere a hidden key has the score
 * -infinity, so that its exponential is 0, and 0 times its value adds nothing, if the value is
 * finite. */
#include "codegen/kernels/attention.h"
#include "ir/scalar.h"

static cg_val mask16(const nb_attention *a, cg_val row, cg_val t, cg_val n) {
    cg *g = a->l->g;
    cg_val stride = a->mask.strides[3],
           from =
               cg_buf_step(g, &a->mask, nb_row_pointer(g, a->mask_rows, row), cg_mul(g, t, stride));
    return cg_buf_load_part(g, &a->mask, from, stride, n);
}

/* A mask as small hides its key from the row. */
static cg_val limit_of(const nb_attention *a, cg_val row) {
    cg *g = a->l->g;
    return cg_load(g, CG_S(CG_F32), nb_floats_at(g, a->hiding, row), 4);
}

/* ---- what is seen --------------------------------------------------------------------------- */

/* i1: does the row see one of the 16 keys from `t` on? */
static cg_val sees(const nb_attention *a, cg_val row, cg_val t) {
    cg *g = a->l->g;
    cg_val n = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, a->T, t)),
           hidden =
               cg_cmp(g, CG_LE, mask16(a, row, t, n), cg_splat(g, cg_f32(g, NB_HIDING), CG_LANES));
    return cg_any(g, cg_and(g, cg_lane_mask(g, n), cg_not(g, hidden)));
}

/* Both ends are looked for from outside, so that what a row sees is not read. */
static void find_of_row(nb_attention *a, cg_val row, cg_var from, cg_var until) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0);
    cg_var t = cg_var_new(g, zero), end = cg_var_new(g, a->T),
           found = cg_var_new(g, cg_i1(g, false)),
           hiding = cg_var_new(g, cg_f32(g, __builtin_nanf("")));
    CG_WHILE(g, cg_and(g, cg_cmp(g, CG_LT, cg_get(g, t), a->T), cg_not(g, cg_get(g, found)))) {
        CG_IF(g, sees(a, row, cg_get(g, t))) { cg_set(g, found, cg_i1(g, true)); }
        CG_ELSE(g) { cg_set(g, t, cg_addi(g, cg_get(g, t), CG_LANES)); }
    }
    CG_IF(g, cg_get(g, found)) {
        cg_set(g, hiding, cg_f32(g, NB_HIDING));
        cg_set(g, end, cg_muli(g, cg_ceildiv(g, a->T, cg_i64(g, CG_LANES)), CG_LANES));
        CG_WHILE(g, cg_not(g, sees(a, row, cg_addi(g, cg_get(g, end), -CG_LANES)))) {
            cg_set(g, end, cg_addi(g, cg_get(g, end), -CG_LANES));
        }
    }
    CG_ELSE(g) { cg_set(g, t, zero); }
    cg_store(g, cg_get(g, hiding), nb_floats_at(g, a->hiding, row), 4);
    cg_set(g, from, cg_smin(g, cg_get(g, from), cg_get(g, t)));
    cg_set(g, until, cg_smax(g, cg_get(g, until), cg_get(g, end)));
}

void nb_attention_find_visible(nb_attention *a) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0);
    a->from = zero;
    a->until = a->T;
    if (!a->masked) return;
    cg_var from = cg_var_new(g, a->T), until = cg_var_new(g, zero);
    CG_FOR(g, row, zero, a->rows, cg_i64(g, 1)) { find_of_row(a, row, from, until); }
    /* Whole runs: only that behind the last key needs a copy. */
    a->from = cg_andi(g, cg_get(g, from), -NB_ATTENTION_RUN);
    cg_val whole =
        cg_andi(g, cg_addi(g, cg_get(g, until), NB_ATTENTION_RUN - 1), -NB_ATTENTION_RUN);
    a->until = cg_smin(g, whole, a->T);
}

/* ---- scores --------------------------------------------------------------------------------- */

cg_val nb_attention_mask(const nb_attention *a, cg_val row, cg_val t, cg_val n, cg_val scores) {
    cg *g = a->l->g;
    cg_val mask = mask16(a, row, t, n), none = cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES),
           hidden = cg_cmp(g, CG_LE, mask, cg_splat(g, limit_of(a, row), CG_LANES));
    return cg_select(g, hidden, none, cg_add(g, scores, mask));
}

/* ---- values --------------------------------------------------------------------------------- */

typedef struct walk {
    const nb_attention *a;
    cg_val i;          /* value of the run */
    cg_var wild;       /* <16 x i1>, or */
    cg_val weight, to; /* of a row: exponential, sums */
} walk;

static void note_wild(cg *g, void *user, cg_val e, cg_val n) {
    const walk *w = user;
    cg_val v;
    nb_attention_value(w->a, w->i, e, 1, n, &v);
    v = cg_sub(g, v, v); /* 0 or NaN */
    cg_set(g, w->wild, cg_or(g, cg_get(g, w->wild), cg_cmp(g, CG_NE, v, v)));
}

cg_val nb_attention_has_wild(const nb_attention *a) {
    cg *g = a->l->g;
    walk w = {.a = a};
    w.wild = cg_var_new(g, cg_splat(g, cg_i1(g, false), CG_LANES));
    CG_FOR(g, i, cg_i64(g, 0), a->n, cg_i64(g, 1)) {
        w.i = i;
        cg_for16(g, a->E, note_wild, &w);
    }
    return cg_any(g, cg_get(g, w.wild));
}

static void add_value(cg *g, void *user, cg_val e, cg_val n) {
    const walk *w = user;
    const cg_type type = CG_V(CG_F32);
    cg_val v, at = nb_floats_at(g, w->to, e), weight = cg_splat(g, w->weight, CG_LANES);
    nb_attention_value(w->a, w->i, e, 1, n, &v);
    cg_store(g, cg_fma(g, weight, v, cg_load(g, type, at, 64)), at, 64);
}

void nb_attention_weigh_visible(const nb_attention *a) {
    cg *g = a->l->g;
    CG_FOR(g, row, cg_i64(g, 0), a->rows, cg_i64(g, 1)) {
        walk w = {.a = a, .to = nb_floats_at(g, a->acc, cg_mul(g, row, a->Epad))};
        cg_val mask = nb_row_pointer(g, a->mask_rows, row);
        CG_FOR(g, i, cg_i64(g, 0), a->n, cg_i64(g, 1)) {
            cg_val t = cg_add(g, a->t, i), lane = cg_andi(g, i, CG_LANES - 1),
                   at = nb_floats_at(g, nb_scores_at(a, cg_sub(g, t, lane), row), lane),
                   from = cg_buf_step(g, &a->mask, mask, cg_mul(g, t, a->mask.strides[3]));
            w.i = i;
            w.weight = cg_load(g, CG_S(CG_F32), at, 4);
            cg_val hidden = cg_cmp(g, CG_LE, cg_buf_load(g, &a->mask, from), limit_of(a, row));
            CG_IF(g, cg_not(g, hidden)) { cg_for16(g, a->E, add_value, &w); }
        }
    }
}
