/* Convolutions and pooling. Padding becomes an op of its own (pad), so that conv reads no element
 * that is not there; `auto_pad` becomes sizes, which are expressions when the input's are. Pooling
 * is a reduction of patches, each channel by itself. */
#include "frontend/conv.h"

#include <math.h>
#include <string.h>

#define MOST_PAD INT32_MAX

typedef nb_window conv;

static nb_status check_kernel(nb_importer *im, const conv *c, const nb_value *w) {
    size_t n;
    const int64_t *given = nb_node_ints(im, "kernel_shape", &n);
    if (!given) return NB_OK;
    if (n != (size_t)c->axes)
        return nb_node_error(im, NB_MALFORMED, "kernel_shape has %zu numbers for %d axes", n,
                             c->axes);
    for (int d = 0; d < c->axes; d++)
        NB_TRY(nb_unify(im, w->type->dims[d + 2], nb_num(im, given[d])));
    return NB_OK;
}

static nb_status given_pads(nb_importer *im, conv *c) {
    int64_t before[NB_MAX_RANK], after[NB_MAX_RANK];
    NB_TRY(nb_window_pads(im, c->axes, before, after));
    for (int d = 0; d < c->axes; d++) {
        c->before[d + 2] = nb_num(im, before[d]);
        c->after[d + 2] = nb_num(im, after[d]);
    }
    return NB_OK;
}

/* As many outputs as ceil(length / stride); an odd element of padding goes to the end, or to the
 * start if `lower`. */
static nb_status same_pads(nb_importer *im, conv *c, bool lower) {
    nb_graph *g = im->g;
    for (int d = 0; d < c->axes; d++) {
        const nb_dim *length = c->x->type->dims[d + 2], *size = c->kernel[d];
        const nb_dim *stride = nb_num(im, c->strides[d]), *one = nb_num(im, 1);
        if (c->strides[d] < 1)
            return nb_node_error(im, NB_MALFORMED, "a stride of %lld", (long long)c->strides[d]);
        const nb_dim *reach = nb_dim_mul(g, nb_dim_sub(g, size, one), nb_num(im, c->dilations[d]));
        const nb_dim *steps = nb_dim_sub(g, nb_dim_ceildiv(g, length, stride), one);
        const nb_dim *last = nb_dim_add(g, nb_dim_mul(g, steps, stride), nb_dim_add(g, reach, one));
        const nb_dim *all = nb_dim_max(g, nb_dim_sub(g, last, length), nb_num(im, 0));
        const nb_dim *less = nb_dim_floordiv(g, all, nb_num(im, 2)),
                     *more = nb_dim_sub(g, all, less);
        c->before[d + 2] = lower ? more : less;
        c->after[d + 2] = lower ? less : more;
    }
    return NB_OK;
}

static nb_status read_pads(nb_importer *im, conv *c) {
    nb_auto_pad mode;
    for (int d = 0; d < c->axes + 2; d++) c->before[d] = c->after[d] = nb_num(im, 0);
    NB_TRY(nb_window_auto_pad(im, &mode));
    if (mode == NB_AUTO_PAD_NOT_SET) return given_pads(im, c);
    return mode == NB_AUTO_PAD_VALID ? NB_OK : same_pads(im, c, mode == NB_AUTO_PAD_LOWER);
}

/* `x` with that border of `value` (NULL: 0). */
static nb_value *bordered(nb_importer *im, const conv *c, nb_value *x, const nb_dim *const *before,
                          const nb_dim *const *after, nb_value *value) {
    bool any = false;
    for (int d = 2; d < c->axes + 2; d++)
        any = any || !nb_dim_is(before[d], 0) || !nb_dim_is(after[d], 0);
    if (!any) return x;
    nb_begin(&im->b, NB_OP_pad);
    nb_arg(&im->b, x);
    nb_arg(&im->b, value);
    nb_set_dims(&im->b, "before", (size_t)c->axes + 2, before);
    nb_set_dims(&im->b, "after", (size_t)c->axes + 2, after);
    return nb_end(&im->b);
}

nb_value *nb_conv_bordered(nb_importer *im, const nb_window *c, nb_value *x, nb_value *value) {
    return bordered(im, c, x, c->before, c->after, value);
}

nb_status nb_conv_read(nb_importer *im, nb_value *x, nb_value *w, nb_window *out) {
    conv c = {.x = x};
    if (!c.x || !w) return NB_MALFORMED;
    int rank = c.x->type->rank;
    if (rank < 3 || w->type->rank != rank)
        return nb_node_error(
            im, NB_MALFORMED,
            "expected an input and a kernel of one rank, at least 3, found %d and %d", rank,
            w->type->rank);
    c.axes = rank - 2;
    NB_TRY(nb_window_numbers(im, "strides", c.axes, 1, c.strides));
    NB_TRY(nb_window_numbers(im, "dilations", c.axes, 1, c.dilations));
    NB_TRY(check_kernel(im, &c, w));
    for (int d = 0; d < c.axes; d++) c.kernel[d] = w->type->dims[d + 2];
    NB_TRY(read_pads(im, &c));
    int64_t groups = nb_node_int(im, "group", 1);
    NB_TRY(
        nb_unify(im, c.x->type->dims[1], nb_dim_mul(im->g, w->type->dims[1], nb_num(im, groups))));
    *out = c;
    return NB_OK;
}

nb_value *nb_convolve(nb_importer *im, nb_value *x, nb_value *w, nb_value *bias) {
    conv c;
    if (nb_conv_read(im, x, w, &c) != NB_OK) return NULL;
    const int64_t groups = nb_node_int(im, "group", 1);
    if (nb_conv_is_product(&c, w, groups)) return nb_conv_product(im, &c, w, bias);
    x = nb_conv_bordered(im, &c, x, NULL);
    nb_begin(&im->b, NB_OP_conv);
    nb_arg(&im->b, x);
    nb_arg(&im->b, w);
    nb_arg(&im->b, bias);
    nb_set_ints(&im->b, "strides", (size_t)c.axes, c.strides);
    nb_set_ints(&im->b, "dilations", (size_t)c.axes, c.dilations);
    nb_set_int(&im->b, "groups", groups);
    return nb_end(&im->b);
}

nb_status nb_import_conv(nb_importer *im) {
    nb_value *bias = nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL;
    if (nb_has_input(im, 2) && !bias) return NB_MALFORMED;
    return nb_node_output(im, 0, nb_convolve(im, nb_node_input(im, 0), nb_node_input(im, 1), bias));
}

/* + an addend of the result's shape, and an activation. */
nb_status nb_import_fused_conv(nb_importer *im) {
    const Onnx__AttributeProto *numbers = nb_node_attr(im, "activation_params");
    nb_value *bias = nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL;
    if (nb_has_input(im, 2) && !bias) return NB_MALFORMED;
    nb_value *y = nb_convolve(im, nb_node_input(im, 0), nb_node_input(im, 1), bias);
    if (nb_has_input(im, 3) && y) y = nb_combine(im, NB_OP_add, y, nb_node_input(im, 3));
    y = nb_activated(im, y, numbers ? numbers->n_floats : 0, numbers ? numbers->floats : NULL);
    return nb_node_output(im, 0, y);
}

/* ---- pooling -------------------------------------------------------------------------------- */

static nb_status read_pool(nb_importer *im, nb_value *x, conv *c) {
    size_t n;
    const int64_t *kernel = nb_node_ints(im, "kernel_shape", &n);
    c->x = x;
    if (!c->x) return NB_MALFORMED;
    c->axes = c->x->type->rank - 2;
    if (c->axes < 1 || n != (size_t)c->axes)
        return nb_node_error(im, NB_MALFORMED,
                             "kernel_shape has %zu numbers for a tensor of rank %d", n,
                             c->x->type->rank);
    for (int d = 0; d < c->axes; d++) {
        if (kernel[d] < 1 || kernel[d] > MOST_PAD)
            return nb_node_error(im, NB_MALFORMED, "kernel_shape[%d] is %lld", d,
                                 (long long)kernel[d]);
        c->kernel[d] = nb_num(im, kernel[d]);
    }
    NB_TRY(nb_window_numbers(im, "strides", c->axes, 1, c->strides));
    NB_TRY(nb_window_numbers(im, "dilations", c->axes, 1, c->dilations));
    for (int d = 0; d < c->axes; d++) {
        if (c->strides[d] < 1 || c->strides[d] > MOST_PAD || c->dilations[d] < 1 ||
            c->dilations[d] > MOST_PAD)
            return nb_node_error(im, NB_MALFORMED,
                                 "stride %lld and dilation %lld, expected 1 .. 2^31-1",
                                 (long long)c->strides[d], (long long)c->dilations[d]);
    }
    return read_pads(im, c);
}

/* With `ceil_mode` a last window may reach beyond the padding, if it begins before what follows the
 * input: how far, for axis d. */
static const nb_dim *reach_beyond(nb_importer *im, const conv *c, int d) {
    nb_graph *g = im->g;
    const nb_dim *one = nb_num(im, 1), *stride = nb_num(im, c->strides[d]);
    const nb_dim *size = nb_dim_add(
        g, nb_dim_mul(g, nb_dim_sub(g, c->kernel[d], one), nb_num(im, c->dilations[d])), one);
    const nb_dim *start = nb_dim_add(g, c->before[d + 2], c->x->type->dims[d + 2]),
                 *all = nb_dim_add(g, start, c->after[d + 2]);
    const nb_dim *steps = nb_dim_min(g, nb_dim_ceildiv(g, nb_dim_sub(g, all, size), stride),
                                     nb_dim_floordiv(g, nb_dim_sub(g, start, one), stride));
    const nb_dim *end = nb_dim_add(g, nb_dim_mul(g, steps, stride), size);
    return nb_dim_max(g, nb_dim_sub(g, end, all), nb_num(im, 0));
}

/* What windows see of each channel of x by itself, [B*C,places...,K]: x[B,C,D...] is [B*C,1,D...],
 * since patches join channels. */
static nb_value *channel_patches(nb_importer *im, const conv *c, nb_value *x) {
    if (!x) return NULL;
    const int rank = x->type->rank;
    const nb_dim *dims[NB_MAX_RANK];
    memcpy(dims, x->type->dims, sizeof dims);
    dims[0] = nb_dim_mul(im->g, dims[0], dims[1]);
    dims[1] = nb_num(im, 1);
    return nb_conv_patches(im, c, nb_reshape(&im->b, x, rank, dims));
}

/* What is [B*C,places...], or with an axis of length 1 behind, as [B,C,places...] of x[B,C,...]. */
static nb_value *channels_apart(nb_importer *im, const nb_value *x, nb_value *y) {
    if (!y) return NULL;
    const int rank = x->type->rank;
    const nb_dim *dims[NB_MAX_RANK] = {x->type->dims[0], x->type->dims[1]};
    for (int d = 2; d < rank; d++) dims[d] = y->type->dims[d - 1];
    return nb_reshape(&im->b, y, rank, dims);
}

/* Each window of each channel of x, reduced. */
static nb_value *windows(nb_importer *im, const conv *c, nb_op_kind kind, nb_value *x) {
    const int64_t last = c->axes + 1;
    nb_value *seen = channel_patches(im, c, x);
    return seen ? channels_apart(im, x, nb_reduce(im, kind, seen, 1, &last, false)) : NULL;
}

/* a * size, a + size */
static nb_value *with_size(nb_importer *im, nb_op_kind kind, nb_value *a, const nb_dim *size) {
    return nb_combine(im, kind, a, nb_make_dims(im, 1, &size, true));
}

/* i64[B,C,places...]: where in the whole of x the elements are that `best`, of the same shape, says
 * by their number in the window. With `storage_order` the first axis of an image counts fastest. */
static nb_value *places_in_whole(nb_importer *im, const conv *c, nb_value *best) {
    const bool first_fastest = nb_node_int(im, "storage_order", 0) != 0;
    const nb_dim *const *lengths = c->x->type->dims, *one = nb_num(im, 1);
    const int rank = c->axes + 2;
    nb_value *flat = NULL;
    for (int d = c->axes - 1; d >= 0 && best; d--) {
        nb_value *at = with_size(im, NB_OP_mod, best, c->kernel[d]);
        best = with_size(im, NB_OP_div, best, c->kernel[d]);
        nb_value *start = nb_positions(im, rank, d + 2, at ? at->type->dims[d + 2] : one);
        at = nb_combine(im, NB_OP_add, nb_times(im, at, (double)c->dilations[d]),
                        nb_times(im, start, (double)c->strides[d]));
        at = with_size(im, NB_OP_sub, at, c->before[d + 2]);
        /* Where all are as small as what stands for the padding. */
        at = with_size(im, NB_OP_min, at, nb_dim_sub(im->g, lengths[d + 2], one));
        at = nb_combine(im, NB_OP_max, at, nb_scalar(im, NB_I64, 0));
        const nb_dim *stride = one;
        for (int e = first_fastest ? 0 : d + 1; e < (first_fastest ? d : c->axes); e++)
            stride = nb_dim_mul(im->g, stride, lengths[e + 2]);
        at = with_size(im, NB_OP_mul, at, stride);
        flat = flat ? nb_combine(im, NB_OP_add, flat, at) : at;
    }
    const nb_dim *image = one;
    for (int d = 2; d < rank; d++) image = nb_dim_mul(im->g, image, lengths[d]);
    nb_value *which = with_size(im, NB_OP_mul, nb_positions(im, rank, 0, lengths[0]), lengths[1]);
    which = nb_combine(im, NB_OP_add, which, nb_positions(im, rank, 1, lengths[1]));
    return nb_combine(im, NB_OP_add, flat, with_size(im, NB_OP_mul, which, image));
}

nb_status nb_import_max_pool(nb_importer *im) {
    conv c = {0};
    NB_TRY(read_pool(im, nb_node_input(im, 0), &c));
    for (int d = 0; d < c.axes && nb_node_int(im, "ceil_mode", 0); d++)
        c.after[d + 2] = nb_dim_add(im->g, c.after[d + 2], reach_beyond(im, &c, d));
    const nb_elem elem = c.x->type->elem;
    nb_value *least =
        nb_scalar(im, elem, nb_elem_is_float(elem) ? -(double)INFINITY : (double)nb_elem_min(elem));
    nb_value *x = bordered(im, &c, c.x, c.before, c.after, least);
    NB_TRY(nb_node_output(im, 0, windows(im, &c, NB_OP_reduce_max, x)));
    if (im->node->n_output < 2 || !*im->node->output[1]) return NB_OK;
    nb_value *best = nb_best_place(im, channel_patches(im, &c, x), c.axes + 1, true, false);
    return nb_node_output(im, 1, places_in_whole(im, &c, channels_apart(im, c.x, best)));
}

/* The p-norm of each window: (sum |x|^p)^(1/p). */
static nb_value *norm_of(nb_importer *im, nb_value *powers, double p) {
    return powers ? nb_combine(im, NB_OP_pow, powers, nb_scalar(im, powers->type->elem, 1 / p))
                  : NULL;
}

static nb_value *to_power(nb_importer *im, nb_value *x, double p) {
    x = nb_unary(&im->b, NB_OP_abs, x);
    return x ? nb_combine(im, NB_OP_pow, x, nb_scalar(im, x->type->elem, p)) : NULL;
}

/* p is a whole number that is at least 1. */
static nb_status read_power(nb_importer *im, double *p) {
    int64_t given = nb_node_int(im, "p", 2);
    *p = (double)given;
    return given >= 1 && given <= 64
               ? NB_OK
               : nb_node_error(im, NB_MALFORMED, "p is %lld, expected 1 .. 64", (long long)given);
}

nb_status nb_import_lp_pool(nb_importer *im) {
    conv c = {0};
    double p;
    NB_TRY(read_power(im, &p));
    NB_TRY(read_pool(im, nb_node_input(im, 0), &c));
    for (int d = 0; d < c.axes && nb_node_int(im, "ceil_mode", 0); d++)
        c.after[d + 2] = nb_dim_add(im->g, c.after[d + 2], reach_beyond(im, &c, d));
    nb_value *x = bordered(im, &c, to_power(im, c.x, p), c.before, c.after, NULL);
    return nb_node_output(im, 0, norm_of(im, windows(im, &c, NB_OP_reduce_sum, x), p));
}

nb_status nb_import_global_lp_pool(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    double p;
    if (!x) return NB_MALFORMED;
    NB_TRY(read_power(im, &p));
    const int rank = x->type->rank;
    if (rank < 3) return nb_node_error(im, NB_MALFORMED, "expected rank 3 or more, found %d", rank);
    int64_t axes[NB_MAX_RANK];
    for (int d = 2; d < rank; d++) axes[d - 2] = d;
    nb_value *sums =
        nb_reduce(im, NB_OP_reduce_sum, to_power(im, x, p), (size_t)rank - 2, axes, true);
    return nb_node_output(im, 0, norm_of(im, sums, p));
}

/* Sums by how many elements of a window count: those of x and, with `count_include_pad`, those of
 * the padding. Where all do, a mean. */
nb_status nb_average_pool(nb_importer *im, nb_value *input, nb_value **y) {
    conv c = {0};
    NB_TRY(read_pool(im, input, &c));
    if (!nb_elem_is_float(c.x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "means of integers");
    const bool padding_counts = nb_node_int(im, "count_include_pad", 0) != 0;
    const nb_dim *before[NB_MAX_RANK], *after[NB_MAX_RANK], *ones[NB_MAX_RANK];
    bool all = true;
    for (int d = 0; d < c.axes + 2; d++) {
        const nb_dim *length = d < 2 ? nb_num(im, 1) : c.x->type->dims[d];
        before[d] = padding_counts ? nb_num(im, 0) : c.before[d];
        after[d] = padding_counts ? nb_num(im, 0) : c.after[d];
        ones[d] = !padding_counts
                      ? length
                      : nb_dim_add(im->g, nb_dim_add(im->g, c.before[d], length), c.after[d]);
        if (d >= 2 && nb_node_int(im, "ceil_mode", 0)) {
            const nb_dim *beyond = reach_beyond(im, &c, d - 2);
            after[d] = nb_dim_add(im->g, after[d], beyond);
            c.after[d] = nb_dim_add(im->g, c.after[d], beyond);
        }
        all = all && nb_dim_is(before[d], 0) && nb_dim_is(after[d], 0);
    }
    nb_value *x = bordered(im, &c, c.x, c.before, c.after, NULL);
    if (all) {
        *y = windows(im, &c, NB_OP_reduce_mean, x);
        return NB_OK;
    }
    nb_value *sums = windows(im, &c, NB_OP_reduce_sum, x);
    nb_value *one = nb_scalar(im, c.x->type->elem, 1);
    nb_begin(&im->b, NB_OP_expand);
    nb_arg(&im->b, one);
    nb_set_dims(&im->b, "shape", (size_t)c.axes + 2, ones);
    nb_value *counted = bordered(im, &c, nb_end(&im->b), before, after, NULL);
    nb_value *counts = windows(im, &c, NB_OP_reduce_sum, counted);
    *y = nb_binary(&im->b, NB_OP_div, sums, counts);
    return NB_OK;
}

nb_status nb_import_average_pool(nb_importer *im) {
    nb_value *y;
    NB_TRY(nb_average_pool(im, nb_node_input(im, 0), &y));
    return nb_node_output(im, 0, y);
}

/* Of whole channels; the argument reduces. */
nb_status nb_import_global_pool(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    int64_t axes[NB_MAX_RANK];
    const int rank = x->type->rank;
    if (rank < 3) return nb_node_error(im, NB_MALFORMED, "expected rank 3 or more, found %d", rank);
    for (int d = 2; d < rank; d++) axes[d - 2] = d;
    return nb_node_output(im, 0,
                          nb_reduce(im, (nb_op_kind)im->argument, x, (size_t)rank - 2, axes, true));
}
