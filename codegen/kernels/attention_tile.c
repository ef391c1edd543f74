/* attention: the arithmetic of a tile of rows. Accumulators stay in registers: of the scores, lanes
 * are keys and the walk is over d; of the values, lanes are elements and the walk is over keys. A
 * lane is always one sequence in the specified order. */
#include "codegen/kernels/attention.h"

#define MAX_VECTORS 16
/* Keys of the value walk written out. */
#define UNROLL 4

static cg_val splat(cg *g, cg_val x) { return cg_splat(g, x, CG_LANES); }

/* ---- scores --------------------------------------------------------------------------------- */

static cg_val row_scores(const nb_attention *a, cg_val row) {
    return nb_floats_at(a->l->g, a->scores, cg_mul(a->l->g, row, a->Tpad));
}

/* scale, mask, largest: from a dot product to the score in memory. */
static void finish_scores(const nb_attention *a, cg_val row, cg_val dot, cg_val t, cg_val n,
                          cg_val to) {
    cg *g = a->l->g;
    cg_val score = cg_mul(g, dot, splat(g, cg_f32(g, nb_attr_float(a->l->op, "scale"))));
    if (a->masked && a->l->in[3].immediate) {
        score = cg_add(g, score, splat(g, a->l->in[3].immediate));
    } else if (a->masked) {
        cg_val stride = a->mask.strides[3],
               at = cg_buf_step(g, &a->mask, nb_row_pointer(g, a->mask_rows, row),
                                cg_mul(g, t, stride));
        score = cg_add(g, score, cg_buf_load_part(g, &a->mask, at, stride, n));
    }
    if (n) /* what repeats the last key must not count */
        score = cg_select(g, cg_lane_mask(g, n), score, splat(g, cg_f32(g, -__builtin_inff())));
    cg_val largest = nb_floats_at(g, a->largest, cg_muli(g, row, CG_LANES));
    cg_store(g, cg_fmax(g, cg_load(g, CG_V(CG_F32), largest, 64), score), largest, 64);
    cg_store(g, score, to, 64);
}

void nb_attention_scores(const nb_attention *a, cg_val row, int rows, cg_val t, int panel,
                         int n_panels, cg_val n) {
    cg *g = a->l->g;
    cg_var dot[MAX_VECTORS];
    for (int i = 0; i < rows * n_panels; i++) dot[i] = cg_var_new(g, cg_zero(g, CG_V(CG_F32)));
    cg_val queries = nb_floats_at(g, a->queries, cg_mul(g, row, a->D)), keys[MAX_VECTORS];
    for (int p = 0; p < n_panels; p++)
        keys[p] = nb_floats_at(g, a->keys, cg_muli(g, a->D, (panel + p) * CG_LANES));
    CG_FOR(g, d, cg_i64(g, 0), a->D, cg_i64(g, 1)) {
        cg_val key[MAX_VECTORS];
        for (int p = 0; p < n_panels; p++) {
            key[p] =
                cg_load(g, CG_V(CG_F32), nb_floats_at(g, keys[p], cg_muli(g, d, CG_LANES)), 64);
            if (!n) nb_attention_ask_keys(a, cg_addi(g, t, p * CG_LANES), d);
        }
        for (int r = 0; r < rows; r++) {
            cg_val at = nb_floats_at(g, queries, cg_addi(g, cg_muli(g, d, rows), r)),
                   x = splat(g, cg_load(g, CG_S(CG_F32), at, 4));
            for (int p = 0; p < n_panels; p++) {
                cg_var sum = dot[r * n_panels + p];
                cg_set(g, sum, cg_fma(g, x, key[p], cg_get(g, sum)));
            }
        }
    }
    cg_val to = nb_floats_at(g, row_scores(a, row), cg_muli(g, t, rows));
    for (int p = 0; p < n_panels; p++) {
        for (int r = 0; r < rows; r++)
            finish_scores(a, cg_addi(g, row, r), cg_get(g, dot[r * n_panels + p]),
                          cg_addi(g, t, p * CG_LANES), n,
                          nb_floats_at(g, to, cg_i64(g, (p * rows + r) * CG_LANES)));
    }
}

/* ---- softmax -------------------------------------------------------------------------------- */

/* Lanes beyond the last key hold -infinity: they become 0, or NaN in a row that is NaN anyway. */
void nb_attention_exponentials(const nb_attention *a, cg_val row, int rows) {
    cg *g = a->l->g;
    cg_val max[MAX_VECTORS], from = row_scores(a, row);
    cg_var sum[MAX_VECTORS];
    for (int r = 0; r < rows; r++) {
        cg_val largest = nb_floats_at(g, a->largest, cg_muli(g, cg_addi(g, row, r), CG_LANES));
        max[r] = splat(g, cg_fold16(g, cg_load(g, CG_V(CG_F32), largest, 64), cg_fmax));
        sum[r] = cg_var_new(g, cg_f32(g, 0));
    }
    CG_FOR(g, t, cg_i64(g, 0), a->Tpad, cg_i64(g, CG_LANES)) {
        cg_val at = nb_floats_at(g, from, cg_muli(g, t, rows));
        for (int r = 0; r < rows; r++) {
            cg_val p = nb_floats_at(g, at, cg_i64(g, r * CG_LANES));
            cg_store(g, cg_exp(g, cg_sub(g, cg_load(g, CG_V(CG_F32), p, 64), max[r])), p, 64);
        }
        for (int i = 0; i < CG_LANES; i++) {
            for (int r = 0; r < rows; r++) {
                cg_val p = nb_floats_at(g, at, cg_i64(g, r * CG_LANES + i));
                cg_set(g, sum[r], cg_add(g, cg_get(g, sum[r]), cg_load(g, CG_S(CG_F32), p, 4)));
            }
        }
    }
    for (int r = 0; r < rows; r++)
        cg_store(g, cg_get(g, sum[r]), nb_floats_at(g, a->sums, cg_addi(g, row, r)), 4);
}

/* ---- values --------------------------------------------------------------------------------- */

/* n vectors of elements from `e` on. */
static void weigh_elements(const nb_attention *a, cg_val row, int rows, cg_val t, cg_val n_keys,
                           cg_val e, int n) {
    cg *g = a->l->g;
    cg_var acc[MAX_VECTORS];
    cg_val kept[MAX_VECTORS], p = nb_floats_at(g, row_scores(a, row), cg_muli(g, t, rows)),
                              values = nb_floats_at(g, a->values, e);
    for (int i = 0; i < rows * n; i++) {
        cg_val at = cg_add(g, cg_mul(g, cg_addi(g, row, i / n), a->Epad), e);
        kept[i] = nb_floats_at(g, a->acc, cg_addi(g, at, i % n * CG_LANES));
        acc[i] = cg_var_new(g, cg_load(g, CG_V(CG_F32), kept[i], 64));
    }
    CG_FOR(g, block, cg_i64(g, 0), n_keys, cg_i64(g, CG_LANES)) {
        CG_FOR(g, first, cg_i64(g, 0), cg_i64(g, CG_LANES), cg_i64(g, UNROLL)) {
            cg_val weights = nb_floats_at(g, p, cg_add(g, cg_muli(g, block, rows), first)),
                   line = nb_floats_at(g, values, cg_mul(g, cg_add(g, block, first), a->Epad));
            for (int u = 0; u < UNROLL; u++) {
                cg_val value[MAX_VECTORS], from = nb_floats_at(g, line, cg_muli(g, a->Epad, u));
                for (int i = 0; i < n; i++) {
                    value[i] = cg_load(g, CG_V(CG_F32),
                                       nb_floats_at(g, from, cg_i64(g, i * CG_LANES)), 64);
                    nb_attention_ask_values(a, cg_add(g, t, cg_addi(g, cg_add(g, block, first), u)),
                                            cg_addi(g, e, i * CG_LANES));
                }
                for (int r = 0; r < rows; r++) {
                    cg_val at = nb_floats_at(g, weights, cg_i64(g, r * CG_LANES + u)),
                           x = splat(g, cg_load(g, CG_S(CG_F32), at, 4));
                    for (int i = 0; i < n; i++)
                        cg_set(g, acc[r * n + i],
                               cg_fma(g, x, value[i], cg_get(g, acc[r * n + i])));
                }
            }
        }
    }
    for (int i = 0; i < rows * n; i++) cg_store(g, cg_get(g, acc[i]), kept[i], 64);
}

void nb_attention_weigh(const nb_attention *a, cg_val row, int rows, cg_val t, cg_val n) {
    cg *g = a->l->g;
    int most = (int)nb_max_i64(1, a->vectors / rows);
    int64_t known;
    while (most > 1 && cg_known(a->Epad, &known) && known < most * CG_LANES) most /= 2;
    cg_val whole = cg_sub(g, a->Epad, cg_urem(g, a->Epad, cg_i64(g, most * CG_LANES)));
    CG_FOR(g, e, cg_i64(g, 0), whole, cg_i64(g, most * CG_LANES)) {
        weigh_elements(a, row, rows, t, n, e, most);
    }
    if (most > 1) CG_FOR(g, e, whole, a->Epad, cg_i64(g, CG_LANES)) {
            weigh_elements(a, row, rows, t, n, e, 1);
        }
}
