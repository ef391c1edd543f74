/* Layers of the standard domain: matrix products, softmax. */
#include "frontend/import.h"

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
static nb_status gemm(nb_importer *im, nb_value **out) {
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
    *out = y;
    return NB_OK;
}

nb_status nb_import_gemm(nb_importer *im) {
    nb_value *y;
    NB_TRY(gemm(im, &y));
    return nb_node_output(im, 0, y);
}

nb_status nb_import_fused_gemm(nb_importer *im) {
    const nb_cell_function *f = nb_cell_function_named(nb_node_string(im, "activation", "Relu"));
    const float numbers[] = {nb_node_float(im, "activation_alpha", f ? f->alpha : 0),
                             nb_node_float(im, "activation_beta", f ? f->beta : 0)};
    nb_value *y;
    NB_TRY(gemm(im, &y));
    return nb_node_output(im, 0, nb_activated(im, y, NB_COUNT(numbers), numbers));
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
nb_value *nb_log_softmax(nb_importer *im, nb_value *x, int64_t axis) {
    nb_value *d = nb_combine(im, NB_OP_sub, x, nb_reduce(im, NB_OP_reduce_max, x, 1, &axis, true));
    nb_value *sum = nb_reduce(im, NB_OP_reduce_sum, nb_unary(&im->b, NB_OP_exp, d), 1, &axis, true);
    return nb_combine(im, NB_OP_sub, d, nb_unary(&im->b, NB_OP_log, sum));
}

/* 1 at the first largest element along an axis, 0 elsewhere. */
static nb_value *hardmax(nb_importer *im, nb_value *x, int64_t axis) {
    nb_value *places = nb_positions(im, x->type->rank, (int)axis, x->type->dims[axis]),
             *best = nb_best_place(im, x, axis, true, false);
    return nb_cast(&im->b, nb_combine(im, NB_OP_eq, places, best), x->type->elem);
}

static nb_value *(*const kinds[])(nb_importer *im, nb_value *x,
                                  int64_t axis) = {softmax, nb_log_softmax, hardmax};

/* `flat`: all axes from `axis` on are one, as before opset 13. */
static nb_status softmax_along(nb_importer *im, int kind, nb_value *x, int64_t axis, bool flat,
                               nb_value **out) {
    NB_TRY(nb_axis(im, axis, x->type->rank, &axis));
    const nb_type *type = x->type;
    bool old = flat && axis != type->rank - 1;
    if (old) {
        const nb_dim *dims[2] = {nb_num(im, 1), nb_num(im, 1)};
        for (int d = 0; d < type->rank; d++)
            dims[d >= axis] = nb_dim_mul(im->g, dims[d >= axis], type->dims[d]);
        x = nb_reshape(&im->b, x, 2, dims);
        axis = 1;
    }
    nb_value *y = x ? kinds[kind](im, x, axis) : NULL;
    *out = old ? nb_reshape(&im->b, y, type->rank, type->dims) : y;
    return NB_OK;
}

nb_status nb_softmax(nb_importer *im, nb_value *x, int64_t axis, bool flat, nb_value **y) {
    return softmax_along(im, 0, x, axis, flat, y);
}

/* im->argument: which of the three. */
nb_status nb_import_softmax(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *y;
    if (!x) return NB_MALFORMED;
    const bool flat = im->opset < 13;
    NB_TRY(softmax_along(im, im->argument, x, nb_node_int(im, "axis", flat ? 1 : -1), flat, &y));
    return nb_node_output(im, 0, y);
}
