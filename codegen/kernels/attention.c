/* attention: softmax(q.k * scale + mask).v as NUMBERS.md orders it.
 *
 * Work comes in blocks of rows that share one key head: positions of a prompt, query heads, or
 * both. Keys come in runs: the first tile of rows turns them round, 16 to a panel, so that they are
 * lanes, and each tile takes its dot products from the panels; a tile that is alone takes them as
 * it turns them, without a way through memory. Behind the last run the maxima are known, and runs
 * of exponentials and values follow, in order. Every key is read once for a block, every value once
 * for a tile. Working memory is a part of the scratch for each thread. */
#include "codegen/kernels/attention.h"

#define MAX_HEAD   1024
#define MAX_HEIGHT 8
/* Keys are used as they are turned by so few rows. More would load for every product. */
#define MOST_USED_AS_TURNED 4
/* What memory is asked for lies so far behind what is read, at least a run of values. */
#define AHEAD_BYTES 32768

static int64_t head_size(const nb_op *op) { return nb_in(op, 0)->type->dims[3]->value; }

/* n rounded up to a multiple of a power of 2. */
static cg_val pad(cg *g, cg_val n, int to) { return cg_andi(g, cg_addi(g, n, to - 1), -to); }

static nb_attention view_of(nb_lower *l) {
    cg *g = l->g;
    const cg_isa *isa = cg_isa_of(g);
    nb_attention a = {.l = l,
                      .q = &l->in[0].buf,
                      .k = &l->in[1].buf,
                      .v = &l->in[2].buf,
                      .k_scales = l->in[4].value ? &l->in[4].buf : NULL,
                      .v_scales = l->in[5].value ? &l->in[5].buf : NULL,
                      .k_minima = l->in[6].value ? &l->in[6].buf : NULL,
                      .v_minima = l->in[7].value ? &l->in[7].buf : NULL,
                      .y = &l->out[0].buf,
                      .masked = l->in[3].value && !l->in[3].immediate};
    a.H = a.q->dims[1];
    a.G = a.k->dims[1];
    a.S = a.q->dims[2];
    a.D = a.q->dims[3];
    a.T = a.k->dims[2];
    a.E = a.y->dims[3];
    a.Tpad = pad(g, a.T, NB_ATTENTION_RUN);
    a.Epad = pad(g, a.E, CG_LANES);
    a.Dpad = pad(g, a.D, 32);
    a.Ewide = pad(g, a.E, 64);
    a.share = cg_udiv(g, a.H, a.G);
    cg_val rows = cg_mul(g, a.share, a.S);
    a.blocks = cg_ceildiv(g, rows, cg_i64(g, NB_ATTENTION_ROWS));
    if (a.masked) {
        cg_val dims[4] = {a.q->dims[0], a.H, a.S, a.T};
        a.mask = cg_buf_broadcast(g, &l->in[3].buf, 4, dims);
    }
    /* Half of the registers or a little more hold sums; the others one vector of operands and what
     * is broadcast. */
    int registers = isa->vector_bytes < 64 ? 64 / isa->vector_bytes : 1;
    a.vectors = 1;
    while (a.vectors < 16 && 2 * a.vectors * registers <= isa->registers - 4) a.vectors *= 2;
    a.height = (int)nb_min_i64(MAX_HEIGHT, a.vectors);
    a.direct = isa->vector_bytes == 64 && !nb_is_u4(a.k);
    a.most = pad(g, cg_smin(g, rows, cg_i64(g, NB_ATTENTION_ROWS)), a.height);
    return a;
}

/* In keys. */
static cg_val keys_ahead(const nb_attention *a) {
    cg *g = a->l->g;
    int64_t codes = nb_is_u4(a->k) ? 2 : 1, /* in an element */
        bytes = nb_max_i64(1, head_size(a->l->op) / codes * nb_elems[a->k->elem].bits / 8);
    return cg_i64(g, nb_ceildiv(AHEAD_BYTES / bytes, NB_ATTENTION_RUN) * NB_ATTENTION_RUN);
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
    *end = cg_add(g, *end, cg_muli(g, pad(g, floats, CG_LANES), 4));
    return at;
}

/* Working memory of keys and queries. */
static void lay_out_keys(nb_attention *a, cg_val base, cg_val *end) {
    cg *g = a->l->g;
    if (nb_is_i8(a->k)) {
        a->query_codes = part(g, base, end, cg_lshri(g, cg_mul(g, a->most, a->Dpad), 1));
        a->query_steps = part(g, base, end, a->most);
        if (cg_isa_of(g)->fours) {
            a->query_planes = part(g, base, end, cg_lshri(g, cg_mul(g, a->most, a->Dpad), 1));
            a->query_offsets = part(g, base, end, a->most);
        }
        a->words = part(g, base, end, cg_muli(g, a->Dpad, NB_ATTENTION_RUN / 2));
    } else {
        a->queries = part(g, base, end, cg_mul(g, a->most, a->D));
        a->keys = part(g, base, end, cg_muli(g, a->D, NB_ATTENTION_RUN));
    }
    a->last_keys = part(g, base, end, cg_muli(g, a->D, NB_ATTENTION_RUN));
    if (nb_is_u4(a->k)) {
        cg_val halves = cg_muli(g, a->k_scales->dims[2], NB_ATTENTION_RUN / 2);
        a->last_scales = part(g, base, end, halves);
        a->last_minima = part(g, base, end, halves);
    }
}

/* Of values and sums. */
static void lay_out_values(nb_attention *a, cg_val base, cg_val *end) {
    cg *g = a->l->g;
    if (nb_is_i8(a->v)) {
        cg_val sums = cg_mul(g, a->most, a->Ewide), lanes = cg_muli(g, a->most, CG_LANES);
        a->last_values = part(g, base, end, cg_muli(g, a->Ewide, NB_ATTENTION_RUN / 4));
        a->turned =
            part(g, base, end, cg_muli(g, a->Ewide, NB_ATTENTION_VALUES / nb_attention_grouped(g)));
        a->parts = part(g, base, end, cg_muli(g, sums, nb_attention_planes(g)));
        a->totals = part(g, base, end, cg_muli(g, sums, 2));
        a->counts = part(g, base, end, lanes);
        a->all_counts = part(g, base, end, cg_muli(g, lanes, 2));
        a->widest = part(g, base, end, lanes);
        a->inverses = part(g, base, end, a->most);
        return;
    }
    if (nb_is_u4(a->v)) a->values = part(g, base, end, cg_muli(g, a->Epad, NB_ATTENTION_RUN));
    a->acc = part(g, base, end, cg_mul(g, a->most, a->Epad));
    a->sums = part(g, base, end, cg_i64(g, NB_ATTENTION_ROWS));
}

/* Lays the working memory out at `base` (NULL: counts only) and returns its bytes. */
static cg_val lay_out(nb_attention *a, cg_val base) {
    cg *g = a->l->g;
    cg_val end = cg_i64(g, 0), pointers = cg_i64(g, 2 * NB_ATTENTION_ROWS);
    a->mask_rows = part(g, base, &end, pointers);
    a->output_rows = part(g, base, &end, pointers);
    a->query_rows = part(g, base, &end, pointers);
    a->hiding = part(g, base, &end, cg_i64(g, NB_ATTENTION_ROWS));
    a->largest = part(g, base, &end, cg_i64(g, NB_ATTENTION_ROWS * CG_LANES));
    lay_out_keys(a, base, &end);
    lay_out_values(a, base, &end);
    a->scores = part(g, base, &end, cg_mul(g, a->most, a->Tpad));
    return end;
}

static cg_val scratch(nb_lower *l) {
    nb_attention a = view_of(l);
    return cg_mul(l->g, l->threads, lay_out(&a, NULL));
}

/* ---- a block -------------------------------------------------------------------------------- */

/* All rows of the block in tiles of one height: of 1, 2, 4 ... rows, whichever first holds all of
 * them, or else of the most. */
static void each_tile(nb_attention *a, void (*tiles)(nb_attention *a, int height), int height) {
    cg *g = a->l->g;
    if (height == a->height) {
        tiles(a, height);
        return;
    }
    CG_IF(g, cg_cmpi(g, CG_LE, a->rows, height)) { tiles(a, height); }
    CG_ELSE(g) { each_tile(a, tiles, 2 * height); }
}

/* Queries side by side, so that a tile finds its own; the last row stands for those beyond it. */
static void pack_queries(nb_attention *a) {
    cg *g = a->l->g;
    cg_val zero = cg_i64(g, 0), one = cg_i64(g, 1), last = cg_addi(g, a->rows, -1);
    CG_FOR(g, row, zero, a->padded, one) {
        cg_val from = nb_row_pointer(g, a->query_rows, cg_smin(g, row, last));
        CG_FOR(g, d, zero, a->D, one) {
            cg_val x = cg_buf_load(g, a->q, cg_buf_step(g, a->q, from, d)),
                   at = cg_add(g, cg_mul(g, d, a->padded), row);
            cg_store(g, x, nb_floats_at(g, a->queries, at), 4);
        }
    }
}

/* Where rows are, and what their sums start from. */
static void begin_rows(nb_attention *a) {
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
        cg_store(g, none, nb_lanes_of(a, a->largest, row), 64);
        if (!nb_is_i8(a->v)) cg_store(g, cg_f32(g, 0), nb_floats_at(g, a->sums, row), 4);
    }
    if (nb_is_i8(a->v))
        nb_attention_begin_sums(a);
    else
        cg_memset(g, a->acc, 0, cg_muli(g, cg_mul(g, a->padded, a->Epad), 4));
    if (nb_is_i8(a->k))
        nb_attention_code_queries(a);
    else
        pack_queries(a);
}

static void dots_of_several(nb_attention *a, int height) {
    cg *g = a->l->g;
    nb_attention_dots(a, cg_i64(g, 0), height, NB_KEYS_TURN);
    CG_FOR(g, row, cg_i64(g, height), a->rows, cg_i64(g, height)) {
        nb_attention_dots(a, row, height, NB_KEYS_TURNED);
    }
}

/* As each_tile chooses, a block has more rows than half of the height; only the last height may be
 * too small for it. */
cg_val nb_attention_is_tile(const nb_attention *a, int rows, int height) {
    cg *g = a->l->g;
    if (rows < height || height < a->height) return cg_i1(g, rows == height);
    return cg_cmpi(g, CG_LE, a->rows, height);
}

static void dots(nb_attention *a, int height) {
    cg *g = a->l->g;
    if (nb_is_i8(a->k)) {
        nb_attention_dots_i8(a, height);
        return;
    }
    const bool few = a->direct && height <= MOST_USED_AS_TURNED;
    cg_val alone = few ? nb_attention_is_tile(a, height, height) : cg_i1(g, false);
    CG_IF(g, alone) { nb_attention_dots(a, cg_i64(g, 0), height, NB_KEYS_TURN_AND_USE); }
    CG_ELSE(g) { dots_of_several(a, height); }
}

static void weigh(nb_attention *a, int height) {
    cg *g = a->l->g;
    if (nb_is_i8(a->v)) {
        nb_attention_weigh_i8(a, height);
        return;
    }
    nb_attention_weigh(a, cg_i64(g, 0), height, true);
    if (height == a->height) CG_FOR(g, row, cg_i64(g, height), a->rows, cg_i64(g, height)) {
            nb_attention_weigh(a, row, height, false);
        }
}

/* Runs of up to `most`, whole ones of NB_ATTENTION_RUN, then that which is not full. */
static void each_run(nb_attention *a, cg_val most, void (*run)(nb_attention *a)) {
    cg *g = a->l->g;
    cg_var t = cg_var_new(g, a->from);
    CG_WHILE(g, cg_cmp(g, CG_LT, cg_get(g, t), a->until)) {
        a->t = cg_get(g, t);
        cg_val left = cg_sub(g, a->until, a->t),
               whole = cg_smin(g, most, cg_andi(g, left, -NB_ATTENTION_RUN));
        a->n = cg_select(g, cg_cmpi(g, CG_LT, left, NB_ATTENTION_RUN), left, whole);
        run(a);
        cg_set(g, t, cg_add(g, a->t, a->n));
    }
}

/* Of several rows, sums and what is kept of values are loaded and stored less often in longer runs,
 * as far as the first-level cache holds the rows' weights beside them. The time that a row alone
 * waits for memory holds a short run's weights, not a long one's. */
static cg_val values_in_run(const nb_attention *a) {
    cg *g = a->l->g;
    cg_val shortest = cg_i64(g, NB_ATTENTION_RUN), n = shortest;
    if (nb_is_u4(a->v)) return shortest;
    for (int rows = NB_ATTENTION_ROWS / 2; rows >= NB_ATTENTION_ROWS / 4; rows /= 2)
        n = cg_select(g, cg_cmpi(g, CG_LE, a->rows, rows),
                      cg_i64(g, NB_ATTENTION_RUN * NB_ATTENTION_ROWS / rows), n);
    return cg_select(g, cg_cmpi(g, CG_EQ, a->rows, 1), shortest, n);
}

static void run_of_keys(nb_attention *a) {
    nb_attention_find_keys(a);
    each_tile(a, dots, 1);
    nb_attention_finish_scores(a);
}

static void run_of_values(nb_attention *a) {
    cg *g = a->l->g;
    nb_attention_find_values(a);
    if (nb_is_i8(a->v)) { /* hidden ones have weights of 0, and 0 times a code is 0 */
        nb_attention_code_weights(a);
        each_tile(a, weigh, 1);
        nb_attention_end_run(a);
        return;
    }
    cg_val zeros = nb_attention_exponentials(a);
    if (!a->masked) {
        each_tile(a, weigh, 1);
        return;
    }
    cg_var wild = cg_var_new(g, cg_i1(g, false));
    CG_IF(g, zeros) { cg_set(g, wild, nb_attention_has_wild(a)); }
    CG_IF(g, cg_get(g, wild)) {
        nb_attention_add_up(a);
        nb_attention_weigh_visible(a);
    }
    CG_ELSE(g) { each_tile(a, weigh, 1); }
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

static void store_row(const nb_attention *a, cg_val row) {
    cg *g = a->l->g;
    if (nb_is_i8(a->v)) {
        nb_attention_store_i8(a, row);
        return;
    }
    storing to = {.a = a,
                  .from = nb_floats_at(g, a->acc, cg_mul(g, row, a->Epad)),
                  .to = nb_row_pointer(g, a->output_rows, row),
                  .sum = cg_load(g, CG_S(CG_F32), nb_floats_at(g, a->sums, row), 4)};
    cg_for16(g, a->E, store16, &to);
}

static void attend(nb_attention *a, cg_val block) {
    cg *g = a->l->g;
    cg_val head = cg_udiv(g, block, a->blocks);
    a->b = cg_udiv(g, head, a->G);
    a->kv = cg_urem(g, head, a->G);
    a->first = cg_muli(g, cg_urem(g, block, a->blocks), NB_ATTENTION_ROWS);
    a->rows =
        cg_smin(g, cg_i64(g, NB_ATTENTION_ROWS), cg_sub(g, cg_mul(g, a->share, a->S), a->first));
    a->padded = pad(g, a->rows, a->height);
    for (int height = a->height / 2; height; height /= 2) /* as each_tile chooses */
        a->padded = cg_select(g, cg_cmpi(g, CG_LE, a->rows, height), cg_i64(g, height), a->padded);
    a->ahead = keys_ahead(a);
    begin_rows(a);
    nb_attention_find_visible(a);
    each_run(a, cg_i64(g, NB_ATTENTION_RUN), run_of_keys);
    nb_attention_find_largest(a);
    if (nb_is_i8(a->v)) nb_attention_find_steps(a);
    each_run(a, values_in_run(a), run_of_values);
    CG_FOR(g, row, cg_i64(g, 0), a->rows, cg_i64(g, 1)) { store_row(a, row); }
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
