/* What data count: sizes that only a run knows, and operators that give as many elements as their
 * data say: NonZero, Compress, NonMaxSuppression. Where the model declares the shape of the output
 * in numbers, a run in which there are more or fewer is refused; otherwise they are counted. */
#include "frontend/import.h"

#include <math.h>

const nb_dim *nb_count(nb_importer *im, const char *name, nb_value *n, const nb_dim *most) {
    size_t count = 0;
    n = n ? nb_reshape(&im->b, nb_as(im, n, NB_I64), 0, NULL) : NULL;
    const nb_dim *const *known = n ? nb_symbolic(im->g, n, &count) : NULL;
    if (n && !known) known = nb_fold(im, n, &count);
    if (known) return known[0];
    const nb_dim *d = nb_dim_symbol(im->g, nb_graph_counted(im->g, name));
    nb_begin(&im->b, NB_OP_bind);
    nb_arg(&im->b, n);
    nb_set_dims(&im->b, "size", 1, &d);
    if (most) nb_set_dims(&im->b, "most", 1, &most);
    return nb_end(&im->b) ? d : NULL;
}

nb_status nb_count_vector(nb_importer *im, size_t input, nb_value *v) {
    const nb_dim *dims[NB_MAX_RANK], *one = nb_num(im, 1);
    const char *name = im->node->input[input];
    if (!v) return NB_MALFORMED;
    const int64_t n = v->type->dims[0]->value;
    for (int64_t i = 0; i < n; i++) {
        nb_value *number = nb_slice_axis(im, v, 0, nb_num(im, i), one, 1);
        dims[i] = nb_count(im, n > 1 ? nb_format(im->arena, "%s.%lld", name, (long long)i) : name,
                           number, NULL);
        if (!dims[i]) return NB_MALFORMED;
    }
    im->counted[input] = nb_make_dims(im, (size_t)n, dims, false);
    return im->counted[input] ? NB_OK : NB_MALFORMED;
}

/* Once for a node, however often it asks; unifying may have replaced what it got then. */
const nb_dim *const *nb_count_input(nb_importer *im, size_t input, size_t *count) {
    if (input >= NB_COUNT(im->counted)) return NULL;
    if (!im->counted[input]) {
        nb_value *v = nb_vector_of(im, input, count);
        if (!v || *count > NB_MAX_RANK || nb_count_vector(im, input, v) != NB_OK) return NULL;
    }
    const nb_attr *values = nb_attr_of(im->counted[input]->def, "values");
    *count = values->dims.count;
    return values->dims.items;
}

bool nb_counted_inside(const nb_region *region, const nb_type *type) {
    for (int d = 0; d < type->rank; d++) {
        if (!nb_dim_is_counted(type->dims[d], NULL)) continue;
        for (const nb_op *op = region->first; op; op = op->next) {
            const nb_symbol *s = nb_bound_by(op);
            if (s && nb_dim_substitute(region->graph, type->dims[d], s,
                                       nb_dim_const(region->graph, 0)) != type->dims[d])
                return true;
        }
    }
    return false;
}

nb_value *nb_places(nb_importer *im, nb_value *is, const int64_t *declared, const nb_dim *most) {
    if (!is) return NULL;
    nb_value *ones = nb_cast(&im->b, is, NB_I64);
    nb_value *total = nb_reduce(im, NB_OP_reduce_sum, ones, 0, NULL, false);
    const char *name = im->node->n_output ? im->node->output[0] : "";
    const nb_dim *count =
        declared ? nb_num(im, *declared) : nb_count(im, *name ? name : "count", total, most);
    if (!count || !total) return NULL;
    const nb_dim *n = is->type->dims[0], *room = nb_dim_add(im->g, count, nb_num(im, 1));
    nb_value *last = nb_make_dims(im, 1, &count, true);
    nb_begin(&im->b, NB_OP_cumsum);
    nb_arg(&im->b, ones);
    nb_set_int(&im->b, "axis", 0);
    nb_value *rank = nb_plus(im, nb_end(&im->b), -1);
    rank = rank ? nb_combine(im, NB_OP_min, rank, last) : NULL;
    rank = rank ? nb_choose(im, is, rank, last) : NULL; /* one more place takes all others */
    nb_value *zeros = nb_expand_to(im, nb_scalar(im, NB_I64, 0), 1, &room);
    nb_value *positions = nb_count_up(im, nb_num(im, 0), n);
    nb_begin(&im->b, NB_OP_scatter);
    nb_arg(&im->b, zeros);
    nb_arg(&im->b, rank);
    nb_arg(&im->b, positions);
    nb_value *found = rank ? nb_end(&im->b) : NULL;
    found = nb_slice_axis(im, found, 0, nb_num(im, 0), count, 1);
    return declared ? nb_require(im, found, nb_combine(im, NB_OP_eq, total, last)) : found;
}

/* Axis `axis` of the declared shape, which has `rank` axes; NULL: the model does not say. */
static const int64_t *declared_length(nb_importer *im, int rank, int64_t axis) {
    int64_t out[NB_MAX_RANK];
    int declared;
    if (!nb_declared(im, 0, out, &declared) || declared != rank) return NULL;
    int64_t *length = NB_NEW(im->arena, int64_t);
    *length = out[axis];
    return length;
}

nb_status nb_import_non_zero(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (x->type->rank < 1) return nb_node_error(im, NB_UNSUPPORTED, "a scalar");
    const nb_dim *n = nb_type_count(im->g, x->type);
    nb_value *is = nb_as(im, nb_reshape(&im->b, x, 1, &n), NB_BOOL);
    nb_value *at = nb_places(im, is, declared_length(im, 2, 1), n), *y = NULL;
    for (int d = x->type->rank - 1; d >= 0 && at; d--) {
        nb_value *length = nb_make_dims(im, 1, &x->type->dims[d], true);
        const nb_dim *row[] = {nb_num(im, 1), at->type->dims[0]};
        nb_value *index = d ? nb_combine(im, NB_OP_mod, at, length) : at;
        index = index ? nb_reshape(&im->b, index, 2, row) : NULL;
        y = y ? nb_join(im, index, y, 0) : index;
        at = d ? nb_combine(im, NB_OP_div, at, length) : at;
    }
    return nb_node_output(im, 0, y);
}

nb_status nb_import_compress(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *is = nb_node_input(im, 1);
    int64_t axis = 0;
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
    if (!x) return NB_MALFORMED;
    nb_value *at = nb_places(im, is, declared_length(im, x->type->rank, axis), is->type->dims[0]);
    return nb_node_output(im, 0, at ? nb_take(im, x, at, (int)axis) : NULL);
}

/* ---- NonMaxSuppression ---------------------------------------------------------------------- */

/* A number that the node takes, of rank 0, or what stands for it. */
static nb_value *number_or(nb_importer *im, size_t i, nb_elem elem, double otherwise) {
    return nb_has_input(im, i) ? nb_one_number(im, i, elem) : nb_scalar(im, elem, otherwise);
}

/* [N,1]: one number of each box that was taken. */
static nb_value *column(nb_importer *im, nb_value *v) {
    if (!v) return NULL;
    const nb_dim *dims[] = {v->type->dims[0], nb_num(im, 1)};
    return nb_reshape(&im->b, v, 2, dims);
}

/* Rows of batch, class and box: nms gives the boxes, behind the last of each class -1. */
nb_status nb_import_non_max_suppression(nb_importer *im) {
    nb_value *boxes = nb_node_input(im, 0), *scores = nb_node_input(im, 1);
    if (!boxes || !scores) return NB_MALFORMED;
    if (boxes->type->rank != 3 || scores->type->rank != 3)
        return nb_node_error(im, NB_MALFORMED, "boxes and scores are %s and %s, expected rank 3",
                             nb_type_text(im->arena, boxes->type),
                             nb_type_text(im->arena, scores->type));
    NB_TRY(nb_unify(im, boxes->type->dims[0], scores->type->dims[0]));
    NB_TRY(nb_unify(im, boxes->type->dims[1], scores->type->dims[2]));
    NB_TRY(nb_unify(im, boxes->type->dims[2], nb_num(im, 4)));
    nb_value *limit = number_or(im, 2, NB_I64, 0), *overlap = number_or(im, 3, NB_F32, 0),
             *least = number_or(im, 4, NB_F32, -INFINITY);
    size_t n;
    const nb_dim *const *known = limit ? nb_symbolic(im->g, limit, &n) : NULL;
    const nb_dim *each = scores->type->dims[2], *per_batch, *all;
    per_batch = nb_dim_mul(im->g, scores->type->dims[1], each);
    all = nb_dim_mul(im->g, scores->type->dims[0], per_batch);
    const nb_dim *most = known ? nb_dim_max(im->g, nb_num(im, 0), known[0]) : each;
    most = nb_dim_mul(im->g, nb_dim_min(im->g, most, each),
                      nb_dim_mul(im->g, scores->type->dims[0], scores->type->dims[1]));
    nb_begin(&im->b, NB_OP_nms);
    nb_arg(&im->b, boxes);
    nb_arg(&im->b, scores);
    nb_arg(&im->b, limit);
    nb_arg(&im->b, overlap);
    nb_arg(&im->b, least);
    nb_set_bool(&im->b, "center", nb_node_int(im, "center_point_box", 0) != 0);
    nb_value *taken = nb_end(&im->b);
    taken = taken ? nb_reshape(&im->b, taken, 1, &all) : NULL;
    nb_value *is = taken ? nb_combine(im, NB_OP_le, nb_scalar(im, NB_I64, 0), taken) : NULL;
    nb_value *at = nb_places(im, is, declared_length(im, 2, 0), most);
    if (!at) return nb_node_output(im, 0, NULL);
    nb_value *classes = nb_make_dims(im, 1, &scores->type->dims[1], true),
             *length = nb_make_dims(im, 1, &each, true);
    nb_value *row = nb_combine(im, NB_OP_div, at, length);
    nb_value *batch = row ? nb_combine(im, NB_OP_div, row, classes) : NULL,
             *class = row ? nb_combine(im, NB_OP_mod, row, classes) : NULL;
    nb_value *front = nb_join(im, column(im, batch), column(im, class), 1);
    return nb_node_output(im, 0, nb_join(im, front, column(im, nb_take(im, taken, at, 0)), 1));
}
