/* Resize and Upsample: each axis by itself, as a weighted sum of entries of x at places that are
 * computed from counted positions. What is known when importing becomes constants; lengths may be
 * expressions. Coordinates are f64, so that those that should meet an entry do. */
#include "frontend/import.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

typedef struct resize {
    const char *mode, *coordinates, *nearest;
    double cubic; /* cubic_coeff_a */
    bool outside; /* exclude_outside */
} resize;

typedef struct axis {
    const nb_dim *from, *to; /* lengths */
    double scale;            /* as given; 0: to / from */
} axis;

/* ---- what is asked for ---------------------------------------------------------------------- */

/* floor(length * scale), for lengths that are not known of whole scales or their inverses. */
static const nb_dim *scaled(nb_importer *im, const nb_dim *length, double scale) {
    if (nb_dim_is_const(length)) {
        double to = floor((double)length->value * scale);
        return to < 0x1p40 ? nb_num(im, (int64_t)to) : NULL;
    }
    double inverse = 1 / scale;
    if (scale == floor(scale) && scale < 0x1p31)
        return nb_dim_mul(im->g, length, nb_num(im, (int64_t)scale));
    return inverse == floor(inverse) && inverse < 0x1p31
               ? nb_dim_floordiv(im->g, length, nb_num(im, (int64_t)inverse))
               : NULL;
}

/* Numbers of input i, a constant of floats. */
static nb_status read_scales(nb_importer *im, size_t i, double *out, size_t *n) {
    nb_value *v = nb_node_input(im, i);
    if (!v) return NB_MALFORMED;
    if (!nb_is_const(v) || v->type->quant)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "input %zu \"%s\" must be known at compile time; it depends on data",
                             i, im->node->input[i]);
    nb_tensor t = nb_tensor_of_const(v);
    int64_t count = nb_tensor_count(&t);
    if (count > NB_MAX_RANK)
        return nb_node_error(im, NB_MALFORMED, "%lld scales", (long long)count);
    for (int64_t k = 0; k < count; k++) out[k] = nb_tensor_get(&t, k);
    *n = (size_t)count;
    return NB_OK;
}

static bool is_empty(nb_importer *im, size_t i) {
    int64_t count;
    nb_value *v = nb_has_input(im, i) ? nb_node_input(im, i) : NULL;
    return !v || (nb_type_static_count(v->type, &count) && count == 0);
}

/* Lengths and scales of the axes that are named, all others stay. */
static nb_status read_axes(nb_importer *im, nb_value *x, axis *axes) {
    const int rank = x->type->rank;
    const Onnx__AttributeProto *given = nb_node_attr(im, "scales"); /* Upsample, opset 7 */
    size_t scales_at = im->opset < 11 || im->argument ? 1 : 2, sizes_at = 3, n, n_axes;
    bool by_size = !given && is_empty(im, scales_at);
    const int64_t *named;
    const nb_dim *const *sizes = NULL;
    double scales[NB_MAX_RANK] = {0};
    NB_TRY(nb_axes(im, SIZE_MAX, rank, &named, &n_axes));
    if (given) {
        for (n = 0; n < given->n_floats && n < NB_MAX_RANK; n++)
            scales[n] = (double)given->floats[n];
        if (n < given->n_floats) n = SIZE_MAX;
    } else if (by_size) {
        NB_TRY(nb_dims_of(im, sizes_at, &sizes, &n));
    } else {
        NB_TRY(read_scales(im, scales_at, scales, &n));
    }
    if (n != (named ? n_axes : (size_t)rank))
        return nb_node_error(im, NB_MALFORMED, "%zu scales or sizes for %zu axes", n,
                             named ? n_axes : (size_t)rank);
    for (int d = 0; d < rank; d++) axes[d] = (axis){x->type->dims[d], x->type->dims[d], 1};
    for (size_t i = 0; i < n; i++) {
        axis *a = &axes[named ? named[i] : (int64_t)i];
        a->scale = scales[i];
        if (!by_size && !(scales[i] > 0 && scales[i] < 0x1p31))
            return nb_node_error(im, NB_MALFORMED, "a scale of %g", scales[i]);
        a->to = by_size ? sizes[i] : scaled(im, a->from, scales[i]);
        if (!a->to)
            return nb_node_error(im, NB_UNSUPPORTED, "an axis of length %s scaled by %g",
                                 nb_dim_text(im->arena, a->from), scales[i]);
    }
    return NB_OK;
}

static nb_status check_word(nb_importer *im, const char *what, const char *word,
                            const char *const *known) {
    for (int i = 0; known[i]; i++)
        if (strcmp(known[i], word) == 0) return NB_OK;
    return nb_node_error(im, NB_UNSUPPORTED, "%s '%s' is not supported", what, word);
}

static nb_status read_modes(nb_importer *im, resize *r) {
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL},
                             *const coordinates[] = {"half_pixel",
                                                     "half_pixel_symmetric",
                                                     "align_corners",
                                                     "asymmetric",
                                                     "pytorch_half_pixel",
                                                     "tf_half_pixel_for_nn",
                                                     NULL},
                             *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                                 "ceil", NULL};
    bool old = im->opset < 11 || im->argument; /* before there was a choice */
    *r = (resize){
        .mode = nb_node_string(im, "mode", "nearest"),
        .coordinates =
            nb_node_string(im, "coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
        .nearest = nb_node_string(im, "nearest_mode", old ? "floor" : "round_prefer_floor"),
        .cubic = (double)nb_node_float(im, "cubic_coeff_a", -0.75f),
        .outside = nb_node_int(im, "exclude_outside", 0) != 0};
    NB_TRY(check_word(im, "mode", r->mode, modes));
    NB_TRY(check_word(im, "coordinate_transformation_mode", r->coordinates, coordinates));
    NB_TRY(check_word(im, "nearest_mode", r->nearest, nearest));
    if (nb_node_int(im, "antialias", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "antialias is not supported");
    return check_word(im, "keep_aspect_ratio_policy",
                      nb_node_string(im, "keep_aspect_ratio_policy", "stretch"),
                      (const char *const[]){"stretch", NULL});
}

/* ---- coordinates ---------------------------------------------------------------------------- */

static nb_value *op2(nb_importer *im, nb_op_kind kind, nb_value *a, nb_value *b) {
    return nb_combine(im, kind, a, b);
}

static nb_value *length(nb_importer *im, const nb_dim *d) {
    return nb_cast(&im->b, nb_make_dims(im, 1, &d, true), NB_F64);
}

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

/* Where in x the positions of the result lie: f64[to]. */
static nb_value *coordinates(nb_importer *im, const resize *r, const axis *a) {
    nb_value *i = nb_cast(&im->b, nb_count_up(im, nb_num(im, 0), a->to), NB_F64),
             *from = length(im, a->from), *to = length(im, a->to);
    nb_value *scale =
        a->scale != 0 ? nb_scalar(im, NB_F64, a->scale) : op2(im, NB_OP_div, to, from);
    if (is(r->coordinates, "asymmetric")) return op2(im, NB_OP_div, i, scale);
    if (is(r->coordinates, "align_corners")) {
        /* Of the exact length, which a scale gives; one element alone is the first. */
        nb_value *last = nb_plus(im, a->scale != 0 ? op2(im, NB_OP_mul, scale, from) : to, -1);
        last = last ? op2(im, NB_OP_max, last, nb_scalar(im, NB_F64, 0x1p-20)) : NULL;
        return op2(im, NB_OP_div, op2(im, NB_OP_mul, i, nb_plus(im, from, -1)), last);
    }
    if (is(r->coordinates, "tf_half_pixel_for_nn"))
        return op2(im, NB_OP_div, nb_plus(im, i, 0.5), scale);
    nb_value *x = nb_plus(im, op2(im, NB_OP_div, nb_plus(im, i, 0.5), scale), -0.5);
    if (is(r->coordinates, "pytorch_half_pixel")) {
        nb_value *several = op2(im, NB_OP_lt, nb_scalar(im, NB_F64, 1), to);
        return nb_choose(im, several, x, nb_scalar(im, NB_F64, 0));
    }
    if (is(r->coordinates, "half_pixel_symmetric")) {
        nb_value *exact = op2(im, NB_OP_mul, scale, from), *half = nb_times(im, from, 0.5);
        nb_value *less = nb_plus(im, nb_unary(&im->b, NB_OP_neg, op2(im, NB_OP_div, to, exact)), 1);
        x = op2(im, NB_OP_add, x, op2(im, NB_OP_mul, half, less));
    }
    return x;
}

/* Entries of x along axis d at `place` (f64), those beyond the ends being the last. */
static nb_value *entries(nb_importer *im, nb_value *x, int d, nb_value *place) {
    nb_value *last = nb_plus(im, length(im, x->type->dims[d]), -1);
    place = op2(im, NB_OP_max, op2(im, NB_OP_min, place, last), nb_scalar(im, NB_F64, 0));
    return place ? nb_take(im, x, nb_cast(&im->b, place, NB_I64), d) : NULL;
}

static nb_value *nearest(nb_importer *im, const resize *r, nb_value *x, int d, const axis *a) {
    nb_value *at = coordinates(im, r, a);
    if (is(r->nearest, "round_prefer_floor"))
        at = nb_unary(&im->b, NB_OP_ceil, nb_plus(im, at, -0.5));
    else if (is(r->nearest, "round_prefer_ceil"))
        at = nb_unary(&im->b, NB_OP_floor, nb_plus(im, at, 0.5));
    else
        at = nb_unary(&im->b, is(r->nearest, "floor") ? NB_OP_floor : NB_OP_ceil, at);
    return entries(im, x, d, at);
}

/* c[0] t^3 + c[1] t^2 + c[2] t + c[3] */
static nb_value *polynomial(nb_importer *im, const double *c, nb_value *t) {
    nb_value *y = nb_plus(im, nb_times(im, t, c[0]), c[1]);
    y = nb_plus(im, op2(im, NB_OP_mul, y, t), c[2]);
    return nb_plus(im, op2(im, NB_OP_mul, y, t), c[3]);
}

/* Weights of the entries before and behind, f64[to]: *n of them, the first at *first from the
 * entry below. t is how far behind that the position is. */
static void weigh(nb_importer *im, const resize *r, nb_value *t, nb_value **weights, int *n,
                  int *first) {
    nb_value *rest = nb_plus(im, nb_unary(&im->b, NB_OP_neg, t), 1);
    if (is(r->mode, "linear")) {
        weights[0] = rest;
        weights[1] = t;
        *n = 2;
        *first = 0;
        return;
    }
    /* Keys' cubic convolution: |t| <= 1, and the pieces beyond written for |t| - 1. */
    const double a = r->cubic, inner[4] = {a + 2, -(a + 3), 0, 1}, outer[4] = {a, -2 * a, a, 0};
    weights[0] = polynomial(im, outer, t);
    weights[1] = polynomial(im, inner, t);
    weights[2] = polynomial(im, inner, rest);
    weights[3] = polynomial(im, outer, rest);
    *n = 4;
    *first = -1;
}

static nb_value *interpolated(nb_importer *im, const resize *r, nb_value *x, int d, const axis *a) {
    nb_value *at = coordinates(im, r, a), *below = nb_unary(&im->b, NB_OP_floor, at), *weights[4],
             *places[4], *sum = NULL, *y = NULL;
    int n, first;
    if (!below) return NULL;
    weigh(im, r, op2(im, NB_OP_sub, at, below), weights, &n, &first);
    nb_value *last = nb_plus(im, length(im, a->from), -1), *zero = nb_scalar(im, NB_F64, 0);
    for (int k = 0; k < n; k++) {
        places[k] = nb_plus(im, below, k + first);
        if (!r->outside) continue;
        nb_value *out = op2(im, NB_OP_or, op2(im, NB_OP_lt, places[k], zero),
                            op2(im, NB_OP_lt, last, places[k]));
        weights[k] = out ? nb_choose(im, out, zero, weights[k]) : NULL;
        sum = sum ? op2(im, NB_OP_add, sum, weights[k]) : weights[k];
    }
    for (int k = 0; k < n; k++) {
        nb_value *w = sum ? op2(im, NB_OP_div, weights[k], sum) : weights[k];
        if (!w) return NULL;
        w = nb_along(im, nb_cast(&im->b, w, x->type->elem), x->type->rank - d, 0);
        nb_value *part = op2(im, NB_OP_mul, entries(im, x, d, places[k]), w);
        y = y ? op2(im, NB_OP_add, y, part) : part;
    }
    return y;
}

/* Nearest neighbours of a whole scale repeat each entry: no indices are needed. */
static bool repeats(const resize *r, const axis *a) {
    bool half = is(r->coordinates, "half_pixel") && strncmp(r->nearest, "round", 5) == 0,
         low = is(r->coordinates, "asymmetric") && is(r->nearest, "floor");
    return is(r->mode, "nearest") && a->scale >= 1 && a->scale == floor(a->scale) && (half || low);
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

/* im->argument: Upsample. */
nb_status nb_import_resize(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    axis axes[NB_MAX_RANK];
    resize r;
    if (!x) return NB_MALFORMED;
    NB_TRY(read_modes(im, &r));
    NB_TRY(read_axes(im, x, axes));
    nb_elem elem = x->type->elem;
    bool counts = is(r.mode, "nearest");
    if (!counts && elem != NB_F32 && elem != NB_F64) x = nb_cast(&im->b, x, NB_F32);
    for (int d = 0; x && d < x->type->rank; d++) {
        const axis *a = &axes[d];
        if (a->to == a->from && (a->scale == 1 || a->scale == 0)) continue;
        if (repeats(&r, a) && x->type->rank < NB_MAX_RANK)
            x = repeat(im, x, d, (int64_t)a->scale);
        else
            x = counts ? nearest(im, &r, x, d, a) : interpolated(im, &r, x, d, a);
    }
    if (x && x->type->elem != elem) x = nb_cast(&im->b, x, elem);
    return nb_node_output(im, 0, x);
}
