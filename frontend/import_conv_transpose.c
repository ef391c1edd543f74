/* ConvTranspose as a convolution: zeros between the elements of x make its stride, the kernel is
 * turned around, and what pads would have cut off is not padded. */
#include "frontend/import.h"

typedef struct transposed {
    nb_value *x, *w;
    int axes;
    int64_t groups;
    int64_t strides[NB_MAX_RANK], dilations[NB_MAX_RANK], more[NB_MAX_RANK]; /* output_padding */
    const nb_dim *before[NB_MAX_RANK], *after[NB_MAX_RANK]; /* cut from the full result */
} transposed;

/* One number of each axis: at least `least`, `usual` when they are not given. */
static nb_status read_each(nb_importer *im, const char *name, int axes, int64_t least,
                           int64_t usual, int64_t *out) {
    NB_TRY(nb_window_numbers(im, name, axes, usual, out));
    for (int d = 0; d < axes; d++) {
        if (out[d] < least || out[d] > INT32_MAX)
            return nb_node_error(im, NB_MALFORMED, "%s[%d] is %lld", name, d, (long long)out[d]);
    }
    return NB_OK;
}

static const nb_dim *reach(nb_importer *im, const transposed *c, int d) {
    const nb_dim *size = nb_dim_sub(im->g, c->w->type->dims[d + 2], nb_num(im, 1));
    return nb_dim_mul(im->g, size, nb_num(im, c->dilations[d]));
}

/* Cuts so much from the full result along d that `length` is left. The odd element goes to the end
 * with `upper`; what is missing is added there. */
static void cut_to(nb_importer *im, transposed *c, int d, const nb_dim *length, bool upper) {
    nb_graph *g = im->g;
    const nb_dim *one = nb_num(im, 1), *two = nb_num(im, 2), *zero = nb_num(im, 0);
    const nb_dim *steps =
        nb_dim_mul(g, nb_dim_sub(g, c->x->type->dims[d + 2], one), nb_num(im, c->strides[d]));
    const nb_dim *full = nb_dim_add(g, nb_dim_add(g, steps, one), reach(im, c, d));
    full = nb_dim_add(g, full, nb_num(im, c->more[d]));
    const nb_dim *all = nb_dim_sub(g, full, length), *cut = nb_dim_max(g, all, zero);
    c->before[d] = upper ? nb_dim_floordiv(g, cut, two) : nb_dim_ceildiv(g, cut, two);
    c->after[d] = nb_dim_sub(g, nb_dim_sub(g, all, c->before[d]), nb_num(im, c->more[d]));
}

static nb_status read_cuts(nb_importer *im, transposed *c) {
    nb_auto_pad mode;
    int64_t before[NB_MAX_RANK], after[NB_MAX_RANK];
    size_t n_shape;
    const int64_t *shape = nb_node_ints(im, "output_shape", &n_shape);
    NB_TRY(nb_window_auto_pad(im, &mode));
    NB_TRY(nb_window_pads(im, c->axes, before, after));
    const bool upper = mode == NB_AUTO_PAD_UPPER;
    if (shape && n_shape != (size_t)c->axes)
        return nb_node_error(im, NB_MALFORMED, "output_shape has %zu numbers for %d axes", n_shape,
                             c->axes);
    for (int d = 0; d < c->axes; d++) {
        c->before[d] = nb_num(im, before[d]);
        c->after[d] = nb_num(im, after[d] - c->more[d]);
        if (shape)
            cut_to(im, c, d, nb_num(im, shape[d]), upper);
        else if (upper || mode == NB_AUTO_PAD_LOWER)
            cut_to(im, c, d, nb_dim_mul(im->g, c->x->type->dims[d + 2], nb_num(im, c->strides[d])),
                   upper);
    }
    return NB_OK;
}

/* x with `strides - 1` zeros behind each element of its axes. */
static nb_value *spread(nb_importer *im, const transposed *c) {
    nb_value *x = c->x;
    for (int d = 2; x && d < c->axes + 2; d++) {
        int64_t stride = c->strides[d - 2];
        const nb_dim *split[NB_MAX_RANK], *flat[NB_MAX_RANK];
        int rank = x->type->rank;
        if (stride == 1) continue;
        for (int k = 0; k <= rank; k++)
            split[k] = k <= d       ? x->type->dims[k]
                       : k == d + 1 ? nb_num(im, 1)
                                    : x->type->dims[k - 1];
        for (int k = 0; k < rank; k++)
            flat[k] =
                k == d ? nb_dim_mul(im->g, x->type->dims[k], nb_num(im, stride)) : x->type->dims[k];
        x = nb_zero_pad(im, nb_reshape(&im->b, x, rank + 1, split), d + 1, 0, stride - 1);
        x = nb_reshape(&im->b, x, rank, flat);
    }
    return x;
}

/* Padded by the reach of the kernel less what is cut; where that is less than nothing, sliced. An
 * expression must be one or the other in all runs. */
static nb_value *bordered(nb_importer *im, const transposed *c, nb_value *x) {
    nb_graph *g = im->g;
    const nb_dim *sides[2][NB_MAX_RANK];
    const nb_dim *zero = nb_num(im, 0);
    if (!x) return NULL;
    const int rank = x->type->rank;
    for (int d = 0; d < rank; d++) sides[0][d] = sides[1][d] = zero;
    for (int d = 0; d < c->axes; d++) {
        /* The last element has zeros behind it already. */
        const nb_dim *spare = nb_num(im, c->strides[d] - 1), *all = reach(im, c, d);
        const nb_dim *low = nb_dim_sub(g, all, c->before[d]),
                     *high = nb_dim_sub(g, nb_dim_sub(g, all, c->after[d]), spare);
        const nb_dim *start = nb_dim_max(g, nb_dim_sub(g, zero, low), zero),
                     *end = nb_dim_max(g, nb_dim_sub(g, zero, high), zero);
        const nb_dim *count = nb_dim_sub(g, x->type->dims[d + 2], nb_dim_add(g, start, end));
        if (!nb_dim_is(start, 0) || !nb_dim_is(end, 0))
            x = nb_slice_axis(im, x, d + 2, start, count, 1);
        if (!x) return NULL;
        sides[0][d + 2] = nb_dim_max(g, low, zero);
        sides[1][d + 2] = nb_dim_max(g, high, zero);
    }
    nb_begin(&im->b, NB_OP_pad);
    nb_arg(&im->b, x);
    nb_arg(&im->b, NULL);
    nb_set_dims(&im->b, "before", (size_t)rank, sides[0]);
    nb_set_dims(&im->b, "after", (size_t)rank, sides[1]);
    return nb_end(&im->b);
}

/* w[C, M/groups, K...] backwards along K, as the kernel [M, C/groups, K...] of a convolution. */
static nb_value *turned(nb_importer *im, const transposed *c) {
    nb_value *w = c->w;
    const nb_dim *one = nb_num(im, 1), *groups = nb_num(im, c->groups);
    for (int d = 2; w && d < w->type->rank; d++)
        w = nb_slice_axis(im, w, d, nb_dim_sub(im->g, w->type->dims[d], one), w->type->dims[d], -1);
    if (!w) return NULL;
    const nb_type *t = w->type;
    const nb_dim *split[NB_MAX_RANK], *whole[NB_MAX_RANK];
    int64_t perm[NB_MAX_RANK];
    split[0] = groups;
    split[1] = nb_dim_floordiv(im->g, t->dims[0], groups);
    split[2] = t->dims[1];
    whole[0] = nb_dim_mul(im->g, groups, t->dims[1]);
    whole[1] = split[1];
    for (int d = 2; d < t->rank; d++) split[d + 1] = whole[d] = t->dims[d];
    for (int d = 0; d <= t->rank; d++) perm[d] = d == 1 ? 2 : d == 2 ? 1 : d;
    w = nb_transpose(&im->b, nb_reshape(&im->b, w, t->rank + 1, split), perm);
    return nb_reshape(&im->b, w, t->rank, whole);
}

nb_status nb_import_conv_transpose(nb_importer *im) {
    transposed c = {.x = nb_node_input(im, 0),
                    .w = nb_node_input(im, 1),
                    .groups = nb_node_int(im, "group", 1)};
    int64_t kernel[NB_MAX_RANK];
    if (!c.x || !c.w) return NB_MALFORMED;
    c.axes = c.x->type->rank - 2;
    if (c.axes < 1 || c.w->type->rank != c.axes + 2 || c.axes + 3 > NB_MAX_RANK)
        return nb_node_error(im, NB_MALFORMED,
                             "expected an input and a kernel of one rank, 3 to 7, found %d and %d",
                             c.x->type->rank, c.w->type->rank);
    NB_TRY(nb_unify(im, c.x->type->dims[1], c.w->type->dims[0]));
    const nb_dim *channels = c.w->type->dims[0];
    if (c.groups < 1 || (nb_dim_is_const(channels) && channels->value % c.groups))
        return nb_node_error(im, NB_MALFORMED, "%s channels do not fit %lld groups",
                             nb_dim_text(im->arena, channels), (long long)c.groups);
    NB_TRY(read_each(im, "strides", c.axes, 1, 1, c.strides));
    NB_TRY(read_each(im, "dilations", c.axes, 1, 1, c.dilations));
    NB_TRY(read_each(im, "output_padding", c.axes, 0, 0, c.more));
    if (nb_node_attr(im, "kernel_shape")) {
        NB_TRY(read_each(im, "kernel_shape", c.axes, 1, 1, kernel));
        for (int d = 0; d < c.axes; d++)
            NB_TRY(nb_unify(im, c.w->type->dims[d + 2], nb_num(im, kernel[d])));
    }
    NB_TRY(read_cuts(im, &c));
    nb_value *x = bordered(im, &c, spread(im, &c)), *w = turned(im, &c);
    nb_begin(&im->b, NB_OP_conv);
    nb_arg(&im->b, x);
    nb_arg(&im->b, w);
    nb_arg(&im->b, nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL);
    nb_set_ints(&im->b, "dilations", (size_t)c.axes, c.dilations);
    nb_set_int(&im->b, "groups", c.groups);
    return nb_node_output(im, 0, nb_end(&im->b));
}
