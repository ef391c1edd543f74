/* Unique: elements, or slices along an axis, in ascending order, of which the first of each run of
 * equal ones is taken. Sorting is stable, so that this is the first in the input, too. */
#include "frontend/import.h"

typedef struct unique {
    nb_importer *im;
    nb_value *rows;  /* [n,inner], what is compared; [n] without an axis */
    nb_value *order; /* i64[n]: the places of rows in ascending order */
    nb_value *group; /* i64[n]: which different row the sorted one is */
} unique;

static nb_op *sort(nb_importer *im, nb_value *x) {
    if (!x) return NULL;
    nb_begin(&im->b, NB_OP_topk);
    nb_arg(&im->b, x);
    nb_set_int(&im->b, "axis", 0);
    nb_set_dims(&im->b, "count", 1, &x->type->dims[0]);
    nb_set_bool(&im->b, "smallest", true);
    return nb_end(&im->b) ? im->b.op : NULL;
}

/* x with updates at index, or added there. */
static nb_value *put(nb_importer *im, nb_op_kind kind, nb_value *x, nb_value *index,
                     nb_value *updates) {
    nb_begin(&im->b, kind);
    nb_arg(&im->b, x);
    nb_arg(&im->b, index);
    nb_arg(&im->b, updates);
    return nb_end(&im->b);
}

static nb_value *filled(nb_importer *im, double value, const nb_dim *n) {
    return nb_expand_to(im, nb_scalar(im, NB_I64, value), 1, &n);
}

/* By the last column first: what is sorted by one stays so among those that are equal in the next.
 * A loop over the columns carries the order. */
static nb_value *order_of_rows(nb_importer *im, nb_value *rows) {
    const nb_dim *n = rows->type->dims[0], *inner = rows->type->dims[1];
    nb_value *first = nb_count_up(im, nb_num(im, 0), n), *columns = nb_swap_axes(im, rows, 0, 1);
    if (!first || !columns) return NULL;
    const int64_t reverse[] = {1};
    nb_region *outer = im->b.region, *body = nb_region_create(im->g);
    im->b.region = body;
    nb_region_add(body, "step", nb_type_intern(im->g, NB_I64, NULL, 0, NULL));
    nb_value *order = nb_region_add(body, "order", first->type),
             *column = nb_region_add(body, "column", nb_type_with_dims(im->g, rows->type, 1, &n));
    nb_op *sorted = sort(im, nb_take(im, column, order, 0));
    nb_value *next = sorted ? nb_take(im, order, sorted->results[1], 0) : NULL;
    if (next) nb_region_return(body, 1, &next, im->b.loc);
    im->b.region = outer;
    if (!next) {
        nb_region_discard(body);
        return NULL;
    }
    nb_begin(&im->b, NB_OP_loop);
    nb_arg(&im->b, NULL);
    nb_arg(&im->b, NULL);
    nb_arg(&im->b, first);
    nb_arg(&im->b, columns);
    nb_set_dims(&im->b, "count", 1, &inner);
    nb_set_int(&im->b, "carried", 1);
    nb_set_int(&im->b, "sliced", 1);
    nb_set_ints(&im->b, "reverse", 1, reverse);
    nb_set_region(&im->b, body);
    return nb_end(&im->b);
}

/* bool[n]: is the sorted row another one than that before it? */
static nb_value *is_new(nb_importer *im, nb_value *sorted, const nb_dim *n) {
    const int64_t inner = 1;
    nb_value *at = nb_count_up(im, nb_num(im, 0), n), *zero = nb_scalar(im, NB_I64, 0);
    nb_value *before = nb_combine(im, NB_OP_max, nb_plus(im, at, -1), zero);
    nb_value *other = sorted && before ? nb_take(im, sorted, before, 0) : NULL;
    other = other ? nb_combine(im, NB_OP_eq, sorted, other) : NULL;
    other = other ? nb_unary(&im->b, NB_OP_not, other) : NULL;
    if (other && other->type->rank > 1)
        other = nb_cast(
            &im->b,
            nb_reduce(im, NB_OP_reduce_max, nb_cast(&im->b, other, NB_I64), 1, &inner, false),
            NB_BOOL);
    return other ? nb_combine(im, NB_OP_or, other, nb_combine(im, NB_OP_eq, at, zero)) : NULL;
}

/* The groups from the one that comes first in the input to the last. */
static nb_value *by_place(nb_importer *im, nb_value *first) {
    nb_op *sorted = sort(im, first);
    return sorted ? sorted->results[1] : NULL;
}

static nb_status give(unique *u, nb_value *sorted, bool ascending, nb_value **rows) {
    nb_importer *im = u->im;
    const nb_dim *n = u->rows->type->dims[0];
    nb_value *fresh = is_new(im, sorted, n);
    if (!fresh) return nb_node_output(im, 0, NULL);
    nb_value *ones = nb_cast(&im->b, fresh, NB_I64);
    nb_begin(&im->b, NB_OP_cumsum);
    nb_arg(&im->b, ones);
    nb_set_int(&im->b, "axis", 0);
    u->group = nb_plus(im, nb_end(&im->b), -1);
    nb_value *starts = nb_places(im, fresh, NULL, n);
    if (!u->group || !starts) return nb_node_output(im, 0, NULL);
    const nb_dim *count = starts->type->dims[0];
    nb_value *first = nb_take(im, u->order, starts, 0);
    nb_value *inverse = put(im, NB_OP_scatter, filled(im, 0, n), u->order, u->group);
    nb_value *counts = put(im, NB_OP_scatter_add, filled(im, 0, count), u->group, filled(im, 1, n));
    *rows = nb_take(im, sorted, starts, 0);
    if (!ascending && first && counts && *rows) {
        nb_value *perm = by_place(im, first);
        nb_value *place = put(im, NB_OP_scatter, filled(im, 0, count), perm,
                              nb_count_up(im, nb_num(im, 0), count));
        if (!perm || !place) return nb_node_output(im, 0, NULL);
        inverse = nb_take(im, place, inverse, 0);
        counts = nb_take(im, counts, perm, 0);
        first = nb_take(im, first, perm, 0);
        *rows = nb_take(im, *rows, perm, 0);
    }
    NB_TRY(nb_node_output(im, 1, first));
    NB_TRY(nb_node_output(im, 2, inverse));
    return nb_node_output(im, 3, counts);
}

nb_status nb_import_unique(nb_importer *im) {
    unique u = {.im = im};
    nb_value *x = nb_node_input(im, 0), *sorted = NULL, *y = NULL;
    if (!x) return NB_MALFORMED;
    const nb_elem elem = x->type->elem;
    const bool ascending = nb_node_int(im, "sorted", 1) != 0, whole = !nb_node_attr(im, "axis");
    int64_t axis = 0;
    if (elem == NB_BOOL) x = nb_cast(&im->b, x, NB_U8); /* which have an order */
    if (whole) {
        const nb_dim *n = nb_type_count(im->g, x->type);
        u.rows = nb_reshape(&im->b, x, 1, &n);
        nb_op *op = sort(im, u.rows);
        if (op) sorted = op->results[0];
        if (op) u.order = op->results[1];
    } else {
        NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
        x = nb_swap_axes(im, x, 0, (int)axis);
        const nb_dim *dims[] = {x->type->dims[0], nb_num(im, 1)};
        for (int d = 1; d < x->type->rank; d++)
            dims[1] = nb_dim_mul(im->g, dims[1], x->type->dims[d]);
        u.rows = nb_reshape(&im->b, x, 2, dims);
        u.order = u.rows ? order_of_rows(im, u.rows) : NULL;
        sorted = u.order ? nb_take(im, u.rows, u.order, 0) : NULL;
    }
    if (!sorted) return nb_node_output(im, 0, NULL);
    NB_TRY(give(&u, sorted, ascending, &y));
    if (y && !whole) {
        const nb_dim *dims[NB_MAX_RANK] = {y->type->dims[0]};
        for (int d = 1; d < x->type->rank; d++) dims[d] = x->type->dims[d];
        y = nb_reshape(&im->b, y, x->type->rank, dims);
        y = y ? nb_swap_axes(im, y, 0, (int)axis) : NULL;
    }
    return nb_node_output(im, 0, y ? nb_as(im, y, elem) : NULL);
}
