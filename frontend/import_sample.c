/* GridSample, RoiAlign and AffineGrid: numbers of a tensor at places between its elements.
 *
 * A place is a number for each axis. Its neighbours are taken by gather from the tensor laid out as
 * one row of channels for each element of the image, weighted and added, all in f32. */
#include "frontend/sample.h"

#include <string.h>

#define MOST_TAPS 4

static nb_value *number(nb_importer *im, double value) { return nb_scalar(im, NB_F32, value); }

static nb_value *minus(nb_importer *im, nb_value *a, nb_value *b) {
    return a && b ? nb_combine(im, NB_OP_sub, a, b) : NULL;
}

static nb_value *product(nb_importer *im, nb_value *a, nb_value *b) {
    return a && b ? nb_combine(im, NB_OP_mul, a, b) : NULL;
}

static nb_value *between(nb_importer *im, nb_value *x, nb_value *low, nb_value *high) {
    return x ? nb_combine(im, NB_OP_min, nb_combine(im, NB_OP_max, x, low), high) : NULL;
}

/* -1 .. 1 to 0 .. length - 1 or, with corners not aligned, to the centres of elements. */
static nb_value *place_of(nb_importer *im, const nb_sampling *s, nb_value *x, int axis) {
    nb_value *one = nb_plus(im, x, 1);
    if (s->align) return nb_times(im, product(im, one, nb_plus(im, s->length[axis], -1)), 0.5);
    return nb_times(im, nb_plus(im, product(im, one, s->length[axis]), -1), 0.5);
}

/* Turned back at the first and the last element, or half an element beyond them. */
static nb_value *reflected(nb_importer *im, const nb_sampling *s, nb_value *x, int axis) {
    double low = s->align ? 0 : -0.5;
    nb_value *range = nb_plus(im, s->length[axis], s->align ? -1 : 0);
    range = nb_combine(im, NB_OP_max, range, number(im, 1));
    nb_value *q = nb_unary(&im->b, NB_OP_abs, nb_plus(im, x, -low));
    nb_value *turns = nb_unary(&im->b, NB_OP_floor, nb_combine(im, NB_OP_div, q, range));
    nb_value *rest = minus(im, q, product(im, turns, range));
    nb_value *odd =
        nb_combine(im, NB_OP_eq, nb_combine(im, NB_OP_mod, turns, number(im, 2)), number(im, 1));
    return nb_plus(im, nb_choose(im, odd, minus(im, range, rest), rest), low);
}

/* Weights of the neighbours of a place `t` behind the second of four, or the first of two. */
static nb_value *weight(nb_importer *im, int taps, int tap, nb_value *t) {
    if (taps == 1) return NULL;
    if (taps == 2) return tap ? t : minus(im, number(im, 1), t);
    const double a = -0.75;
    nb_value *d = tap == 0   ? nb_plus(im, t, 1)
                  : tap == 1 ? t
                  : tap == 2 ? minus(im, number(im, 1), t)
                             : minus(im, number(im, 2), t);
    if (tap == 1 || tap == 2) /* ((a+2) d - (a+3)) d d + 1 */
        return nb_plus(
            im, product(im, product(im, nb_plus(im, nb_times(im, d, a + 2), -(a + 3)), d), d), 1);
    /* ((a d - 5a) d + 8a) d - 4a */
    nb_value *p = nb_plus(im, nb_times(im, d, a), -5 * a);
    return nb_plus(im, product(im, nb_plus(im, product(im, p, d), 8 * a), d), -4 * a);
}

/* One neighbour along an axis. */
typedef struct neighbour {
    nb_value *index;  /* i64[B,Q] */
    nb_value *weight; /* f32[B,Q], NULL: 1 */
} neighbour;

static neighbour neighbour_of(nb_importer *im, const nb_sampling *s, int axis, int tap) {
    nb_value *x = s->at[axis], *zero = number(im, 0);
    nb_value *last = nb_plus(im, s->length[axis], -1);
    if (s->taps == 1) x = nb_unary(&im->b, NB_OP_round, x);
    if (s->borders == NB_BORDERS_LAST) x = between(im, x, zero, last);
    if (s->borders == NB_BORDERS_REFLECTED) x = reflected(im, s, x, axis);
    nb_value *floor = s->taps == 1 ? x : nb_unary(&im->b, NB_OP_floor, x);
    neighbour n = {.weight = weight(im, s->taps, tap, minus(im, x, floor))};
    nb_value *at = nb_plus(im, floor, s->taps == 4 ? tap - 1 : tap);
    if (s->borders == NB_BORDERS_REFLECTED) at = reflected(im, s, at, axis);
    nb_value *inside = between(im, at, zero, last);
    if (s->borders == NB_BORDERS_ZERO && at && inside) {
        nb_value *is = nb_cast(&im->b, nb_combine(im, NB_OP_eq, at, inside), NB_F32);
        n.weight = n.weight ? product(im, n.weight, is) : is;
    }
    /* A NaN is nowhere: element 0. */
    n.index = inside ? nb_cast(&im->b, inside, NB_I64) : NULL;
    return n;
}

nb_value *nb_sample(nb_importer *im, const nb_sampling *s) {
    neighbour n[3][MOST_TAPS];
    int combinations = 1;
    const nb_dim *pixels = nb_num(im, 1);
    for (int axis = 0; axis < s->axes; axis++) {
        for (int tap = 0; tap < s->taps; tap++) {
            n[axis][tap] = neighbour_of(im, s, axis, tap);
            if (!n[axis][tap].index) return NULL;
        }
        combinations *= s->taps;
        pixels = nb_dim_mul(im->g, pixels, s->dims[axis]);
    }
    nb_value *which = s->image ? s->image : nb_positions(im, 2, 0, s->batch), *sum = NULL;
    nb_value *image = product(im, which, nb_make_dims(im, 1, &pixels, true));
    for (int c = 0; c < combinations; c++) {
        nb_value *index = NULL, *w = NULL;
        for (int axis = 0, rest = c; axis < s->axes; axis++, rest /= s->taps) {
            const neighbour *one = &n[axis][rest % s->taps];
            nb_value *length = nb_make_dims(im, 1, &s->dims[axis], true);
            index = index ? nb_combine(im, NB_OP_add, product(im, index, length), one->index)
                          : one->index;
            w = w && one->weight ? product(im, w, one->weight) : one->weight ? one->weight : w;
        }
        index = image && index ? nb_combine(im, NB_OP_add, index, image) : NULL;
        nb_value *part = index ? nb_take(im, s->rows, index, 0) : NULL;
        if (w && part) {
            const nb_dim *dims[] = {w->type->dims[0], w->type->dims[1], nb_num(im, 1)};
            part = product(im, part, nb_reshape(&im->b, w, 3, dims));
        }
        sum = sum ? nb_combine(im, s->largest ? NB_OP_max : NB_OP_add, sum, part) : part;
        if (!sum) return NULL;
    }
    return sum;
}

nb_value *nb_sample_rows(nb_importer *im, nb_value *x) {
    const int rank = x->type->rank;
    int64_t perm[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) perm[d] = d == 0 ? 0 : d == rank - 1 ? 1 : d + 1;
    nb_value *last = nb_transpose(&im->b, nb_as(im, x, NB_F32), perm);
    if (!last) return NULL;
    const nb_dim *dims[2] = {nb_num(im, 1), x->type->dims[1]};
    for (int d = 0; d < rank; d++)
        if (d != 1) dims[0] = nb_dim_mul(im->g, dims[0], x->type->dims[d]);
    return nb_reshape(&im->b, last, 2, dims);
}

static nb_status read_sampling(nb_importer *im, nb_sampling *s) {
    static const struct {
        const char *name;
        int taps;
    } modes[] = {{"bilinear", 2}, {"linear", 2}, {"nearest", 1}, {"bicubic", 4}, {"cubic", 4}};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const char *mode = nb_node_string(im, "mode", "linear"),
               *padding = nb_node_string(im, "padding_mode", "zeros");
    size_t m = 0, p = 0;
    while (m < NB_COUNT(modes) && strcmp(modes[m].name, mode) != 0) m++;
    while (p < NB_COUNT(paddings) && strcmp(paddings[p], padding) != 0) p++;
    if (m == NB_COUNT(modes) || p == NB_COUNT(paddings))
        return nb_node_error(im, NB_MALFORMED, "mode '%s' and padding_mode '%s' are not known",
                             mode, padding);
    s->taps = modes[m].taps;
    s->borders = (nb_borders)p;
    s->align = nb_node_int(im, "align_corners", 0) != 0;
    return NB_OK;
}

nb_status nb_import_grid_sample(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *grid = nb_node_input(im, 1);
    nb_sampling s = {0};
    if (!x || !grid) return NB_MALFORMED;
    NB_TRY(read_sampling(im, &s));
    const int rank = x->type->rank;
    s.axes = rank - 2;
    if (s.axes < 1 || s.axes > 3 || grid->type->rank != rank)
        return nb_node_error(im, NB_UNSUPPORTED, "images of rank 3 to 5, found %d", rank);
    NB_TRY(nb_unify(im, x->type->dims[0], grid->type->dims[0]));
    NB_TRY(nb_unify(im, grid->type->dims[rank - 1], nb_num(im, s.axes)));
    const nb_type *places = grid->type;
    const nb_dim *flat[2] = {places->dims[0], nb_num(im, 1)}, *out[NB_MAX_RANK];
    for (int d = 1; d <= s.axes; d++) flat[1] = nb_dim_mul(im->g, flat[1], places->dims[d]);
    s.batch = places->dims[0];
    for (int axis = 0; axis < s.axes; axis++) {
        s.dims[axis] = x->type->dims[axis + 2];
        s.length[axis] = nb_as(im, nb_make_dims(im, 1, &s.dims[axis], true), NB_F32);
        /* The last axis comes first. */
        const nb_dim *which = nb_num(im, s.axes - 1 - axis);
        nb_value *at = nb_slice_axis(im, grid, rank - 1, which, nb_num(im, 1), 1);
        at = nb_as(im, nb_reshape(&im->b, at, 2, flat), NB_F32);
        s.at[axis] = at ? place_of(im, &s, at, axis) : NULL;
        if (!s.at[axis] || !s.length[axis]) return nb_node_output(im, 0, NULL);
    }
    s.rows = nb_sample_rows(im, x);
    nb_value *y = s.rows ? nb_sample(im, &s) : NULL; /* [B,Q,C] */
    if (!y) return nb_node_output(im, 0, NULL);
    y = nb_swap_axes(im, y, 1, 2);
    out[0] = places->dims[0];
    out[1] = x->type->dims[1];
    for (int d = 1; d <= s.axes; d++) out[d + 1] = places->dims[d];
    return nb_node_output(im, 0, nb_as(im, nb_reshape(&im->b, y, rank, out), x->type->elem));
}

/* ---- RoiAlign ------------------------------------------------------------------------------- */

typedef struct regions {
    nb_value *rois;         /* f32[R,4]: x1, y1, x2, y2 in elements of the image */
    int64_t out[2], points; /* height and width; points along an axis in each cell */
    bool half;              /* places are centres of elements */
    bool largest;           /* mode max */
} regions;

/* f32[R,n]: places along an axis (0: y) of the points of all cells. */
static nb_value *points_of(nb_importer *im, const regions *r, int axis) {
    const nb_dim *one = nb_num(im, 1);
    nb_value *from = nb_slice_axis(im, r->rois, 1, nb_num(im, 1 - axis), one, 1),
             *to = nb_slice_axis(im, r->rois, 1, nb_num(im, 3 - axis), one, 1);
    nb_value *length = minus(im, to, from);
    if (!r->half && length) length = nb_combine(im, NB_OP_max, length, number(im, 1));
    nb_value *i = nb_as(im, nb_positions(im, 2, 1, nb_num(im, r->out[axis] * r->points)), NB_F32);
    i = nb_times(im, nb_plus(im, i, 0.5), 1.0 / (double)(r->points * r->out[axis]));
    i = product(im, i, length);
    return i ? nb_combine(im, NB_OP_add, i, from) : NULL;
}

/* Is a point at most one element outside? */
static nb_value *near_image(nb_importer *im, const nb_sampling *s, nb_value *at, int axis) {
    nb_value *low = nb_combine(im, NB_OP_le, number(im, -1), at);
    nb_value *high = nb_combine(im, NB_OP_le, at, s->length[axis]);
    return low && high ? nb_combine(im, NB_OP_and, low, high) : NULL;
}

static nb_status read_regions(nb_importer *im, regions *r) {
    const char *mode = nb_node_string(im, "mode", "avg");
    const char *usual = im->opset < 16 ? "output_half_pixel" : "half_pixel";
    const char *places = nb_node_string(im, "coordinate_transformation_mode", usual);
    r->half = strcmp(places, "half_pixel") == 0;
    r->out[0] = nb_node_int(im, "output_height", 1);
    r->out[1] = nb_node_int(im, "output_width", 1);
    r->points = nb_node_int(im, "sampling_ratio", 0);
    r->largest = strcmp(mode, "max") == 0;
    if (!r->largest && strcmp(mode, "avg") != 0)
        return nb_node_error(im, NB_MALFORMED, "mode is '%s', expected avg or max", mode);
    if (r->points < 1)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "a sampling_ratio that depends on the regions is not supported");
    if (r->points > 1024 || r->out[0] < 1 || r->out[0] > 65536 || r->out[1] < 1 ||
        r->out[1] > 65536)
        return nb_node_error(im, NB_MALFORMED, "an output of %lld by %lld, sampling_ratio %lld",
                             (long long)r->out[0], (long long)r->out[1], (long long)r->points);
    nb_value *rois = nb_as(im, nb_node_input(im, 1), NB_F32);
    rois = nb_times(im, rois, (double)nb_node_float(im, "spatial_scale", 1));
    r->rois = r->half ? nb_plus(im, rois, -0.5) : rois;
    return r->rois ? NB_OK : NB_MALFORMED;
}

/* f32[R,height*width]: places of all points along an axis. */
static nb_value *spread_points(nb_importer *im, const regions *r, int axis, const nb_dim *batch) {
    const nb_dim *one = nb_num(im, 1), *height = nb_num(im, r->out[0] * r->points),
                 *width = nb_num(im, r->out[1] * r->points);
    const nb_dim *line[] = {batch, axis ? one : height, axis ? width : one},
                 *grid[] = {batch, height, width},
                 *flat[] = {batch, nb_dim_mul(im->g, height, width)};
    nb_value *at = points_of(im, r, axis);
    at = at ? nb_expand_to(im, nb_reshape(&im->b, at, 3, line), 3, grid) : NULL;
    return at ? nb_reshape(&im->b, at, 2, flat) : NULL;
}

nb_status nb_import_roi_align(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *rois = nb_node_input(im, 1), *image = nb_node_input(im, 2);
    if (!x || !rois || !image) return NB_MALFORMED;
    if (x->type->rank != 4 || rois->type->rank != 2 || image->type->rank != 1)
        return nb_node_error(im, NB_MALFORMED, "expected ranks 4, 2 and 1, found %d, %d and %d",
                             x->type->rank, rois->type->rank, image->type->rank);
    NB_TRY(nb_unify(im, rois->type->dims[1], nb_num(im, 4)));
    NB_TRY(nb_unify(im, image->type->dims[0], rois->type->dims[0]));
    regions r = {0};
    NB_TRY(read_regions(im, &r));
    nb_sampling s = {.axes = 2,
                     .taps = 2,
                     .borders = NB_BORDERS_LAST,
                     .batch = rois->type->dims[0],
                     .largest = r.largest};
    s.image = nb_along(im, nb_as(im, image, NB_I64), 2, 0);
    s.rows = nb_sample_rows(im, x);
    nb_value *seen = NULL;
    for (int axis = 0; axis < 2; axis++) {
        s.dims[axis] = x->type->dims[axis + 2];
        s.length[axis] = nb_as(im, nb_make_dims(im, 1, &s.dims[axis], true), NB_F32);
        s.at[axis] = spread_points(im, &r, axis, s.batch);
        nb_value *is = s.at[axis] ? near_image(im, &s, s.at[axis], axis) : NULL;
        seen = seen && is ? nb_combine(im, NB_OP_and, seen, is) : is;
        if (!seen) return nb_node_output(im, 0, NULL);
    }
    nb_value *y = s.rows && s.image ? nb_sample(im, &s) : NULL; /* [R,Q,C] */
    const nb_dim *wide[] = {s.batch, seen->type->dims[1], nb_num(im, 1)};
    y = y ? nb_choose(im, nb_reshape(&im->b, seen, 3, wide), y, number(im, 0)) : NULL;
    const nb_dim *points = nb_num(im, r.points);
    const nb_dim *cells[] = {s.batch, nb_num(im, r.out[0]), points, nb_num(im, r.out[1]),
                             points,  x->type->dims[1]};
    y = nb_reshape(&im->b, y, 6, cells);
    const nb_op_kind over = r.largest ? NB_OP_reduce_max : NB_OP_reduce_mean;
    y = y ? nb_reduce(im, over, y, 2, (const int64_t[]){2, 4}, false) : NULL;
    y = nb_transpose(&im->b, y, (const int64_t[]){0, 3, 1, 2});
    return nb_node_output(im, 0, nb_as(im, y, x->type->elem));
}

/* ---- AffineGrid ----------------------------------------------------------------------------- */

/* f32: places of the elements of an axis in -1 .. 1. */
static nb_value *spread(nb_importer *im, const nb_dim *length, bool align) {
    nb_value *i = nb_as(im, nb_count_up(im, nb_num(im, 0), length), NB_F32),
             *n = nb_as(im, nb_make_dims(im, 1, &length, true), NB_F32);
    if (!i || !n) return NULL;
    nb_value *top = nb_times(im, i, 2), *bottom = n;
    if (align)
        bottom = nb_combine(im, NB_OP_max, nb_plus(im, n, -1), number(im, 1));
    else
        top = nb_plus(im, top, 1);
    return nb_plus(im, nb_combine(im, NB_OP_div, top, bottom), -1);
}

nb_status nb_import_affine_grid(nb_importer *im) {
    nb_value *theta = nb_node_input(im, 0);
    const nb_dim *const *size, *out[NB_MAX_RANK], *pixels = nb_num(im, 1), *one = nb_num(im, 1);
    size_t n;
    if (!theta) return NB_MALFORMED;
    NB_TRY(nb_dims_of(im, 1, &size, &n));
    const int axes = (int)n - 2;
    if (axes < 2 || axes > 3 || theta->type->rank != 3)
        return nb_node_error(im, NB_MALFORMED, "a size of %zu numbers and theta of rank %d", n,
                             theta->type->rank);
    NB_TRY(nb_unify(im, theta->type->dims[0], size[0]));
    NB_TRY(nb_unify(im, theta->type->dims[1], nb_num(im, axes)));
    NB_TRY(nb_unify(im, theta->type->dims[2], nb_num(im, axes + 1)));
    const bool align = nb_node_int(im, "align_corners", 0) != 0;
    const nb_elem elem = theta->type->elem;
    for (int d = 0; d < axes; d++) {
        out[d] = size[d + 2];
        pixels = nb_dim_mul(im->g, pixels, size[d + 2]);
    }
    nb_value *base = NULL; /* [pixels, axes + 1]: places, the last axis first, and 1 */
    for (int d = axes - 1; d >= -1; d--) {
        nb_value *at = d < 0 ? number(im, 1) : nb_along(im, spread(im, out[d], align), axes, d);
        const nb_dim *column[] = {pixels, one};
        at = at ? nb_reshape(&im->b, nb_expand_to(im, at, axes, out), 2, column) : NULL;
        base = base ? nb_join(im, base, at, 1) : at;
        if (!base) return nb_node_output(im, 0, NULL);
    }
    nb_value *y = nb_multiply(im, base, nb_swap_axes(im, nb_as(im, theta, NB_F32), 1, 2));
    const nb_dim *shape[NB_MAX_RANK] = {theta->type->dims[0]};
    for (int d = 0; d < axes; d++) shape[d + 1] = out[d];
    shape[axes + 1] = nb_num(im, axes);
    return nb_node_output(im, 0, nb_as(im, nb_reshape(&im->b, y, axes + 2, shape), elem));
}
