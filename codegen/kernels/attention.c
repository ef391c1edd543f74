/* attention: softmax(q.k * scale + mask).v as NUMBERS.md orders it.
 *
 * Work comes in blocks of rows that share one key head: positions of a prompt, query heads, or
 * both. Keys are turned round once for a block, 16 to a panel, so that they are lanes; each tile of
 * rows takes its scores from the panels. Then come maxima and exponentials, and the values in
 * order, in runs that stay in the cache while all tiles use them. Every key and value is read once
 * for a block. Working memory is a part of the scratch for each thread. */
#include "codegen/kernels/attention.h"

#define MAX_HEAD   1024
#define MAX_ROWS   8     /* of a tile */
#define KEYS_BYTES 16384 /* of turned keys: a part of the nearest cache */
#define MAX_PANELS 4

static int64_t head_size(const nb_op *op) { return nb_in(op, 0)->type->dims[3]->value; }

static cg_val pad16(cg *g, cg_val n) { return cg_andi(g, cg_addi(g, n, CG_LANES - 1), -CG_LANES); }

static nb_attention view_of(nb_lower *l) {
    cg *g = l->g;
    const cg_isa *isa = cg_isa_of(g);
    nb_attention a = {.l = l,
                      .q = &l->in[0].buf,
                      .k = &l->in[1].buf,
                      .v = &l->in[2].buf,
                      .k_scales = l->in[4].value ? &l->in[4].buf : NULL,
                      .v_scales = l->in[5].value ? &l->in[5].buf : NULL,
                      .y = &l->out[0].buf,
                      .masked = l->in[3].value != NULL};
    a.H = a.q->dims[1];
    a.G = a.k->dims[1];
    a.S = a.q->dims[2];
    a.D = a.q->dims[3];
    a.T = a.k->dims[2];
    a.E = a.v->dims[3];
    a.Tpad = pad16(g, a.T);
    a.Epad = pad16(g, a.E);
    a.share = cg_udiv(g, a.H, a.G);
    cg_val rows = cg_mul(g, a.share, a.S);
    a.most = cg_smin(g, rows, cg_i64(g, NB_ATTENTION_ROWS));
    a.blocks = cg_ceildiv(g, rows, cg_i64(g, NB_ATTENTION_ROWS));
    if (a.masked) {
        cg_val dims[4] = {a.q->dims[0], a.H, a.S, a.T};
        a.mask = cg_buf_broadcast(g, &l->in[3].buf, 4, dims);
    }
    /* Half of the registers or a little more hold sums; the others one vector of operands and what
     * is broadcast. */
    int registers = isa->vector_bytes < 64 ? 64 / isa->vector_bytes : 1;
    a.vectors = 1;
    while (a.vectors < 2 * MAX_ROWS && 2 * a.vectors * registers <= isa->registers - 4)
        a.vectors *= 2;
    a.panels = 1;
    while (a.panels < MAX_PANELS && 2 * a.panels * head_size(l->op) * CG_LANES * 4 <= KEYS_BYTES)
        a.panels *= 2;
    return a;
}

static cg_val all_blocks(const nb_attention *a) {
    cg *g = a->l->g;
    return cg_mul(g, cg_mul(g, a->q->dims[0], a->G), a->blocks);
}

/* Each thread takes a run of blocks and a part of the scratch. */
static cg_val items(nb_lower *l, int phase) {
    (void)phase;
    nb_attention a = view_of(l);
    return cg_smin(l->g, l->threads, all_blocks(&a));
}

/* ---- scratch -------------------------------------------------------------------------------- */

/* Hands out `floats` floats (rounded up to 64 bytes) of a thread's part, which ends at *end. */
static cg_val part(cg *g, cg_val base, cg_val *end, cg_val floats) {
    cg_val at = base ? cg_offset(g, base, *end) : NULL;
    *end = cg_add(g, *end, cg_muli(g, pad16(g, floats), 4));
    return at;
}

/* Lays the working memory out at `base` (NULL: counts only) and returns its bytes. */
static cg_val lay_out(nb_attention *a, cg_val base) {
    cg *g = a->l->g;
    cg_val end = cg_i64(g, 0), pointers = cg_i64(g, 2 * NB_ATTENTION_ROWS);
    a->mask_rows = part(g, base, &end, pointers);
    a->output_rows = part(g, base, &end, pointers);
    a->query_rows = part(g, base, &end, pointers);
    a->sums = part(g, base, &end, cg_i64(g, NB_ATTENTION_ROWS));
    a->largest = part(g, base, &end, cg_i64(g, NB_ATTENTION_ROWS * CG_LANES));
    a->queries = part(g, base, &end, cg_mul(g, a->most, a->D));
    a->keys = part(g, base, &end, cg_muli(g, a->D, a->panels * CG_LANES));
    a->values = part(g, base, &end, cg_muli(g, a->Epad, NB_ATTENTION_VALUES));
    a->acc = part(g, base, &end, cg_mul(g, a->most, a->Epad));
    a->scores = part(g, base, &end, cg_mul(g, a->most, a->Tpad));
    return end;
}

static cg_val scratch(nb_lower *l) {
    nb_attention a = view_of(l);
    return cg_mul(l->g, l->threads, lay_out(&a, NULL));
}

/* ---- a block -------------------------------------------------------------------------------- */

typedef struct step {
    nb_attention *a;
    cg_val t, n;
} step;

/* All rows of the block in tiles: as many of the most rows as there are, then smaller ones. */
static void each_tile(step *s, void (*tile)(step *s, cg_val row, int rows)) {
    cg *g = s->a->l->g;
    int most = (int)nb_min_i64(MAX_ROWS, s->a->vectors);
    cg_val rows = s->a->rows, whole = cg_andi(g, rows, -most);
    CG_FOR(g, row, cg_i64(g, 0), whole, cg_i64(g, most)) { tile(s, row, most); }
    for (int n = most / 2; n > 0; n /= 2) {
        CG_IF(g, cg_cmpi(g, CG_NE, cg_andi(g, rows, n), 0)) {
            tile(s, cg_andi(g, rows, -2 * n), n);
        }
    }
}

static void pack_queries(step *s, cg_val row, int rows) {
    const nb_attention *a = s->a;
    cg *g = a->l->g;
    cg_val to = nb_floats_at(g, a->queries, cg_mul(g, row, a->D));
    for (int r = 0; r < rows; r++) {
        cg_val from = nb_row_pointer(g, a->query_rows, cg_addi(g, row, r));
        CG_FOR(g, d, cg_i64(g, 0), a->D, cg_i64(g, 1)) {
            cg_val x = cg_buf_load(g, a->q, cg_buf_step(g, a->q, from, d));
            cg_store(g, x, nb_floats_at(g, to, cg_addi(g, cg_muli(g, d, rows), r)), 4);
        }
    }
}

/* Where rows are, and what their sums start from. */
static void begin_rows(step *s) {
    nb_attention *a = s->a;
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0), none = cg_splat(g, cg_f32(g, -__builtin_inff()), CG_LANES);
    CG_FOR(g, row, zero, a->rows, cg_i64(g, 1)) {
        cg_val index = cg_add(g, a->first, row),
               h = cg_add(g, cg_mul(g, a->kv, a->share), cg_udiv(g, index, a->S)),
               position = cg_urem(g, index, a->S);
        cg_store(g, cg_at(g, a->q, a->b, h, position, zero),
                 cg_index(g, a->query_rows, CG_PTR, row), 8);
        cg_store(g, cg_at(g, a->y, a->b, h, position, zero),
                 cg_index(g, a->output_rows, CG_PTR, row), 8);
        if (a->masked)
            cg_store(g, cg_at(g, &a->mask, a->b, h, position, zero),
                     cg_index(g, a->mask_rows, CG_PTR, row), 8);
        cg_store(g, none, nb_floats_at(g, a->largest, cg_muli(g, row, CG_LANES)), 64);
    }
    cg_memset(g, a->acc, 0, cg_muli(g, cg_mul(g, a->rows, a->Epad), 4));
    each_tile(s, pack_queries);
}

/* Scores of all panels that are turned round; as many at once as registers hold. */
static void score_panels(step *s, cg_val row, int rows) {
    nb_attention *a = s->a;
    int most = (int)nb_min_i64(a->panels, nb_max_i64(1, a->vectors / rows));
    for (int p = 0; p < a->panels; p += most)
        nb_attention_scores(a, row, rows, cg_addi(a->l->g, s->t, p * CG_LANES), p, most, NULL);
}

static void score_last(step *s, cg_val row, int rows) {
    nb_attention_scores(s->a, row, rows, s->t, 0, 1, s->n);
}

static void score(step *s) {
    nb_attention *a = s->a;
    cg *g = a->l->g;
    int64_t keys = a->panels * CG_LANES;
    cg_val whole = cg_andi(g, a->T, -keys);
    CG_FOR(g, t, cg_i64(g, 0), whole, cg_i64(g, keys)) {
        s->t = t;
        for (int p = 0; p < a->panels; p++)
            nb_attention_turn_keys(a, cg_addi(g, t, p * CG_LANES), p, NULL);
        each_tile(s, score_panels);
    }
    CG_FOR(g, t, whole, a->T, cg_i64(g, CG_LANES)) {
        s->t = t;
        s->n = cg_smin(g, cg_i64(g, CG_LANES), cg_sub(g, a->T, t));
        nb_attention_turn_keys(a, t, 0, s->n);
        each_tile(s, score_last);
    }
}

static void exponentials(step *s, cg_val row, int rows) {
    nb_attention_exponentials(s->a, row, rows);
}

static void weigh(step *s, cg_val row, int rows) {
    nb_attention_weigh(s->a, row, rows, s->t, s->n);
}

typedef struct storing {
    const nb_attention *a;
    cg_val from, to, sum;
} storing;

static void store16(cg *g, void *user, cg_val e, cg_val n) {
    const storing *s = user;
    const cg_buf *y = s->a->y;
    cg_val acc = cg_load(g, CG_V(CG_F32), nb_floats_at(g, s->from, e), 64);
    cg_buf_store_part(g, y, cg_buf_step(g, y, s->to, e), cg_i64(g, 1),
                      cg_fdiv(g, acc, cg_splat(g, s->sum, CG_LANES)), n);
}

static void attend(nb_attention *a, cg_val block) {
    cg *g = a->l->g;
    step s = {.a = a};
    cg_val head = cg_udiv(g, block, a->blocks), zero = cg_i64(g, 0);
    a->b = cg_udiv(g, head, a->G);
    a->kv = cg_urem(g, head, a->G);
    a->first = cg_muli(g, cg_urem(g, block, a->blocks), NB_ATTENTION_ROWS);
    a->rows =
        cg_smin(g, cg_i64(g, NB_ATTENTION_ROWS), cg_sub(g, cg_mul(g, a->share, a->S), a->first));
    begin_rows(&s);
    score(&s);
    each_tile(&s, exponentials);
    CG_FOR(g, t, zero, a->T, cg_i64(g, NB_ATTENTION_VALUES)) {
        cg_val n = cg_smin(g, cg_i64(g, NB_ATTENTION_VALUES), cg_sub(g, a->T, t));
        nb_attention_load_values(a, t, n);
        s.t = t;
        s.n = pad16(g, n);
        each_tile(&s, weigh);
    }
    CG_FOR(g, row, zero, a->rows, cg_i64(g, 1)) {
        storing to = {.a = a,
                      .from = nb_floats_at(g, a->acc, cg_mul(g, row, a->Epad)),
                      .to = nb_row_pointer(g, a->output_rows, row),
                      .sum = cg_load(g, CG_S(CG_F32), nb_floats_at(g, a->sums, row), 4)};
        cg_for16(g, a->E, store16, &to);
    }
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    cg *g = l->g;
    nb_attention a = view_of(l);
    cg_val blocks = all_blocks(&a), n = items(l, phase), bytes = lay_out(&a, NULL);
    CG_FOR(g, item, begin, end, cg_i64(g, 1)) {
        lay_out(&a, cg_offset(g, l->scratch, cg_mul(g, item, bytes)));
        cg_val from = cg_udiv(g, cg_mul(g, item, blocks), n),
               to = cg_udiv(g, cg_mul(g, cg_addi(g, item, 1), blocks), n);
        CG_FOR(g, block, from, to, cg_i64(g, 1)) { attend(&a, block); }
    }
}

static cg_val work(nb_lower *l, int phase) {
    cg *g = l->g;
    const cg_buf *q = &l->in[0].buf, *k = &l->in[1].buf;
    cg_val all = cg_mul(g, cg_mul(g, cg_buf_count(g, q), k->dims[2]), cg_i64(g, 2)),
           n = items(l, phase);
    return cg_udiv(g, all, cg_smax(g, n, cg_i64(g, 1)));
}

static nb_status accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags) {
    const nb_dim *d = nb_in(op, 0)->type->dims[3];
    if (!nb_dim_is_const(d) || d->value > MAX_HEAD)
        return nb_refuse(op, diags, "heads whose size is not a constant up to %d", MAX_HEAD);
    return nb_accept_plain(op, cpu, diags);
}

const nb_lowering nb_lower_attention = {
    .accept = accept, .items = items, .work = work, .body = body, .scratch = scratch};
