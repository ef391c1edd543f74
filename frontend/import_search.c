/* Places of values: ArgMax and what is compared with counted positions. */
#include "frontend/import.h"

#include <string.h>

nb_value *nb_best_place(nb_importer *im, nb_value *x, int64_t axis, bool largest, bool last) {
    if (!x) return NULL;
    nb_op_kind extreme = largest ? NB_OP_reduce_max : NB_OP_reduce_min;
    nb_value *is = nb_combine(im, NB_OP_eq, x, nb_reduce(im, extreme, x, 1, &axis, true));
    if (nb_elem_is_float(x->type->elem)) {
        nb_value *number = nb_combine(im, NB_OP_eq, x, x);
        is = nb_combine(im, NB_OP_or, is, nb_unary(&im->b, NB_OP_not, number));
    }
    nb_value *place = nb_positions(im, x->type->rank, (int)axis, x->type->dims[axis]);
    /* What loses against every place. */
    nb_value *none = nb_scalar(im, NB_I64, last ? -1 : 0x1p62);
    return nb_reduce(im, last ? NB_OP_reduce_max : NB_OP_reduce_min,
                     is ? nb_choose(im, is, place, none) : NULL, 1, &axis, true);
}

/* im->argument: the largest? */
nb_status nb_import_arg_best(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    int64_t axis;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
    bool last = nb_node_int(im, "select_last_index", 0) != 0;
    nb_value *y = nb_best_place(im, x, axis, im->argument != 0, last);
    if (!nb_node_int(im, "keepdims", 1)) /* the axis has length 1 */
        y = nb_reduce(im, NB_OP_reduce_max, y, 1, &axis, false);
    return nb_node_output(im, 0, y);
}

/* The length of the axis that OneHot adds; of floats, too. */
static nb_status read_depth(nb_importer *im, const nb_dim **depth) {
    nb_value *v = nb_node_input(im, 1);
    size_t n = 0;
    if (!v) return NB_MALFORMED;
    if (nb_elem_is_float(v->type->elem)) v = nb_cast(&im->b, v, NB_I64);
    const nb_dim *const *dims = v ? nb_symbolic(im->g, v, &n) : NULL;
    if (!dims && v) dims = nb_fold(im, v, &n);
    if (!dims && v) dims = nb_assume(im, 1, &n);
    if (!dims)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "the depth must be known at compile time or "
                             "computed from shapes; it depends on data");
    if (n != 1) return nb_node_error(im, NB_MALFORMED, "the depth is %zu numbers", n);
    *depth = dims[0];
    return NB_OK;
}

nb_status nb_import_one_hot(nb_importer *im) {
    nb_value *index = nb_node_input(im, 0), *values = nb_node_input(im, 2);
    const nb_dim *depth, *dims[NB_MAX_RANK];
    int64_t axis;
    if (!index || !values) return NB_MALFORMED;
    NB_TRY(read_depth(im, &depth));
    if (values->type->rank != 1)
        return nb_node_error(im, NB_MALFORMED, "the values have rank %d", values->type->rank);
    NB_TRY(nb_unify(im, values->type->dims[0], nb_num(im, 2)));
    int rank = index->type->rank + 1;
    if (rank > NB_MAX_RANK)
        return nb_node_error(im, NB_LIMIT, "rank %d is above %d", rank, NB_MAX_RANK);
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", -1), rank, &axis));
    for (int d = 0, from = 0; d < rank; d++)
        dims[d] = d == axis ? nb_num(im, 1) : index->type->dims[from++];
    if (index->type->elem != NB_I64) index = nb_cast(&im->b, index, NB_I64);
    index = nb_reshape(&im->b, index, rank, dims);
    nb_value *negative = nb_combine(im, NB_OP_lt, index, nb_scalar(im, NB_I64, 0));
    nb_value *from_end = nb_combine(im, NB_OP_add, index, nb_make_dims(im, 1, &depth, true));
    index = nb_choose(im, negative, from_end, index);
    nb_value *hot = nb_combine(im, NB_OP_eq, index, nb_positions(im, rank, (int)axis, depth));
    nb_value *pair[2];
    for (int i = 0; i < 2; i++)
        pair[i] = nb_reshape(&im->b, nb_slice_axis(im, values, 0, nb_num(im, i), nb_num(im, 1), 1),
                             0, NULL);
    return nb_node_output(im, 0, nb_choose(im, hot, pair[1], pair[0]));
}

/* Ones where column - row is k. */
nb_status nb_import_eye_like(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (x->type->rank != 2)
        return nb_node_error(im, NB_MALFORMED, "expected a matrix, found rank %d", x->type->rank);
    int64_t type = nb_node_int(im, "dtype", nb_elems[x->type->elem].onnx);
    nb_elem elem = nb_elem_from_onnx((int)type);
    if (type != (int)type || elem == NB_ELEM_COUNT)
        return nb_node_error(im, NB_UNSUPPORTED, "element type %lld is not supported",
                             (long long)type);
    int64_t k = nb_node_int(im, "k", 0);
    nb_value *diagonal = nb_combine(im, NB_OP_add, nb_positions(im, 2, 0, x->type->dims[0]),
                                    nb_const_i64(im->g, "k", 0, NULL, &k));
    nb_value *is = nb_combine(im, NB_OP_eq, diagonal, nb_positions(im, 2, 1, x->type->dims[1]));
    return nb_node_output(im, 0, elem == NB_BOOL ? is : nb_cast(&im->b, is, elem));
}

/* x moved on by one along an axis, what begins a sum or product in front. */
static nb_value *delayed(nb_importer *im, nb_value *x, int axis) {
    const nb_dim *length = x ? x->type->dims[axis] : NULL;
    nb_value *padded = nb_zero_pad(im, x, axis, 1, 0);
    if (im->argument == NB_OP_cumprod && padded) {
        nb_value *first = nb_combine(
            im, NB_OP_eq, nb_positions(im, padded->type->rank, axis, padded->type->dims[axis]),
            nb_scalar(im, NB_I64, 0));
        padded = nb_choose(im, first, nb_scalar(im, x->type->elem, 1), padded);
    }
    return nb_slice_axis(im, padded, axis, nb_num(im, 0), length, 1);
}

/* Sums or products (im->argument) up to each element along an axis; `exclusive` without it,
 * `reverse` from the other end. */
static nb_value *cumsum(nb_importer *im, nb_value *x, int axis) {
    bool reverse = nb_node_int(im, "reverse", 0) != 0;
    const nb_dim *length = x->type->dims[axis], *one = nb_num(im, 1);
    const nb_dim *last = nb_dim_max(im->g, nb_dim_sub(im->g, length, one), nb_num(im, 0));
    if (reverse) x = nb_slice_axis(im, x, axis, last, length, -1);
    if (nb_node_int(im, "exclusive", 0)) x = delayed(im, x, axis);
    nb_begin(&im->b, (nb_op_kind)im->argument);
    nb_arg(&im->b, x);
    nb_set_int(&im->b, "axis", axis);
    nb_value *y = nb_end(&im->b);
    return reverse ? nb_slice_axis(im, y, axis, last, length, -1) : y;
}

/* The axis is known at run time only: the sums along each, of which one is taken. */
static nb_value *cumsum_of_any(nb_importer *im, nb_value *x, nb_value *axis) {
    int rank = x->type->rank;
    nb_value *y = cumsum(im, x, 0);
    axis = nb_reshape(&im->b, axis, 0, NULL);
    for (int d = 1; d < rank && y; d++) {
        nb_value *is = NULL;
        for (int64_t at = d - rank; at <= d; at += rank) {
            nb_value *same =
                nb_combine(im, NB_OP_eq, axis, nb_scalar(im, axis->type->elem, (double)at));
            is = is ? nb_combine(im, NB_OP_or, is, same) : same;
        }
        y = nb_choose(im, is, cumsum(im, x, d), y);
    }
    return y;
}

nb_status nb_import_cumsum(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *at = nb_node_input(im, 1);
    const nb_dim *const *given;
    int64_t axis;
    size_t n;
    if (!x || !at) return NB_MALFORMED;
    if (x->type->rank < 1) return nb_node_error(im, NB_MALFORMED, "a scalar has no axis");
    given = nb_symbolic(im->g, at, &n);
    if (!given) given = nb_fold(im, at, &n);
    if (!given) return nb_node_output(im, 0, cumsum_of_any(im, x, at));
    if (n != 1 || !nb_dim_is_const(given[0]))
        return nb_node_error(im, NB_MALFORMED, "the axis is not one number");
    NB_TRY(nb_axis(im, given[0]->value, x->type->rank, &axis));
    return nb_node_output(im, 0, cumsum(im, x, (int)axis));
}

nb_status nb_import_topk(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *given = nb_num(im, nb_node_int(im, "k", -1)), *const *k = &given;
    int64_t axis;
    size_t n = 1;
    if (!x) return NB_MALFORMED;
    if (!nb_node_attr(im, "k")) NB_TRY(nb_dims_of(im, 1, &k, &n));
    if (n != 1) return nb_node_error(im, NB_MALFORMED, "k is %zu numbers", n);
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", -1), x->type->rank, &axis));
    nb_begin(&im->b, NB_OP_topk);
    nb_arg(&im->b, x);
    nb_set_int(&im->b, "axis", axis);
    nb_set_dims(&im->b, "count", 1, k);
    nb_set_bool(&im->b, "smallest", nb_node_int(im, "largest", 1) == 0);
    if (!nb_end(&im->b)) return nb_node_output(im, 0, NULL);
    nb_value **made = im->b.op->results;
    NB_TRY(nb_node_output(im, 0, made[0]));
    return nb_node_output(im, 1, made[1]);
}
