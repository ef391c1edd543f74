/* Operators that put parts of tensors to places of others: CenterCropPad, Col2Im, MaxUnpool,
 * TensorScatter; and CausalConvWithState, which joins an input to what came before it. */
#include "frontend/import.h"

#include <string.h>

/* ---- CenterCropPad -------------------------------------------------------------------------- */

nb_status nb_import_center_crop_pad(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *const *shape, *zero = nb_num(im, 0), *two = nb_num(im, 2);
    size_t n, n_axes;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_dims_of(im, 1, &shape, &n));
    const int64_t *axes = nb_node_ints(im, "axes", &n_axes);
    if (n != (axes ? n_axes : (size_t)x->type->rank))
        return nb_node_error(im, NB_MALFORMED, "%zu lengths for rank %d", n, x->type->rank);
    for (size_t i = 0; i < n && x; i++) {
        int64_t axis;
        NB_TRY(nb_axis(im, axes ? axes[i] : (int64_t)i, x->type->rank, &axis));
        nb_graph *g = im->g;
        const nb_dim *from = x->type->dims[axis], *to = shape[i];
        const nb_dim *less = nb_dim_max(g, nb_dim_sub(g, from, to), zero),
                     *more = nb_dim_max(g, nb_dim_sub(g, to, from), zero);
        x = nb_slice_axis(im, x, (int)axis, nb_dim_floordiv(g, less, two),
                          nb_dim_sub(g, from, less), 1);
        if (!x || nb_dim_is(more, 0)) continue;
        const nb_dim *before[NB_MAX_RANK], *after[NB_MAX_RANK];
        for (int d = 0; d < x->type->rank; d++) before[d] = after[d] = zero;
        before[axis] = nb_dim_floordiv(g, more, two);
        after[axis] = nb_dim_sub(g, more, before[axis]);
        nb_begin(&im->b, NB_OP_pad);
        nb_arg(&im->b, x);
        nb_arg(&im->b, NULL);
        nb_set_dims(&im->b, "before", (size_t)x->type->rank, before);
        nb_set_dims(&im->b, "after", (size_t)x->type->rank, after);
        x = nb_end(&im->b);
    }
    return nb_node_output(im, 0, x);
}

/* ---- Col2Im --------------------------------------------------------------------------------- */

nb_value *nb_put_rows(nb_importer *im, nb_op_kind kind, const nb_dim *n, nb_value *index,
                      nb_value *updates) {
    if (!index || !updates) return NULL;
    const nb_dim *dims[NB_MAX_RANK];
    memcpy(dims, updates->type->dims, sizeof dims);
    dims[0] = n;
    nb_value *zero =
        nb_expand_to(im, nb_scalar(im, updates->type->elem, 0), updates->type->rank, dims);
    nb_begin(&im->b, kind);
    nb_arg(&im->b, zero);
    nb_arg(&im->b, index);
    nb_arg(&im->b, updates);
    return nb_end(&im->b);
}

typedef struct columns {
    int axes;
    const int64_t *image;
    int64_t block[NB_MAX_RANK], strides[NB_MAX_RANK], dilations[NB_MAX_RANK], before[NB_MAX_RANK],
        after[NB_MAX_RANK];
    int64_t steps[NB_MAX_RANK];        /* blocks along each axis */
    int64_t n_block, n_steps, n_image; /* elements; the image with its padding */
} columns;

#define MOST_PLACES (INT64_C(1) << 24)

/* Counts; false when there are too many places. */
static bool count_columns(columns *c) {
    c->n_block = c->n_steps = c->n_image = 1;
    for (int d = 0; d < c->axes; d++) {
        int64_t all = c->image[d] + c->before[d] + c->after[d],
                reach = (c->block[d] - 1) * c->dilations[d] + 1;
        c->steps[d] = all < reach ? 0 : (all - reach) / c->strides[d] + 1;
        if (!nb_mul_i64(c->n_image, all, &c->n_image) ||
            !nb_mul_i64(c->n_block, c->block[d], &c->n_block) ||
            !nb_mul_i64(c->n_steps, c->steps[d], &c->n_steps) || c->n_image > MOST_PLACES ||
            c->n_block > MOST_PLACES || c->n_steps > MOST_PLACES ||
            c->n_block * c->n_steps > MOST_PLACES)
            return false;
    }
    return true;
}

static nb_status read_columns(nb_importer *im, columns *c) {
    size_t n;
    int64_t count;
    NB_TRY(nb_ints_of(im, 1, &c->image, &n));
    nb_value *block = nb_node_input(im, 2);
    if (!block || !nb_type_static_count(block->type, &count) || (int64_t)n != count || n < 1 ||
        n > NB_MAX_RANK - 2)
        return nb_node_error(im, NB_MALFORMED, "the image and the blocks have no axes in common");
    c->axes = (int)n;
    NB_TRY(nb_window_numbers(im, "strides", c->axes, 1, c->strides));
    NB_TRY(nb_window_numbers(im, "dilations", c->axes, 1, c->dilations));
    NB_TRY(nb_window_pads(im, c->axes, c->before, c->after));
    for (int d = 0; d < c->axes; d++)
        if (c->image[d] < 1 || c->image[d] > MOST_PLACES || c->strides[d] < 1 ||
            c->strides[d] > MOST_PLACES || c->dilations[d] < 1 || c->dilations[d] > MOST_PLACES)
            return nb_node_error(im, NB_MALFORMED, "sizes, strides and dilations start at 1");
    return NB_OK;
}

/* Where each element of each block goes. */
static nb_value *places_of(nb_importer *im, const columns *c) {
    const int64_t count = c->n_block * c->n_steps;
    int64_t *at = NB_NEW_ARRAY(im->arena, int64_t, (size_t)count + 1);
    for (int64_t i = 0; i < count; i++) {
        int64_t b = i / c->n_steps, s = i % c->n_steps, stride = 1, place = 0;
        for (int d = c->axes - 1; d >= 0; d--) {
            place += stride * (b % c->block[d] * c->dilations[d] + s % c->steps[d] * c->strides[d]);
            stride *= c->image[d] + c->before[d] + c->after[d];
            b /= c->block[d];
            s /= c->steps[d];
        }
        at[i] = place;
    }
    return nb_const_i64(im->g, "places", 1, &count, at);
}

static nb_status known_places(nb_importer *im, columns *c, nb_value **places) {
    const int64_t *block;
    size_t n;
    NB_TRY(nb_ints_of(im, 2, &block, &n));
    for (int d = 0; d < c->axes; d++) {
        if (block[d] < 1 || block[d] > MOST_PLACES)
            return nb_node_error(im, NB_MALFORMED, "a block of length %lld", (long long)block[d]);
        c->block[d] = block[d];
    }
    if (!count_columns(c)) return nb_node_error(im, NB_LIMIT, "more than 2^24 places in the image");
    *places = places_of(im, c);
    return NB_OK;
}

#define MOST_BLOCK 4096

/* Blocks that are known to the run only: all that fit the input and the declared output are tried,
 * and the run picks. */
typedef struct trying {
    nb_importer *im;
    columns c;
    int64_t elements, steps;  /* in a block, of blocks */
    nb_value *given;          /* i64[axes] */
    nb_value *places, *found; /* of those before */
} trying;

static void try_block(trying *t) {
    nb_importer *im = t->im;
    if (!count_columns(&t->c) || t->c.n_block != t->elements || t->c.n_steps != t->steps) return;
    nb_value *is = nb_all(
        im, nb_combine(im, NB_OP_eq, t->given, nb_numbers(im, (size_t)t->c.axes, t->c.block)));
    nb_value *one = places_of(im, &t->c);
    t->places = t->places && is ? nb_choose(im, is, one, t->places) : one;
    t->found = t->found ? nb_combine(im, NB_OP_or, t->found, is) : is;
}

/* Axes from d on share `rest` elements. */
static void try_blocks(trying *t, int d, int64_t rest) {
    if (d == t->c.axes - 1) {
        t->c.block[d] = rest;
        try_block(t);
        return;
    }
    for (int64_t n = 1; n <= rest; n++) {
        if (rest % n) continue;
        t->c.block[d] = n;
        try_blocks(t, d + 1, rest / n);
    }
}

static nb_status any_places(nb_importer *im, columns *c, int64_t elements, int64_t steps,
                            nb_value **places) {
    size_t n;
    trying t = {.im = im, .c = *c, .elements = elements, .steps = steps};
    t.given = nb_vector_of(im, 2, &n);
    if (!t.given || elements > MOST_BLOCK || c->axes > 3)
        return nb_node_error(im, NB_UNSUPPORTED, "blocks that depend on data, of %lld elements",
                             (long long)elements);
    try_blocks(&t, 0, elements);
    if (!t.places) return nb_node_error(im, NB_MALFORMED, "no block fits the declared output");
    *places = nb_require(im, t.places, t.found);
    *c = t.c;
    c->n_block = elements;
    c->n_steps = steps;
    return *places ? NB_OK : NB_MALFORMED;
}

nb_status nb_import_col2im(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *places = NULL;
    columns c = {0};
    if (!x) return NB_MALFORMED;
    NB_TRY(read_columns(im, &c));
    const nb_dim *width = x->type->rank == 3 ? x->type->dims[1] : NULL, *steps;
    if (!width || !nb_dim_is_const(width))
        return nb_node_error(im, NB_MALFORMED, "expected blocks of rank 3, found %s",
                             nb_type_text(im->arena, x->type));
    steps = x->type->dims[2];
    if (nb_is_known(im, 2)) {
        NB_TRY(known_places(im, &c, &places));
    } else {
        int64_t out[NB_MAX_RANK];
        int rank;
        if (!nb_declared(im, 0, out, &rank) || rank != c.axes + 2 || out[1] < 1 ||
            width->value % out[1] || !nb_dim_is_const(steps))
            return nb_node_error(im, NB_UNSUPPORTED,
                                 "the blocks depend on data, and the output is not declared");
        NB_TRY(any_places(im, &c, width->value / out[1], steps->value, &places));
    }
    if (c.n_block < 1 || width->value % c.n_block)
        return nb_node_error(im, NB_MALFORMED, "%lld elements are not made of blocks of %lld",
                             (long long)width->value, (long long)c.n_block);
    NB_TRY(nb_unify(im, steps, nb_num(im, c.n_steps)));
    const nb_dim *batch = x->type->dims[0], *channels = nb_num(im, width->value / c.n_block);
    const nb_dim *apart[] = {batch, channels, nb_num(im, c.n_block * c.n_steps)},
                 *full[NB_MAX_RANK] = {batch, channels};
    x = nb_reshape(&im->b, x, 3, apart);
    nb_value *rows = nb_transpose(&im->b, x, (const int64_t[]){2, 0, 1});
    nb_value *y = nb_put_rows(im, NB_OP_scatter_add, nb_num(im, c.n_image), places, rows);
    y = nb_transpose(&im->b, y, (const int64_t[]){1, 2, 0});
    for (int d = 0; d < c.axes; d++)
        full[d + 2] = nb_num(im, c.image[d] + c.before[d] + c.after[d]);
    y = nb_reshape(&im->b, y, c.axes + 2, full);
    for (int d = 0; d < c.axes && y; d++)
        y = nb_slice_axis(im, y, d + 2, nb_num(im, c.before[d]), nb_num(im, c.image[d]), 1);
    return nb_node_output(im, 0, y);
}

/* ---- MaxUnpool ------------------------------------------------------------------------------ */

/* Indices are into the whole tensor that the pooling took; where another shape is asked for, that
 * begins with it. */
nb_status nb_import_max_unpool(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *index = nb_node_input(im, 1);
    size_t n;
    const int64_t *kernel = nb_node_ints(im, "kernel_shape", &n);
    if (!x || !index) return NB_MALFORMED;
    const int rank = x->type->rank, axes = rank - 2;
    if (axes < 1 || n != (size_t)axes || index->type->rank != rank)
        return nb_node_error(im, NB_MALFORMED, "a kernel of %zu axes for rank %d", n, rank);
    int64_t strides[NB_MAX_RANK], before[NB_MAX_RANK], after[NB_MAX_RANK];
    NB_TRY(nb_window_numbers(im, "strides", axes, 1, strides));
    NB_TRY(nb_window_pads(im, axes, before, after));
    for (int d = 0; d < rank; d++) NB_TRY(nb_unify(im, x->type->dims[d], index->type->dims[d]));
    const nb_dim *shape[NB_MAX_RANK], *count = nb_type_count(im->g, x->type), *all = nb_num(im, 1);
    nb_graph *g = im->g;
    for (int d = 0; d < rank; d++) {
        shape[d] = x->type->dims[d];
        if (d >= 2) /* (length - 1) * stride - pads + kernel */
            shape[d] = nb_dim_add(
                g,
                nb_dim_mul(g, nb_dim_sub(g, shape[d], nb_num(im, 1)), nb_num(im, strides[d - 2])),
                nb_num(im, kernel[d - 2] - before[d - 2] - after[d - 2]));
        all = nb_dim_mul(g, all, shape[d]);
    }
    nb_value *y = nb_put_rows(im, NB_OP_scatter, all, nb_reshape(&im->b, index, 1, &count),
                              nb_reshape(&im->b, x, 1, &count));
    y = nb_reshape(&im->b, y, rank, shape);
    if (!nb_has_input(im, 2)) return nb_node_output(im, 0, y);
    const nb_dim *const *wanted;
    NB_TRY(nb_dims_of(im, 2, &wanted, &n));
    if (n != (size_t)rank)
        return nb_node_error(im, NB_MALFORMED, "a shape of %zu numbers for rank %d", n, rank);
    const nb_dim *none[NB_MAX_RANK], *more[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) {
        none[d] = nb_num(im, 0);
        more[d] = nb_dim_sub(g, wanted[d], shape[d]);
        if (nb_dim_is_const(more[d]) && more[d]->value < 0)
            return nb_node_error(im, NB_MALFORMED, "dimension %d of the output is too small", d);
    }
    nb_begin(&im->b, NB_OP_pad);
    nb_arg(&im->b, y);
    nb_arg(&im->b, NULL);
    nb_set_dims(&im->b, "before", (size_t)rank, none);
    nb_set_dims(&im->b, "after", (size_t)rank, more);
    return nb_node_output(im, 0, nb_end(&im->b));
}

/* ---- TensorScatter -------------------------------------------------------------------------- */

/* Each sequence's update at its own place of the cache: entry t of the result is entry
 * t - place of the update, where there is one. */
nb_status nb_import_tensor_scatter(nb_importer *im) {
    nb_value *cache = nb_node_input(im, 0), *update = nb_node_input(im, 1);
    int64_t axis;
    if (!cache || !update) return NB_MALFORMED;
    const char *mode = nb_node_string(im, "mode", "linear");
    const bool circular = strcmp(mode, "circular") == 0;
    if (!circular && strcmp(mode, "linear") != 0)
        return nb_node_error(im, NB_MALFORMED, "mode is '%s', expected linear or circular", mode);
    const int rank = cache->type->rank;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", -2), rank, &axis));
    if (axis == 0 || update->type->rank != rank)
        return nb_node_error(im, NB_MALFORMED, "axis %lld of ranks %d and %d", (long long)axis,
                             rank, update->type->rank);
    for (int d = 0; d < rank; d++)
        if (d != axis) NB_TRY(nb_unify(im, cache->type->dims[d], update->type->dims[d]));
    const nb_dim *batch = cache->type->dims[0], *room = cache->type->dims[axis],
                 *length = update->type->dims[axis];
    nb_value *from = nb_positions(im, 2, 1, room);
    if (nb_has_input(im, 2)) {
        nb_value *at = nb_node_input(im, 2);
        if (!at || at->type->rank != 1)
            return nb_node_error(im, NB_MALFORMED, "the places are not a vector");
        NB_TRY(nb_unify(im, at->type->dims[0], batch));
        from = nb_combine(im, NB_OP_sub, from, nb_along(im, at, 2, 0));
    } else {
        const nb_dim *both[] = {batch, room};
        from = nb_expand_to(im, from, 2, both);
    }
    if (circular) from = nb_combine(im, NB_OP_mod, from, nb_make_dims(im, 1, &room, true));
    nb_value *zero = nb_scalar(im, NB_I64, 0), *n = nb_make_dims(im, 1, &length, true);
    nb_value *has = nb_combine(im, NB_OP_and, nb_combine(im, NB_OP_le, zero, from),
                               nb_combine(im, NB_OP_lt, from, n));
    from = nb_combine(im, NB_OP_max, nb_combine(im, NB_OP_min, from, nb_plus(im, n, -1)), zero);
    from = nb_combine(im, NB_OP_add, from,
                      nb_combine(im, NB_OP_mul, nb_positions(im, 2, 0, batch), n));
    /* [B,S,...] as [B*S,...], so that one index picks. */
    nb_value *rows = nb_swap_axes(im, update, 1, (int)axis);
    if (!rows || !from || !has) return nb_node_output(im, 0, NULL);
    const nb_dim *flat[NB_MAX_RANK] = {nb_dim_mul(im->g, rows->type->dims[0], rows->type->dims[1])};
    for (int d = 2; d < rank; d++) flat[d - 1] = rows->type->dims[d];
    nb_value *y = nb_take(im, nb_reshape(&im->b, rows, rank - 1, flat), from, 0);
    y = nb_swap_axes(im, y, 1, (int)axis);
    const nb_dim *seen[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) seen[d] = d == 0 ? batch : d == axis ? room : nb_num(im, 1);
    has = nb_reshape(&im->b, has, rank, seen);
    return nb_node_output(im, 0, y && has ? nb_choose(im, has, y, cache) : NULL);
}

/* ---- CausalConvWithState -------------------------------------------------------------------- */

nb_status nb_import_causal_conv(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *w = nb_node_input(im, 1);
    if (!x || !w) return NB_MALFORMED;
    if (x->type->rank != 3 || w->type->rank != 3 || !nb_dim_is_const(w->type->dims[0]))
        return nb_node_error(im, NB_MALFORMED, "expected an input and a kernel of rank 3");
    if (nb_node_int(im, "ndim", 1) != 1)
        return nb_node_error(im, NB_UNSUPPORTED, "only one axis of places is supported");
    const char *activation = nb_node_string(im, "activation", "none");
    const bool silu = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    if (!silu && strcmp(activation, "none") != 0 && *activation)
        return nb_node_error(im, NB_MALFORMED, "activation is '%s', expected none, silu or swish",
                             activation);
    NB_TRY(nb_unify(im, x->type->dims[1], w->type->dims[0]));
    nb_graph *g = im->g;
    const nb_elem elem = x->type->elem;
    const nb_dim *before = nb_dim_sub(g, w->type->dims[2], nb_num(im, 1));
    nb_value *past;
    if (nb_has_input(im, 3)) {
        past = nb_node_input(im, 3);
        if (!past || past->type->rank != 3)
            return nb_node_error(im, NB_MALFORMED, "the state is not of rank 3");
        NB_TRY(nb_unify(im, past->type->dims[2], before));
    } else {
        const nb_dim *dims[] = {x->type->dims[0], x->type->dims[1], before};
        past = nb_expand_to(im, nb_scalar(im, elem, 0), 3, dims);
    }
    nb_value *all = nb_join(im, past, x, 2);
    if (!all) return nb_node_output(im, 0, NULL);
    nb_value *wide = nb_as(im, all, NB_F32), *kernel = nb_as(im, w, NB_F32);
    nb_value *bias = nb_has_input(im, 2) ? nb_as(im, nb_node_input(im, 2), NB_F32) : NULL;
    nb_begin(&im->b, NB_OP_conv);
    nb_arg(&im->b, wide);
    nb_arg(&im->b, kernel);
    nb_arg(&im->b, bias);
    nb_set_int(&im->b, "groups", w->type->dims[0]->value);
    nb_value *y = nb_end(&im->b);
    if (silu) y = nb_unary(&im->b, NB_OP_silu, y);
    NB_TRY(nb_node_output(im, 0, nb_as(im, y, elem)));
    const nb_dim *start = nb_dim_sub(g, all->type->dims[2], before);
    return nb_node_output(im, 1, nb_slice_axis(im, all, 2, start, before, 1));
}
