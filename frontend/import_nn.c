/* Layers of the standard domain: matrix products, softmax, norms. */
#include "frontend/import.h"

#include <string.h>

nb_status nb_import_matmul(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    return nb_node_output(im, 0, nb_multiply(im, a, b));
}

static nb_value *scaled(nb_importer *im, nb_value *x, float factor) {
    return factor == 1.0f || !x
               ? x
               : nb_combine(im, NB_OP_mul, x, nb_scalar(im, x->type->elem, (double)factor));
}

/* alpha * op(A) op(B) + beta * C */
nb_status nb_import_gemm(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    if (!a || !b) return NB_MALFORMED;
    if (a->type->rank != 2 || b->type->rank != 2)
        return nb_node_error(im, NB_MALFORMED, "expected two matrices, found ranks %d and %d",
                             a->type->rank, b->type->rank);
    if (nb_node_int(im, "transA", 0)) a = nb_swap_axes(im, a, 0, 1);
    if (nb_node_int(im, "transB", 0)) b = nb_swap_axes(im, b, 0, 1);
    nb_value *y = scaled(im, nb_multiply(im, a, b), nb_node_float(im, "alpha", 1));
    if (nb_has_input(im, 2) && y)
        y = nb_combine(im, NB_OP_add, y,
                       scaled(im, nb_node_input(im, 2), nb_node_float(im, "beta", 1)));
    return nb_node_output(im, 0, y);
}

nb_status nb_import_fused_matmul(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    if (!a || !b) return NB_MALFORMED;
    if (nb_node_int(im, "transBatchA", 0) || nb_node_int(im, "transBatchB", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "transposed batch axes are not supported");
    if (nb_node_int(im, "transA", 0)) a = nb_swap_axes(im, a, a->type->rank - 2, a->type->rank - 1);
    if (nb_node_int(im, "transB", 0)) b = nb_swap_axes(im, b, b->type->rank - 2, b->type->rank - 1);
    return nb_node_output(im, 0, scaled(im, nb_multiply(im, a, b), nb_node_float(im, "alpha", 1)));
}

static nb_value *softmax(nb_importer *im, nb_value *x, int64_t axis) {
    nb_begin(&im->b, NB_OP_softmax);
    nb_arg(&im->b, x);
    nb_set_int(&im->b, "axis", axis);
    return nb_end(&im->b);
}

/* x - max - log(sum(exp(x - max))) */
static nb_value *log_softmax(nb_importer *im, nb_value *x, int64_t axis) {
    nb_value *d = nb_combine(im, NB_OP_sub, x, nb_reduce(im, NB_OP_reduce_max, x, 1, &axis, true));
    nb_value *sum = nb_reduce(im, NB_OP_reduce_sum, nb_unary(&im->b, NB_OP_exp, d), 1, &axis, true);
    return nb_combine(im, NB_OP_sub, d, nb_unary(&im->b, NB_OP_log, sum));
}

nb_status nb_import_softmax(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    int64_t axis;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", im->opset < 13 ? 1 : -1), x->type->rank, &axis));
    const nb_type *type = x->type;
    bool old = im->opset < 13 && axis != type->rank - 1; /* then all axes from `axis` on are one */
    if (old) {
        const nb_dim *dims[2] = {nb_num(im, 1), nb_num(im, 1)};
        for (int d = 0; d < type->rank; d++)
            dims[d >= axis] = nb_dim_mul(im->g, dims[d >= axis], type->dims[d]);
        x = nb_reshape(&im->b, x, 2, dims);
        axis = 1;
    }
    nb_value *y = !x ? NULL : im->argument ? log_softmax(im, x, axis) : softmax(im, x, axis);
    return nb_node_output(im, 0, old ? nb_reshape(&im->b, y, type->rank, type->dims) : y);
}

/* In inference: (x - mean) / sqrt(var + eps) * scale + bias, along axis 1. */
nb_status nb_import_batch_norm(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *p[4];
    if (!x) return NB_MALFORMED;
    if (nb_node_int(im, "training_mode", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "training mode is not supported");
    if (x->type->rank < 2)
        return nb_node_error(im, NB_MALFORMED, "rank %d is below 2", x->type->rank);
    for (size_t i = 0; i < 4; i++) {
        nb_value *v = nb_node_input(im, i + 1);
        if (!v || v->type->rank != 1)
            return nb_node_error(im, NB_MALFORMED, "input %zu is not a vector", i + 1);
        NB_TRY(nb_unify(im, v->type->dims[0], x->type->dims[1]));
        const nb_dim *dims[NB_MAX_RANK];
        for (int d = 0; d < x->type->rank - 1; d++) dims[d] = d ? nb_num(im, 1) : x->type->dims[1];
        p[i] = nb_reshape(&im->b, v, x->type->rank - 1, dims);
    }
    nb_value *eps = nb_scalar(im, x->type->elem, (double)nb_node_float(im, "epsilon", 1e-5f));
    nb_value *deviation = nb_unary(&im->b, NB_OP_sqrt, nb_combine(im, NB_OP_add, p[3], eps));
    nb_value *factor = nb_combine(im, NB_OP_div, p[0], deviation);
    nb_value *y = nb_combine(im, NB_OP_mul, nb_combine(im, NB_OP_sub, x, p[2]), factor);
    return nb_node_output(im, 0, nb_combine(im, NB_OP_add, y, p[1]));
}

/* ---- norms ---------------------------------------------------------------------------------- */

static nb_value *norm(nb_importer *im, nb_op_kind kind, nb_value *x, nb_value *gain,
                      nb_value *bias) {
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
    nb_set_float(&im->b, "eps", nb_node_float(im, "epsilon", 1e-5f));
    return nb_end(&im->b);
}

/* Axes from `axis` on are normalised together: several become one for the while. */
static nb_status norm_over(nb_importer *im, nb_op_kind kind, nb_value *bias) {
    nb_value *x = nb_node_input(im, 0), *gain = nb_node_input(im, 1);
    int64_t axis;
    if (!x || !gain) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", -1), x->type->rank, &axis));
    if (im->node->n_output > 1 && *im->node->output[1])
        return nb_node_error(im, NB_UNSUPPORTED,
                             "the outputs mean and inverse deviation are not supported");
    int rank = x->type->rank;
    const nb_type *type = x->type;
    if (axis == rank - 1 && gain->type->rank == 1)
        return nb_node_output(im, 0, norm(im, kind, x, gain, bias));
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
    nb_value *y = norm(im, kind, x, gain, bias);
    return nb_node_output(im, 0, nb_reshape(&im->b, y, rank, type->dims));
}

nb_status nb_import_layer_norm(nb_importer *im) {
    return norm_over(im, NB_OP_layer_norm, nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL);
}
nb_status nb_import_rms_norm(nb_importer *im) { return norm_over(im, NB_OP_rms_norm, NULL); }

/* com.microsoft Skip(Simplified)LayerNormalization: norm(input + skip + bias); output 3 is the sum.
 */
nb_status nb_import_skip_norm(nb_importer *im) {
    nb_op_kind kind = (nb_op_kind)im->argument;
    bool layer = kind == NB_OP_layer_norm;
    size_t bias_at = layer ? 4 : 3;
    nb_value *x = nb_node_input(im, 0), *skip = nb_node_input(im, 1), *gain = nb_node_input(im, 2);
    if (!x || !skip || !gain) return NB_MALFORMED;
    for (size_t i = 1; i < 3; i++) {
        if (i < im->node->n_output && *im->node->output[i])
            return nb_node_error(im, NB_UNSUPPORTED,
                                 "output %zu (mean, inverse deviation) is not supported", i);
    }
    nb_value *sum = nb_combine(im, NB_OP_add, x, skip);
    if (nb_has_input(im, bias_at) && sum)
        sum = nb_combine(im, NB_OP_add, sum, nb_node_input(im, bias_at));
    nb_value *beta = layer && nb_has_input(im, 3) ? nb_node_input(im, 3) : NULL;
    NB_TRY(nb_node_output(im, 0, norm(im, kind, sum, gain, beta)));
    return nb_node_output(im, 3, sum);
}
