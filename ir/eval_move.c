/* Data movement and values made of dimensions. Elements are copied as bits. */
#include "ir/conv.h"
#include "ir/eval_private.h"

#include <string.h>

void nb_copy_element(const nb_tensor *x, int64_t from, nb_tensor *y, int64_t to) {
    int bits = nb_elems[x->elem].bits;
    if (bits < 8) {
        nb_tensor_set_int(y, to, nb_tensor_get_int(x, from));
        return;
    }
    size_t n = (size_t)bits / 8;
    memcpy((char *)y->data + (size_t)to * n, (const char *)x->data + (size_t)from * n, n);
}

static void row_major(const nb_tensor *t, int64_t *strides) {
    int64_t stride = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        strides[d] = stride;
        stride *= t->dims[d];
    }
}

/* y[i] = x[base + sum of index * strides] over y's shape. */
static void copy_strided(const nb_tensor *x, int64_t base, int64_t (*strides)[NB_MAX_RANK],
                         nb_tensor *y) {
    int64_t index[NB_MAX_RANK] = {0}, n = nb_tensor_count(y);
    for (int64_t i = 0; i < n; i++) {
        nb_copy_element(x, base, y, i);
        nb_step(y, index, 1, &base, strides);
    }
}

nb_status nb_eval_view(const nb_evaluating *e) {
    if (e->out->bytes) memcpy(e->out->data, e->in[0].data, (size_t)e->out->bytes);
    return NB_OK;
}

nb_status nb_eval_transpose(const nb_evaluating *e) {
    int64_t from[NB_MAX_RANK], strides[1][NB_MAX_RANK];
    const nb_attr *perm = nb_attr_of(e->op, "perm");
    row_major(&e->in[0], from);
    for (int d = 0; d < e->out->rank; d++) strides[0][d] = from[perm->ints.items[d]];
    copy_strided(&e->in[0], 0, strides, e->out);
    return NB_OK;
}

/* A patch's axes stand behind those of its place, so that the result is a view of x with strides.
 */
void nb_patches_of(const nb_op *op, const nb_tensor *x, nb_tensor *y) {
    const nb_attr *kernel = nb_attr_of(op, "kernel");
    const int axes = x->rank - 2;
    int64_t from[NB_MAX_RANK], strides[1][NB_MAX_RANK];
    row_major(x, from);
    nb_tensor view = *y;
    view.rank = 2 * axes + 2;
    view.dims[axes + 1] = x->dims[1];
    strides[0][0] = from[0];
    strides[0][axes + 1] = from[1];
    for (int d = 0; d < axes; d++) {
        view.dims[axes + 2 + d] = kernel->ints.items[d];
        strides[0][d + 1] = from[d + 2] * nb_conv_stride(op, d);
        strides[0][axes + 2 + d] = from[d + 2] * nb_conv_dilation(op, d);
    }
    copy_strided(x, 0, strides, &view);
}

nb_status nb_eval_patches(const nb_evaluating *e) {
    nb_patches_of(e->op, &e->in[0], e->out);
    return NB_OK;
}

nb_status nb_eval_expand(const nb_evaluating *e) {
    int64_t strides[1][NB_MAX_RANK];
    nb_broadcast_strides(&e->in[0], e->out, strides[0]);
    copy_strided(&e->in[0], 0, strides, e->out);
    return NB_OK;
}

nb_status nb_eval_concat(const nb_evaluating *e) {
    int axis = (int)nb_attr_int(e->op, "axis");
    int64_t outer = 1, inner = 1, at = 0;
    for (int d = 0; d < axis; d++) outer *= e->out->dims[d];
    for (int d = axis + 1; d < e->out->rank; d++) inner *= e->out->dims[d];
    for (uint32_t k = 0; k < e->op->n_operands; k++) {
        const nb_tensor *x = &e->in[k];
        int64_t run = x->dims[axis] * inner;
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t i = 0; i < run; i++)
                nb_copy_element(x, o * run + i, e->out, o * e->out->dims[axis] * inner + at + i);
        }
        at += run;
    }
    return NB_OK;
}

nb_status nb_eval_slice(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    const nb_attr *start = nb_attr_of(e->op, "start"), *step = nb_attr_of(e->op, "step");
    int64_t from[NB_MAX_RANK], strides[1][NB_MAX_RANK], base = 0;
    row_major(x, from);
    for (int d = 0; d < x->rank; d++) {
        int64_t s, n = e->out->dims[d], by = step->ints.items[d], last;
        NB_TRY(nb_dim_value(e, start->dims.items[d], &s));
        if (nb_tensor_count(e->out) == 0) continue;
        bool fits = nb_mul_i64(n - 1, by, &last) && nb_add_i64(s, last, &last);
        if (!fits || s < 0 || s >= x->dims[d] || last < 0 || last >= x->dims[d])
            return nb_eval_error(
                e, "start %lld, count %lld, step %lld leave axis %d of length %lld", (long long)s,
                (long long)n, (long long)by, d, (long long)x->dims[d]);
        base += s * from[d];
        strides[0][d] = n == 1 ? 0 : by * from[d]; /* one element takes no step, however large */
    }
    copy_strided(x, base, strides, e->out);
    return NB_OK;
}

nb_status nb_eval_gather(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *index = &e->in[1];
    int axis = (int)nb_attr_int(e->op, "axis");
    int64_t outer = 1, inner = 1, count = nb_tensor_count(index), length = x->dims[axis];
    for (int d = 0; d < axis; d++) outer *= x->dims[d];
    for (int d = axis + 1; d < x->rank; d++) inner *= x->dims[d];
    for (int64_t i = 0; i < count; i++) {
        int64_t at = nb_tensor_get_int(index, i);
        if (at < 0) at += length;
        if (at < 0 || at >= length)
            return nb_eval_error(e, "index %lld is outside an axis of length %lld",
                                 (long long)nb_tensor_get_int(index, i), (long long)length);
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t k = 0; k < inner; k++)
                nb_copy_element(x, (o * length + at) * inner + k, e->out,
                                (o * count + i) * inner + k);
        }
    }
    return NB_OK;
}

nb_status nb_eval_require(const nb_evaluating *e) {
    const nb_tensor *holds = &e->in[1];
    for (int64_t i = 0; i < nb_tensor_count(holds); i++) {
        if (!nb_tensor_get_int(holds, i))
            return nb_eval_error(e, "numbers of the run are not what the model declares");
    }
    if (e->out->bytes) memcpy(e->out->data, e->in[0].data, (size_t)e->out->bytes);
    return NB_OK;
}

nb_status nb_eval_pad(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0];
    const nb_attr *before = nb_attr_of(e->op, "before"), *after = nb_attr_of(e->op, "after");
    int64_t n = nb_tensor_count(e->out), to[NB_MAX_RANK] = {0}, index[NB_MAX_RANK] = {0}, base = 0,
            strides[1][NB_MAX_RANK];
    row_major(e->out, to);
    for (int d = 0; d < x->rank; d++) {
        int64_t b, a;
        NB_TRY(nb_dim_value(e, before->dims.items[d], &b));
        NB_TRY(nb_dim_value(e, after->dims.items[d], &a));
        if (a < 0 || b < 0)
            return nb_eval_error(e, "axis %d would get %lld elements before and %lld after it", d,
                                 (long long)b, (long long)a);
        base += b * to[d];
        strides[0][d] = to[d];
    }
    for (int64_t i = 0; nb_given(e, 1) && i < n; i++) nb_copy_element(&e->in[1], 0, e->out, i);
    n = nb_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        nb_copy_element(x, i, e->out, base);
        nb_step(x, index, 1, &base, strides);
    }
    return NB_OK;
}

nb_status nb_eval_dims(const nb_evaluating *e) {
    const nb_attr *values = nb_attr_of(e->op, "values");
    for (size_t i = 0; i < values->dims.count; i++)
        NB_TRY(nb_dim_value(e, values->dims.items[i], (int64_t *)e->out->data + i));
    return NB_OK;
}

nb_status nb_eval_iota(const nb_evaluating *e) {
    int64_t start, *y = e->out->data;
    NB_TRY(nb_dim_value(e, nb_attr_of(e->op, "start")->dims.items[0], &start));
    uint64_t value = (uint64_t)start, step = (uint64_t)nb_attr_int(e->op, "step"); /* wraps */
    for (int64_t i = 0; i < e->out->dims[0]; i++, value += step) y[i] = (int64_t)value;
    return NB_OK;
}
