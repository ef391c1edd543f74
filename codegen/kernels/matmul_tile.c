/* The tile of matmul: some rows by some panels, whose sums stay in registers while k runs over a
 * block. */
#include "codegen/kernels/matmul.h"

#define MAX_SUMS 16
/* Steps of k written out; not for several panels, where LLVM would load ahead and spill. */
#define UNROLL(t) ((t)->wide > 1 ? 1 : 4)

static cg_val at(const nb_mtile *t, cg_val pointer, cg_val index) {
    return cg_index(t->s->l->g, pointer, t->s->kind, index);
}

static cg_val kept(const nb_mtile *t, int i) {
    return at(t, t->sums, cg_i64(t->s->l->g, (int64_t)i * CG_LANES));
}

static void begin(const nb_mtile *t, cg_var *sums) {
    cg *g = t->s->l->g;
    cg_type type = CG_V(t->s->kind);
    int n = t->rows * t->wide;
    for (int i = 0; i < n; i++) sums[i] = cg_var_new(g, cg_zero(g, type));
    cg_val more = cg_not(g, t->first);
    if (cg_is(more, 0)) return;
    CG_IF(g, more) {
        for (int i = 0; i < n; i++) cg_set(g, sums[i], cg_load(g, type, kept(t, i), 64));
    }
}

/* Step `k`: an element of each row times a line of each panel. */
static void step(const nb_mtile *t, const cg_var *sums, cg_val k) {
    cg *g = t->s->l->g;
    cg_val right[NB_MATMUL_WIDE], line = cg_muli(g, k, CG_LANES), row = cg_muli(g, k, t->rows);
    for (int p = 0; p < t->wide; p++)
        right[p] = cg_load(g, CG_V(t->s->kind), at(t, t->right[p], line), 64);
    for (int r = 0; r < t->rows; r++) {
        cg_val from = at(t, t->left, cg_addi(g, row, r));
        cg_val left = cg_splat(g, cg_load(g, CG_S(t->s->kind), from, 0), CG_LANES);
        for (int p = 0; p < t->wide; p++) {
            cg_var sum = sums[r * t->wide + p];
            cg_val v = cg_get(g, sum);
            cg_set(g, sum,
                   cg_kind_is_float(t->s->kind) ? cg_fma(g, left, right[p], v)
                                                : cg_add(g, v, cg_mul(g, left, right[p])));
        }
    }
}

static void steps(const nb_mtile *t, const cg_var *sums) {
    cg *g = t->s->l->g;
    const int unroll = UNROLL(t);
    cg_var far[NB_MATMUL_WIDE];
    for (int p = 0; p < t->wide && t->ahead; p++)
        far[p] = cg_var_new(g, cg_offset(g, t->right[p], t->ahead));
    cg_val whole = cg_andi(g, t->steps, -unroll);
    CG_FOR(g, k, cg_i64(g, 0), whole, cg_i64(g, unroll)) {
        for (int u = 0; u < unroll; u++) {
            step(t, sums, cg_addi(g, k, u));
            if (!t->ahead || u % t->ahead_every) continue;
            for (int p = 0; p < t->wide; p++) {
                cg_prefetch(g, cg_get(g, far[p]), 2);
                cg_set(g, far[p], cg_offset(g, cg_get(g, far[p]), t->ahead_step));
            }
        }
    }
    /* Blocks are multiples of `unroll`, but the last. */
    if (cg_is(cg_andi(g, t->s->K, unroll - 1), 0)) return;
    CG_FOR(g, k, whole, t->steps, cg_i64(g, 1)) { step(t, sums, k); }
}

static void store(const nb_mtile *t, const cg_var *sums) {
    cg *g = t->s->l->g;
    const cg_buf *y = &t->s->l->out[0].buf;
    cg_val row = y->strides[y->rank - 2], column = y->strides[y->rank - 1];
    for (int r = 0; r < t->rows; r++) {
        for (int p = 0; p < t->wide; p++) {
            cg_val sum = cg_get(g, sums[r * t->wide + p]);
            cg_val to = cg_buf_step(
                g, y, t->y,
                cg_add(g, cg_muli(g, row, r), cg_muli(g, column, (int64_t)p * CG_LANES)));
            cg_val n = cg_addi(g, t->columns, -(int64_t)p * CG_LANES);
            if (p + 1 < t->wide || cg_is(cg_andi(g, t->s->N, CG_LANES - 1), 0)) {
                cg_buf_store16(g, y, to, column, sum);
                continue;
            }
            CG_IF(g, cg_cmpi(g, CG_GE, n, CG_LANES)) { cg_buf_store16(g, y, to, column, sum); }
            CG_ELSE(g) { cg_buf_store_part(g, y, to, column, sum, n); }
        }
    }
}

void nb_matmul_tile(const nb_mtile *t) {
    cg *g = t->s->l->g;
    cg_var sums[MAX_SUMS];
    begin(t, sums);
    steps(t, sums);
    CG_IF(g, t->last) { store(t, sums); }
    cg_val more = cg_not(g, t->last);
    if (cg_is(more, 0)) return;
    CG_IF(g, more) {
        for (int i = 0; i < t->rows * t->wide; i++) cg_store(g, cg_get(g, sums[i]), kept(t, i), 64);
    }
}
