/* The tile of matmul: some rows by some panels, whose sums stay in registers while k runs over a
 * block. It is a function that all products of a model share: what differs between them, element
 * types and strides, is dealt with before and after it. */
#include "codegen/kernels/matmul.h"

#define MAX_SUMS 16
#define MAX_ROWS 8

/* Parameters of the function. */
enum { LEFT, ROW_STEP, RIGHT, DISTANCE, STEPS, FROM, TO, TO_STEP, NEXT, NEXT_STEP, N_PARAMS };

typedef struct tile {
    cg *g;
    cg_kind kind;
    int rows, wide;
    bool packed; /* the left operand is [k][rows]; otherwise its rows are where they are */
    bool alone;  /* of a product of one row */
    cg_val left[MAX_ROWS], right[NB_MATMUL_WIDE];
    cg_var sums[MAX_SUMS];
    cg_var next;
} tile;

/* Steps of k written out; not for several panels, where LLVM would load ahead and spill, nor where
 * a product is many instructions. */
static int unroll(const tile *t) { return t->wide > 1 || !cg_isa_of(t->g)->fma ? 1 : 4; }

/* Vector `i` of a row of sums at `row`. */
static cg_val lanes_at(const tile *t, cg_val row, int i) {
    return cg_index(t->g, row, t->kind, cg_i64(t->g, (int64_t)i * CG_LANES));
}

static void begin(tile *t) {
    cg *g = t->g;
    cg_type type = CG_V(t->kind);
    for (int i = 0; i < t->rows * t->wide; i++) t->sums[i] = cg_var_new(g, cg_zero(g, type));
    cg_val from = cg_param(g, FROM);
    CG_IF(g, cg_cmp(g, CG_NE, from, cg_zero(g, CG_S(CG_PTR)))) {
        for (int i = 0; i < t->rows * t->wide; i++)
            cg_set(g, t->sums[i], cg_load(g, type, lanes_at(t, from, i), 64));
    }
}

/* Step `k`: an element of each row times a line of each panel. */
static void step(const tile *t, cg_val k) {
    cg *g = t->g;
    cg_val right[NB_MATMUL_WIDE], line = cg_muli(g, k, CG_LANES);
    cg_val element = t->packed ? cg_muli(g, k, t->rows) : k;
    for (int p = 0; p < t->wide; p++)
        right[p] = cg_load(g, CG_V(t->kind), cg_index(g, t->right[p], t->kind, line), 64);
    for (int r = 0; r < t->rows; r++) {
        cg_val from = cg_index(g, t->left[r], t->kind, element);
        cg_val left = cg_splat(g, cg_load(g, CG_S(t->kind), from, 0), CG_LANES);
        for (int p = 0; p < t->wide; p++) {
            cg_var sum = t->sums[r * t->wide + p];
            cg_val v = cg_get(g, sum);
            cg_set(g, sum,
                   cg_kind_is_float(t->kind) ? cg_fma(g, left, right[p], v)
                                             : cg_add(g, v, cg_mul(g, left, right[p])));
        }
    }
}

/* Into the second level, where the next block waits while this one is in the first. A product of
 * one row asks for what it reads next: into the first level, for where panels are in the second
 * already, as those of a recurrent cell, asking that one once more takes a fifth of the time. */
static void ask(const tile *t) {
    cg *g = t->g;
    cg_val next = cg_get(g, t->next);
    const int locality = t->alone ? 3 : 2;
    for (int p = 0; p < t->wide; p++)
        cg_prefetch(g, cg_offset(g, next, cg_muli(g, cg_param(g, DISTANCE), p)), locality);
    cg_set(g, t->next, cg_offset(g, next, cg_param(g, NEXT_STEP)));
}

static void steps(const tile *t) {
    cg *g = t->g;
    cg_val all = cg_param(g, STEPS), whole = cg_andi(g, all, -unroll(t));
    CG_FOR(g, k, cg_i64(g, 0), whole, cg_i64(g, unroll(t))) {
        for (int u = 0; u < unroll(t); u++) {
            step(t, cg_addi(g, k, u));
            ask(t);
        }
    }
    if (unroll(t) == 1) return;
    CG_FOR(g, k, whole, all, cg_i64(g, 1)) { step(t, k); }
}

static void end(const tile *t) {
    cg *g = t->g;
    cg_val to = cg_param(g, TO);
    for (int r = 0; r < t->rows; r++) {
        for (int p = 0; p < t->wide; p++)
            cg_store(g, cg_get(g, t->sums[r * t->wide + p]), lanes_at(t, to, p), 0);
        to = cg_offset(g, to, cg_param(g, TO_STEP));
    }
}

/* The function for tiles of that many rows and panels. */
static cg_val tile_of(cg *user, cg_kind kind, int rows, int wide, bool packed, bool alone) {
    cg_module *m = cg_module_of(user);
    const char *name =
        nb_format(cg_arena(user), "tile_%c%d_%dx%d%s", cg_kind_is_float(kind) ? 'f' : 'i',
                  8 * cg_kind_bytes(kind), rows, wide * CG_LANES,
                  packed  ? "_packed"
                  : alone ? "_alone"
                          : "");
    cg_val known = cg_find(m, name);
    if (known) return known;
    cg_type params[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) {
        bool pointer = i == LEFT || i == RIGHT || i == FROM || i == TO || i == NEXT;
        params[i] = CG_S(pointer ? CG_PTR : CG_I64);
    }
    cg *g = cg_function(m, name, CG_S(CG_VOID), N_PARAMS, params, CG_NOINLINE);
    tile t = {.g = g, .kind = kind, .rows = rows, .wide = wide, .packed = packed, .alone = alone};
    cg_val row_step = packed ? cg_i64(g, cg_kind_bytes(kind)) : cg_param(g, ROW_STEP);
    for (int r = 0; r < rows; r++)
        t.left[r] = cg_offset(g, cg_param(g, LEFT), cg_muli(g, row_step, r));
    for (int p = 0; p < wide; p++)
        t.right[p] = cg_offset(g, cg_param(g, RIGHT), cg_muli(g, cg_param(g, DISTANCE), p));
    t.next = cg_var_new(g, cg_param(g, NEXT));
    begin(&t);
    steps(&t);
    end(&t);
    return cg_finish(g);
}

static void call(const nb_mtile *t, cg_val rows, bool packed) {
    const nb_mshape *s = t->s;
    cg *g = s->l->g;
    cg_val args[N_PARAMS] = {
        [LEFT] = t->left,   [ROW_STEP] = t->row_step,  [RIGHT] = t->right, [DISTANCE] = t->distance,
        [STEPS] = t->steps, [FROM] = t->from,          [TO] = t->to,       [TO_STEP] = t->to_step,
        [NEXT] = t->next,   [NEXT_STEP] = t->next_step};
    for (int r = 1; r <= s->tall; r++) {
        if (!nb_rows_occur(&s->cut, r)) continue;
        CG_IF(g, cg_cmpi(g, CG_EQ, rows, r)) {
            cg_call(g, tile_of(g, s->kind, r, t->wide, packed, s->single && !packed), N_PARAMS,
                    args);
        }
    }
}

void nb_matmul_tile(const nb_mtile *t, cg_val rows) {
    cg *g = t->s->l->g;
    CG_IF(g, t->s->packed) { call(t, rows, true); }
    CG_ELSE(g) { call(t, rows, false); }
}
