/* Resize along one axis: weighted sums of entries of x at places that are computed from counted
 * positions. What is known when importing becomes constants; lengths may be expressions, scales and
 * parts of an axis values of the run. Coordinates are f64, so that those that should meet an entry
 * do. */
#include "frontend/resize.h"

#include <math.h>
#include <string.h>

static nb_value *number(nb_importer *im, double value) { return nb_scalar(im, NB_F64, value); }

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

nb_value *nb_resize_length(nb_importer *im, const nb_dim *d) {
    return nb_cast(&im->b, nb_make_dims(im, 1, &d, true), NB_F64);
}

nb_value *nb_resize_lengths(nb_importer *im, size_t n, const nb_dim *const *dims) {
    return nb_cast(&im->b, nb_make_dims(im, n, dims, false), NB_F64);
}

/* ---- coordinates ---------------------------------------------------------------------------- */

static nb_value *scale_of(nb_importer *im, const nb_resize_axis *a) {
    return a->scale ? a->scale
                    : nb_combine(im, NB_OP_div, nb_resize_length(im, a->to),
                                 nb_resize_length(im, a->from));
}

/* From the start of the part to its end; one element alone is in the middle. */
static nb_value *cropped(nb_importer *im, const nb_resize_axis *a, nb_value *i) {
    nb_value *to = nb_resize_length(im, a->to), *one = number(im, 1),
             *last = nb_plus(im, nb_resize_length(im, a->from), -1);
    nb_value *part = nb_combine(im, NB_OP_mul, nb_combine(im, NB_OP_sub, a->end, a->start), last);
    nb_value *steps = nb_combine(im, NB_OP_max, nb_plus(im, to, -1), one);
    nb_value *along =
        nb_combine(im, NB_OP_add, nb_combine(im, NB_OP_mul, a->start, last),
                   nb_combine(im, NB_OP_div, nb_combine(im, NB_OP_mul, i, part), steps));
    nb_value *middle = nb_combine(im, NB_OP_mul, nb_combine(im, NB_OP_add, a->start, a->end), last);
    return nb_choose(im, nb_combine(im, NB_OP_lt, one, to), along, nb_times(im, middle, 0.5));
}

/* Where in x the positions of the result lie: f64[to]. */
static nb_value *coordinates(nb_importer *im, const nb_resize *r, const nb_resize_axis *a) {
    nb_value *i = nb_cast(&im->b, nb_count_up(im, nb_num(im, 0), a->to), NB_F64);
    if (r->crop) return cropped(im, a, i);
    nb_value *from = nb_resize_length(im, a->from), *to = nb_resize_length(im, a->to);
    nb_value *scale = scale_of(im, a);
    if (is(r->coordinates, "asymmetric")) return nb_combine(im, NB_OP_div, i, scale);
    if (is(r->coordinates, "align_corners")) {
        /* Of the exact length, which a scale gives; one element alone is the first. */
        nb_value *last = nb_plus(im, a->scale ? nb_combine(im, NB_OP_mul, scale, from) : to, -1);
        last = last ? nb_combine(im, NB_OP_max, last, number(im, 0x1p-20)) : NULL;
        return nb_combine(im, NB_OP_div, nb_combine(im, NB_OP_mul, i, nb_plus(im, from, -1)), last);
    }
    if (is(r->coordinates, "tf_half_pixel_for_nn"))
        return nb_combine(im, NB_OP_div, nb_plus(im, i, 0.5), scale);
    nb_value *x = nb_plus(im, nb_combine(im, NB_OP_div, nb_plus(im, i, 0.5), scale), -0.5);
    if (is(r->coordinates, "pytorch_half_pixel")) {
        nb_value *several = nb_combine(im, NB_OP_lt, number(im, 1), to);
        return nb_choose(im, several, x, number(im, 0));
    }
    if (is(r->coordinates, "half_pixel_symmetric")) {
        nb_value *exact = nb_combine(im, NB_OP_mul, scale, from), *half = nb_times(im, from, 0.5);
        nb_value *less =
            nb_plus(im, nb_unary(&im->b, NB_OP_neg, nb_combine(im, NB_OP_div, to, exact)), 1);
        x = nb_combine(im, NB_OP_add, x, nb_combine(im, NB_OP_mul, half, less));
    }
    return x;
}

/* Entries of x along axis d at `place` (f64), those beyond the ends being the last. */
static nb_value *entries(nb_importer *im, nb_value *x, int d, nb_value *place) {
    nb_value *last = nb_plus(im, nb_resize_length(im, x->type->dims[d]), -1);
    place = nb_combine(im, NB_OP_max, nb_combine(im, NB_OP_min, place, last), number(im, 0));
    return place ? nb_take(im, x, nb_cast(&im->b, place, NB_I64), d) : NULL;
}

/* Is a place (f64) before the first entry, or behind the last? */
static nb_value *is_out(nb_importer *im, const nb_resize_axis *a, nb_value *place) {
    nb_value *last = nb_plus(im, nb_resize_length(im, a->from), -1);
    return nb_combine(im, NB_OP_or, nb_combine(im, NB_OP_lt, place, number(im, 0)),
                      nb_combine(im, NB_OP_lt, last, place));
}

static nb_value *nearest(nb_importer *im, const nb_resize *r, nb_value *x, int d, nb_value *at) {
    if (is(r->nearest, "round_prefer_floor"))
        at = nb_unary(&im->b, NB_OP_ceil, nb_plus(im, at, -0.5));
    else if (is(r->nearest, "round_prefer_ceil"))
        at = nb_unary(&im->b, NB_OP_floor, nb_plus(im, at, 0.5));
    else
        at = nb_unary(&im->b, is(r->nearest, "floor") ? NB_OP_floor : NB_OP_ceil, at);
    return entries(im, x, d, at);
}

/* ---- weights -------------------------------------------------------------------------------- */

/* c[0] t^3 + c[1] t^2 + c[2] t + c[3] */
static nb_value *polynomial(nb_importer *im, const double *c, nb_value *t) {
    nb_value *y = nb_plus(im, nb_times(im, t, c[0]), c[1]);
    y = nb_plus(im, nb_combine(im, NB_OP_mul, y, t), c[2]);
    return nb_plus(im, nb_combine(im, NB_OP_mul, y, t), c[3]);
}

/* Keys' cubic convolution: for t = distance <= 1, and beyond, for t = distance - 1. */
static nb_value *cubic_inner(nb_importer *im, double a, nb_value *t) {
    return polynomial(im, (const double[]){a + 2, -(a + 3), 0, 1}, t);
}
static nb_value *cubic_outer(nb_importer *im, double a, nb_value *t) {
    return polynomial(im, (const double[]){a, -2 * a, a, 0}, t);
}

/* Weights of the entries before and behind, f64[to]: *n of them, the first at *first from the
 * entry below. t is how far behind that the position is. */
static void weigh(nb_importer *im, const nb_resize *r, nb_value *t, nb_value **weights, int *n,
                  int *first) {
    nb_value *rest = nb_plus(im, nb_unary(&im->b, NB_OP_neg, t), 1);
    if (is(r->mode, "linear")) {
        weights[0] = rest;
        weights[1] = t;
        *n = 2;
        *first = 0;
        return;
    }
    weights[0] = cubic_outer(im, r->cubic, t);
    weights[1] = cubic_inner(im, r->cubic, t);
    weights[2] = cubic_inner(im, r->cubic, rest);
    weights[3] = cubic_outer(im, r->cubic, rest);
    *n = 4;
    *first = -1;
}

static nb_value *interpolated(nb_importer *im, const nb_resize *r, nb_value *x, int d,
                              const nb_resize_axis *a, nb_value *at) {
    nb_value *below = nb_unary(&im->b, NB_OP_floor, at), *weights[4], *places[4], *sum = NULL,
             *y = NULL;
    int n, first;
    if (!below) return NULL;
    weigh(im, r, nb_combine(im, NB_OP_sub, at, below), weights, &n, &first);
    for (int k = 0; k < n; k++) {
        places[k] = nb_plus(im, below, k + first);
        if (!r->outside) continue;
        nb_value *out = is_out(im, a, places[k]);
        weights[k] = out ? nb_choose(im, out, number(im, 0), weights[k]) : NULL;
        sum = sum ? nb_combine(im, NB_OP_add, sum, weights[k]) : weights[k];
    }
    for (int k = 0; k < n; k++) {
        nb_value *w = sum ? nb_combine(im, NB_OP_div, weights[k], sum) : weights[k];
        if (!w) return NULL;
        w = nb_along(im, nb_cast(&im->b, w, x->type->elem), x->type->rank - d, 0);
        nb_value *part = nb_combine(im, NB_OP_mul, entries(im, x, d, places[k]), w);
        y = y ? nb_combine(im, NB_OP_add, y, part) : part;
    }
    return y;
}

/* ---- antialiasing --------------------------------------------------------------------------- */

/* The kernel is stretched by 1 / scale: how many entries it reaches on each side. Of a scale that
 * is no number: from / scale is at most to + 1/2. */
static const nb_dim *reach_of(nb_importer *im, const nb_resize *r, const nb_resize_axis *a) {
    const int64_t width = is(r->mode, "linear") ? 1 : 2;
    if (a->known > 0) {
        const double wide = ceil((double)width / fmin(a->known, 1));
        return wide < 0x1p31 ? nb_num(im, (int64_t)wide) : NULL;
    }
    nb_graph *g = im->g;
    const nb_dim *twice = nb_dim_add(g, nb_dim_mul(g, nb_num(im, 2), a->to), nb_num(im, -1));
    const nb_dim *wide = nb_dim_ceildiv(g, nb_dim_mul(g, nb_num(im, 2 * width), a->from),
                                        nb_dim_max(g, twice, nb_num(im, 1)));
    return nb_dim_max(g, wide, nb_num(im, width));
}

/* The kernel at distance t >= 0. */
static nb_value *kernel(nb_importer *im, const nb_resize *r, nb_value *t) {
    nb_value *one = number(im, 1), *zero = number(im, 0);
    if (is(r->mode, "linear"))
        return nb_combine(im, NB_OP_max, nb_combine(im, NB_OP_sub, one, t), zero);
    nb_value *outer = cubic_outer(im, r->cubic, nb_plus(im, t, -1));
    outer = nb_choose(im, nb_combine(im, NB_OP_lt, t, number(im, 2)), outer, zero);
    return nb_choose(im, nb_combine(im, NB_OP_lt, t, one), cubic_inner(im, r->cubic, t), outer);
}

/* All entries that the kernel reaches, f64[to,taps] of them, weighted so that weights sum to 1. */
static nb_value *antialiased(nb_importer *im, const nb_resize *r, nb_value *x, int d,
                             const nb_resize_axis *a, nb_value *at) {
    const nb_dim *reach = reach_of(im, r, a);
    const int rank = x->type->rank;
    const int64_t last = 1, taps_axis = d + 1;
    if (!reach || rank == NB_MAX_RANK) {
        nb_node_error(im, NB_LIMIT, "antialias of rank %d by a scale of %g", rank, a->known);
        return NULL;
    }
    const nb_dim *first = nb_dim_sub(im->g, nb_num(im, 1), reach),
                 *taps = nb_dim_mul(im->g, reach, nb_num(im, 2));
    at = nb_along(im, at, 2, 0);
    nb_value *tap = nb_cast(&im->b, nb_along(im, nb_count_up(im, first, taps), 2, 1), NB_F64);
    nb_value *place = nb_combine(im, NB_OP_add, nb_unary(&im->b, NB_OP_floor, at), tap);
    nb_value *distance = nb_unary(&im->b, NB_OP_abs, nb_combine(im, NB_OP_sub, place, at));
    nb_value *shrunk = nb_combine(im, NB_OP_min, scale_of(im, a), number(im, 1));
    nb_value *w = kernel(im, r, nb_combine(im, NB_OP_mul, distance, shrunk));
    if (r->outside) w = nb_choose(im, is_out(im, a, place), number(im, 0), w);
    w = nb_combine(im, NB_OP_div, w, nb_reduce(im, NB_OP_reduce_sum, w, 1, &last, true));
    if (!w) return NULL;
    const nb_dim *dims[NB_MAX_RANK];
    for (int k = 0; k < rank + 1 - d; k++) dims[k] = k < 2 ? w->type->dims[k] : nb_num(im, 1);
    w = nb_reshape(&im->b, nb_cast(&im->b, w, x->type->elem), rank + 1 - d, dims);
    nb_value *parts = nb_combine(im, NB_OP_mul, entries(im, x, d, place), w);
    return nb_reduce(im, NB_OP_reduce_sum, parts, 1, &taps_axis, false);
}

/* ---- one axis ------------------------------------------------------------------------------- */

/* Nearest neighbours of a whole scale repeat each entry: no indices are needed. */
static bool repeats(const nb_resize *r, const nb_resize_axis *a) {
    bool half = is(r->coordinates, "half_pixel") && strncmp(r->nearest, "round", 5) == 0,
         low = is(r->coordinates, "asymmetric") && is(r->nearest, "floor");
    return is(r->mode, "nearest") && a->known >= 1 && a->known == floor(a->known) && (half || low);
}

static nb_value *repeat(nb_importer *im, nb_value *x, int d, int64_t times) {
    const nb_dim *split[NB_MAX_RANK], *wide[NB_MAX_RANK], *flat[NB_MAX_RANK];
    int rank = x->type->rank;
    for (int k = 0; k <= rank; k++) {
        split[k] = k <= d ? x->type->dims[k] : k == d + 1 ? nb_num(im, 1) : x->type->dims[k - 1];
        wide[k] = k == d + 1 ? nb_num(im, times) : split[k];
    }
    for (int k = 0; k < rank; k++)
        flat[k] =
            k == d ? nb_dim_mul(im->g, x->type->dims[k], nb_num(im, times)) : x->type->dims[k];
    x = nb_reshape(&im->b, x, rank + 1, split);
    return nb_reshape(&im->b, nb_expand_to(im, x, rank + 1, wide), rank, flat);
}

nb_value *nb_resize_along(nb_importer *im, const nb_resize *r, nb_value *x, int d,
                          const nb_resize_axis *a) {
    if (repeats(r, a) && x->type->rank < NB_MAX_RANK) return repeat(im, x, d, (int64_t)a->known);
    nb_value *at = coordinates(im, r, a);
    nb_value *y = is(r->mode, "nearest") ? nearest(im, r, x, d, at)
                  : r->antialias         ? antialiased(im, r, x, d, a, at)
                                         : interpolated(im, r, x, d, a, at);
    if (!r->crop || !y) return y;
    nb_value *out = nb_along(im, is_out(im, a, at), y->type->rank - d, 0);
    return nb_choose(im, out, nb_scalar(im, y->type->elem, r->beyond), y);
}
