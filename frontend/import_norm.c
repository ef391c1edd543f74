/* Normalizations. Those over the last axes are ops of the IR (layer_norm, rms_norm); the others are
 * sums and quotients. */
#include "frontend/quant.h"

/* (x - mean) / sqrt(var + eps) * scale + bias, along axis 1; p: scale, bias, mean, var, as [C,1..].
 */
static nb_value *batch_norm(nb_importer *im, nb_value *x, nb_value *const *p) {
    nb_value *eps = nb_scalar(im, x->type->elem, (double)nb_node_float(im, "epsilon", 1e-5f));
    nb_value *deviation = nb_unary(&im->b, NB_OP_sqrt, nb_combine(im, NB_OP_add, p[3], eps));
    nb_value *factor = nb_combine(im, NB_OP_div, p[0], deviation);
    nb_value *y = nb_combine(im, NB_OP_mul, nb_combine(im, NB_OP_sub, x, p[2]), factor);
    return nb_combine(im, NB_OP_add, y, p[1]);
}

/* Makes outputs 1 and 2, running statistics, and puts those of x itself into p[2] and p[3]. */
static nb_status train(nb_importer *im, nb_value *x, nb_value **p) {
    double momentum = (double)nb_node_float(im, "momentum", 0.9f);
    int64_t axes[NB_MAX_RANK];
    size_t n = 0;
    for (int d = 0; d < x->type->rank; d++)
        if (d != 1) axes[n++] = d;
    nb_value *mean = nb_reduce(im, NB_OP_reduce_mean, x, n, axes, true),
             *off = nb_combine(im, NB_OP_sub, x, mean);
    nb_value *found[2] = {
        mean, nb_reduce(im, NB_OP_reduce_mean, nb_combine(im, NB_OP_mul, off, off), n, axes, true)};
    for (size_t i = 0; i < 2; i++) {
        const nb_type *type = p[i + 2] ? p[i + 2]->type : NULL;
        if (!type || !found[i]) return NB_MALFORMED;
        nb_value *now = nb_reshape(&im->b, found[i], type->rank, type->dims);
        nb_value *next = nb_combine(im, NB_OP_add, nb_times(im, p[i + 2], momentum),
                                    nb_times(im, now, 1 - momentum));
        NB_TRY(nb_node_output(im, i + 1, nb_reshape(&im->b, next, 1, type->dims)));
        p[i + 2] = now;
    }
    return NB_OK;
}

nb_status nb_import_batch_norm(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *p[4];
    if (!x) return NB_MALFORMED;
    if (x->type->rank < 2)
        return nb_node_error(im, NB_MALFORMED, "rank %d is below 2", x->type->rank);
    for (size_t i = 0; i < 4; i++) {
        nb_value *v = nb_node_input(im, i + 1);
        if (!v || v->type->rank != 1)
            return nb_node_error(im, NB_MALFORMED, "input %zu is not a vector", i + 1);
        NB_TRY(nb_unify(im, v->type->dims[0], x->type->dims[1]));
        p[i] = nb_along(im, v, x->type->rank - 1, 0);
    }
    if (nb_node_int(im, "training_mode", 0)) NB_TRY(train(im, x, p));
    return nb_node_output(im, 0, batch_norm(im, x, p));
}

/* ---- norms ---------------------------------------------------------------------------------- */

/* Epsilons where the node has none: ai.onnx's, and those that onnxruntime's fusions have. */
#define EPS       1e-5f
#define FUSED_EPS 1e-12f

nb_value *nb_normalized(nb_importer *im, nb_op_kind kind, nb_value *x, nb_value *gain,
                        nb_value *bias, float usual_eps) {
    if (!x || !gain) return NULL;
    if (gain->type->rank != 1 || x->type->rank < 1) {
        nb_node_error(im, NB_MALFORMED, "expected a vector of factors, found rank %d",
                      gain->type->rank);
        return NULL;
    }
    if (nb_unify(im, gain->type->dims[0], x->type->dims[x->type->rank - 1]) != NB_OK) return NULL;
    nb_begin(&im->b, kind);
    nb_arg(&im->b, x);
    nb_arg(&im->b, gain);
    if (kind == NB_OP_layer_norm) nb_arg(&im->b, bias);
    nb_set_float(&im->b, "eps", nb_node_float(im, "epsilon", usual_eps));
    return nb_end(&im->b);
}

static bool has_output(const nb_importer *im, size_t i) {
    return i < im->node->n_output && *im->node->output[i];
}

/* Outputs 1 and 2 of layer_norm: mean and inverse deviation over the axes from `axis` on, in f32.
 */
static nb_status further_outputs(nb_importer *im, nb_op_kind kind, nb_value *x, int64_t axis) {
    if (!has_output(im, 1) && !has_output(im, 2)) return NB_OK;
    if (kind != NB_OP_layer_norm)
        return nb_node_error(im, NB_UNSUPPORTED, "the output inverse deviation is not supported");
    int64_t axes[NB_MAX_RANK];
    size_t n = 0;
    for (int64_t d = axis; d < x->type->rank; d++) axes[n++] = d;
    if (x->type->elem != NB_F32) x = nb_cast(&im->b, x, NB_F32);
    nb_value *mean = nb_reduce(im, NB_OP_reduce_mean, x, n, axes, true),
             *off = nb_combine(im, NB_OP_sub, x, mean),
             *square = nb_combine(im, NB_OP_mul, off, off);
    nb_value *deviation =
        nb_unary(&im->b, NB_OP_sqrt,
                 nb_plus(im, nb_reduce(im, NB_OP_reduce_mean, square, n, axes, true),
                         (double)nb_node_float(im, "epsilon", 1e-5f)));
    NB_TRY(nb_node_output(im, 1, mean));
    return nb_node_output(im, 2, nb_unary(&im->b, NB_OP_reciprocal, deviation));
}

/* Axes from `axis` on are normalised together: several become one for the while. */
static nb_status norm_over(nb_importer *im, nb_op_kind kind, nb_value *bias) {
    nb_value *x = nb_node_input(im, 0), *gain = nb_node_input(im, 1);
    int64_t axis;
    if (!x || !gain) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", -1), x->type->rank, &axis));
    NB_TRY(further_outputs(im, kind, x, axis));
    int rank = x->type->rank;
    const nb_type *type = x->type;
    if (axis == rank - 1 && gain->type->rank == 1)
        return nb_node_output(im, 0, nb_normalized(im, kind, x, gain, bias, EPS));
    const nb_dim *dims[NB_MAX_RANK], *length = nb_num(im, 1);
    for (int d = 0; d < rank; d++) {
        if (d < axis)
            dims[d] = type->dims[d];
        else
            length = nb_dim_mul(im->g, length, type->dims[d]);
    }
    dims[axis] = length;
    x = nb_reshape(&im->b, x, (int)axis + 1, dims);
    gain = nb_reshape(&im->b, gain, 1, &length);
    if (bias) bias = nb_reshape(&im->b, bias, 1, &length);
    nb_value *y = nb_normalized(im, kind, x, gain, bias, EPS);
    return nb_node_output(im, 0, nb_reshape(&im->b, y, rank, type->dims));
}

nb_status nb_import_layer_norm(nb_importer *im) {
    return norm_over(im, NB_OP_layer_norm, nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL);
}
nb_status nb_import_rms_norm(nb_importer *im) { return norm_over(im, NB_OP_rms_norm, NULL); }

/* com.microsoft Skip(Simplified)LayerNormalization: norm(input + skip + bias); output 3 is the sum.
 */
/* A table or vector of EmbedLayerNormalization; those of QEmbedLayerNormalization (im->argument)
 * are codes of 8 bits. */
static nb_value *table_of(nb_importer *im, size_t at) {
    nb_scaling s;
    nb_value *table = nb_node_input(im, at);
    if (!table || !im->argument) return table;
    if (nb_read_scaling(im, at + 6, at + 11, 0, &s) != NB_OK) return NULL;
    return nb_dequantized(im, table, &s, NB_F32);
}

/* Rows of a table [V,N] at i32[B,S], or its first rows for all of a batch. */
static nb_value *embedded(nb_importer *im, size_t table_at, nb_value *index) {
    nb_value *table = table_of(im, table_at);
    if (table && index && table->type->rank == 2 && nb_elem_is_integer(index->type->elem))
        return nb_take(im, table, index, 0);
    if (table && index)
        nb_node_error(im, NB_MALFORMED, "a table %s at %s, expected a matrix and integers",
                      nb_type_text(im->arena, table->type), nb_type_text(im->arena, index->type));
    return NULL;
}

/* How many ones each row of a mask has, i32[B]; 0 without one. */
static nb_value *lengths_of(nb_importer *im, size_t mask_at, const nb_dim *batch) {
    const int64_t last = 1;
    if (!nb_has_input(im, mask_at)) return nb_expand_to(im, nb_scalar(im, NB_I32, 0), 1, &batch);
    nb_value *mask = nb_node_input(im, mask_at);
    if (mask && mask->type->rank == 2)
        return nb_as(im, nb_reduce(im, NB_OP_reduce_sum, mask, 1, &last, false), NB_I32);
    if (mask) nb_node_error(im, NB_MALFORMED, "the mask is not of rank 2");
    return NULL;
}

/* Words, places and segments looked up, added and normalized. */
nb_status nb_import_embed_layer_norm(nb_importer *im) {
    nb_value *ids = nb_node_input(im, 0), *gain = table_of(im, 5), *bias = table_of(im, 6);
    if (!ids || !gain || !bias) return NB_MALFORMED;
    if (ids->type->rank != 2)
        return nb_node_error(im, NB_MALFORMED, "the tokens are %s, expected rank 2",
                             nb_type_text(im->arena, ids->type));
    nb_value *sum = embedded(im, 2, ids);
    nb_value *place = !im->argument && nb_has_input(im, 8)
                          ? nb_node_input(im, 8)
                          : nb_positions(im, 2, 1, ids->type->dims[1]);
    sum = nb_combine(im, NB_OP_add, sum, embedded(im, 3, place));
    if (nb_has_input(im, 1) && nb_has_input(im, 4))
        sum = nb_combine(im, NB_OP_add, sum, embedded(im, 4, nb_node_input(im, 1)));
    NB_TRY(nb_node_output(im, 0, nb_normalized(im, NB_OP_layer_norm, sum, gain, bias, FUSED_EPS)));
    NB_TRY(nb_node_output(im, 1, lengths_of(im, 7, ids->type->dims[0])));
    return nb_node_output(im, 2, sum);
}

nb_status nb_import_skip_norm(nb_importer *im) {
    nb_op_kind kind = (nb_op_kind)im->argument;
    bool layer = kind == NB_OP_layer_norm;
    size_t bias_at = layer ? 4 : 3;
    nb_value *x = nb_node_input(im, 0), *skip = nb_node_input(im, 1), *gain = nb_node_input(im, 2);
    if (!x || !skip || !gain) return NB_MALFORMED;
    for (size_t i = 1; i < 3; i++) {
        if (has_output(im, i))
            return nb_node_error(im, NB_UNSUPPORTED,
                                 "output %zu (mean, inverse deviation) is not supported", i);
    }
    nb_value *sum = nb_combine(im, NB_OP_add, x, skip);
    if (nb_has_input(im, bias_at) && sum)
        sum = nb_combine(im, NB_OP_add, sum, nb_node_input(im, bias_at));
    nb_value *beta = layer && nb_has_input(im, 3) ? nb_node_input(im, 3) : NULL;
    NB_TRY(nb_node_output(im, 0, nb_normalized(im, kind, sum, gain, beta, FUSED_EPS)));
    return nb_node_output(im, 3, sum);
}

/* ---- over other axes ------------------------------------------------------------------------ */

/* (x - mean) / (sqrt(var + inside) + outside) over `axes`. */
static nb_value *standardize(nb_importer *im, nb_value *x, size_t n, const int64_t *axes,
                             double inside, double outside) {
    nb_value *mean = nb_reduce(im, NB_OP_reduce_mean, x, n, axes, true),
             *off = x && mean ? nb_combine(im, NB_OP_sub, x, mean) : NULL;
    nb_value *square = nb_combine(im, NB_OP_mul, off, off);
    nb_value *var = nb_reduce(im, NB_OP_reduce_mean, square, n, axes, true);
    if (inside != 0) var = nb_plus(im, var, inside);
    nb_value *deviation = nb_unary(&im->b, NB_OP_sqrt, var);
    if (outside != 0) deviation = nb_plus(im, deviation, outside);
    return nb_combine(im, NB_OP_div, off, deviation);
}

/* y * scale + bias of inputs 1 and 2, vectors along `axis`. */
static nb_value *scale_and_shift(nb_importer *im, nb_value *y, int axis) {
    for (size_t i = 1; i < 3 && y; i++) {
        nb_value *v = nb_node_input(im, i);
        if (!v || v->type->rank != 1) {
            nb_node_error(im, NB_MALFORMED, "input %zu is not a vector", i);
            return NULL;
        }
        if (nb_unify(im, v->type->dims[0], y->type->dims[axis]) != NB_OK) return NULL;
        if (v->type->elem != y->type->elem) v = nb_cast(&im->b, v, y->type->elem);
        v = nb_along(im, v, y->type->rank - axis, 0);
        y = nb_combine(im, i == 1 ? NB_OP_mul : NB_OP_add, y, v);
    }
    return y;
}

/* Small floats compute in f32 from end to end, and are rounded once. */
static nb_value *widened(nb_importer *im, nb_value *x) {
    return x && (x->type->elem == NB_F16 || x->type->elem == NB_BF16) ? nb_cast(&im->b, x, NB_F32)
                                                                      : x;
}
static nb_value *narrowed(nb_importer *im, nb_value *y, nb_elem elem) {
    return y && y->type->elem != elem ? nb_cast(&im->b, y, elem) : y;
}

static nb_status read_channels(nb_importer *im, nb_value **x) {
    *x = nb_node_input(im, 0);
    if (!*x) return NB_MALFORMED;
    if ((*x)->type->rank >= 3 && nb_elem_is_float((*x)->type->elem)) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "expected floats [N,C,d...], found %s",
                         nb_type_text(im->arena, (*x)->type));
}

nb_status nb_import_instance_norm(nb_importer *im) {
    nb_value *x;
    NB_TRY(read_channels(im, &x));
    int64_t axes[NB_MAX_RANK];
    size_t n = 0;
    for (int d = 2; d < x->type->rank; d++) axes[n++] = d;
    double eps = (double)nb_node_float(im, "epsilon", 1e-5f);
    nb_value *y = standardize(im, widened(im, x), n, axes, eps, 0);
    y = scale_and_shift(im, y, 1);
    return nb_node_output(im, 0, narrowed(im, y, x->type->elem));
}

/* Groups of channels: [N,C,d...] as [N,G,rest]. Up to opset 20 scale and bias are of groups. */
nb_status nb_import_group_norm(nb_importer *im) {
    nb_value *x;
    NB_TRY(read_channels(im, &x));
    const nb_type *type = x->type;
    int64_t groups = nb_node_int(im, "num_groups", 0);
    const nb_dim *c = type->dims[1], *rest;
    if (groups < 1 || !nb_dim_is_const(c) || c->value % groups != 0)
        return nb_node_error(im, NB_MALFORMED, "%s channels are no multiple of %lld groups",
                             nb_dim_text(im->arena, c), (long long)groups);
    rest = nb_num(im, c->value / groups);
    for (int d = 2; d < type->rank; d++) rest = nb_dim_mul(im->g, rest, type->dims[d]);
    const nb_dim *dims[3] = {type->dims[0], nb_num(im, groups), rest};
    const int64_t axis = 2;
    nb_value *y = nb_reshape(&im->b, widened(im, x), 3, dims);
    y = standardize(im, y, 1, &axis, (double)nb_node_float(im, "epsilon", 1e-5f), 0);
    if (im->opset < 21) y = scale_and_shift(im, y, 1);
    y = nb_reshape(&im->b, y, type->rank, type->dims);
    if (im->opset >= 21) y = scale_and_shift(im, y, 1);
    return nb_node_output(im, 0, narrowed(im, y, type->elem));
}

nb_status nb_import_mean_variance_norm(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const int64_t usual[3] = {0, 2, 3}, *axes;
    size_t n;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axes(im, 1, x->type->rank, &axes, &n));
    if (!axes && x->type->rank != 4)
        return nb_node_error(im, NB_MALFORMED, "axes are not given, and the rank is %d, not 4",
                             x->type->rank);
    nb_value *y = standardize(im, widened(im, x), axes ? n : 3, axes ? axes : usual, 0, 1e-9);
    return nb_node_output(im, 0, narrowed(im, y, x->type->elem));
}

/* x over the sum of |x| or the root of the sum of squares; 0 where that is 0. */
nb_status nb_import_lp_norm(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    int64_t axis, p = nb_node_int(im, "p", 2);
    if (!x) return NB_MALFORMED;
    if (p != 1 && p != 2)
        return nb_node_error(im, NB_MALFORMED, "p is %lld, expected 1 or 2", (long long)p);
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", -1), x->type->rank, &axis));
    nb_value *wide = widened(im, x), *size = p == 1 ? nb_unary(&im->b, NB_OP_abs, wide)
                                                    : nb_combine(im, NB_OP_mul, wide, wide);
    nb_value *sum = nb_reduce(im, NB_OP_reduce_sum, size, 1, &axis, true);
    if (p == 2) sum = nb_unary(&im->b, NB_OP_sqrt, sum);
    if (!sum) return NB_MALFORMED;
    nb_elem elem = wide->type->elem;
    nb_value *none = nb_combine(im, NB_OP_eq, sum, nb_scalar(im, elem, 0));
    sum = nb_choose(im, none, nb_scalar(im, elem, 1), sum);
    return nb_node_output(im, 0, narrowed(im, nb_combine(im, NB_OP_div, wide, sum), x->type->elem));
}

#define MOST_CHANNELS 1024 /* summed by an addition each */

/* x / (bias + alpha/size * sum of squares over `size` channels around)^beta */
nb_status nb_import_lrn(nb_importer *im) {
    nb_value *x;
    NB_TRY(read_channels(im, &x));
    int64_t size = nb_node_int(im, "size", 0);
    if (size < 1) return nb_node_error(im, NB_MALFORMED, "size is %lld", (long long)size);
    if (size > MOST_CHANNELS)
        return nb_node_error(im, NB_LIMIT, "size %lld is above %d", (long long)size, MOST_CHANNELS);
    const nb_dim *count = x->type->dims[1];
    nb_value *wide = widened(im, x), *square = nb_combine(im, NB_OP_mul, wide, wide), *sum = NULL;
    nb_value *padded = nb_zero_pad(im, square, 1, (size - 1) / 2, size / 2);
    for (int64_t i = 0; i < size; i++) {
        nb_value *part = nb_slice_axis(im, padded, 1, nb_num(im, i), count, 1);
        sum = sum ? nb_combine(im, NB_OP_add, sum, part) : part;
    }
    double alpha = (double)nb_node_float(im, "alpha", 1e-4f) / (double)size;
    nb_value *base = nb_plus(im, nb_times(im, sum, alpha), (double)nb_node_float(im, "bias", 1));
    if (!base) return NB_MALFORMED;
    nb_value *beta = nb_scalar(im, base->type->elem, (double)nb_node_float(im, "beta", 0.75f));
    nb_value *y = nb_combine(im, NB_OP_div, wide, nb_combine(im, NB_OP_pow, base, beta));
    return nb_node_output(im, 0, narrowed(im, y, x->type->elem));
}
