/* Operators that give as many elements as their data say: NonZero, Compress. How many there are is
 * taken from the declared shape of the output, and a run in which there are more or fewer is
 * refused. */
#include "frontend/import.h"

/* i64[count]: where `is`, bool[n], is true. */
static nb_value *places(nb_importer *im, nb_value *is, int64_t count) {
    if (!is) return NULL;
    const nb_dim *n = is->type->dims[0], *room = nb_num(im, count + 1);
    nb_value *most = nb_scalar(im, NB_I64, (double)count), *ones = nb_cast(&im->b, is, NB_I64);
    nb_begin(&im->b, NB_OP_cumsum);
    nb_arg(&im->b, ones);
    nb_set_int(&im->b, "axis", 0);
    nb_value *rank = nb_plus(im, nb_end(&im->b), -1);
    rank = rank ? nb_combine(im, NB_OP_min, rank, most) : NULL;
    rank = rank ? nb_choose(im, is, rank, most) : NULL; /* one more place takes all others */
    nb_value *zeros = nb_expand_to(im, nb_scalar(im, NB_I64, 0), 1, &room);
    nb_value *positions = nb_count_up(im, nb_num(im, 0), n);
    nb_begin(&im->b, NB_OP_scatter);
    nb_arg(&im->b, zeros);
    nb_arg(&im->b, rank);
    nb_arg(&im->b, positions);
    nb_value *found = rank ? nb_end(&im->b) : NULL;
    found = nb_slice_axis(im, found, 0, nb_num(im, 0), nb_num(im, count), 1);
    nb_value *total = nb_reduce(im, NB_OP_reduce_sum, ones, 0, NULL, false);
    return total ? nb_require(im, found, nb_combine(im, NB_OP_eq, total, most)) : NULL;
}

static nb_status undeclared(nb_importer *im) {
    nb_node_error(im, NB_UNSUPPORTED,
                  "the shape of the output depends on data, and the model does not declare it in "
                  "numbers");
    return NB_UNSUPPORTED;
}

nb_status nb_import_non_zero(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    int64_t out[NB_MAX_RANK];
    int rank;
    if (!x) return NB_MALFORMED;
    if (x->type->rank < 1) return nb_node_error(im, NB_UNSUPPORTED, "a scalar");
    if (!nb_declared(im, 0, out, &rank) || rank != 2) return undeclared(im);
    const nb_dim *n = nb_type_count(im->g, x->type), *count = nb_num(im, out[1]);
    nb_value *is = nb_as(im, nb_reshape(&im->b, x, 1, &n), NB_BOOL);
    nb_value *at = places(im, is, out[1]), *y = NULL;
    for (int d = x->type->rank - 1; d >= 0 && at; d--) {
        nb_value *length = nb_make_dims(im, 1, &x->type->dims[d], true);
        const nb_dim *row[] = {nb_num(im, 1), count};
        nb_value *index = d ? nb_combine(im, NB_OP_mod, at, length) : at;
        index = index ? nb_reshape(&im->b, index, 2, row) : NULL;
        y = y ? nb_join(im, index, y, 0) : index;
        at = d ? nb_combine(im, NB_OP_div, at, length) : at;
    }
    return nb_node_output(im, 0, y);
}

nb_status nb_import_compress(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *is = nb_node_input(im, 1);
    int64_t out[NB_MAX_RANK], axis = 0;
    int rank;
    if (!x || !is) return NB_MALFORMED;
    if (is->type->rank != 1 || is->type->elem != NB_BOOL)
        return nb_node_error(im, NB_MALFORMED, "the condition is %s, expected a vector of bools",
                             nb_type_text(im->arena, is->type));
    if (!nb_node_attr(im, "axis")) {
        const nb_dim *n = nb_type_count(im->g, x->type);
        x = nb_reshape(&im->b, x, 1, &n);
    } else {
        NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
    }
    if (!nb_declared(im, 0, out, &rank) || !x || rank != x->type->rank) return undeclared(im);
    nb_value *at = places(im, is, out[axis]);
    return nb_node_output(im, 0, at ? nb_take(im, x, at, (int)axis) : NULL);
}
