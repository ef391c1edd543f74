/* Data movement, and values made of dimensions, as ONNX. */
#include "frontend/export.h"
#include "ir/conv.h"

/* The axes of `t` that are 1 and have no partner in `rest`, which is `t` without them; -1: it is
 * not. */
static int extra_axes(const nb_type *t, const nb_type *rest, int64_t *axes) {
    int n = 0, at = 0;
    for (int d = 0; d < t->rank; d++) {
        if (at < rest->rank && rest->dims[at] == t->dims[d])
            at++;
        else if (nb_dim_is(t->dims[d], 1))
            axes[n++] = d;
        else
            return -1;
    }
    return at == rest->rank ? n : -1;
}

static const nb_type *without_ones(nb_exporter *x, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK];
    int rank = 0;
    for (int d = 0; d < t->rank; d++)
        if (!nb_dim_is(t->dims[d], 1)) dims[rank++] = t->dims[d];
    return nb_type_intern(x->g, t->elem, NULL, rank, dims);
}

static nb_port *put_ones(nb_exporter *x, const char *type, nb_port *v, int n, const int64_t *axes) {
    return n ? NB_PUT(x, type, v, nb_port_i64s(x, (size_t)n, axes)) : v;
}

/* Where only axes of length 1 come or go, no size needs to be computed. */
nb_status nb_export_reshape(nb_exporter *x) {
    const nb_attr *shape = nb_attr_of(x->op, "shape");
    const nb_type *from = nb_in(x->op, 0)->type, *to = nb_out(x->op)->type, *bare = from;
    nb_port *v = nb_operand(x, 0);
    int64_t gone[NB_MAX_RANK], added[NB_MAX_RANK];
    if (!v) return nb_export_result(x, 0, NULL);
    if (extra_axes(from, to, gone) > 0) bare = to;
    if (bare == from && extra_axes(to, from, added) < 0) bare = without_ones(x, from);
    const int n = extra_axes(from, bare, gone), more = extra_axes(to, bare, added);
    if (more < 0)
        return nb_export_result(x, 0,
                                nb_put_reshape(x, v, from, shape->dims.count, shape->dims.items));
    v = put_ones(x, "Squeeze", v, n, gone);
    return nb_export_result(x, 0, put_ones(x, "Unsqueeze", v, more, added));
}

nb_status nb_export_transpose(nb_exporter *x) {
    const nb_attr *perm = nb_attr_of(x->op, "perm");
    nb_port *v = nb_operand(x, 0);
    return nb_export_result(x, 0,
                            v ? nb_put_transpose(x, v, perm->ints.count, perm->ints.items) : NULL);
}

nb_status nb_export_expand(nb_exporter *x) {
    const nb_attr *shape = nb_attr_of(x->op, "shape");
    nb_port *v = nb_operand(x, 0), *to = nb_port_dims(x, shape->dims.count, shape->dims.items);
    return nb_export_result(x, 0, v && to ? NB_PUT(x, "Expand", v, to) : NULL);
}

nb_status nb_export_concat(nb_exporter *x) {
    const uint32_t n = x->op->n_operands;
    nb_port **in = (nb_port **)nb_alloc_array(x->arena, n + 1, sizeof *in);
    for (uint32_t i = 0; i < n; i++) {
        in[i] = nb_operand(x, i);
        if (!in[i]) return nb_export_result(x, 0, NULL);
    }
    nb_port *y = nb_put_node(x, "Concat", n, in);
    nb_put_attr(x, NB_ATTR_I("axis", nb_attr_int(x->op, "axis")));
    return nb_export_result(x, 0, y);
}

/* Behind the last of `count` elements. Going down, -1 would mean the last one: sizes are taken off,
 * which ONNX adds to what is negative. */
static const nb_dim *end_of(nb_exporter *x, const nb_dim *start, const nb_dim *count, int64_t step,
                            const nb_dim *size) {
    nb_graph *g = x->g;
    const nb_dim *end = nb_dim_add(g, start, nb_dim_mul(g, count, nb_dim_const(g, step)));
    return step > 0 ? end : nb_dim_sub(g, end, size);
}

/* From the last element to the first, along some axes. */
static nb_port *put_reversed(nb_exporter *x, nb_port *v, size_t n, const int64_t *axes) {
    int64_t last[NB_MAX_RANK], end[NB_MAX_RANK];
    for (size_t i = 0; i < n; i++) {
        last[i] = -1;
        end[i] = INT64_MIN;
    }
    return NB_PUT(x, "Slice", v, nb_port_i64s(x, n, last), nb_port_i64s(x, n, end),
                  nb_port_i64s(x, n, axes), nb_port_i64s(x, n, last));
}

/* Axes that are taken whole are left out. Where the place to go down from is computed, the elements
 * are taken going up and reversed: behind a place that is computed too it is not to be seen whether
 * it counts from the start or the end. */
nb_status nb_export_slice(nb_exporter *x) {
    const nb_attr *start = nb_attr_of(x->op, "start"), *count = nb_attr_of(x->op, "count"),
                  *step = nb_attr_of(x->op, "step");
    const nb_type *t = nb_in(x->op, 0)->type;
    const nb_dim *starts[NB_MAX_RANK], *ends[NB_MAX_RANK];
    int64_t axes[NB_MAX_RANK], steps[NB_MAX_RANK], reversed[NB_MAX_RANK];
    size_t n = 0, n_reversed = 0;
    bool ones = true;
    for (int d = 0; d < t->rank; d++) {
        int64_t by = step->ints.count ? step->ints.items[d] : 1;
        if (by == 1 && count->dims.items[d] == t->dims[d] && nb_dim_is(start->dims.items[d], 0))
            continue;
        starts[n] = start->dims.items[d];
        if (by < 0 && !nb_dim_is_const(starts[n])) {
            const nb_dim *less = nb_dim_sub(x->g, count->dims.items[d], nb_dim_const(x->g, 1));
            starts[n] = nb_dim_add(x->g, starts[n], nb_dim_mul(x->g, less, nb_dim_const(x->g, by)));
            by = -by;
            reversed[n_reversed++] = d;
        }
        ends[n] = end_of(x, starts[n], count->dims.items[d], by, t->dims[d]);
        axes[n] = d;
        steps[n++] = by;
        ones = ones && by == 1;
    }
    nb_port *v = nb_operand(x, 0);
    if (!n) return nb_export_result(x, 0, v);
    nb_port *from = nb_port_dims(x, n, starts), *to = nb_port_dims(x, n, ends);
    if (!v || !from || !to) return nb_export_result(x, 0, NULL);
    v = NB_PUT(x, "Slice", v, from, to, nb_port_i64s(x, n, axes),
               ones ? NULL : nb_port_i64s(x, n, steps));
    return nb_export_result(x, 0, n_reversed ? put_reversed(x, v, n_reversed, reversed) : v);
}

/* ONNX counts in i32 and i64 only. */
static nb_port *index_operand(nb_exporter *x, size_t i) {
    nb_port *p = nb_operand(x, i);
    const nb_elem e = nb_in(x->op, i)->type->elem;
    return !p || e == NB_I64 || e == NB_I32 ? p : nb_put_cast(x, p, NB_I64);
}

nb_status nb_export_gather(nb_exporter *x) {
    nb_port *v = nb_operand(x, 0), *index = index_operand(x, 1),
            *y = v && index ? NB_PUT(x, "Gather", v, index) : NULL;
    if (y) nb_put_attr(x, NB_ATTR_I("axis", nb_attr_int(x->op, "axis")));
    return nb_export_result(x, 0, y);
}

nb_status nb_export_scatter(nb_exporter *x) {
    const char *how = nb_export_rows[x->op->kind].operator;
    const int64_t behind = -1;
    nb_port *v = nb_operand(x, 0), *index = nb_operand(x, 1), *updates = nb_operand(x, 2);
    if (!v || !index || !updates) return nb_export_result(x, 0, NULL);
    if (nb_in(x->op, 1)->type->elem != NB_I64) index = nb_put_cast(x, index, NB_I64);
    index = NB_PUT(x, "Unsqueeze", index, nb_port_i64s(x, 1, &behind));
    nb_port *y = NB_PUT(x, "ScatterND", v, index, updates);
    nb_put_attr(x, NB_ATTR_S("reduction", how));
    return nb_export_result(x, 0, y);
}

/* What stands around; NULL: 0. */
static nb_port *padding(nb_exporter *x) {
    const nb_value *v = nb_in(x->op, 1);
    if (!nb_map_get(&x->shifted, nb_in(x->op, 0))) return nb_operand(x, 1);
    const nb_tensor code = v ? nb_tensor_of_const(v) : (nb_tensor){0};
    return nb_port_u8(x, (uint8_t)(128 + (v ? nb_tensor_get_int(&code, 0) : 0)));
}

nb_status nb_export_pad(nb_exporter *x) {
    const nb_attr *before = nb_attr_of(x->op, "before"), *after = nb_attr_of(x->op, "after");
    const nb_dim *dims[2 * NB_MAX_RANK];
    const int n = nb_in(x->op, 0)->type->rank;
    nb_port *v = nb_operand(x, 0), *second = nb_before_channels_last(v, n);
    for (int d = 0; d < n; d++) {
        const int to = second ? nb_axis_channels_second(n, d) : d;
        dims[to] = before->dims.items[d];
        dims[n + to] = after->dims.items[d];
    }
    nb_port *pads = nb_port_dims(x, 2 * (size_t)n, dims), *value = padding(x);
    if (!v || !pads) return nb_export_result(x, 0, NULL);
    nb_port *y = NB_PUT(x, "Pad", second ? second : v, pads, value);
    return nb_export_result(x, 0, second ? nb_put_channels_last(x, y, n) : y);
}

/* No node refuses a run, but for places that are not there: the second of one. */
nb_port *nb_put_required(nb_exporter *x, nb_port *v, nb_port *holds) {
    const int64_t first = 0;
    nb_port *all = NB_PUT(x, "ReduceMin", nb_put_cast(x, holds, NB_I64));
    nb_put_attr(x, NB_ATTR_I("keepdims", 0));
    nb_port *at = NB_PUT(x, "Sub", nb_port_i64(x, 1), all);
    return NB_PUT(x, "Gather", NB_PUT(x, "Unsqueeze", v, nb_port_i64s(x, 1, &first)), at);
}

nb_status nb_export_require(nb_exporter *x) {
    nb_port *v = nb_operand(x, 0), *holds = nb_operand(x, 1);
    return nb_export_result(x, 0, v && holds ? nb_put_required(x, v, holds) : NULL);
}

nb_status nb_export_dims(nb_exporter *x) {
    const nb_attr *values = nb_attr_of(x->op, "values");
    nb_port *list = nb_port_dims(x, values->dims.count, values->dims.items);
    if (list && nb_attr_bool(x->op, "scalar"))
        list = NB_PUT(x, "Reshape", list, nb_port_i64s(x, 0, NULL));
    return nb_export_result(x, 0, list);
}

nb_status nb_export_iota(nb_exporter *x) {
    const nb_dim *start = nb_attr_of(x->op, "start")->dims.items[0],
                 *count = nb_attr_of(x->op, "count")->dims.items[0],
                 *step = nb_dim_const(x->g, nb_attr_int(x->op, "step"));
    nb_port *from = nb_port_dim(x, start),
            *to = nb_port_dim(x, nb_dim_add(x->g, start, nb_dim_mul(x->g, count, step))),
            *by = nb_port_dim(x, step);
    return nb_export_result(x, 0, from && to && by ? NB_PUT(x, "Range", from, to, by) : NULL);
}

/* The places of x that a kernel sees along an axis: [n places, kernel]. */
static nb_port *places(nb_exporter *x, const nb_dim *n, int64_t kernel, int64_t stride,
                       int64_t dilation) {
    int64_t *offsets = NB_NEW_ARRAY(x->arena, int64_t, (size_t)kernel);
    const int64_t behind = 1;
    for (int64_t k = 0; k < kernel; k++) offsets[k] = k * dilation;
    const nb_dim *step = nb_dim_const(x->g, stride);
    nb_port *to = nb_port_dim(x, nb_dim_mul(x->g, n, step));
    if (!to) return NULL;
    nb_port *first = NB_PUT(x, "Range", nb_port_i64(x, 0), to, nb_port_i64(x, stride));
    first = NB_PUT(x, "Unsqueeze", first, nb_port_i64s(x, 1, &behind));
    return NB_PUT(x, "Add", first, nb_port_i64s(x, (size_t)kernel, offsets));
}

/* Places themselves: channels last. Else x[B,C,D...] -> [B,C,D',K,...] by a Gather for each axis ->
 * [B,D'...,C,K...] -> [B,D'...,C*K]. */
static nb_port *put_patches(nb_exporter *x, nb_port *v) {
    const nb_op *op = x->op;
    const nb_type *y = nb_out(op)->type;
    const nb_attr *kernel = nb_attr_of(op, "kernel");
    const int axes = nb_in(op, 0)->type->rank - 2;
    int64_t perm[2 * NB_MAX_RANK];
    bool moves = false;
    for (int d = 0; d < axes; d++)
        moves = moves || kernel->ints.items[d] != 1 || nb_conv_stride(op, d) != 1;
    if (!moves) return nb_put_channels_last(x, v, axes + 2);
    perm[0] = 0;
    perm[1 + axes] = 1;
    for (int d = 0; d < axes; d++) {
        nb_port *at = places(x, y->dims[1 + d], kernel->ints.items[d], nb_conv_stride(op, d),
                             nb_conv_dilation(op, d));
        if (!at) return NULL;
        v = NB_PUT(x, "Gather", v, at);
        nb_put_attr(x, NB_ATTR_I("axis", 2 + 2 * d));
        perm[1 + d] = 2 + 2 * d;
        perm[2 + axes + d] = 3 + 2 * d;
    }
    v = nb_put_transpose(x, v, (size_t)(2 + 2 * axes), perm);
    return nb_put_reshape(x, v, NULL, (size_t)y->rank, y->dims);
}

nb_port *nb_put_patches(nb_exporter *x) {
    nb_port *v = nb_operand(x, 0);
    return v ? put_patches(x, v) : NULL;
}

nb_status nb_export_patches(nb_exporter *x) { return nb_export_result(x, 0, nb_put_patches(x)); }
