/* Strided buffers: shapes known partly now and partly at run time, addresses of elements and rows,
 * and vector access that converts between memory and arithmetic. */
#include "codegen/cg_private.h"

#include <assert.h>

cg_buf cg_buf_dense(cg *g, cg_val base, nb_elem elem, int rank, const cg_val *dims) {
    cg_buf b = {.base = base, .elem = elem, .rank = rank};
    cg_val stride = cg_i64(g, 1);
    for (int i = rank - 1; i >= 0; i--) {
        b.dims[i] = dims[i];
        b.strides[i] = stride;
        b.dense[i] = true;
        if (i) stride = cg_mul(g, stride, dims[i]);
    }
    return b;
}

cg_val cg_buf_count_range(cg *g, const cg_buf *b, int from, int to) {
    cg_val n = cg_i64(g, 1);
    for (int i = from; i < to; i++) n = cg_mul(g, n, b->dims[i]);
    return n;
}

cg_val cg_buf_count(cg *g, const cg_buf *b) { return cg_buf_count_range(g, b, 0, b->rank); }

bool cg_buf_is_dense(const cg_buf *b) {
    for (int i = 0; i < b->rank; i++)
        if (!b->dense[i]) return false;
    return true;
}

cg_buf cg_buf_merge(cg *g, const cg_buf *b, int from, int to) {
    cg_buf r = *b;
    if (to - from < 1) return r;
    r.dims[from] = cg_buf_count_range(g, b, from, to);
    r.strides[from] = b->strides[to - 1];
    r.dense[from] = b->dense[to - 1];
    for (int i = to; i < b->rank; i++) {
        r.dims[from + 1 + i - to] = b->dims[i];
        r.strides[from + 1 + i - to] = b->strides[i];
        r.dense[from + 1 + i - to] = b->dense[i];
    }
    r.rank = b->rank - (to - from) + 1;
    return r;
}

cg_buf cg_buf_collapse(cg *g, const cg_buf *b) {
    cg_buf r = *b;
    for (int i = r.rank - 2; i >= 0; i--)
        if (r.dense[i]) r = cg_buf_merge(g, &r, i, i + 2);
    return r;
}

cg_buf cg_buf_broadcast(cg *g, const cg_buf *b, int rank, const cg_val *dims) {
    cg_buf r = *b;
    int missing = rank - b->rank;
    assert(missing >= 0);
    r.rank = rank;
    for (int i = rank - 1; i >= 0; i--) {
        r.dims[i] = dims[i];
        int own = i - missing;
        /* An axis that is 1 on both sides keeps its stride: nothing is repeated along it. */
        bool repeats = own < 0 || (cg_is(b->dims[own], 1) && !cg_is(dims[i], 1));
        r.strides[i] = repeats ? cg_i64(g, 0) : b->strides[own];
        r.dense[i] = !repeats && b->dense[own];
        /* What is dense towards an axis that repeats is so no longer. */
        if (!repeats && i + 1 < rank && own + 1 < b->rank && cg_is(r.strides[i + 1], 0))
            r.dense[i] = false;
    }
    return r;
}

cg_val cg_buf_step(cg *g, const cg_buf *b, cg_val pointer, cg_val index) {
    return cg_index(g, pointer, cg_storage_kind(b->elem), index);
}

cg_val cg_buf_at(cg *g, const cg_buf *b, const cg_val *index) {
    cg_val offset = cg_i64(g, 0);
    for (int i = 0; i < b->rank; i++)
        offset = cg_add(g, offset, cg_mul(g, index[i], b->strides[i]));
    return cg_buf_step(g, b, b->base, offset);
}

cg_val cg_buf_row_offset(cg *g, const cg_buf *b, int inner, cg_val row) {
    /* Outer axes that lie dense to each other need no division. */
    cg_val offset = cg_i64(g, 0);
    int i = b->rank - inner - 1;
    while (i >= 0) {
        int first = i;
        while (first > 0 && b->dense[first - 1]) first--;
        cg_val index = row;
        if (first > 0) {
            cg_val n = cg_buf_count_range(g, b, first, i + 1);
            index = cg_urem(g, row, n);
            row = cg_udiv(g, row, n);
        }
        offset = cg_add(g, offset, cg_mul(g, index, b->strides[i]));
        i = first - 1;
    }
    return offset;
}

cg_val cg_buf_row(cg *g, const cg_buf *b, int inner, cg_val row) {
    return cg_buf_step(g, b, b->base, cg_buf_row_offset(g, b, inner, row));
}

/* ---- elements ------------------------------------------------------------------------------ */

/* What goes to memory. f16 and bf16 have one NaN when they are encoded. */
static cg_val stored(cg *g, const cg_buf *b, cg_val v) {
    cg_val r = cg_encode(g, b->elem, v);
    return b->canonical && cg_is_float(r) ? cg_canonical_bits(g, r) : r;
}

cg_val cg_buf_load(cg *g, const cg_buf *b, cg_val pointer) {
    assert(nb_elems[b->elem].bits >= 8);
    return cg_decode(g, b->elem, cg_load(g, CG_S(cg_storage_kind(b->elem)), pointer, 0));
}

void cg_buf_store(cg *g, const cg_buf *b, cg_val pointer, cg_val v) {
    assert(nb_elems[b->elem].bits >= 8);
    cg_store(g, stored(g, b, v), pointer, 0);
}

cg_val cg_buf_load_part(cg *g, const cg_buf *b, cg_val pointer, cg_val stride, cg_val n) {
    cg_kind kind = cg_storage_kind(b->elem);
    cg_val v;
    if (cg_is(stride, 1)) {
        v = n ? cg_load_part(g, CG_V(kind), pointer, n) : cg_load(g, CG_V(kind), pointer, 0);
    } else if (cg_is(stride, 0)) {
        v = cg_splat(g, cg_load(g, CG_S(kind), pointer, 0), CG_LANES);
    } else if (!n) {
        v = cg_zero(g, CG_V(kind));
        for (int i = 0; i < CG_LANES; i++) {
            cg_val at = cg_buf_step(g, b, pointer, cg_muli(g, stride, i));
            v = cg_with_lane(g, v, i, cg_load(g, CG_S(kind), at, 0));
        }
    } else {
        cg_val room = cg_stack(g, 8 * CG_LANES, 64);
        cg_store(g, cg_zero(g, CG_V(kind)), room, 0);
        CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
            cg_val at = cg_buf_step(g, b, pointer, cg_mul(g, stride, i));
            cg_store(g, cg_load(g, CG_S(kind), at, 0), cg_index(g, room, kind, i), 0);
        }
        v = cg_load(g, CG_V(kind), room, 0);
    }
    return cg_decode(g, b->elem, v);
}

void cg_buf_store_part(cg *g, const cg_buf *b, cg_val pointer, cg_val stride, cg_val v, cg_val n) {
    cg_kind kind = cg_storage_kind(b->elem);
    v = stored(g, b, v);
    if (cg_is(stride, 1)) {
        if (n)
            cg_store_part(g, v, pointer, n);
        else
            cg_store(g, v, pointer, 0);
    } else if (!n) {
        for (int i = 0; i < CG_LANES; i++)
            cg_store(g, cg_lane(g, v, i), cg_buf_step(g, b, pointer, cg_muli(g, stride, i)), 0);
    } else {
        cg_val room = cg_stack(g, 8 * CG_LANES, 64);
        cg_store(g, v, room, 0);
        CG_FOR(g, i, cg_i64(g, 0), n, cg_i64(g, 1)) {
            cg_val lane = cg_load(g, CG_S(kind), cg_index(g, room, kind, i), 0);
            cg_store(g, lane, cg_buf_step(g, b, pointer, cg_mul(g, stride, i)), 0);
        }
    }
}

void cg_buf_stream16(cg *g, const cg_buf *b, cg_val pointer, cg_val v) {
    cg_stream(g, stored(g, b, v), pointer);
}

cg_val cg_buf_load16(cg *g, const cg_buf *b, cg_val pointer, cg_val stride) {
    return cg_buf_load_part(g, b, pointer, stride, NULL);
}

void cg_buf_store16(cg *g, const cg_buf *b, cg_val pointer, cg_val stride, cg_val v) {
    cg_buf_store_part(g, b, pointer, stride, v, NULL);
}

void cg_for16(cg *g, cg_val count, void (*body)(cg *g, void *user, cg_val i, cg_val n),
              void *user) {
    cg_val whole = cg_andi(g, count, -(int64_t)CG_LANES);
    CG_FOR(g, i, cg_i64(g, 0), whole, cg_i64(g, CG_LANES)) { body(g, user, i, NULL); }
    cg_val rest = cg_sub(g, count, whole);
    CG_IF(g, cg_cmpi(g, CG_GT, rest, 0)) { body(g, user, whole, rest); }
}
