/* Operators that move data or compute shapes. */
#include "frontend/import.h"

#include <string.h>

nb_status nb_import_identity(nb_importer *im) {
    return nb_node_output(im, 0, nb_scope_find(im, im->node->input[0])); /* a sequence too */
}

static nb_status check_rank(nb_importer *im, size_t rank) {
    return rank <= NB_MAX_RANK
               ? NB_OK
               : nb_node_error(im, NB_LIMIT, "rank %zu is above %d", rank, NB_MAX_RANK);
}

nb_status nb_import_constant_of_shape(nb_importer *im) {
    const nb_dim *const *dims;
    size_t n;
    NB_TRY(nb_dims_of(im, 0, &dims, &n));
    NB_TRY(check_rank(im, n));
    const Onnx__AttributeProto *a = nb_node_attr(im, "value");
    nb_value *v = NULL;
    if (a && a->t) {
        nb_onnx_tensor t;
        NB_TRY(nb_onnx_read_tensor(im->m, a->t, "attribute \"value\"", &t));
        if (t.blob->size != (nb_elems[t.elem].bits + 7) / 8) {
            nb_blob_release(t.blob);
            return nb_node_error(im, NB_MALFORMED, "the value is not one element");
        }
        t.rank = 0;
        v = nb_graph_add_const(im->g, "value", nb_type_intern(im->g, t.elem, NULL, 0, NULL), t.blob,
                               im->b.loc);
    } else {
        v = nb_scalar(im, NB_F32, 0);
    }
    return nb_node_output(im, 0, nb_expand_to(im, v, (int)n, dims));
}

nb_status nb_import_shape(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    int64_t rank = x->type->rank, start = nb_node_int(im, "start", 0),
            end = nb_node_int(im, "end", rank);
    start = nb_min_i64(nb_max_i64(start < 0 ? start + rank : start, 0), rank);
    end = nb_min_i64(nb_max_i64(end < 0 ? end + rank : end, start), rank);
    return nb_node_output(im, 0,
                          nb_make_dims(im, (size_t)(end - start), x->type->dims + start, false));
}

nb_status nb_import_size(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    const nb_dim *count = nb_type_count(im->g, x->type);
    return nb_node_output(im, 0, nb_make_dims(im, 1, &count, true));
}

/* ---- shapes --------------------------------------------------------------------------------- */

/* A target that only data tell: 0 copies, -1 is what is left. The sizes are counted; that they hold
 * all elements is checked in the run, and not to be seen from the expressions: so the elements are
 * taken one by one, as many as the target has. */
static nb_status reshape_counted(nb_importer *im, nb_value *x, nb_value *to) {
    const nb_dim *own[NB_MAX_RANK], *const *dims, *count = nb_type_count(im->g, x->type);
    const int n = (int)to->type->dims[0]->value;
    size_t n_dims;
    for (int d = 0; d < n; d++) own[d] = d < x->type->rank ? x->type->dims[d] : nb_num(im, 0);
    nb_value *zero = nb_scalar(im, NB_I64, 0), *all = nb_make_dims(im, 1, &count, true);
    if (nb_node_int(im, "allowzero", 0) == 0)
        to = nb_choose(im, nb_combine(im, NB_OP_eq, to, zero),
                       nb_make_dims(im, (size_t)n, own, false), to);
    /* With one -1 the product is minus that of the others. */
    nb_value *others = nb_times(im, nb_reduce(im, NB_OP_reduce_prod, to, 0, NULL, false), -1);
    nb_value *rest = others ? nb_combine(im, NB_OP_div, all, others) : NULL;
    to = rest ? nb_choose(im, nb_combine(im, NB_OP_eq, to, nb_scalar(im, NB_I64, -1)), rest, to)
              : NULL;
    nb_value *product = to ? nb_reduce(im, NB_OP_reduce_prod, to, 0, NULL, false) : NULL;
    NB_TRY(nb_count_vector(im, 1, to));
    nb_value *flat = nb_reshape(&im->b, x, 1, &count);
    nb_begin(&im->b, NB_OP_bind);
    nb_arg(&im->b, product);
    nb_set_dims(&im->b, "size", 1, &count);
    if (!nb_end(&im->b)) return nb_node_output(im, 0, NULL);
    NB_TRY(nb_dims_of(im, 1, &dims, &n_dims));
    const nb_dim *room = nb_num(im, 1);
    for (int d = 0; d < n; d++) room = nb_dim_mul(im->g, room, dims[d]);
    flat = nb_take(im, flat, nb_count_up(im, nb_num(im, 0), room), 0);
    return nb_node_output(im, 0, nb_reshape(&im->b, flat, n, dims));
}

nb_status nb_import_reshape(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *const *shape, *dims[NB_MAX_RANK], *rest = nb_num(im, 1);
    size_t n;
    if (!x) return NB_MALFORMED;
    if (!nb_is_known(im, 1) && !nb_assume(im, 1, &n) && im->diags->errors == im->errors) {
        nb_value *to = nb_vector_of(im, 1, &n);
        if (to && n <= NB_MAX_RANK) return reshape_counted(im, x, to);
    }
    NB_TRY(nb_known_dims_of(im, 1, &shape, &n));
    NB_TRY(check_rank(im, n));
    bool zero_is_zero = nb_node_int(im, "allowzero", 0) != 0;
    int unknown = -1;
    for (size_t d = 0; d < n; d++) {
        dims[d] = shape[d];
        if (nb_dim_is_const(shape[d]) && shape[d]->value < -1)
            return nb_node_error(im, NB_MALFORMED, "dimension %zu is %lld", d,
                                 (long long)shape[d]->value);
        if (nb_dim_is(shape[d], 0) && !zero_is_zero) {
            if ((int)d >= x->type->rank)
                return nb_node_error(im, NB_MALFORMED,
                                     "dimension %zu is copied from an input of rank %d", d,
                                     x->type->rank);
            dims[d] = x->type->dims[d];
        }
        if (nb_dim_is(shape[d], -1)) {
            if (unknown >= 0) return nb_node_error(im, NB_MALFORMED, "two dimensions are -1");
            unknown = (int)d;
        } else {
            rest = nb_dim_mul(im->g, rest, dims[d]);
        }
    }
    if (unknown >= 0) {
        if (nb_dim_is(rest, 0))
            return nb_node_error(im, NB_MALFORMED, "-1 beside a dimension of 0 says nothing");
        dims[unknown] = nb_dim_floordiv(im->g, nb_type_count(im->g, x->type), rest);
    } else {
        /* Two ways to count the same elements: what differs in form only is equal. */
        const nb_dim *count = nb_type_count(im->g, x->type);
        if (count != rest) NB_TRY(nb_unify(im, count, rest));
        NB_TRY(nb_known_dims_of(im, 1, &shape, &n)); /* again: a symbol may have been replaced */
        for (size_t d = 0; d < n; d++)
            dims[d] = nb_dim_is(shape[d], 0) && !zero_is_zero ? x->type->dims[d] : shape[d];
    }
    return nb_node_output(im, 0, nb_reshape(&im->b, x, (int)n, dims));
}

nb_status nb_import_flatten(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    int64_t axis = nb_node_int(im, "axis", 1), rank = x->type->rank;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis > rank)
        return nb_node_error(im, NB_MALFORMED, "axis %lld is out of range for rank %lld",
                             (long long)axis, (long long)rank);
    const nb_dim *dims[2] = {nb_num(im, 1), nb_num(im, 1)};
    for (int64_t d = 0; d < rank; d++)
        dims[d >= axis] = nb_dim_mul(im->g, dims[d >= axis], x->type->dims[d]);
    return nb_node_output(im, 0, nb_reshape(&im->b, x, 2, dims));
}

nb_status nb_import_squeeze(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const int64_t *axes;
    size_t n;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axes(im, 1, x->type->rank, &axes, &n));
    bool gone[NB_MAX_RANK] = {false};
    for (size_t i = 0; i < n; i++) {
        gone[axes[i]] = true;
        NB_TRY(nb_unify(im, x->type->dims[axes[i]], nb_num(im, 1)));
    }
    const nb_dim *dims[NB_MAX_RANK];
    int rank = 0;
    for (int d = 0; d < x->type->rank; d++) {
        if (n ? !gone[d] : !nb_dim_is(x->type->dims[d], 1)) dims[rank++] = x->type->dims[d];
    }
    return nb_node_output(im, 0, nb_reshape(&im->b, x, rank, dims));
}

nb_status nb_import_unsqueeze(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    size_t n;
    if (!x) return NB_MALFORMED;
    const int64_t *given = nb_node_ints(im, "axes", &n);
    if (!given) NB_TRY(nb_ints_of(im, 1, &given, &n));
    int rank = x->type->rank + (int)n;
    NB_TRY(check_rank(im, (size_t)x->type->rank + n));
    bool added[NB_MAX_RANK] = {false};
    for (size_t i = 0; i < n; i++) {
        int64_t axis;
        NB_TRY(nb_axis(im, given[i], rank, &axis));
        if (added[axis])
            return nb_node_error(im, NB_MALFORMED, "axis %lld is added twice", (long long)axis);
        added[axis] = true;
    }
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0, from = 0; d < rank; d++)
        dims[d] = added[d] ? nb_num(im, 1) : x->type->dims[from++];
    return nb_node_output(im, 0, nb_reshape(&im->b, x, rank, dims));
}

/* A target that only data tell: where it is 1, the input's own dimension. */
static nb_status count_target(nb_importer *im, const nb_value *x) {
    const nb_dim *own[NB_MAX_RANK];
    size_t n;
    if (im->counted[1] || nb_is_known(im, 1) || nb_assume(im, 1, &n)) return NB_OK;
    nb_value *want = nb_vector_of(im, 1, &n);
    if (!want || n > NB_MAX_RANK) return NB_OK; /* nb_dims_of says so */
    for (int d = 0; d < (int)n; d++) {
        const int from = d + x->type->rank - (int)n;
        own[d] = from < 0 ? nb_num(im, 1) : x->type->dims[from];
    }
    nb_value *keeps = nb_combine(im, NB_OP_eq, want, nb_scalar(im, NB_I64, 1));
    return nb_count_vector(im, 1, nb_choose(im, keeps, nb_make_dims(im, n, own, false), want));
}

/* ONNX broadcasts both ways: a target of 1 keeps the input's dimension. */
nb_status nb_import_expand(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *const *shape, *dims[NB_MAX_RANK];
    size_t n;
    if (!x) return NB_MALFORMED;
    NB_TRY(count_target(im, x));
    NB_TRY(nb_dims_of(im, 1, &shape, &n));
    NB_TRY(check_rank(im, n));
    int rank = nb_max_i64((int64_t)n, x->type->rank) == x->type->rank ? x->type->rank : (int)n;
    for (int d = 0; d < rank; d++) {
        int from = d - (rank - x->type->rank), to = d - (rank - (int)n);
        const nb_dim *have = from >= 0 ? x->type->dims[from] : nb_num(im, 1),
                     *want = to >= 0 ? shape[to] : nb_num(im, 1);
        dims[d] = nb_dim_is(want, 1) ? have : want;
        if (have != dims[d] && !nb_dim_is(have, 1)) {
            NB_TRY(nb_unify(im, have, want));
            return nb_import_expand(
                im); /* dims may have been rewritten: once more, with one symbol less */
        }
    }
    return nb_node_output(im, 0, nb_expand_to(im, x, rank, dims));
}

/* Each axis of length n becomes [repeat, n], then one axis. */
nb_status nb_import_tile(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *const *repeats;
    size_t n;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_dims_of(im, 1, &repeats, &n));
    if ((int)n != x->type->rank)
        return nb_node_error(im, NB_MALFORMED, "%zu repeats for rank %d", n, x->type->rank);
    for (int d = 0; d < (int)n && x; d++) {
        if (nb_dim_is(repeats[d], 1)) continue;
        int rank = x->type->rank;
        NB_TRY(check_rank(im, (size_t)rank + 1));
        const nb_dim *split[NB_MAX_RANK], *wide[NB_MAX_RANK], *flat[NB_MAX_RANK];
        for (int k = 0; k <= rank; k++) {
            split[k] = k < d ? x->type->dims[k] : k == d ? nb_num(im, 1) : x->type->dims[k - 1];
            wide[k] = k == d ? repeats[d] : split[k];
        }
        for (int k = 0; k < rank; k++)
            flat[k] = k == d ? nb_dim_mul(im->g, repeats[d], x->type->dims[k]) : x->type->dims[k];
        x = nb_reshape(&im->b,
                       nb_expand_to(im, nb_reshape(&im->b, x, rank + 1, split), rank + 1, wide),
                       rank, flat);
    }
    return nb_node_output(im, 0, x);
}

nb_status nb_import_transpose(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    size_t n;
    if (!x) return NB_MALFORMED;
    const int64_t *perm = nb_node_ints(im, "perm", &n);
    int64_t reversed[NB_MAX_RANK];
    for (int d = 0; d < x->type->rank; d++) reversed[d] = x->type->rank - 1 - d;
    if (perm && (int)n != x->type->rank)
        return nb_node_error(im, NB_MALFORMED, "perm has %zu entries for rank %d", n,
                             x->type->rank);
    return nb_node_output(im, 0, nb_permute(im, x, perm ? perm : reversed));
}

nb_status nb_import_concat(nb_importer *im) {
    nb_value *first = nb_node_input(im, 0);
    int64_t axis;
    if (!first) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), first->type->rank, &axis));
    NB_VEC(nb_value *) parts = {0};
    nb_vec_push(im->arena, &parts, first);
    for (size_t i = 1; i < nb_node_inputs(im); i++) {
        nb_value *x = nb_node_input(im, i);
        for (int d = 0; x && d < first->type->rank && d < x->type->rank; d++) {
            if (d == axis) continue;
            x = nb_sized(im, x, d, first->type->dims[d]);
            if (x) NB_TRY(nb_unify(im, first->type->dims[d], x->type->dims[d]));
        }
        if (!x) return NB_MALFORMED;
        nb_vec_push(im->arena, &parts, x);
    }
    nb_begin(&im->b, NB_OP_concat);
    for (size_t i = 0; i < parts.count; i++) nb_arg(&im->b, parts.items[i]);
    nb_set_int(&im->b, "axis", axis);
    return nb_node_output(im, 0, nb_end(&im->b));
}

/* ---- slices --------------------------------------------------------------------------------- */

/* A bound of Slice, brought to low..high: negative counts from the end, beyond the end is the end.
 * NULL after an error: a bound that is negative in some runs only has no one expression. */
static const nb_dim *bound(nb_importer *im, const nb_dim *at, const nb_dim *length, int64_t low,
                           const nb_dim *high) {
    nb_graph *g = im->g;
    if (nb_dim_is_const(at) && at->value >= INT32_MAX) return high;
    if (nb_dim_is_const(at) && at->value <= -INT32_MAX) return nb_num(im, low);
    int64_t least, most;
    nb_dim_range(at, &least, &most);
    const nb_dim *next = nb_dim_add(g, at, nb_num(im, 1));
    if (most < 0) {
        at = nb_dim_add(g, at, length);
    } else if (least < 0 && next != length) {
        /* s-k with s < k would count from the end: such runs are refused instead. (With s-1, s the
         * length itself, there is nothing to count.) */
        const nb_dim *less = at->kind == NB_DIM_ADD && nb_dim_is_const(at->a)   ? at->a
                             : at->kind == NB_DIM_ADD && nb_dim_is_const(at->b) ? at->b
                                                                                : nb_num(im, 0),
                     *s = nb_dim_sub(g, at, less);
        if (s->kind != NB_DIM_SYMBOL) {
            nb_node_error(im, NB_UNSUPPORTED,
                          "a bound of %s counts from the start or the end, depending on the run",
                          nb_dim_text(im->arena, at));
            return NULL;
        }
        nb_symbol_narrow(g, s->symbol, -less->value, INT64_MAX);
    }
    return nb_dim_max(g, nb_num(im, low), nb_dim_min(g, at, high));
}

static nb_value *slice_one(nb_importer *im, nb_value *x, int axis, const nb_dim *start,
                           const nb_dim *end, int64_t step) {
    nb_graph *g = im->g;
    bool forward = step > 0;
    const nb_dim *length = x->type->dims[axis],
                 *high = forward ? length : nb_dim_sub(g, length, nb_num(im, 1));
    start = bound(im, start, length, 0, high);
    end = start ? bound(im, end, length, forward ? 0 : -1, high) : NULL;
    if (!end) return NULL;
    const nb_dim *span = forward ? nb_dim_sub(g, end, start) : nb_dim_sub(g, start, end);
    const nb_dim *count =
        nb_dim_ceildiv(g, nb_dim_max(g, span, nb_num(im, 0)), nb_num(im, forward ? step : -step));
    /* The start of a backward slice is at least 0, where an empty axis has nothing. */
    if (!forward) count = nb_dim_min(g, count, length);
    return nb_slice_axis(im, x, axis, start, count, step);
}

nb_status nb_import_slice(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *const *starts, *const *ends;
    const int64_t *axes = NULL, *steps = NULL;
    size_t n, ne, na = 0, ns = 0;
    if (!x) return NB_MALFORMED;
    if (im->opset < 10) { /* bounds were attributes */
        const int64_t *s = nb_node_ints(im, "starts", &n), *e = nb_node_ints(im, "ends", &ne);
        const nb_dim **ds = (const nb_dim **)nb_alloc_array(im->arena, n + 1, sizeof *ds),
                     **de = (const nb_dim **)nb_alloc_array(im->arena, ne + 1, sizeof *de);
        for (size_t i = 0; i < n; i++) ds[i] = nb_num(im, s[i]);
        for (size_t i = 0; i < ne; i++) de[i] = nb_num(im, e[i]);
        starts = ds;
        ends = de;
        axes = nb_node_ints(im, "axes", &na);
    } else {
        bool known = true;
        for (size_t i = 1; i < 5; i++) known = known && nb_is_known(im, i);
        if (!known) return nb_slice_any(im);
        NB_TRY(nb_dims_of(im, 1, &starts, &n));
        NB_TRY(nb_dims_of(im, 2, &ends, &ne));
        if (nb_has_input(im, 3)) NB_TRY(nb_ints_of(im, 3, &axes, &na));
        if (nb_has_input(im, 4)) NB_TRY(nb_ints_of(im, 4, &steps, &ns));
    }
    if (ne != n || (axes && na != n) || (steps && ns != n) || (int)n > x->type->rank)
        return nb_node_error(im, NB_MALFORMED,
                             "starts, ends, axes and steps have different lengths");
    bool sliced[NB_MAX_RANK] = {false};
    for (size_t i = 0; i < n && x; i++) {
        int64_t axis, step = steps ? steps[i] : 1;
        NB_TRY(nb_axis(im, axes ? axes[i] : (int64_t)i, x->type->rank, &axis));
        if (sliced[axis])
            return nb_node_error(im, NB_MALFORMED, "axis %lld is sliced twice", (long long)axis);
        sliced[axis] = true;
        if (step == 0 || step == INT64_MIN)
            return nb_node_error(im, NB_MALFORMED, "step %lld along axis %lld", (long long)step,
                                 (long long)axis);
        x = slice_one(im, x, (int)axis, starts[i], ends[i], step);
    }
    return nb_node_output(im, 0, x);
}

nb_status nb_import_split(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    int64_t axis;
    size_t n;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
    const int64_t *sizes = nb_node_ints(im, "split", &n);
    if (!sizes && nb_has_input(im, 1)) NB_TRY(nb_ints_of(im, 1, &sizes, &n));
    size_t parts = im->node->n_output;
    if (sizes && n != parts)
        return nb_node_error(im, NB_MALFORMED, "%zu sizes for %zu outputs", n, parts);
    const nb_dim *length = x->type->dims[axis], *at = nb_num(im, 0);
    /* The last part may be smaller (opset 18). */
    const nb_dim *each = nb_dim_ceildiv(im->g, length, nb_num(im, (int64_t)parts));
    const nb_dim *sum = nb_num(im, 0);
    for (size_t i = 0; sizes && i < parts; i++) sum = nb_dim_add(im->g, sum, nb_num(im, sizes[i]));
    if (sizes) NB_TRY(nb_unify(im, length, sum));
    for (size_t i = 0; i < parts; i++) {
        const nb_dim *size = sizes           ? nb_num(im, sizes[i])
                             : i + 1 < parts ? each
                                             : nb_dim_sub(im->g, length, at);
        NB_TRY(nb_node_output(im, i, nb_slice_axis(im, x, (int)axis, at, size, 1)));
        at = nb_dim_add(im->g, at, size);
    }
    return NB_OK;
}

nb_status nb_import_gather(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *index = nb_node_input(im, 1);
    int64_t axis, count;
    if (!x || !index) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
    const nb_dim *length = x->type->dims[axis];
    if (nb_is_const(index) && nb_dim_is_const(length) && nb_elem_is_integer(index->type->elem) &&
        nb_type_static_count(index->type, &count) && count <= NB_SYMBOLIC_MAX) {
        size_t n;
        const nb_dim *const *at = index->type->rank <= 1 ? nb_symbolic(im->g, index, &n) : NULL;
        for (size_t i = 0; at && i < n; i++) {
            if (at[i]->value < -length->value || at[i]->value >= length->value)
                return nb_node_error(
                    im, NB_MALFORMED, "index %lld is outside axis %lld of length %lld",
                    (long long)at[i]->value, (long long)axis, (long long)length->value);
        }
    }
    return nb_node_output(im, 0, nb_take(im, x, index, (int)axis));
}

/* Keeps column j of row i where j - i <= k (lower) or >= k (upper). */
nb_status nb_import_trilu(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (x->type->rank < 2)
        return nb_node_error(im, NB_MALFORMED, "rank %d is below 2", x->type->rank);
    bool upper = nb_node_int(im, "upper", 1) != 0;
    const nb_dim *rows = x->type->dims[x->type->rank - 2],
                 *columns = x->type->dims[x->type->rank - 1], *one = nb_num(im, 1);
    nb_value *k = nb_has_input(im, 1) ? nb_reshape(&im->b, nb_node_input(im, 1), 0, NULL)
                                      : nb_scalar(im, NB_I64, 0);
    nb_value *i =
        nb_reshape(&im->b, nb_count_up(im, nb_num(im, 0), rows), 2, (const nb_dim *[]){rows, one});
    nb_value *j = nb_count_up(im, nb_num(im, 0), columns), *edge = nb_combine(im, NB_OP_add, i, k);
    nb_value *kept = upper ? nb_combine(im, NB_OP_le, edge, j) : nb_combine(im, NB_OP_le, j, edge);
    return nb_node_output(im, 0,
                          kept ? nb_choose(im, kept, x, nb_scalar(im, x->type->elem, 0)) : NULL);
}

/* ---- blocks --------------------------------------------------------------------------------- */

static nb_status read_blocks(nb_importer *im, nb_value **x, int64_t *size) {
    *x = nb_node_input(im, 0);
    *size = nb_node_int(im, "blocksize", 0);
    if (!*x) return NB_MALFORMED;
    if ((*x)->type->rank == 4 && *size >= 1 && *size <= INT32_MAX) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "blocks of %lld in rank %d, expected rank 4",
                         (long long)*size, (*x)->type->rank);
}

/* The dimension in parts of `by`; NULL after an error. */
static const nb_dim *parts_of(nb_importer *im, const nb_type *t, int axis, int64_t by) {
    const nb_dim *d = t->dims[axis], *part = nb_dim_floordiv(im->g, d, nb_num(im, by));
    if (nb_dim_mul(im->g, part, nb_num(im, by)) == d) return part;
    nb_node_error(im, nb_dim_is_const(d) ? NB_MALFORMED : NB_UNSUPPORTED,
                  "axis %d of length %s must be a multiple of %lld", axis,
                  nb_dim_text(im->arena, d), (long long)by);
    return NULL;
}

/* Channels become blocks of height and width: [b,b,C] (DCR) or [C,b,b] (CRD) of them. */
nb_status nb_import_depth_to_space(nb_importer *im) {
    static const int64_t dcr[6] = {0, 3, 4, 1, 5, 2}, crd[6] = {0, 1, 4, 2, 5, 3};
    nb_value *x;
    int64_t size;
    NB_TRY(read_blocks(im, &x, &size));
    const char *mode = nb_node_string(im, "mode", "DCR");
    bool first = strcmp(mode, "DCR") == 0;
    if (!first && strcmp(mode, "CRD") != 0)
        return nb_node_error(im, NB_MALFORMED, "mode is '%s', expected DCR or CRD", mode);
    const nb_type *t = x->type;
    const nb_dim *b = nb_num(im, size), *c = parts_of(im, t, 1, size * size);
    if (!c) return NB_MALFORMED;
    const nb_dim *split[6] = {t->dims[0], first ? b : c, b, first ? c : b, t->dims[2], t->dims[3]};
    const nb_dim *whole[4] = {t->dims[0], c, nb_dim_mul(im->g, t->dims[2], b),
                              nb_dim_mul(im->g, t->dims[3], b)};
    x = nb_transpose(&im->b, nb_reshape(&im->b, x, 6, split), first ? dcr : crd);
    return nb_node_output(im, 0, nb_reshape(&im->b, x, 4, whole));
}

nb_status nb_import_space_to_depth(nb_importer *im) {
    static const int64_t perm[6] = {0, 3, 5, 1, 2, 4};
    nb_value *x;
    int64_t size;
    NB_TRY(read_blocks(im, &x, &size));
    const nb_type *t = x->type;
    const nb_dim *b = nb_num(im, size), *h = parts_of(im, t, 2, size),
                 *w = h ? parts_of(im, t, 3, size) : NULL;
    if (!w) return NB_MALFORMED;
    const nb_dim *split[6] = {t->dims[0], t->dims[1], h, b, w, b};
    const nb_dim *whole[4] = {t->dims[0], nb_dim_mul(im->g, t->dims[1], nb_dim_mul(im->g, b, b)), h,
                              w};
    x = nb_transpose(&im->b, nb_reshape(&im->b, x, 6, split), perm);
    return nb_node_output(im, 0, nb_reshape(&im->b, x, 4, whole));
}
