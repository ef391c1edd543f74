/* The tile of matmul: some rows by some panels, whose sums stay in registers while k runs over a
 * block. It is a function that all products of a model share: what differs between them, element
 * types and strides, is dealt with before and after it. */
#include "codegen/kernels/matmul.h"

#define MAX_SUMS 24
#define MAX_ROWS 12
#define ROWS     4 /* that are found from one address */

/* Parameters of the function. */
enum { LEFT, ROW_STEP, RIGHT, DISTANCE, STEPS, FROM, TO, TO_STEP, NEXT, NEXT_STEP, N_PARAMS };

typedef struct tile {
    cg *g;
    cg_kind kind;
    int rows, wide;
    bool packed; /* the left operand is [k][rows]; otherwise its rows are where they are */
    bool alone;  /* of a product of one row */
    cg_var left[MAX_ROWS / ROWS]; /* the next element of every fourth row */
    cg_var row_step, three_steps; /* between rows, and three times as much */
    cg_var right;                 /* the next line of the first panel */
    cg_var sums[MAX_SUMS];
    cg_var next;
} tile;

/* Steps of k written out. Where multiplications are vectors of two units, each instruction beside
 * them may take the place of one; where a product is many instructions, nothing is gained. */
static int unroll(const tile *t) { return cg_isa_of(t->g)->fma ? 4 : 1; }

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

/* Element `ahead` of row r, from the next one on. */
static cg_val left_at(const tile *t, int r, int ahead) {
    cg *g = t->g;
    const int bytes = cg_kind_bytes(t->kind);
    if (t->packed)
        return cg_offset(g, cg_get(g, t->left[0]), cg_i64(g, (ahead * t->rows + r) * bytes));
    cg_val at = cg_get(g, t->left[r / ROWS]), step = cg_get(g, t->row_step);
    if (r % ROWS == 3) step = cg_get(g, t->three_steps);
    if (r % ROWS == 2) step = cg_muli(g, step, 2);
    if (r % ROWS) at = cg_offset(g, at, step);
    return cg_offset(g, at, cg_i64(g, ahead * bytes));
}

/* Step `ahead` from the next one on: an element of each row times a line of each panel. */
static void step(const tile *t, int ahead) {
    cg *g = t->g;
    cg_val right[NB_MATMUL_WIDE], line = cg_get(g, t->right);
    const int64_t bytes = (int64_t)CG_LANES * cg_kind_bytes(t->kind);
    for (int p = 0; p < t->wide; p++) {
        cg_val at = cg_offset(g, line, cg_muli(g, cg_param(g, DISTANCE), p));
        right[p] = cg_load(g, CG_V(t->kind), cg_offset(g, at, cg_i64(g, ahead * bytes)), 64);
    }
    for (int r = 0; r < t->rows; r++) {
        cg_val left = cg_splat(g, cg_load(g, CG_S(t->kind), left_at(t, r, ahead), 0), CG_LANES);
        for (int p = 0; p < t->wide; p++) {
            cg_var sum = t->sums[r * t->wide + p];
            cg_val v = cg_get(g, sum);
            v = cg_kind_is_float(t->kind) ? cg_fma(g, left, right[p], v)
                                          : cg_add(g, v, cg_mul(g, left, right[p]));
            cg_set(g, sum, unroll(t) > 1 ? cg_settle(g, v) : v);
        }
    }
}

/* Addresses are unknown to the compiler, lest it keep one for each row in a turn. */
static void move(const tile *t, cg_var address, int64_t by) {
    cg_set(t->g, address,
           cg_unknown(t->g, cg_offset(t->g, cg_get(t->g, address), cg_i64(t->g, by))));
}

static void advance(const tile *t, int n) {
    const int64_t bytes = (int64_t)n * cg_kind_bytes(t->kind);
    move(t, t->right, bytes * CG_LANES);
    if (t->packed) {
        move(t, t->left[0], bytes * t->rows);
        return;
    }
    for (int r = 0; r < t->rows; r += ROWS) move(t, t->left[r / ROWS], bytes);
    move(t, t->row_step, 0);
    move(t, t->three_steps, 0);
}

/* Into the second level, where the next block waits while this one is in the first: one
 * line in a step, for asking takes the place of a load, and without gaps, for nobody finds the
 * stream that lines belong to where others are left out. A product of one row asks for what it
 * reads next: into the first level, for where panels are in the second already, as those of a
 * recurrent cell, asking that one once more takes a fifth of the time. */
static void ask(const tile *t) {
    cg *g = t->g;
    cg_val next = cg_get(g, t->next);
    const int locality = t->alone ? 3 : 2;
    for (int p = 0; p < t->wide; p++)
        cg_prefetch(g, cg_offset(g, next, cg_muli(g, cg_param(g, DISTANCE), p)), locality);
    cg_val step = cg_param(g, NEXT_STEP);
    if (!t->alone) step = cg_smin(g, cg_muli(g, step, t->wide), cg_i64(g, NB_MATMUL_LINE));
    cg_set(g, t->next, cg_offset(g, next, step));
}

static void some_steps(const tile *t, cg_val from, cg_val to, int n) {
    cg *g = t->g;
    CG_FOR(g, k, from, to, cg_i64(g, n)) {
        for (int u = 0; u < n; u++) {
            cg_fence(g);
            step(t, u);
            if (n == unroll(t) && (u % t->wide == 0 || t->alone)) ask(t);
        }
        advance(t, n);
    }
}

static void steps(const tile *t) {
    cg *g = t->g;
    cg_val all = cg_param(g, STEPS), whole = cg_andi(g, all, -unroll(t));
    some_steps(t, cg_i64(g, 0), whole, unroll(t));
    if (unroll(t) > 1) some_steps(t, whole, all, 1);
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
    cg_val left = cg_param(g, LEFT), row_step = cg_param(g, ROW_STEP);
    for (int r = 0; r < rows; r += ROWS)
        t.left[r / ROWS] = cg_var_new(g, cg_offset(g, left, cg_muli(g, row_step, r)));
    t.row_step = cg_var_new(g, row_step);
    t.three_steps = cg_var_new(g, cg_muli(g, row_step, 3));
    t.right = cg_var_new(g, cg_param(g, RIGHT));
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
