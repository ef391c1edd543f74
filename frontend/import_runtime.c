/* Operators whose axes, places or numbers are known to a run only, where import_assume.c is not
 * enough: the shape of what they give is the declared one, or counted, and the rest is computed in
 * the run. */
#include "frontend/import.h"

#include <string.h>

static nb_status unknown(nb_importer *im, size_t input) {
    nb_node_error(im, NB_UNSUPPORTED,
                  "input %zu \"%s\" depends on data, and the model does not declare the shape of "
                  "the output",
                  input, im->node->input[input]);
    nb_help(im->diags, "export the model with this value as a constant");
    return NB_UNSUPPORTED;
}

bool nb_is_known(nb_importer *im, size_t input) {
    size_t n;
    nb_value *v = nb_has_input(im, input) ? nb_node_input(im, input) : NULL;
    return !v || nb_symbolic(im->g, v, &n) || nb_fold(im, v, &n);
}

/* ---- reductions ----------------------------------------------------------------------------- */

/* Does reducing the axes of `set` give the declared shape? */
static bool gives(const nb_value *x, unsigned set, bool keep, const int64_t *out, int rank) {
    int to = 0;
    for (int d = 0; d < x->type->rank; d++) {
        bool reduced = set >> d & 1;
        if (reduced && !keep) continue;
        if (to == rank) return false;
        if (reduced ? out[to] != 1
                    : nb_dim_is_const(x->type->dims[d]) && x->type->dims[d]->value != out[to])
            return false;
        to++;
    }
    return to == rank;
}

/* All sets of as many axes that give the declared shape are tried; the run picks one. */
nb_status nb_reduce_any_axes(nb_importer *im, nb_value *x, bool keep, nb_reduced_fn reduced) {
    int64_t out[NB_MAX_RANK];
    int rank;
    size_t n;
    nb_value *axes = nb_vector_of(im, 1, &n), *y = NULL, *found = NULL;
    if (!axes || !nb_declared(im, 0, out, &rank)) return unknown(im, 1);
    for (unsigned set = 0; set < 1u << x->type->rank; set++) {
        int64_t list[NB_MAX_RANK];
        size_t count = 0;
        for (int d = 0; d < x->type->rank; d++)
            if (set >> d & 1) list[count++] = d;
        if (count != n || !gives(x, set, keep, out, rank)) continue;
        nb_value *is = nb_axes_are(im, axes, x->type->rank, set),
                 *one = reduced(im, x, count, list);
        if (!is || !one) return nb_node_output(im, 0, NULL);
        found = found ? nb_combine(im, NB_OP_or, found, is) : is;
        y = y ? nb_choose(im, is, one, y) : one;
    }
    if (!y)
        return nb_node_error(im, NB_MALFORMED, "no %zu axes give the declared shape of the output",
                             n);
    return nb_node_output(im, 0, nb_require(im, y, found));
}

/* ---- Slice ---------------------------------------------------------------------------------- */

/* i64[rank]: for each axis its entry of `values`, or `other` where it has none. */
static nb_value *by_axis(nb_importer *im, nb_value *mask, nb_value *values, nb_value *other) {
    const int64_t first = 0;
    if (!mask || !values || !other) return NULL;
    nb_value *mine = nb_combine(im, NB_OP_mul, mask, nb_along(im, values, 2, 0));
    nb_value *sum = nb_reduce(im, NB_OP_reduce_sum, mine, 1, &first, false);
    nb_value *has = nb_reduce(im, NB_OP_reduce_max, mask, 1, &first, false);
    return sum && has ? nb_choose(im, nb_cast(&im->b, has, NB_BOOL), sum, other) : NULL;
}

static nb_value *mask_of(nb_importer *im, size_t input, size_t n, int rank) {
    size_t n_axes = n;
    int64_t all[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) all[d] = d;
    if (!nb_has_input(im, input)) return nb_axes_mask(im, nb_numbers(im, n, all), rank);
    nb_value *axes = nb_vector_of(im, input, &n_axes);
    return axes && n_axes == n ? nb_axes_mask(im, axes, rank) : NULL;
}

/* A number for each axis. */
static nb_value *repeat(nb_importer *im, int rank, int64_t value) {
    int64_t values[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) values[d] = value;
    return nb_numbers(im, (size_t)rank, values);
}

static nb_value *clamp(nb_importer *im, nb_value *x, nb_value *low, nb_value *high) {
    x = x ? nb_combine(im, NB_OP_min, x, high) : NULL;
    return x ? nb_combine(im, NB_OP_max, x, low) : NULL;
}

/* Bounds below 0 count from the end; those beyond are brought to low .. high. */
static nb_value *bound(nb_importer *im, nb_value *at, nb_value *length, nb_value *low,
                       nb_value *high) {
    if (!at) return NULL;
    nb_value *negative = nb_combine(im, NB_OP_lt, at, nb_scalar(im, NB_I64, 0));
    return clamp(im, nb_choose(im, negative, nb_combine(im, NB_OP_add, at, length), at), low, high);
}

/* The sizes of output 0, i64[rank] in a run: those that are declared, which the run is to have
 * (*holds), or counted ones, each at most what stands in `most`, if that is not NULL. */
static bool sizes(nb_importer *im, nb_value *given, int rank, const nb_dim *const *most,
                  const nb_dim **out, nb_value **holds) {
    int64_t numbers[NB_MAX_RANK];
    int declared;
    const nb_dim *one = nb_num(im, 1);
    *holds = NULL;
    if (!given) return false;
    if (nb_declared(im, 0, numbers, &declared) && declared == rank) {
        for (int d = 0; d < rank; d++) out[d] = nb_num(im, numbers[d]);
        *holds = nb_combine(im, NB_OP_eq, given, nb_numbers(im, (size_t)rank, numbers));
        return *holds != NULL;
    }
    const char *name = im->node->output[0];
    for (int d = 0; d < rank; d++) {
        nb_value *n = nb_slice_axis(im, given, 0, nb_num(im, d), one, 1);
        out[d] = nb_count(im, rank > 1 ? nb_format(im->arena, "%s.%d", name, d) : name, n,
                          most ? most[d] : NULL);
        if (!out[d]) return false;
    }
    return true;
}

/* Elements start[d] + i * step[d] of each axis d, out[d] of them. */
static nb_value *pick(nb_importer *im, nb_value *x, nb_value *start, nb_value *step,
                      const nb_dim *const *out) {
    const nb_dim *one = nb_num(im, 1);
    for (int d = 0; x && d < x->type->rank; d++) {
        const nb_dim *at = nb_num(im, d);
        nb_value *i = nb_count_up(im, nb_num(im, 0), out[d]);
        i = nb_combine(im, NB_OP_mul, i, nb_slice_axis(im, step, 0, at, one, 1));
        i = nb_combine(im, NB_OP_add, i, nb_slice_axis(im, start, 0, at, one, 1));
        x = i ? nb_take(im, x, i, d) : NULL;
    }
    return x;
}

nb_status nb_slice_any(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *out[NB_MAX_RANK];
    int rank = x->type->rank;
    size_t n, ne, ns;
    nb_value *starts = nb_vector_of(im, 1, &n), *ends = nb_vector_of(im, 2, &ne), *holds;
    if (!starts || !ends) return unknown(im, 1);
    nb_value *steps = NULL;
    if (nb_has_input(im, 4)) {
        steps = nb_vector_of(im, 4, &ns);
        if (!steps || ns != n) return unknown(im, 4);
    }
    nb_value *mask = ne == n && (int)n <= rank ? mask_of(im, 3, n, rank) : NULL;
    if (!mask)
        return nb_node_error(im, NB_MALFORMED,
                             "starts, ends, axes and steps have different lengths");
    nb_value *length = nb_make_dims(im, (size_t)rank, x->type->dims, false),
             *zero = repeat(im, rank, 0), *one = repeat(im, rank, 1), *minus = repeat(im, rank, -1);
    nb_value *start = by_axis(im, mask, starts, zero), *end = by_axis(im, mask, ends, length),
             *step = steps ? by_axis(im, mask, steps, one) : one;
    if (!start || !end || !step) return nb_node_output(im, 0, NULL);
    nb_value *last = nb_combine(im, NB_OP_sub, length, one),
             *back = nb_combine(im, NB_OP_lt, step, zero);
    nb_value *low = nb_choose(im, back, minus, zero), *high = nb_choose(im, back, last, length);
    start = bound(im, start, length, zero, high);
    end = bound(im, end, length, low, high);
    /* ceil((end - start) / step), for which division towards zero does: where it is not positive,
     * there is nothing. */
    nb_value *sign = nb_unary(&im->b, NB_OP_sign, step),
             *span = nb_combine(im, NB_OP_sub, end, start);
    span = nb_combine(im, NB_OP_add, span, nb_combine(im, NB_OP_sub, step, sign));
    nb_value *count = nb_combine(im, NB_OP_max, nb_combine(im, NB_OP_div, span, step), zero);
    if (!sizes(im, count, rank, x->type->dims, out, &holds)) return nb_node_output(im, 0, NULL);
    if (holds) start = nb_require(im, start, holds);
    return nb_node_output(im, 0, pick(im, x, start, step, out));
}

/* ---- Pad ------------------------------------------------------------------------------------ */

/* Where element `at` of an axis with its border comes from. */
static nb_value *source(nb_importer *im, const char *mode, nb_value *at, nb_value *length) {
    nb_value *zero = nb_scalar(im, NB_I64, 0), *last = nb_plus(im, length, -1);
    if (strcmp(mode, "wrap") == 0) return nb_combine(im, NB_OP_mod, at, length);
    if (strcmp(mode, "reflect") != 0) return clamp(im, at, zero, last);
    nb_value *period = nb_times(im, last, 2);
    at = nb_combine(im, NB_OP_mod, at, period);
    nb_value *back = nb_combine(im, NB_OP_sub, period, at);
    return nb_choose(im, nb_combine(im, NB_OP_lt, at, length), at, back);
}

nb_status nb_pad_any(nb_importer *im, const char *mode, nb_value *value) {
    nb_value *x = nb_node_input(im, 0);
    const nb_dim *out[NB_MAX_RANK];
    int rank = x->type->rank;
    size_t n;
    nb_value *pads = nb_vector_of(im, 1, &n), *holds;
    if (!pads) return unknown(im, 1);
    const nb_dim *half = nb_num(im, (int64_t)n / 2), *one = nb_num(im, 1);
    nb_value *mask = n % 2 || (int)n / 2 > rank ? NULL : mask_of(im, 3, n / 2, rank);
    if (!mask) return nb_node_error(im, NB_MALFORMED, "%zu pads for rank %d", n, rank);
    nb_value *zero = repeat(im, rank, 0),
             *length = nb_make_dims(im, (size_t)rank, x->type->dims, false);
    nb_value *low = nb_slice_axis(im, pads, 0, nb_num(im, 0), half, 1),
             *high = nb_slice_axis(im, pads, 0, half, half, 1);
    nb_value *before = by_axis(im, mask, low, zero), *after = by_axis(im, mask, high, zero);
    if (!before || !after) return nb_node_output(im, 0, NULL);
    nb_value *all = nb_combine(im, NB_OP_add, nb_combine(im, NB_OP_add, before, length), after);
    if (!sizes(im, all, rank, NULL, out, &holds)) return nb_node_output(im, 0, NULL);
    if (holds) before = nb_require(im, before, holds);
    nb_value *y = x, *inside = NULL;
    for (int d = 0; d < rank && y && before; d++) {
        nb_value *at = nb_count_up(im, nb_num(im, 0), out[d]);
        at = nb_combine(im, NB_OP_sub, at, nb_slice_axis(im, before, 0, nb_num(im, d), one, 1));
        nb_value *own = nb_make_dims(im, 1, &x->type->dims[d], true);
        y = nb_take(im, y, source(im, mode, at, own), d);
        nb_value *is =
            nb_combine(im, NB_OP_and, nb_combine(im, NB_OP_le, nb_scalar(im, NB_I64, 0), at),
                       nb_combine(im, NB_OP_lt, at, own));
        is = nb_along(im, is, rank, d);
        inside = inside ? nb_combine(im, NB_OP_and, inside, is) : is;
    }
    if (strcmp(mode, "constant") == 0 && y && rank)
        y = nb_choose(im, inside, y, value ? value : nb_scalar(im, x->type->elem, 0));
    return nb_node_output(im, 0, y);
}

/* ---- Range ---------------------------------------------------------------------------------- */

nb_status nb_range_any(nb_importer *im) {
    nb_value *number[3], *holds; /* start, limit, step */
    const nb_dim *out, *one = nb_num(im, 1);
    for (size_t i = 0; i < 3; i++) {
        number[i] = nb_node_input(im, i);
        if (number[i]) number[i] = nb_reshape(&im->b, number[i], 0, NULL);
        if (!number[i]) return NB_MALFORMED;
    }
    const nb_elem elem = number[0]->type->elem;
    nb_value *span = nb_combine(im, NB_OP_sub, number[1], number[0]), *count;
    if (nb_elem_is_float(elem)) {
        count = nb_unary(&im->b, NB_OP_ceil, nb_combine(im, NB_OP_div, span, number[2]));
        count = nb_as(im, count, NB_I64);
    } else {
        nb_value *step = nb_as(im, number[2], NB_I64), *sign = nb_unary(&im->b, NB_OP_sign, step);
        span = nb_combine(im, NB_OP_add, nb_as(im, span, NB_I64),
                          nb_combine(im, NB_OP_sub, step, sign));
        count = nb_combine(im, NB_OP_div, span, step);
    }
    count = count ? nb_combine(im, NB_OP_max, count, nb_scalar(im, NB_I64, 0)) : NULL;
    count = count ? nb_reshape(&im->b, count, 1, &one) : NULL;
    if (!sizes(im, count, 1, NULL, &out, &holds)) return nb_node_output(im, 0, NULL);
    nb_value *start = holds ? nb_require(im, number[0], holds) : number[0];
    nb_value *i = nb_as(im, nb_count_up(im, nb_num(im, 0), out), elem);
    i = i && start ? nb_combine(im, NB_OP_mul, i, number[2]) : NULL;
    return nb_node_output(im, 0, i ? nb_combine(im, NB_OP_add, i, start) : NULL);
}
