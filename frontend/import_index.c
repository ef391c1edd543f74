/* Elements and slices at run-time indices: Gather, GatherElements, GatherND, their Scatter
 * counterparts, ReverseSequence.
 *
 * All become gather or scatter along the first axis of a tensor whose leading axes are one: the
 * places there are counted in arithmetic of integers. An index out of range becomes a place out of
 * range, which the run refuses. */
#include "frontend/import.h"

#include <string.h>

/* ---- places --------------------------------------------------------------------------------- */

typedef struct places {
    nb_value *sum;     /* i64: where in the merged axes; NULL: 0 so far */
    nb_value *outside; /* bool: an index is out of range; NULL: none can be */
} places;

static nb_value *number(nb_importer *im, const nb_dim *d) { return nb_make_dims(im, 1, &d, true); }

static void add_place(nb_importer *im, places *p, nb_value *at, const nb_dim *stride) {
    if (!nb_dim_is(stride, 1)) at = nb_combine(im, NB_OP_mul, at, number(im, stride));
    p->sum = p->sum ? nb_combine(im, NB_OP_add, p->sum, at) : at;
}

static void add_outside(nb_importer *im, places *p, nb_value *is) {
    p->outside = p->outside ? nb_combine(im, NB_OP_or, p->outside, is) : is;
}

/* Indices into an axis; negative ones count from its end. */
static void add_index(nb_importer *im, places *p, nb_value *index, const nb_dim *length,
                      const nb_dim *stride) {
    nb_value *zero = nb_scalar(im, NB_I64, 0), *n = number(im, length);
    nb_value *from_end = nb_combine(im, NB_OP_add, index, n);
    index = nb_choose(im, nb_combine(im, NB_OP_lt, index, zero), from_end, index);
    add_outside(im, p, nb_combine(im, NB_OP_lt, index, zero));
    add_outside(im, p, nb_combine(im, NB_OP_le, n, index));
    add_place(im, p, index, stride);
}

/* Every place of axis d of `rank`, which has `count` of the `length` there are. */
static void add_axis(nb_importer *im, places *p, int rank, int d, const nb_dim *count,
                     const nb_dim *length, const nb_dim *stride) {
    nb_value *at = nb_positions(im, rank, d, count);
    bool fits = count == length || (nb_dim_is_const(count) && nb_dim_is_const(length));
    if (!fits) add_outside(im, p, nb_combine(im, NB_OP_le, number(im, length), at));
    add_place(im, p, at, stride);
}

static nb_value *finish(nb_importer *im, const places *p) {
    nb_value *nowhere = nb_scalar(im, NB_I64, -0x1p63);
    return p->outside ? nb_choose(im, p->outside, nowhere, p->sum) : p->sum;
}

static nb_value *read_index(nb_importer *im, size_t i) {
    nb_value *index = nb_node_input(im, i);
    if (!index) return NULL;
    if (!nb_elem_is_integer(index->type->elem)) {
        nb_node_error(im, NB_MALFORMED, "indices are integers, found %s",
                      nb_elems[index->type->elem].text);
        return NULL;
    }
    return index->type->elem == NB_I64 ? index : nb_cast(&im->b, index, NB_I64);
}

/* Product of dims[from .. to-1]. */
static const nb_dim *product(nb_importer *im, const nb_type *t, int from, int to) {
    const nb_dim *n = nb_num(im, 1);
    for (int d = from; d < to; d++) n = nb_dim_mul(im->g, n, t->dims[d]);
    return n;
}

/* x with its first `n` axes as one. */
static nb_value *merged(nb_importer *im, nb_value *x, int n) {
    const nb_dim *dims[NB_MAX_RANK] = {product(im, x->type, 0, n)};
    for (int d = n; d < x->type->rank; d++) dims[d - n + 1] = x->type->dims[d];
    return nb_reshape(&im->b, x, x->type->rank - n + 1, dims);
}

/* ---- elements ------------------------------------------------------------------------------- */

/* The element of x at each position of `index`, but along `axis` at the index that stands there. */
static nb_status element_places(nb_importer *im, nb_value *x, nb_value *index, int64_t axis,
                                nb_value **out) {
    const nb_type *t = x->type, *it = index->type;
    places p = {NULL, NULL};
    if (it->rank != t->rank)
        return nb_node_error(im, NB_MALFORMED, "indices of rank %d for a tensor of rank %d",
                             it->rank, t->rank);
    for (int d = 0; d < t->rank; d++) {
        const nb_dim *stride = product(im, t, d + 1, t->rank), *count = it->dims[d];
        if (d == axis) {
            add_index(im, &p, index, t->dims[d], stride);
            continue;
        }
        if (nb_dim_is_const(count) && nb_dim_is_const(t->dims[d]) &&
            count->value > t->dims[d]->value)
            return nb_node_error(im, NB_MALFORMED, "axis %d has length %lld, and %lld of indices",
                                 d, (long long)t->dims[d]->value, (long long)count->value);
        if (!nb_dim_is(count, 1)) add_axis(im, &p, t->rank, d, count, t->dims[d], stride);
    }
    *out = finish(im, &p);
    return *out ? NB_OK : NB_MALFORMED;
}

static nb_status read_elements(nb_importer *im, nb_value **x, nb_value **at) {
    int64_t axis;
    nb_value *index = read_index(im, 1);
    *x = nb_node_input(im, 0);
    if (!*x || !index) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), (*x)->type->rank, &axis));
    return element_places(im, *x, index, axis, at);
}

nb_status nb_import_gather_elements(nb_importer *im) {
    nb_value *x, *at;
    NB_TRY(read_elements(im, &x, &at));
    return nb_node_output(im, 0, nb_take(im, merged(im, x, x->type->rank), at, 0));
}

/* ---- slices --------------------------------------------------------------------------------- */

/* Index tuples along the last axis of input 1 address the axes of x behind the first `batch`, which
 * both share. *axes: how many axes of x that are. */
static nb_status tuple_places(nb_importer *im, nb_value *x, int batch, nb_value **out, int *axes) {
    nb_value *index = read_index(im, 1);
    if (!index) return NB_MALFORMED;
    int rank = index->type->rank;
    const nb_dim *n = rank ? index->type->dims[rank - 1] : NULL;
    if (!n || !nb_dim_is_const(n) || batch < 0 || batch >= rank ||
        n->value > x->type->rank - batch || n->value < 1)
        return nb_node_error(im, NB_MALFORMED, "indices of %s into %s with %d common axes",
                             nb_type_text(im->arena, index->type), nb_type_text(im->arena, x->type),
                             batch);
    for (int d = 0; d < batch; d++) NB_TRY(nb_unify(im, index->type->dims[d], x->type->dims[d]));
    *axes = batch + (int)n->value;
    places p = {NULL, NULL};
    const nb_type *t = x->type;
    for (int d = 0; d < batch; d++)
        add_axis(im, &p, rank - 1, d, t->dims[d], t->dims[d], product(im, t, d + 1, *axes));
    for (int d = batch; d < *axes; d++) {
        nb_value *one = nb_slice_axis(im, index, rank - 1, nb_num(im, d - batch), nb_num(im, 1), 1);
        if (!one) return NB_MALFORMED;
        one = nb_reshape(&im->b, one, rank - 1, index->type->dims);
        add_index(im, &p, one, t->dims[d], product(im, t, d + 1, *axes));
    }
    *out = finish(im, &p);
    return *out ? NB_OK : NB_MALFORMED;
}

nb_status nb_import_gather_nd(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *at;
    int64_t batch = nb_node_int(im, "batch_dims", 0);
    int axes;
    if (!x) return NB_MALFORMED;
    if (batch < 0 || batch >= x->type->rank)
        return nb_node_error(im, NB_MALFORMED, "batch_dims %lld for rank %d", (long long)batch,
                             x->type->rank);
    NB_TRY(tuple_places(im, x, (int)batch, &at, &axes));
    return nb_node_output(im, 0, nb_take(im, merged(im, x, axes), at, 0));
}

/* ---- scatter -------------------------------------------------------------------------------- */

static nb_status read_reduction(nb_importer *im, nb_op_kind *kind) {
    static const struct {
        const char *name;
        nb_op_kind kind;
    } kinds[] = {{"none", NB_OP_scatter},
                 {"add", NB_OP_scatter_add},
                 {"mul", NB_OP_scatter_mul},
                 {"min", NB_OP_scatter_min},
                 {"max", NB_OP_scatter_max}};
    const char *name = nb_node_string(im, "reduction", "none");
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        *kind = kinds[i].kind;
        if (strcmp(kinds[i].name, name) == 0) return NB_OK;
    }
    return nb_node_error(im, NB_MALFORMED, "reduction is '%s', expected none, add, mul, min or max",
                         name);
}

/* x, of which the first `axes` are addressed by `at`, with input 2 at these places. */
static nb_status scatter(nb_importer *im, nb_value *x, int axes, nb_value *at) {
    nb_value *updates = nb_node_input(im, 2);
    nb_op_kind kind;
    if (!updates) return NB_MALFORMED;
    NB_TRY(read_reduction(im, &kind));
    const nb_type *t = x->type;
    int rank = at->type->rank + t->rank - axes;
    if (updates->type->rank != rank)
        return nb_node_error(im, NB_MALFORMED, "updates of rank %d, expected %d",
                             updates->type->rank, rank);
    for (int d = 0; d < rank; d++) {
        bool place = d < at->type->rank;
        NB_TRY(nb_unify(im, updates->type->dims[d],
                        place ? at->type->dims[d] : x->type->dims[d - at->type->rank + axes]));
    }
    nb_value *flat = merged(im, x, axes);
    nb_begin(&im->b, kind);
    nb_arg(&im->b, flat);
    nb_arg(&im->b, at);
    nb_arg(&im->b, updates);
    return nb_node_output(im, 0, nb_reshape(&im->b, nb_end(&im->b), x->type->rank, x->type->dims));
}

nb_status nb_import_scatter_elements(nb_importer *im) {
    nb_value *x, *at;
    NB_TRY(read_elements(im, &x, &at));
    return scatter(im, x, x->type->rank, at);
}

nb_status nb_import_scatter_nd(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *at;
    int axes;
    if (!x) return NB_MALFORMED;
    NB_TRY(tuple_places(im, x, 0, &at, &axes));
    return scatter(im, x, axes, at);
}

/* ---- ReverseSequence ------------------------------------------------------------------------ */

/* The first `length` entries of time in reverse order, for each entry of the batch. */
nb_status nb_import_reverse_sequence(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *lengths = read_index(im, 1);
    int64_t time = nb_node_int(im, "time_axis", 0), batch = nb_node_int(im, "batch_axis", 1);
    if (!x || !lengths) return NB_MALFORMED;
    if (x->type->rank < 2 || time + batch != 1 || (time != 0 && time != 1) ||
        lengths->type->rank != 1)
        return nb_node_error(im, NB_MALFORMED,
                             "expected time and batch as the first two axes, and a vector of "
                             "lengths");
    NB_TRY(nb_unify(im, lengths->type->dims[0], x->type->dims[batch]));
    const nb_type *t = x->type;
    nb_value *step = nb_positions(im, 2, (int)time, t->dims[time]),
             *length = nb_along(im, lengths, 2, (int)batch);
    nb_value *mirror = nb_plus(im, nb_combine(im, NB_OP_sub, length, step), -1);
    nb_value *at = nb_choose(im, nb_combine(im, NB_OP_lt, step, length), mirror, step);
    places p = {NULL, NULL};
    add_index(im, &p, at, t->dims[time], product(im, t, (int)time + 1, 2));
    add_axis(im, &p, 2, (int)batch, t->dims[batch], t->dims[batch],
             product(im, t, (int)batch + 1, 2));
    nb_value *where = finish(im, &p);
    return nb_node_output(
        im, 0, nb_reshape(&im->b, nb_take(im, merged(im, x, 2), where, 0), t->rank, t->dims));
}
