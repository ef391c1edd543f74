/* QLinearConv and QLinearMatMul of ONNX, and the QLinear operators of com.microsoft: what their
 * float operators make of the dequantized operands, quantized. fuse-dequant and move-codes put the
 * integers back together. */
#include "frontend/conv.h"
#include "frontend/quant.h"

#include <string.h>

/* Operand i, dequantized by scale and zero point in i + 1 and i + 2; vectors of those lie along
 * `axis`, from the last when negative. */
static nb_value *real(nb_importer *im, size_t i, int64_t axis) {
    nb_value *x = nb_node_input(im, i);
    nb_scaling s;
    if (!x || nb_read_scaling(im, i + 1, i + 2, axis, &s) != NB_OK) return NULL;
    if (nb_elem_is_integer(x->type->elem) && nb_elems[x->type->elem].bits == 8)
        return nb_dequantized(im, x, &s, NB_F32);
    nb_node_error(im, NB_MALFORMED, "input %zu is i8 or u8, found %s", i,
                  nb_type_text(im->arena, x->type));
    return NULL;
}

/* Output 0: y as codes by the scale in operand i and the zero point behind it, which has the type
 * of the codes; without one they have that of operand `like`. */
static nb_status output(nb_importer *im, nb_value *y, size_t i, size_t like) {
    nb_scaling s;
    if (!y) return nb_node_output(im, 0, NULL);
    NB_TRY(nb_read_scaling(im, i, i + 1, 0, &s));
    const nb_value *typed = s.zero ? s.zero : nb_node_input(im, like);
    if (!typed) return NB_MALFORMED;
    const nb_elem to = typed->type->elem;
    if (!nb_elem_is_integer(to) || nb_elems[to].bits != 8)
        return nb_node_error(im, NB_MALFORMED, "makes codes of i8 or u8, not of %s",
                             nb_elems[to].text);
    return nb_node_output(im, 0, nb_quantized(im, y, &s, to, NB_F32));
}

/* Vectors of scales belong to rows of the left operand, to columns of the right one. */
nb_status nb_import_qlinear_matmul(nb_importer *im) {
    nb_value *a = real(im, 0, -2), *b = real(im, 3, -1);
    return output(im, a && b ? nb_multiply(im, a, b) : NULL, 6, 0);
}

/* A bias in i32, whose scale is the product of both scales, times factor; NULL after an error. */
static nb_value *bias_of(nb_importer *im, size_t bias, size_t a, size_t b, double factor) {
    nb_value *v = nb_node_input(im, bias), *sa = nb_node_input(im, a), *sb = nb_node_input(im, b);
    if (!v || !sa || !sb) return NULL;
    if (v->type->elem != NB_I32) {
        nb_node_error(im, NB_MALFORMED, "the bias is i32, found %s",
                      nb_type_text(im->arena, v->type));
        return NULL;
    }
    nb_value *scale =
        nb_combine(im, NB_OP_mul, nb_cast(&im->b, sa, NB_F32), nb_cast(&im->b, sb, NB_F32));
    nb_value *y = scale ? nb_combine(im, NB_OP_mul, nb_cast(&im->b, v, NB_F32), scale) : NULL;
    return factor == 1 ? y : nb_times(im, y, factor);
}

nb_status nb_import_qlinear_conv(nb_importer *im) {
    nb_value *x = real(im, 0, 1), *w = real(im, 3, 0), *bias = NULL;
    if (!x || !w) return NB_MALFORMED;
    if (nb_has_input(im, 8)) {
        bias = bias_of(im, 8, 1, 4, 1);
        if (!bias) return NB_MALFORMED;
        if (bias->type->rank != 1) return nb_node_error(im, NB_MALFORMED, "the bias is no vector");
        NB_TRY(nb_unify(im, bias->type->dims[0], w->type->dims[0]));
    }
    return output(im, nb_convolve(im, x, w, bias), 6, 0);
}

/* alpha * (A B + C), C in i32; without a scale for the result it is floats. */
nb_status nb_import_qgemm(nb_importer *im) {
    const bool ta = nb_node_int(im, "transA", 0) != 0, tb = nb_node_int(im, "transB", 0) != 0;
    const double alpha = (double)nb_node_float(im, "alpha", 1);
    nb_value *a = real(im, 0, 0), *b = real(im, 3, tb ? 0 : 1);
    if (!a || !b) return NB_MALFORMED;
    if (a->type->rank != 2 || b->type->rank != 2)
        return nb_node_error(im, NB_MALFORMED, "expected two matrices, found ranks %d and %d",
                             a->type->rank, b->type->rank);
    if (ta) a = nb_swap_axes(im, a, 0, 1);
    if (tb) b = nb_swap_axes(im, b, 0, 1);
    nb_value *y = nb_multiply(im, a, b);
    if (alpha != 1) y = nb_times(im, y, alpha);
    if (nb_has_input(im, 6)) {
        nb_value *c = bias_of(im, 6, 1, 4, alpha);
        y = y && c ? nb_combine(im, NB_OP_add, y, c) : NULL;
    }
    return nb_has_input(im, 7) ? output(im, y, 7, 0) : nb_node_output(im, 0, y);
}

/* The argument is the operation. */
nb_status nb_import_qlinear_binary(nb_importer *im) {
    nb_value *a = real(im, 0, 0), *b = real(im, 3, 0);
    return output(im, a && b ? nb_combine(im, (nb_op_kind)im->argument, a, b) : NULL, 6, 0);
}

nb_status nb_import_qlinear_sigmoid(nb_importer *im) {
    nb_value *x = real(im, 0, 0);
    return output(im, x ? nb_unary(&im->b, NB_OP_sigmoid, x) : NULL, 3, 0);
}

nb_status nb_import_qlinear_leaky_relu(nb_importer *im) {
    nb_value *x = real(im, 0, 0);
    if (!x) return NB_MALFORMED;
    nb_value *below = nb_times(im, x, (double)nb_node_float(im, "alpha", 0.01f));
    nb_value *negative = nb_combine(im, NB_OP_lt, x, nb_scalar(im, NB_F32, 0));
    return output(im, negative && below ? nb_choose(im, negative, below, x) : NULL, 3, 0);
}

/* ---- pooling -------------------------------------------------------------------------------- */

/* [B,D...,C] as [B,C,D...], or back. */
static nb_value *move_channels(nb_importer *im, nb_value *x, bool back) {
    if (!x || !nb_node_int(im, "channels_last", 0)) return x;
    const int rank = x->type->rank;
    int64_t perm[NB_MAX_RANK] = {0};
    for (int d = 1; d < rank; d++)
        perm[d] = back ? (d + 1 < rank ? d + 1 : 1) : (d > 1 ? d - 1 : rank - 1);
    return rank > 2 ? nb_transpose(&im->b, x, perm) : x;
}

nb_status nb_import_qlinear_average_pool(nb_importer *im) {
    nb_value *x = move_channels(im, real(im, 0, 0), false), *y;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_average_pool(im, x, &y));
    return output(im, move_channels(im, y, true), 3, 0);
}

nb_status nb_import_qlinear_global_average_pool(nb_importer *im) {
    nb_value *x = move_channels(im, real(im, 0, 0), false);
    if (!x) return NB_MALFORMED;
    int64_t axes[NB_MAX_RANK];
    const int rank = x->type->rank;
    if (rank < 3) return nb_node_error(im, NB_MALFORMED, "expected rank 3 or more, found %d", rank);
    for (int d = 2; d < rank; d++) axes[d - 2] = d;
    nb_value *y = nb_reduce(im, NB_OP_reduce_mean, x, (size_t)rank - 2, axes, true);
    return output(im, move_channels(im, y, true), 3, 0);
}

nb_status nb_import_qlinear_reduce_mean(nb_importer *im) {
    nb_value *x = real(im, 0, 0);
    const int64_t *axes;
    size_t n;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axes(im, 5, x->type->rank, &axes, &n));
    const bool keep = nb_node_int(im, "keepdims", 1) != 0;
    return output(im, nb_reduce(im, NB_OP_reduce_mean, x, n, axes, keep), 3, 0);
}

/* ---- others --------------------------------------------------------------------------------- */

nb_status nb_import_qlinear_softmax(nb_importer *im) {
    nb_value *x = real(im, 0, 0), *y;
    if (!x) return NB_MALFORMED;
    const int64_t opset = nb_node_int(im, "opset", 13);
    NB_TRY(nb_softmax(im, x, nb_node_int(im, "axis", opset < 13 ? 1 : -1), opset < 13, &y));
    return output(im, y, 3, 0);
}

/* Scale and zero point of the result, then each tensor with its own. */
nb_status nb_import_qlinear_concat(nb_importer *im) {
    const size_t n = nb_node_inputs(im);
    nb_value *y = NULL;
    int64_t axis;
    if (n < 5 || n % 3 != 2)
        return nb_node_error(im, NB_MALFORMED, "%zu inputs, expected 2 and 3 for each tensor", n);
    for (size_t i = 2; i < n; i += 3) {
        nb_value *x = real(im, i, 0);
        if (!x) return NB_MALFORMED;
        NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
        y = y ? nb_join(im, y, x, (int)axis) : x;
        if (!y) return nb_node_output(im, 0, NULL);
    }
    return output(im, y, 0, 2);
}

nb_status nb_import_qlinear_where(nb_importer *im) {
    nb_value *c = nb_node_input(im, 0), *a = real(im, 1, 0), *b = real(im, 4, 0);
    return output(im, c && a && b ? nb_choose(im, c, a, b) : NULL, 7, 1);
}
