/* Ops whose order along an axis is what they are about: cumsum, topk, and scatter, where of several
 * updates of one place the last one counts. */
#include "ir/eval_private.h"

#include <string.h>

/* Element (outer, k, inner) of t along `axis`. */
typedef struct columns {
    int64_t outer, length, inner;
} columns;

static columns columns_of(const nb_tensor *t, int axis) {
    columns c = {1, t->dims[axis], 1};
    for (int d = 0; d < axis; d++) c.outer *= t->dims[d];
    for (int d = axis + 1; d < t->rank; d++) c.inner *= t->dims[d];
    return c;
}

/* cumsum and cumprod. Small floats are added and multiplied in f32; what is stored is rounded, what
 * goes on is not. */
nb_status nb_eval_cumsum(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    columns c = columns_of(x, (int)nb_attr_int(e->op, "axis"));
    const unsigned product = e->op->kind == NB_OP_cumprod;
    for (int64_t column = 0; column < c.outer * c.inner; column++) {
        int64_t at = column / c.inner * c.length * c.inner + column % c.inner;
        double wide = product;
        float sum = (float)product;
        uint64_t whole = product;
        for (int64_t k = 0; k < c.length; k++, at += c.inner) {
            if (x->elem == NB_F64) {
                double v = nb_tensor_get(x, at);
                wide = product ? wide * v : wide + v;
                nb_tensor_set_float(e->out, at, wide);
            } else if (nb_elem_is_float(x->elem)) {
                float v = (float)nb_tensor_get(x, at);
                sum = product ? sum * v : sum + v;
                nb_tensor_set_float(e->out, at, (double)sum);
            } else {
                uint64_t v = (uint64_t)nb_tensor_get_int(x, at);
                whole = product ? whole * v : whole + v;
                nb_tensor_set_int(e->out, at, (int64_t)whole);
            }
        }
    }
    return NB_OK;
}

/* Does element a of x stand before element b? */
static bool better(const nb_tensor *x, int64_t a, int64_t b, bool smallest) {
    if (nb_elem_is_float(x->elem)) {
        double p = nb_tensor_get(x, smallest ? b : a), q = nb_tensor_get(x, smallest ? a : b);
        return p > q || (p != p && q == q);
    }
    int64_t p = nb_tensor_get_int(x, smallest ? b : a), q = nb_tensor_get_int(x, smallest ? a : b);
    return x->elem == NB_U64 ? (uint64_t)p > (uint64_t)q : p > q;
}

nb_status nb_eval_topk(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    int axis = (int)nb_attr_int(e->op, "axis");
    bool smallest = nb_attr_bool(e->op, "smallest");
    columns c = columns_of(x, axis);
    int64_t k = e->out->dims[axis], *place = e->out[1].data;
    if (k > c.length)
        return nb_eval_error(e, "%lld elements of an axis of length %lld", (long long)k,
                             (long long)c.length);
    for (int64_t column = 0; column < c.outer * c.inner && k; column++) {
        int64_t from = column / c.inner * c.length * c.inner + column % c.inner,
                to = column / c.inner * k * c.inner + column % c.inner;
        for (int64_t i = 0; i < c.length; i++) {
            int64_t j = i < k ? i : k;
            while (j > 0 && better(x, from + i * c.inner,
                                   from + place[to + (j - 1) * c.inner] * c.inner, smallest)) {
                if (j < k) place[to + j * c.inner] = place[to + (j - 1) * c.inner];
                j--;
            }
            if (j < k) place[to + j * c.inner] = i;
        }
        for (int64_t j = 0; j < k; j++)
            nb_copy_element(x, from + place[to + j * c.inner] * c.inner, e->out, to + j * c.inner);
    }
    return NB_OK;
}

static nb_op_kind step_of(nb_op_kind kind) {
    switch (kind) {
    case NB_OP_scatter_add:
        return NB_OP_add;
    case NB_OP_scatter_mul:
        return NB_OP_mul;
    case NB_OP_scatter_min:
        return NB_OP_min;
    default:
        return NB_OP_max;
    }
}

nb_status nb_eval_scatter(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *index = &e->in[1], *updates = &e->in[2];
    int64_t n = nb_tensor_count(index), inner = 1;
    for (int d = 1; d < x->rank; d++) inner *= x->dims[d];
    if (x->bytes) memcpy(e->out->data, x->data, (size_t)x->bytes);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = nb_tensor_get_int(index, i);
        if (at < 0) at += x->dims[0];
        if (at < 0 || at >= x->dims[0])
            return nb_eval_error(e, "index %lld is outside an axis of length %lld",
                                 (long long)nb_tensor_get_int(index, i), (long long)x->dims[0]);
        for (int64_t k = 0; k < inner; k++) {
            int64_t to = at * inner + k, from = i * inner + k;
            if (e->op->kind == NB_OP_scatter)
                nb_copy_element(updates, from, e->out, to);
            else
                nb_eval_pair(step_of(e->op->kind), e->out, to, updates, from, e->out, to);
        }
    }
    return NB_OK;
}
