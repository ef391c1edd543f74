/* hadamard: butterflies between entries of a block. Entries less than 16 apart stand in one vector
 * and meet by a shuffle; the rest of a block's vectors meet whole, without leaving straight code.
 * Blocks that are too long for a row's end are followed by one of each size that it is made of. */
#include "codegen/lower.h"

#include <math.h>

#define MOST (1024 / CG_LANES) /* vectors of the longest block */

typedef struct row {
    nb_lower *l;
    cg_val from, to; /* where the row starts */
    int64_t block;   /* a block's entries; at the end of a row those of a smaller one */
} row;

static cg_val load(const row *r, cg_val i, cg_val n) {
    const cg_buf *x = &r->l->in[0].buf;
    cg *g = r->l->g;
    cg_val stride = x->strides[x->rank - 1];
    return cg_buf_load_part(g, x, cg_buf_step(g, x, r->from, cg_mul(g, i, stride)), stride, n);
}

static void store(const row *r, cg_val i, cg_val n, cg_val v) {
    const cg_buf *y = &r->l->out[0].buf;
    cg *g = r->l->g;
    cg_val stride = y->strides[y->rank - 1];
    v = cg_mul(g, v, cg_splat(g, cg_f32(g, 1.0f / sqrtf((float)r->block)), CG_LANES));
    cg_buf_store_part(g, y, cg_buf_step(g, y, r->to, cg_mul(g, i, stride)), stride, v, n);
}

/* The stages within a vector: lane i takes its partner's entry plus its own, or minus its own where
 * it is the upper one of the pair. */
static cg_val stages_in_lanes(cg *g, cg_val v, int64_t block) {
    for (int half = 1; half < block && half < CG_LANES; half *= 2) {
        int partner[CG_LANES];
        int64_t sign[CG_LANES];
        for (int i = 0; i < CG_LANES; i++) {
            partner[i] = i ^ half;
            sign[i] = i & half ? INT32_MIN : 0;
        }
        cg_val mask = cg_from_bits(g, cg_const_lanes(g, CG_I32, CG_LANES, sign));
        v = cg_add(g, cg_shuffle(g, v, NULL, CG_LANES, partner), cg_xor(g, v, mask));
    }
    return v;
}

/* Blocks of at most 16 entries: several in a vector. */
static void short_blocks(cg *g, void *user, cg_val i, cg_val n) {
    const row *r = user;
    store(r, i, n, stages_in_lanes(g, load(r, i, n), r->block));
}

static void long_block(const row *r, cg_val at) {
    cg *g = r->l->g;
    cg_val v[MOST];
    const int vectors = (int)(r->block / CG_LANES);
    for (int i = 0; i < vectors; i++)
        v[i] = stages_in_lanes(g, load(r, cg_addi(g, at, i * CG_LANES), NULL), r->block);
    for (int half = 1; half < vectors; half *= 2) {
        for (int i = 0; i < vectors; i++) {
            if (i & half) continue;
            cg_val a = v[i], b = v[i + half];
            v[i] = cg_add(g, a, b);
            v[i + half] = cg_sub(g, a, b);
        }
    }
    for (int i = 0; i < vectors; i++) store(r, cg_addi(g, at, i * CG_LANES), NULL, v[i]);
}

static void body(nb_lower *l, int phase, cg_val begin, cg_val end) {
    (void)phase;
    cg *g = l->g;
    const cg_buf *x = &l->in[0].buf, *y = &l->out[0].buf;
    row r = {.l = l};
    const int64_t longest = nb_attr_int(l->op, "block");
    cg_val length = x->dims[x->rank - 1], whole = cg_andi(g, length, -longest);
    CG_FOR(g, i, begin, end, cg_i64(g, 1)) {
        r.from = cg_buf_row(g, x, 1, i);
        r.to = cg_buf_row(g, y, 1, i);
        r.block = longest;
        if (r.block <= CG_LANES) {
            cg_for16(g, whole, short_blocks, &r);
        } else {
            CG_FOR(g, at, cg_i64(g, 0), whole, cg_i64(g, r.block)) long_block(&r, at);
        }
        cg_val at = whole;
        while (r.block /= 2) {
            cg_val left = cg_andi(g, length, r.block);
            CG_IF(g, cg_cmpi(g, CG_NE, left, 0)) {
                if (r.block <= CG_LANES)
                    short_blocks(g, &r, at, left);
                else
                    long_block(&r, at);
            }
            at = cg_add(g, at, left);
        }
    }
}

static cg_val work(nb_lower *l, int phase) {
    (void)phase;
    return cg_muli(l->g, l->in[0].buf.dims[l->in[0].buf.rank - 1], 2);
}

const nb_lowering nb_lower_hadamard = {
    .accept = nb_accept_plain, .items = nb_items_rows, .work = work, .body = body};
