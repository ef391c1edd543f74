/* DeformConv: a convolution whose kernel takes its inputs at places of their own, computed numbers
 * behind the usual ones. The inputs are sampled (sample.h), weighted by the mask, and multiplied as
 * patches by the kernel. */
#include "frontend/sample.h"

typedef struct deformed {
    nb_value *x, *w, *offset, *mask; /* mask may be NULL */
    int axes;
    int64_t strides[NB_MAX_RANK], dilations[NB_MAX_RANK], before[NB_MAX_RANK], after[NB_MAX_RANK];
    int64_t groups, offsets;       /* of channels: convolved alone; displaced together */
    const nb_dim *batch;           /* images times `offsets` */
    const nb_dim *kernel, *places; /* elements, places of it */
} deformed;

static nb_status read_deformed(nb_importer *im, deformed *c) {
    c->x = nb_node_input(im, 0);
    c->w = nb_node_input(im, 1);
    c->offset = nb_node_input(im, 2);
    c->mask = nb_has_input(im, 4) ? nb_node_input(im, 4) : NULL;
    if (!c->x || !c->w || !c->offset || (nb_has_input(im, 4) && !c->mask)) return NB_MALFORMED;
    const int rank = c->x->type->rank;
    c->axes = rank - 2;
    if (c->axes < 1 || c->axes > 2)
        return nb_node_error(im, NB_UNSUPPORTED, "images of rank 3 or 4, found %d", rank);
    if (c->w->type->rank != rank || c->offset->type->rank != rank ||
        (c->mask && c->mask->type->rank != rank))
        return nb_node_error(im, NB_MALFORMED, "inputs of other ranks than %d", rank);
    NB_TRY(nb_window_numbers(im, "strides", c->axes, 1, c->strides));
    NB_TRY(nb_window_numbers(im, "dilations", c->axes, 1, c->dilations));
    NB_TRY(nb_window_pads(im, c->axes, c->before, c->after));
    c->groups = nb_node_int(im, "group", 1);
    c->offsets = nb_node_int(im, "offset_group", 1);
    const nb_dim *channels = c->x->type->dims[1], *filters = c->w->type->dims[0];
    if (!nb_dim_is_const(channels) || !nb_dim_is_const(filters) || c->groups < 1 ||
        c->offsets < 1 || channels->value % c->groups || channels->value % c->offsets ||
        filters->value % c->groups)
        return nb_node_error(im, NB_MALFORMED, "%s channels in %lld groups and %lld with offsets",
                             nb_dim_text(im->arena, channels), (long long)c->groups,
                             (long long)c->offsets);
    return nb_unify(im, c->w->type->dims[1], nb_num(im, channels->value / c->groups));
}

/* Shapes of offset and mask: they say how many places there are. */
static nb_status check_places(nb_importer *im, deformed *c) {
    nb_graph *g = im->g;
    size_t n;
    const int64_t *given = nb_node_ints(im, "kernel_shape", &n);
    if (given && n != (size_t)c->axes)
        return nb_node_error(im, NB_MALFORMED, "kernel_shape has %zu numbers for %d axes", n,
                             c->axes);
    c->kernel = nb_num(im, 1);
    for (int d = 0; d < c->axes; d++) {
        if (given) NB_TRY(nb_unify(im, c->w->type->dims[d + 2], nb_num(im, given[d])));
        const nb_dim *size = c->w->type->dims[d + 2], *one = nb_num(im, 1);
        const nb_dim *reach = nb_dim_add(
            g, nb_dim_mul(g, nb_dim_sub(g, size, one), nb_num(im, c->dilations[d])), one);
        const nb_dim *all =
            nb_dim_add(g, c->x->type->dims[d + 2], nb_num(im, c->before[d] + c->after[d]));
        if (c->strides[d] < 1 || c->dilations[d] < 1)
            return nb_node_error(im, NB_MALFORMED, "strides and dilations start at 1");
        const nb_dim *steps = nb_dim_add(
            g, nb_dim_floordiv(g, nb_dim_sub(g, all, reach), nb_num(im, c->strides[d])), one);
        NB_TRY(nb_unify(im, c->offset->type->dims[d + 2], steps));
        if (c->mask) NB_TRY(nb_unify(im, c->mask->type->dims[d + 2], steps));
        c->kernel = nb_dim_mul(g, c->kernel, size);
    }
    const nb_dim *groups = nb_num(im, c->offsets);
    NB_TRY(nb_unify(im, c->offset->type->dims[0], c->x->type->dims[0]));
    NB_TRY(nb_unify(im, c->offset->type->dims[1],
                    nb_dim_mul(g, nb_dim_mul(g, groups, c->kernel), nb_num(im, c->axes))));
    if (c->mask) {
        NB_TRY(nb_unify(im, c->mask->type->dims[0], c->x->type->dims[0]));
        NB_TRY(nb_unify(im, c->mask->type->dims[1], nb_dim_mul(g, groups, c->kernel)));
    }
    c->batch = nb_dim_mul(g, c->x->type->dims[0], groups);
    c->places = nb_num(im, 1);
    for (int d = 0; d < c->axes; d++)
        c->places = nb_dim_mul(g, c->places, c->offset->type->dims[d + 2]);
    return NB_OK;
}

/* f32[batch,kernel*places]: where along axis d each element of the kernel looks at each place. */
static nb_value *looks_at(nb_importer *im, const deformed *c, int d) {
    const int rank = 1 + 2 * c->axes;
    const nb_dim *one = nb_num(im, 1);
    const nb_dim *apart[] = {c->batch, c->kernel, nb_num(im, c->axes), c->places};
    const nb_dim *grid[NB_MAX_RANK] = {c->batch};
    for (int k = 0; k < c->axes; k++) {
        grid[1 + k] = c->w->type->dims[k + 2];
        grid[1 + c->axes + k] = c->offset->type->dims[k + 2];
    }
    nb_value *moved = nb_reshape(&im->b, nb_as(im, c->offset, NB_F32), 4, apart);
    moved = nb_reshape(&im->b, nb_slice_axis(im, moved, 2, nb_num(im, d), one, 1), rank, grid);
    nb_value *element = nb_positions(im, rank, 1 + d, grid[1 + d]),
             *place = nb_positions(im, rank, 1 + c->axes + d, grid[1 + c->axes + d]);
    nb_value *usual = nb_combine(im, NB_OP_add, nb_times(im, element, (double)c->dilations[d]),
                                 nb_times(im, place, (double)c->strides[d]));
    usual = nb_as(im, nb_plus(im, usual, -(double)c->before[d]), NB_F32);
    const nb_dim *flat[] = {c->batch, nb_dim_mul(im->g, c->kernel, c->places)};
    return nb_reshape(&im->b, nb_combine(im, NB_OP_add, usual, moved), 2, flat);
}

/* f32[batch,kernel*places,channels of an offset]: what the kernel sees. */
static nb_value *sampled(nb_importer *im, const deformed *c) {
    const int rank = c->axes + 2;
    nb_sampling s = {.axes = c->axes, .taps = 2, .borders = NB_BORDERS_ZERO, .batch = c->batch};
    const nb_dim *image[NB_MAX_RANK] = {c->batch,
                                        nb_num(im, c->x->type->dims[1]->value / c->offsets)};
    for (int d = 0; d < c->axes; d++) {
        s.dims[d] = image[d + 2] = c->x->type->dims[d + 2];
        s.length[d] = nb_as(im, nb_make_dims(im, 1, &s.dims[d], true), NB_F32);
        s.at[d] = looks_at(im, c, d);
        if (!s.length[d] || !s.at[d]) return NULL;
    }
    nb_value *x = nb_reshape(&im->b, c->x, rank, image);
    s.rows = x ? nb_sample_rows(im, x) : NULL;
    nb_value *y = s.rows ? nb_sample(im, &s) : NULL;
    if (!c->mask || !y) return y;
    const nb_dim *flat[] = {c->batch, y->type->dims[1], nb_num(im, 1)};
    return nb_combine(im, NB_OP_mul, y, nb_reshape(&im->b, nb_as(im, c->mask, NB_F32), 3, flat));
}

/* [N,places,filters] of patches [N,places,channels*kernel]. */
static nb_value *product(nb_importer *im, const deformed *c, nb_value *patches) {
    nb_graph *g = im->g;
    const nb_dim *images = c->x->type->dims[0], *filters = c->w->type->dims[0],
                 *channels = c->x->type->dims[1], *groups = nb_num(im, c->groups);
    const nb_dim *width = nb_dim_mul(g, nb_num(im, channels->value / c->groups), c->kernel);
    nb_value *w = nb_as(im, c->w, NB_F32);
    if (c->groups == 1) {
        w = nb_reshape(&im->b, w, 2, (const nb_dim *[]){filters, width});
        return nb_multiply(im, patches, nb_swap_axes(im, w, 0, 1));
    }
    const nb_dim *own = nb_num(im, filters->value / c->groups);
    w = nb_reshape(&im->b, w, 3, (const nb_dim *[]){groups, own, width});
    nb_value *x =
        nb_reshape(&im->b, patches, 4, (const nb_dim *[]){images, c->places, groups, width});
    nb_value *y = nb_multiply(im, nb_swap_axes(im, x, 1, 2), nb_swap_axes(im, w, 1, 2));
    return nb_reshape(&im->b, nb_swap_axes(im, y, 1, 2), 3,
                      (const nb_dim *[]){images, c->places, filters});
}

nb_status nb_import_deform_conv(nb_importer *im) {
    deformed c = {0};
    NB_TRY(read_deformed(im, &c));
    NB_TRY(check_places(im, &c));
    nb_value *bias = nb_has_input(im, 3) ? nb_node_input(im, 3) : NULL;
    if (nb_has_input(im, 3) && !bias) return NB_MALFORMED;
    const nb_dim *images = c.x->type->dims[0], *channels = c.x->type->dims[1];
    const nb_dim *apart[] = {images, nb_num(im, c.offsets), c.kernel, c.places,
                             nb_num(im, channels->value / c.offsets)};
    nb_value *y = nb_reshape(&im->b, sampled(im, &c), 5, apart);
    y = nb_transpose(&im->b, y, (const int64_t[]){0, 3, 1, 4, 2});
    y = nb_reshape(&im->b, y, 3,
                   (const nb_dim *[]){images, c.places, nb_dim_mul(im->g, channels, c.kernel)});
    y = product(im, &c, y);
    if (bias && y) y = nb_combine(im, NB_OP_add, y, nb_as(im, bias, NB_F32));
    y = nb_swap_axes(im, y, 1, 2);
    const nb_dim *out[NB_MAX_RANK] = {images, c.w->type->dims[0]};
    for (int d = 0; d < c.axes; d++) out[d + 2] = c.offset->type->dims[d + 2];
    return nb_node_output(im, 0,
                          nb_as(im, nb_reshape(&im->b, y, c.axes + 2, out), c.x->type->elem));
}
