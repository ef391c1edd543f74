/* Losses over classes. The class of each target is found by comparing it with all classes, so that
 * a target without a class (ignore_index may be any number) adds nothing and reads nothing. */
#include "frontend/import.h"

#include <string.h>

/* x: scores of classes along axis 1 of [N,C,d...]; target: integers [N,d...]. */
static nb_status check_operands(nb_importer *im, nb_value *x, nb_value *target, nb_value *weight) {
    if (x->type->rank < 2 || target->type->rank != x->type->rank - 1)
        return nb_node_error(im, NB_MALFORMED, "scores of rank %d and targets of rank %d",
                             x->type->rank, target->type->rank);
    if (!nb_elem_is_float(x->type->elem) || !nb_elem_is_integer(target->type->elem))
        return nb_node_error(im, NB_MALFORMED, "expected floats and integers, found %s and %s",
                             nb_elems[x->type->elem].text, nb_elems[target->type->elem].text);
    for (int d = 0; d < target->type->rank; d++)
        NB_TRY(nb_unify(im, target->type->dims[d], x->type->dims[d ? d + 1 : 0]));
    if (!weight) return NB_OK;
    if (weight->type->rank != 1)
        return nb_node_error(im, NB_MALFORMED, "the weights have rank %d", weight->type->rank);
    return nb_unify(im, weight->type->dims[0], x->type->dims[1]);
}

/* bool[N,C,d...]: is the target of this class, and not to be ignored? */
static nb_value *hits(nb_importer *im, nb_value *x, nb_value *target) {
    nb_elem elem = target->type->elem;
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < x->type->rank; d++) dims[d] = d == 1 ? nb_num(im, 1) : x->type->dims[d];
    nb_value *classes = nb_positions(im, x->type->rank, 1, x->type->dims[1]);
    if (elem != NB_I64) classes = nb_cast(&im->b, classes, elem);
    target = nb_reshape(&im->b, target, x->type->rank, dims);
    nb_value *hit = nb_combine(im, NB_OP_eq, target, classes);
    const Onnx__AttributeProto *ignore = nb_node_attr(im, "ignore_index");
    if (!ignore) return hit;
    nb_value *number = nb_const_i64(im->g, "ignore_index", 0, NULL, &ignore->i);
    if (elem != NB_I64) number = nb_cast(&im->b, number, elem);
    nb_value *kept = nb_unary(&im->b, NB_OP_not, nb_combine(im, NB_OP_eq, target, number));
    return nb_combine(im, NB_OP_and, hit, kept);
}

/* Of each target, what stands at its class: 0 where it has none. */
static nb_value *pick(nb_importer *im, nb_value *hit, nb_value *from) {
    const int64_t axis = 1;
    nb_value *chosen = from ? nb_choose(im, hit, from, nb_scalar(im, from->type->elem, 0)) : NULL;
    return nb_reduce(im, NB_OP_reduce_sum, chosen, 1, &axis, false);
}

static nb_value *total(nb_importer *im, nb_value *x) {
    return nb_reduce(im, NB_OP_reduce_sum, x, 0, NULL, false);
}

/* The loss of log probabilities x, as output 0. */
static nb_status loss(nb_importer *im, nb_value *x) {
    nb_value *target = nb_node_input(im, 1),
             *weight = nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL;
    if (!x || !target || (nb_has_input(im, 2) && !weight)) return NB_MALFORMED;
    const char *reduction = nb_node_string(im, "reduction", "mean");
    bool none = strcmp(reduction, "none") == 0, mean = strcmp(reduction, "mean") == 0;
    if (!none && !mean && strcmp(reduction, "sum") != 0)
        return nb_node_error(im, NB_MALFORMED, "reduction is '%s', expected none, mean or sum",
                             reduction);
    NB_TRY(check_operands(im, x, target, weight));
    nb_value *hit = hits(im, x, target), *share = NULL;
    if (weight)
        share = pick(im, hit, nb_along(im, weight, x->type->rank, 1));
    else if (nb_node_attr(im, "ignore_index"))
        share = pick(im, hit, nb_scalar(im, x->type->elem, 1));
    nb_value *y = nb_unary(&im->b, NB_OP_neg, pick(im, hit, x));
    if (weight) y = nb_combine(im, NB_OP_mul, y, share);
    if (mean && !share)
        return nb_node_output(im, 0, nb_reduce(im, NB_OP_reduce_mean, y, 0, NULL, false));
    if (!none) y = total(im, y);
    if (mean) y = nb_combine(im, NB_OP_div, y, total(im, share));
    return nb_node_output(im, 0, y);
}

nb_status nb_import_nll_loss(nb_importer *im) { return loss(im, nb_node_input(im, 0)); }

nb_status nb_import_softmax_loss(nb_importer *im) {
    nb_value *scores = nb_node_input(im, 0);
    if (!scores) return NB_MALFORMED;
    if (scores->type->rank < 2)
        return nb_node_error(im, NB_MALFORMED, "scores of rank %d", scores->type->rank);
    nb_value *log_probability = nb_log_softmax(im, scores, 1);
    NB_TRY(loss(im, log_probability));
    return nb_node_output(im, 1, log_probability);
}
