/* Shape rules of data movement and of values made of dimensions. */
#include "ir/infer.h"

#include <string.h>

nb_status nb_infer_reshape(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *shape = nb_attr_of(i->op, "shape");
    if (shape->dims.count > NB_MAX_RANK)
        return nb_infer_error(i, "rank %zu is above %d", shape->dims.count, NB_MAX_RANK);
    const nb_type *y =
        nb_type_intern(i->g, x->elem, NULL, (int)shape->dims.count, shape->dims.items);
    const nb_dim *count = nb_type_count(i->g, x);
    if (nb_dim_is_invalid(count)) return nb_infer_limit(i, "the number of elements");
    if (count != nb_type_count(i->g, y))
        return nb_infer_error(i, "%s and %s have different numbers of elements", nb_in_text(i, 0),
                              nb_type_text(i->g->arena, y));
    i->types[0] = y;
    return NB_OK;
}

nb_status nb_infer_transpose(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *perm = nb_attr_of(i->op, "perm");
    const nb_dim *dims[NB_MAX_RANK];
    bool seen[NB_MAX_RANK] = {false};
    if ((int)perm->ints.count != x->rank)
        return nb_infer_error(i, "perm has %zu entries, the tensor has rank %d", perm->ints.count,
                              x->rank);
    for (int d = 0; d < x->rank; d++) {
        int64_t p = perm->ints.items[d];
        if (p < 0 || p >= x->rank || seen[p])
            return nb_infer_error(i, "perm is not a permutation of 0..%d", x->rank - 1);
        seen[p] = true;
        dims[d] = x->dims[p];
    }
    i->types[0] = nb_type_with_dims(i->g, x, x->rank, dims);
    return NB_OK;
}

nb_status nb_infer_expand(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *shape = nb_attr_of(i->op, "shape");
    int rank = (int)shape->dims.count;
    if (rank > NB_MAX_RANK || rank < x->rank)
        return nb_infer_error(i, "rank %d cannot be expanded to rank %d", x->rank, rank);
    for (int d = 0; d < x->rank; d++) {
        const nb_dim *from = x->dims[d], *to = shape->dims.items[rank - x->rank + d];
        if (from != to && !nb_dim_is(from, 1))
            return nb_infer_error(i, "axis %d of %s is neither 1 nor %s", d, nb_in_text(i, 0),
                                  nb_dim_text(i->g->arena, to));
    }
    i->types[0] = nb_type_with_dims(i->g, x, rank, shape->dims.items);
    return NB_OK;
}

nb_status nb_infer_concat(const nb_inferring *i) {
    if (i->op->n_operands == 0) return nb_infer_error(i, "needs at least one operand");
    const nb_type *first = nb_in_type(i, 0);
    int64_t axis = nb_attr_int(i->op, "axis");
    if (axis < 0 || axis >= first->rank)
        return nb_infer_error(i, "axis %lld is out of range 0..%d", (long long)axis,
                              first->rank - 1);
    const nb_dim *dims[NB_MAX_RANK];
    memcpy(dims, first->dims, sizeof dims);
    for (uint32_t k = 1; k < i->op->n_operands; k++) {
        const nb_type *t = nb_in_type(i, k);
        bool fits = t->elem == first->elem && t->rank == first->rank;
        for (int d = 0; fits && d < t->rank; d++) fits = d == axis || t->dims[d] == first->dims[d];
        if (!fits)
            return nb_infer_error(i, "%s and %s do not join along axis %lld", nb_in_text(i, 0),
                                  nb_in_text(i, k), (long long)axis);
        dims[axis] = nb_dim_add(i->g, dims[axis], t->dims[axis]);
    }
    i->types[0] = nb_type_with_dims(i->g, first, first->rank, dims);
    return NB_OK;
}

nb_status nb_infer_slice(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *start = nb_attr_of(i->op, "start"), *count = nb_attr_of(i->op, "count"),
                  *step = nb_attr_of(i->op, "step");
    size_t rank = (size_t)x->rank;
    if (start->dims.count != rank || count->dims.count != rank || step->ints.count != rank)
        return nb_infer_error(i, "start, count and step have one entry for each of the %d axes",
                              x->rank);
    for (size_t d = 0; d < rank; d++) {
        const nb_dim *n = count->dims.items[d], *s = start->dims.items[d];
        if (step->ints.items[d] == 0) return nb_infer_error(i, "step 0 along axis %zu", d);
        if (!nb_dim_is_const(n) || !nb_dim_is_const(s) || !nb_dim_is_const(x->dims[d]) ||
            n->value == 0)
            continue;
        int64_t span, last;
        if (!nb_mul_i64(n->value - 1, step->ints.items[d], &span) ||
            !nb_add_i64(s->value, span, &last) || n->value < 0 || s->value < 0 ||
            s->value >= x->dims[d]->value || last < 0 || last >= x->dims[d]->value)
            return nb_infer_error(i, "start %lld, count %lld, step %lld leave axis %zu of %s",
                                  (long long)s->value, (long long)n->value,
                                  (long long)step->ints.items[d], d, nb_in_text(i, 0));
    }
    i->types[0] = nb_type_with_dims(i->g, x, x->rank, count->dims.items);
    return NB_OK;
}

nb_status nb_infer_gather(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0), *index = nb_in_type(i, 1);
    int64_t axis = nb_attr_int(i->op, "axis");
    if (axis < 0 || axis >= x->rank)
        return nb_infer_error(i, "axis %lld is out of range 0..%d", (long long)axis, x->rank - 1);
    if (!nb_elem_is_integer(index->elem))
        return nb_infer_error(i, "indices are integers, found %s", nb_in_text(i, 1));
    int rank = x->rank - 1 + index->rank;
    if (rank > NB_MAX_RANK)
        return nb_infer_error(i, "the result would have rank %d, above %d", rank, NB_MAX_RANK);
    const nb_dim *dims[NB_MAX_RANK];
    int n = 0;
    for (int d = 0; d < axis; d++) dims[n++] = x->dims[d];
    for (int d = 0; d < index->rank; d++) dims[n++] = index->dims[d];
    for (int d = (int)axis + 1; d < x->rank; d++) dims[n++] = x->dims[d];
    i->types[0] = nb_type_with_dims(i->g, x, rank, dims);
    return NB_OK;
}

nb_status nb_infer_scatter(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0), *index = nb_in_type(i, 1), *updates = nb_in_type(i, 2);
    if (!nb_elem_is_integer(index->elem))
        return nb_infer_error(i, "indices are integers, found %s", nb_in_text(i, 1));
    bool arithmetic = i->op->kind != NB_OP_scatter;
    if (arithmetic && !nb_elem_is_float(x->elem) && !nb_elem_is_integer(x->elem))
        return nb_infer_error(i, "takes numbers, found %s", nb_in_text(i, 0));
    bool fits =
        x->rank >= 1 && updates->elem == x->elem && updates->rank == index->rank + x->rank - 1;
    for (int d = 0; fits && d < updates->rank; d++)
        fits =
            updates->dims[d] == (d < index->rank ? index->dims[d] : x->dims[d - index->rank + 1]);
    if (!fits)
        return nb_infer_error(i, "%s is not as many slices of %s as there are indices, %s",
                              nb_in_text(i, 2), nb_in_text(i, 0), nb_in_text(i, 1));
    i->types[0] = x;
    return NB_OK;
}

nb_status nb_infer_require(const nb_inferring *i) {
    if (nb_in_type(i, 1)->elem != NB_BOOL)
        return nb_infer_error(i, "takes bools, found %s", nb_in_text(i, 1));
    i->types[0] = nb_in_type(i, 0);
    return NB_OK;
}

nb_status nb_infer_pad(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *before = nb_attr_of(i->op, "before"), *after = nb_attr_of(i->op, "after");
    if ((int)before->dims.count != x->rank || (int)after->dims.count != x->rank)
        return nb_infer_error(i, "before and after have one entry for each of the %d axes",
                              x->rank);
    if (nb_in(i->op, 1) && (nb_in_type(i, 1)->elem != x->elem || nb_in_type(i, 1)->rank != 0))
        return nb_infer_error(i, "the value is a scalar of the tensor's type, found %s",
                              nb_in_text(i, 1));
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < x->rank; d++)
        dims[d] = nb_dim_add(i->g, nb_dim_add(i->g, before->dims.items[d], x->dims[d]),
                             after->dims.items[d]);
    i->types[0] = nb_type_with_dims(i->g, x, x->rank, dims);
    return NB_OK;
}

nb_status nb_infer_dims(const nb_inferring *i) {
    const nb_attr *values = nb_attr_of(i->op, "values");
    bool scalar = nb_attr_bool(i->op, "scalar");
    if (scalar && values->dims.count != 1)
        return nb_infer_error(i, "a scalar has one value, found %zu", values->dims.count);
    const nb_dim *n = nb_dim_const(i->g, (int64_t)values->dims.count);
    i->types[0] = nb_type_intern(i->g, NB_I64, NULL, scalar ? 0 : 1, &n);
    return NB_OK;
}

nb_status nb_infer_iota(const nb_inferring *i) {
    const nb_attr *start = nb_attr_of(i->op, "start"), *count = nb_attr_of(i->op, "count");
    if (start->dims.count != 1 || count->dims.count != 1)
        return nb_infer_error(i, "start and count have one value");
    i->types[0] = nb_type_intern(i->g, NB_I64, NULL, 1, count->dims.items);
    return NB_OK;
}

nb_status nb_infer_return(const nb_inferring *i) {
    (void)i;
    return NB_OK;
}
