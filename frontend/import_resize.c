/* Resize and Upsample: which axes get which lengths, from scales or sizes that are constants,
 * expressions, or known to a run only; import_interpolate.c has the numbers. */
#include "frontend/resize.h"

#include "ir/eval.h"

#include <math.h>
#include <string.h>

/* What the node says of the axes that it names, or of all. */
typedef struct request {
    nb_value *x;
    size_t n;
    int64_t axis[NB_MAX_RANK];
    size_t scales_at; /* the input */
    nb_value *parts;  /* f64[2n]: with `crop` where each axis starts and ends; or NULL */
} request;

/* ---- modes ---------------------------------------------------------------------------------- */

static nb_status check_word(nb_importer *im, const char *what, const char *word,
                            const char *const *known) {
    for (int i = 0; known[i]; i++)
        if (strcmp(known[i], word) == 0) return NB_OK;
    return nb_node_error(im, NB_UNSUPPORTED, "%s '%s' is not supported", what, word);
}

static nb_status read_modes(nb_importer *im, nb_resize *r) {
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL},
                             *const coordinates[] = {"half_pixel",         "half_pixel_symmetric",
                                                     "align_corners",      "asymmetric",
                                                     "pytorch_half_pixel", "tf_half_pixel_for_nn",
                                                     "tf_crop_and_resize", NULL},
                             *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                                 "ceil", NULL};
    bool old = im->opset < 11 || im->argument; /* before there was a choice */
    *r = (nb_resize){
        .mode = nb_node_string(im, "mode", "nearest"),
        .coordinates =
            nb_node_string(im, "coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
        .nearest = nb_node_string(im, "nearest_mode", old ? "floor" : "round_prefer_floor"),
        .cubic = (double)nb_node_float(im, "cubic_coeff_a", -0.75f),
        .outside = nb_node_int(im, "exclude_outside", 0) != 0,
        .antialias = nb_node_int(im, "antialias", 0) != 0,
        .beyond = (double)nb_node_float(im, "extrapolation_value", 0)};
    NB_TRY(check_word(im, "mode", r->mode, modes));
    NB_TRY(check_word(im, "coordinate_transformation_mode", r->coordinates, coordinates));
    NB_TRY(check_word(im, "nearest_mode", r->nearest, nearest));
    r->crop = strcmp(r->coordinates, "tf_crop_and_resize") == 0;
    if (r->crop && r->antialias)
        return nb_node_error(im, NB_UNSUPPORTED, "antialias with tf_crop_and_resize");
    return NB_OK;
}

/* ---- lengths from scales -------------------------------------------------------------------- */

#define MOST_PARTS 4096

/* The fraction of the least denominator that is this number in f32: by continued fractions, the
 * whole parts of the number, of the inverse of what is left, and so on. */
static bool as_fraction(float number, int64_t *above, int64_t *below) {
    int64_t p[2] = {0, 1}, q[2] = {1, 0}; /* the last two approximations */
    for (double x = (double)number; x < 0x1p31; x = 1 / (x - floor(x))) {
        const int64_t whole = (int64_t)x, n = whole * p[1] + p[0], d = whole * q[1] + q[0];
        if (d > MOST_PARTS || n > INT32_MAX) return false;
        if ((float)((double)n / (double)d) == number) {
            *above = n;
            *below = d;
            return n > 0;
        }
        p[0] = p[1];
        q[0] = q[1];
        p[1] = n;
        q[1] = d;
    }
    return false;
}

/* floor(length * scale), rounded to f32 first: ten times 1.3 are 13, though 1.3 is a bit less in
 * f32. Lengths that are not known are multiplied by the fraction that is meant. */
static const nb_dim *scaled(nb_importer *im, const nb_dim *length, double scale) {
    int64_t above, below;
    if (nb_dim_is_const(length)) {
        const double to = floor((double)((float)length->value * (float)scale));
        return to >= 0 && to < 0x1p40 ? nb_num(im, (int64_t)to) : NULL;
    }
    if (!as_fraction((float)scale, &above, &below)) return NULL;
    return nb_dim_floordiv(im->g, nb_dim_mul(im->g, length, nb_num(im, above)), nb_num(im, below));
}

/* `part`: of the axis that is resized. */
static nb_status known_scale(nb_importer *im, nb_resize_axis *a, double scale, double part) {
    if (!(scale > 0 && scale < 0x1p31))
        return nb_node_error(im, NB_MALFORMED, "a scale of %g", scale);
    int64_t above, below;
    a->known = as_fraction((float)scale, &above, &below) ? (double)above / (double)below : scale;
    a->scale = nb_scalar(im, NB_F64, a->known);
    a->to = scaled(im, a->from, scale * part);
    if (a->to) return NB_OK;
    return nb_node_error(im, NB_UNSUPPORTED, "an axis of length %s scaled by %g",
                         nb_dim_text(im->arena, a->from), scale);
}

static nb_status check_count(nb_importer *im, const request *q, size_t n) {
    return n == q->n ? NB_OK
                     : nb_node_error(im, NB_MALFORMED, "%zu scales or sizes for %zu axes", n, q->n);
}

/* Upsample of opset 7. */
static nb_status scales_of_attribute(nb_importer *im, const request *q, nb_resize_axis *axes) {
    const Onnx__AttributeProto *given = nb_node_attr(im, "scales");
    NB_TRY(check_count(im, q, given->n_floats));
    for (size_t i = 0; i < q->n; i++)
        NB_TRY(known_scale(im, &axes[q->axis[i]], (double)given->floats[i], 1));
    return NB_OK;
}

static nb_status scales_of_constant(nb_importer *im, const request *q, nb_resize_axis *axes) {
    nb_tensor t = nb_tensor_of_const(nb_node_input(im, q->scales_at));
    NB_TRY(check_count(im, q, (size_t)nb_tensor_count(&t)));
    for (int64_t i = 0, n = (int64_t)q->n; i < n; i++) {
        double part = 1;
        if (q->parts) {
            nb_tensor parts = nb_tensor_of_const(nb_node_input(im, 1));
            part = nb_tensor_get(&parts, n + i) - nb_tensor_get(&parts, i);
        }
        NB_TRY(known_scale(im, &axes[q->axis[i]], nb_tensor_get(&t, i), part));
    }
    return NB_OK;
}

/* The declared shape of the output as lengths of all axes. */
static nb_status declared(nb_importer *im, const request *q, size_t input, nb_resize_axis *axes) {
    int64_t out[NB_MAX_RANK];
    int rank;
    if (!nb_declared(im, 0, out, &rank) || rank != q->x->type->rank)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "input %zu \"%s\" must be known at compile time, or the shape of the "
                             "output declared; it depends on data",
                             input, im->node->input[input]);
    bool named[NB_MAX_RANK] = {false};
    for (size_t i = 0; i < q->n; i++) named[q->axis[i]] = true;
    for (int d = 0; d < rank; d++) {
        axes[d].to = nb_num(im, out[d]);
        if (!named[d]) NB_TRY(nb_unify(im, axes[d].from, axes[d].to));
    }
    return NB_OK;
}

/* f64[n]: lengths before, or after. */
static nb_value *lengths(nb_importer *im, const request *q, const nb_resize_axis *axes,
                         bool after) {
    const nb_dim *dims[NB_MAX_RANK];
    for (size_t i = 0; i < q->n; i++) dims[i] = after ? axes[q->axis[i]].to : axes[q->axis[i]].from;
    return nb_resize_lengths(im, q->n, dims);
}

/* Runs whose lengths (f64[n]) are not those of the result are refused. */
static nb_status hold(nb_importer *im, const request *q, const nb_resize_axis *axes,
                      nb_value *found) {
    if (im->n_holds == NB_COUNT(im->holds)) return NB_LIMIT;
    nb_value *same = nb_combine(im, NB_OP_eq, found, lengths(im, q, axes, true));
    if (!same) return NB_MALFORMED;
    im->holds[im->n_holds++] = same;
    return NB_OK;
}

/* Element i of a vector, as a scalar. */
static nb_value *element(nb_importer *im, nb_value *v, size_t i) {
    nb_value *one = nb_slice_axis(im, v, 0, nb_num(im, (int64_t)i), nb_num(im, 1), 1);
    return nb_reshape(&im->b, one, 0, NULL);
}

/* A vector of as many floats as there are to be, as f64. */
static nb_status read_vector(nb_importer *im, size_t input, size_t n, nb_value **out) {
    nb_value *v = nb_node_input(im, input);
    int64_t count;
    if (!v || !nb_type_static_count(v->type, &count) || v->type->rank != 1 || count != (int64_t)n)
        return nb_node_error(im, NB_MALFORMED, "input %zu is not a vector of %zu numbers", input,
                             n);
    *out = nb_as(im, v, NB_F64);
    return *out ? NB_OK : NB_MALFORMED;
}

static nb_status scales_of_run(nb_importer *im, const request *q, nb_resize_axis *axes) {
    nb_value *scales;
    NB_TRY(read_vector(im, q->scales_at, q->n, &scales));
    NB_TRY(declared(im, q, q->scales_at, axes));
    nb_value *exact = nb_combine(im, NB_OP_mul, lengths(im, q, axes, false), scales);
    if (q->parts) {
        const nb_dim *n = nb_num(im, (int64_t)q->n);
        nb_value *start = nb_slice_axis(im, q->parts, 0, nb_num(im, 0), n, 1),
                 *end = nb_slice_axis(im, q->parts, 0, n, n, 1);
        exact = nb_combine(im, NB_OP_mul, exact, nb_combine(im, NB_OP_sub, end, start));
    }
    nb_value *rounded = nb_as(im, nb_as(im, exact, NB_F32), NB_F64);
    NB_TRY(hold(im, q, axes, nb_unary(&im->b, NB_OP_floor, rounded)));
    for (size_t i = 0; i < q->n; i++) axes[q->axis[i]].scale = element(im, scales, i);
    return NB_OK;
}

/* ---- lengths from sizes --------------------------------------------------------------------- */

static nb_status stretched(nb_importer *im, const request *q, nb_resize_axis *axes) {
    const nb_dim *const *sizes;
    size_t n;
    NB_TRY(nb_dims_of(im, 3, &sizes, &n));
    NB_TRY(check_count(im, q, n));
    for (size_t i = 0; i < n; i++) axes[q->axis[i]].to = sizes[i];
    return NB_OK;
}

/* round(from * size / of), halves up. */
static const nb_dim *proportional(nb_importer *im, const nb_dim *from, const nb_dim *size,
                                  const nb_dim *of) {
    nb_graph *g = im->g;
    const nb_dim *two = nb_num(im, 2), *least = nb_dim_max(g, of, nb_num(im, 1));
    const nb_dim *twice = nb_dim_mul(g, two, nb_dim_mul(g, from, size));
    return nb_dim_floordiv(g, nb_dim_add(g, twice, least), nb_dim_mul(g, two, least));
}

/* One scale for all axes, the least or the largest of those that the sizes give. */
static nb_status in_proportion(nb_importer *im, const request *q, bool larger,
                               nb_resize_axis *axes) {
    nb_value *sizes;
    if (nb_is_known(im, 3)) {
        const nb_dim *const *given;
        size_t n;
        NB_TRY(nb_dims_of(im, 3, &given, &n));
        NB_TRY(check_count(im, q, n));
        for (size_t d = 0; d < n; d++) {
            const nb_dim *from = axes[q->axis[d]].from, *to = given[d];
            for (size_t i = 0; i < n; i++) {
                const nb_dim *one =
                    i == d ? to : proportional(im, from, given[i], axes[q->axis[i]].from);
                to = larger ? nb_dim_max(im->g, to, one) : nb_dim_min(im->g, to, one);
            }
            axes[q->axis[d]].to = to;
        }
        sizes = nb_resize_lengths(im, n, given);
    } else {
        NB_TRY(read_vector(im, 3, q->n, &sizes));
        NB_TRY(declared(im, q, 3, axes));
    }
    nb_value *from = lengths(im, q, axes, false);
    nb_value *scale = nb_reduce(im, larger ? NB_OP_reduce_max : NB_OP_reduce_min,
                                nb_combine(im, NB_OP_div, sizes, from), 0, NULL, false);
    if (!scale) return NB_MALFORMED;
    for (size_t i = 0; i < q->n; i++) axes[q->axis[i]].scale = scale;
    if (nb_is_known(im, 3)) return NB_OK;
    nb_value *exact = nb_plus(im, nb_combine(im, NB_OP_mul, from, scale), 0.5);
    return hold(im, q, axes, nb_unary(&im->b, NB_OP_floor, exact));
}

static nb_status read_sizes(nb_importer *im, const request *q, nb_resize_axis *axes) {
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller", NULL};
    const char *policy = nb_node_string(im, "keep_aspect_ratio_policy", "stretch");
    NB_TRY(check_word(im, "keep_aspect_ratio_policy", policy, policies));
    if (strcmp(policy, "stretch") == 0) return stretched(im, q, axes);
    return in_proportion(im, q, strcmp(policy, "not_smaller") == 0, axes);
}

/* ---- the node ------------------------------------------------------------------------------- */

static bool is_empty(nb_importer *im, size_t i) {
    int64_t count;
    nb_value *v = nb_has_input(im, i) ? nb_node_input(im, i) : NULL;
    return !v || (nb_type_static_count(v->type, &count) && count == 0);
}

static bool is_number(nb_importer *im, size_t i) {
    const nb_value *v = nb_node_input(im, i);
    return v && nb_is_const(v) && !v->type->quant;
}

static nb_status read_parts(nb_importer *im, request *q, nb_resize_axis *axes) {
    NB_TRY(read_vector(im, 1, 2 * q->n, &q->parts));
    for (size_t i = 0; i < q->n; i++) {
        axes[q->axis[i]].start = element(im, q->parts, i);
        axes[q->axis[i]].end = element(im, q->parts, q->n + i);
    }
    return NB_OK;
}

/* Lengths and scales of the axes that are named, all others stay. */
static nb_status read_axes(nb_importer *im, const nb_resize *r, request *q, nb_resize_axis *axes) {
    const int64_t *named;
    const int rank = q->x->type->rank;
    NB_TRY(nb_axes(im, SIZE_MAX, rank, &named, &q->n));
    if (!named) q->n = (size_t)rank;
    if (q->n > NB_MAX_RANK) return check_count(im, q, 0);
    for (size_t i = 0; i < q->n; i++) q->axis[i] = named ? named[i] : (int64_t)i;
    for (int d = 0; d < rank; d++)
        axes[d] = (nb_resize_axis){.from = q->x->type->dims[d], .to = q->x->type->dims[d]};
    if (r->crop) NB_TRY(read_parts(im, q, axes));
    if (nb_node_attr(im, "scales")) return scales_of_attribute(im, q, axes);
    if (is_empty(im, q->scales_at)) return read_sizes(im, q, axes);
    /* Of a part the length depends on where that ends. */
    const bool known = is_number(im, q->scales_at) && (!r->crop || is_number(im, 1));
    return known ? scales_of_constant(im, q, axes) : scales_of_run(im, q, axes);
}

/* Does the axis stay as it is? Of one entry there is nothing to choose from. */
static bool stays(const nb_resize *r, const nb_resize_axis *a) {
    if (a->from != a->to) return false;
    return nb_dim_is(a->from, 1) || (r->crop ? !a->start : !a->scale || a->known == 1);
}

/* im->argument: Upsample. */
nb_status nb_import_resize(nb_importer *im) {
    nb_resize_axis axes[NB_MAX_RANK];
    request q = {.x = nb_node_input(im, 0), .scales_at = im->opset < 11 || im->argument ? 1 : 2};
    nb_resize r;
    nb_value *x = q.x;
    if (!x) return NB_MALFORMED;
    NB_TRY(read_modes(im, &r));
    NB_TRY(read_axes(im, &r, &q, axes));
    nb_elem elem = x->type->elem;
    if (strcmp(r.mode, "nearest") != 0 && elem != NB_F32 && elem != NB_F64)
        x = nb_cast(&im->b, x, NB_F32);
    for (int d = 0; x && d < x->type->rank; d++)
        if (!stays(&r, &axes[d])) x = nb_resize_along(im, &r, x, d, &axes[d]);
    if (x && x->type->elem != elem) x = nb_cast(&im->b, x, elem);
    return nb_node_output(im, 0, x);
}
