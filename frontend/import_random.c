/* Operators that draw numbers: Bernoulli, RandomUniform, RandomNormal and their Likes, Multinomial,
 * Dropout in training mode.
 *
 * Number i of a node is SplitMix64 (Steele, Lea and Flood, 2014) of the node's seed and i, in
 * integer operations of the graph: the same on every machine, however many threads there are, and
 * in every run. A node without a seed has one of its place in the model. */
#include "frontend/import.h"

#include <math.h>
#include <string.h>

/* ---- the generator -------------------------------------------------------------------------- */

static nb_value *bits(nb_importer *im, uint64_t value) {
    int64_t same;
    memcpy(&same, &value, sizeof same);
    return nb_bitcast(im, nb_const_i64(im->g, "bits", 0, NULL, &same), NB_U64);
}

static nb_value *shifted_right(nb_importer *im, nb_value *x, int by) {
    return nb_combine(im, NB_OP_div, x, bits(im, UINT64_C(1) << by));
}

static uint64_t seed_of(nb_importer *im) {
    const Onnx__AttributeProto *a = nb_node_attr(im, "seed");
    if (!a) return nb_hash_mix(0, im->n_nodes);
    uint32_t single; /* Dropout's is an integer, those of others floats */
    memcpy(&single, &a->f, sizeof single);
    return nb_hash_mix(1, a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT ? (uint64_t)a->i
                                                                                : single);
}

/* u64[count]: numbers first, first + step, ... of the node. */
static nb_value *drawn(nb_importer *im, const nb_dim *count, int64_t first, int64_t step) {
    nb_begin(&im->b, NB_OP_iota);
    const nb_dim *start = nb_num(im, first);
    nb_set_dims(&im->b, "start", 1, &start);
    nb_set_dims(&im->b, "count", 1, &count);
    nb_set_int(&im->b, "step", step);
    nb_value *i = nb_cast(&im->b, nb_end(&im->b), NB_U64);
    nb_value *z = nb_combine(im, NB_OP_mul, i, bits(im, UINT64_C(0x9e3779b97f4a7c15)));
    z = nb_combine(im, NB_OP_add, z, bits(im, seed_of(im)));
    z = nb_combine(im, NB_OP_xor, z, shifted_right(im, z, 30));
    z = nb_combine(im, NB_OP_mul, z, bits(im, UINT64_C(0xbf58476d1ce4e5b9)));
    z = nb_combine(im, NB_OP_xor, z, shifted_right(im, z, 27));
    z = nb_combine(im, NB_OP_mul, z, bits(im, UINT64_C(0x94d049bb133111eb)));
    return nb_combine(im, NB_OP_xor, z, shifted_right(im, z, 31));
}

/* [0,1) in multiples of 2^-24 (f32) or 2^-53 (f64). */
static nb_value *fraction(nb_importer *im, nb_value *z, nb_elem elem) {
    const int digits = elem == NB_F64 ? 53 : 24;
    nb_value *top = shifted_right(im, z, 64 - digits);
    return nb_times(im, top ? nb_cast(&im->b, top, elem) : NULL, ldexp(1, -digits));
}

static nb_value *uniform(nb_importer *im, nb_elem elem, int rank, const nb_dim *const *dims) {
    const nb_dim *count = nb_num(im, 1);
    for (int d = 0; d < rank; d++) count = nb_dim_mul(im->g, count, dims[d]);
    return nb_reshape(&im->b, fraction(im, drawn(im, count, 0, 1), elem), rank, dims);
}

/* Box and Muller: sqrt(-2 log(1 - u)) cos(2 pi v). */
static nb_value *normal(nb_importer *im, nb_elem elem, int rank, const nb_dim *const *dims) {
    const nb_dim *count = nb_num(im, 1);
    for (int d = 0; d < rank; d++) count = nb_dim_mul(im->g, count, dims[d]);
    nb_value *u = fraction(im, drawn(im, count, 0, 2), elem),
             *v = fraction(im, drawn(im, count, 1, 2), elem);
    nb_value *rest = nb_combine(im, NB_OP_sub, nb_scalar(im, elem, 1), u);
    nb_value *radius = nb_times(im, nb_unary(&im->b, NB_OP_log, rest), -2);
    nb_value *wave = nb_unary(&im->b, NB_OP_cos, nb_times(im, v, 2 * M_PI));
    nb_value *y = nb_combine(im, NB_OP_mul, nb_unary(&im->b, NB_OP_sqrt, radius), wave);
    return nb_reshape(&im->b, y, rank, dims);
}

/* What numbers of that type are drawn and computed in. */
static nb_elem wide(nb_elem elem) { return elem == NB_F64 ? NB_F64 : NB_F32; }

/* ---- operators ------------------------------------------------------------------------------ */

/* The type that attribute `dtype` names, or `usual`. */
static nb_status read_type(nb_importer *im, nb_elem usual, nb_elem *elem) {
    const int64_t given = nb_node_int(im, "dtype", nb_elems[usual].onnx);
    *elem = given == (int)given ? nb_elem_from_onnx((int)given) : NB_ELEM_COUNT;
    return *elem != NB_ELEM_COUNT
               ? NB_OK
               : nb_node_error(im, NB_UNSUPPORTED, "element type %lld is not supported",
                               (long long)given);
}

/* 1 with the probability that each element says. */
nb_status nb_import_bernoulli(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    nb_elem elem;
    if (!x) return NB_MALFORMED;
    if (!nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "takes floats, found %s",
                             nb_elems[x->type->elem].text);
    NB_TRY(read_type(im, x->type->elem, &elem));
    nb_value *u = uniform(im, wide(x->type->elem), x->type->rank, x->type->dims);
    nb_value *below = nb_combine(im, NB_OP_lt, u, nb_as(im, x, wide(x->type->elem)));
    return nb_node_output(im, 0, nb_as(im, below, elem));
}

/* RandomUniform, RandomNormal and their Likes; im->argument: 1 normal. */
nb_status nb_import_random(nb_importer *im) {
    const nb_dim *dims[NB_MAX_RANK];
    nb_elem elem = NB_F32;
    size_t rank;
    if (im->row->most_inputs) { /* of an input's shape */
        const nb_value *x = nb_node_input(im, 0);
        if (!x) return NB_MALFORMED;
        elem = x->type->elem;
        rank = (size_t)x->type->rank;
        memcpy(dims, x->type->dims, rank * sizeof *dims);
    } else {
        const int64_t *shape = nb_node_ints(im, "shape", &rank);
        if (rank > NB_MAX_RANK)
            return nb_node_error(im, NB_LIMIT, "rank %zu is above %d", rank, NB_MAX_RANK);
        for (size_t d = 0; d < rank; d++) {
            if (shape[d] < 0)
                return nb_node_error(im, NB_MALFORMED, "dimension %zu is %lld", d,
                                     (long long)shape[d]);
            dims[d] = nb_num(im, shape[d]);
        }
    }
    NB_TRY(read_type(im, elem, &elem));
    if (!nb_elem_is_float(elem))
        return nb_node_error(im, NB_MALFORMED, "draws floats, asked for %s", nb_elems[elem].text);
    nb_value *y = (im->argument ? normal : uniform)(im, wide(elem), (int)rank, dims);
    const double low = (double)nb_node_float(im, im->argument ? "mean" : "low", 0);
    const double width = im->argument ? (double)nb_node_float(im, "scale", 1)
                                      : (double)nb_node_float(im, "high", 1) - low;
    return nb_node_output(im, 0, nb_as(im, nb_plus(im, nb_times(im, y, width), low), elem));
}

/* From log-probabilities [B,C], not normalized, classes [B,samples]: how many cumulated
 * probabilities are not above what was drawn. */
nb_status nb_import_multinomial(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const int64_t samples = nb_node_int(im, "sample_size", 1), axis = 1, last = 2;
    nb_elem elem;
    if (!x) return NB_MALFORMED;
    if (x->type->rank != 2 || !nb_elem_is_float(x->type->elem) || samples < 1)
        return nb_node_error(im, NB_MALFORMED, "%lld samples of %s, expected floats of rank 2",
                             (long long)samples, nb_type_text(im->arena, x->type));
    NB_TRY(read_type(im, NB_I32, &elem));
    const nb_dim *batch = x->type->dims[0], *classes = x->type->dims[1], *one = nb_num(im, 1),
                 *n = nb_num(im, samples);
    x = nb_as(im, x, wide(x->type->elem));
    nb_value *most = x ? nb_reduce(im, NB_OP_reduce_max, x, 1, &axis, true) : NULL;
    nb_value *p = nb_unary(&im->b, NB_OP_exp, nb_combine(im, NB_OP_sub, x, most));
    nb_begin(&im->b, NB_OP_cumsum);
    nb_arg(&im->b, p);
    nb_set_int(&im->b, "axis", axis);
    p = nb_end(&im->b);
    nb_value *all = nb_slice_axis(im, p, 1, nb_dim_sub(im->g, classes, one), one, 1);
    nb_value *u = nb_combine(
        im, NB_OP_mul, uniform(im, wide(x->type->elem), 2, (const nb_dim *[]){batch, n}), all);
    if (!u) return nb_node_output(im, 0, NULL);
    p = nb_reshape(&im->b, p, 3, (const nb_dim *[]){batch, one, classes});
    u = nb_reshape(&im->b, u, 3, (const nb_dim *[]){batch, n, one});
    nb_value *passed = nb_as(im, nb_combine(im, NB_OP_le, p, u), NB_I64);
    nb_value *y = passed ? nb_reduce(im, NB_OP_reduce_sum, passed, 1, &last, false) : NULL;
    const nb_dim *highest = nb_dim_sub(im->g, classes, one);
    y = nb_combine(im, NB_OP_min, y, nb_make_dims(im, 1, &highest, true));
    return nb_node_output(im, 0, nb_as(im, y, elem));
}

/* ---- Dropout -------------------------------------------------------------------------------- */

/* A scalar; what has one element counts as such. */
static nb_value *scalar_input(nb_importer *im, size_t i) {
    nb_value *v = nb_node_input(im, i);
    int64_t count;
    if (!v) return NULL;
    if (nb_type_static_count(v->type, &count) && count == 1)
        return v->type->rank ? nb_reshape(&im->b, v, 0, NULL) : v;
    nb_node_error(im, NB_MALFORMED, "input %zu is %s, expected a scalar", i,
                  nb_type_text(im->arena, v->type));
    return NULL;
}

static nb_status not_training(nb_importer *im, nb_value *x) {
    NB_TRY(nb_node_output(im, 0, x));
    if (im->node->n_output < 2 || !*im->node->output[1]) return NB_OK;
    return nb_node_output(
        im, 1, nb_expand_to(im, nb_scalar(im, NB_BOOL, 1), x->type->rank, x->type->dims));
}

/* In inference the input, and a mask that keeps everything; in training elements are kept with the
 * probability 1 - ratio, and divided by it. */
nb_status nb_import_dropout(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (!nb_has_input(im, 2)) return not_training(im, x);
    nb_value *training = scalar_input(im, 2);
    if (!training) return NB_MALFORMED;
    if (nb_is_known(im, 2)) {
        const int64_t *is;
        size_t n;
        NB_TRY(nb_ints_of(im, 2, &is, &n));
        if (!is[0]) return not_training(im, x);
    }
    const nb_elem elem = wide(x->type->elem);
    nb_value *ratio = nb_has_input(im, 1) ? scalar_input(im, 1) : nb_scalar(im, NB_F32, 0.5);
    nb_value *one = nb_scalar(im, elem, 1);
    training = nb_as(im, training, NB_BOOL);
    ratio = ratio ? nb_as(im, ratio, elem) : NULL;
    ratio = ratio && training ? nb_choose(im, training, ratio, nb_scalar(im, elem, 0)) : NULL;
    nb_value *u = uniform(im, elem, x->type->rank, x->type->dims);
    nb_value *keep = nb_combine(im, NB_OP_le, ratio, u);
    nb_value *factor = nb_combine(im, NB_OP_div, one, nb_combine(im, NB_OP_sub, one, ratio));
    nb_value *y = nb_combine(im, NB_OP_mul, nb_as(im, x, elem), factor);
    y = keep && y ? nb_choose(im, keep, y, nb_scalar(im, elem, 0)) : NULL;
    NB_TRY(nb_node_output(im, 0, nb_as(im, y, x->type->elem)));
    return nb_node_output(im, 1, keep);
}
