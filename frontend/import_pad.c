/* Pad. Constants are an op of the IR; the other modes join slices of the tensor to it. */
#include "frontend/import.h"

#include <string.h>

#define MOST_PAD (INT64_C(1) << 40)

/* `count` elements to put before or after an axis of length n. */
typedef nb_value *(*border_fn)(nb_importer *im, nb_value *x, int axis, const nb_dim *n,
                               const nb_dim *count, bool after);

static nb_value *edge(nb_importer *im, nb_value *x, int axis, const nb_dim *n, const nb_dim *count,
                      bool after) {
    const nb_dim *one = nb_num(im, 1), *dims[NB_MAX_RANK];
    for (int d = 0; d < x->type->rank; d++) dims[d] = d == axis ? count : x->type->dims[d];
    nb_value *last =
        nb_slice_axis(im, x, axis, after ? nb_dim_sub(im->g, n, one) : nb_num(im, 0), one, 1);
    return nb_expand_to(im, last, x->type->rank, dims);
}

/* Without the outermost element itself. */
static nb_value *reflect(nb_importer *im, nb_value *x, int axis, const nb_dim *n,
                         const nb_dim *count, bool after) {
    const nb_dim *start = after ? nb_dim_sub(im->g, n, nb_num(im, 2)) : count;
    return nb_slice_axis(im, x, axis, start, count, -1);
}

static nb_value *wrap(nb_importer *im, nb_value *x, int axis, const nb_dim *n, const nb_dim *count,
                      bool after) {
    return nb_slice_axis(im, x, axis, after ? nb_num(im, 0) : nb_dim_sub(im->g, n, count), count,
                         1);
}

typedef struct pad_mode {
    const char *name;
    border_fn border; /* NULL: constants */
    int64_t less;     /* the border is at most so much shorter than the axis; -1: any length */
} pad_mode;

static const pad_mode modes[] = {
    {"constant", NULL, -1}, {"edge", edge, -1}, {"reflect", reflect, 1}, {"wrap", wrap, 0}};

static nb_status read_mode(nb_importer *im, const pad_mode **mode) {
    const char *name = nb_node_string(im, "mode", "constant");
    for (size_t i = 0; i < NB_COUNT(modes); i++) {
        *mode = &modes[i];
        if (strcmp(modes[i].name, name) == 0) return NB_OK;
    }
    return nb_node_error(im, NB_MALFORMED, "mode is '%s', expected constant, edge, reflect or wrap",
                         name);
}

/* Axis by axis, so that corners come out as the mode wants them. */
static nb_value *bordered(nb_importer *im, nb_value *x, const pad_mode *mode,
                          const nb_dim *const *before, const nb_dim *const *after) {
    for (int d = 0; x && d < x->type->rank; d++) {
        const nb_dim *n = x->type->dims[d];
        nb_value *parts[3] = {NULL, x, NULL};
        for (int side = 0; side < 2; side++) {
            const nb_dim *count = side ? after[d] : before[d];
            if (nb_dim_is(count, 0)) continue;
            if (mode->less >= 0 && nb_dim_is_const(n) && count->value > n->value - mode->less) {
                nb_node_error(im, NB_UNSUPPORTED,
                              "a border of %lld by mode %s around an axis of length %lld",
                              (long long)count->value, mode->name, (long long)n->value);
                return NULL;
            }
            parts[2 * side] = mode->border(im, x, d, n, count, side);
            if (!parts[2 * side]) return NULL;
        }
        for (int i = 0; i < 3; i += 2)
            if (parts[i]) x = i ? nb_join(im, x, parts[i], d) : nb_join(im, parts[i], x, d);
    }
    return x;
}

nb_status nb_import_pad(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *value = NULL;
    size_t n, na = 0;
    const int64_t *pads, *axes = NULL;
    if (!x) return NB_MALFORMED;
    const pad_mode *mode;
    NB_TRY(read_mode(im, &mode));
    pads = nb_node_ints(im, "pads", &n);
    bool known = pads || (nb_is_known(im, 1) && nb_is_known(im, 3));
    if (!pads && known) NB_TRY(nb_ints_of(im, 1, &pads, &n));
    if (nb_has_input(im, 2))
        value = nb_node_input(im, 2);
    else if (nb_node_attr(im, "value"))
        value = nb_scalar(im, x->type->elem, (double)nb_node_float(im, "value", 0));
    if (value && value->type->rank) value = nb_reshape(&im->b, value, 0, NULL);
    if (!known) return nb_pad_any(im, mode->name, value);
    if (nb_has_input(im, 3)) NB_TRY(nb_ints_of(im, 3, &axes, &na));
    size_t padded = axes ? na : (size_t)x->type->rank;
    if (n != 2 * padded) return nb_node_error(im, NB_MALFORMED, "%zu pads for %zu axes", n, padded);
    const nb_dim *before[NB_MAX_RANK], *after[NB_MAX_RANK], *start[NB_MAX_RANK],
        *count[NB_MAX_RANK];
    int64_t step[NB_MAX_RANK];
    nb_graph *g = im->g;
    for (int d = 0; d < x->type->rank; d++) {
        before[d] = after[d] = start[d] = nb_num(im, 0);
        count[d] = x->type->dims[d];
        step[d] = 1;
    }
    bool crops = false;
    for (size_t i = 0; i < padded; i++) {
        int64_t axis, low = pads[i], high = pads[padded + i];
        NB_TRY(nb_axis(im, axes ? axes[i] : (int64_t)i, x->type->rank, &axis));
        if (low < -MOST_PAD || low > MOST_PAD || high < -MOST_PAD || high > MOST_PAD)
            return nb_node_error(im, NB_LIMIT, "pads %lld and %lld are beyond 2^40", (long long)low,
                                 (long long)high);
        before[axis] = nb_num(im, nb_max_i64(low, 0));
        after[axis] = nb_num(im, nb_max_i64(high, 0));
        /* Negative pads crop first. */
        start[axis] = nb_num(im, nb_max_i64(-low, 0));
        count[axis] = nb_dim_sub(g, x->type->dims[axis],
                                 nb_num(im, nb_max_i64(-low, 0) + nb_max_i64(-high, 0)));
        crops = crops || low < 0 || high < 0;
    }
    if (crops) {
        nb_begin(&im->b, NB_OP_slice);
        nb_arg(&im->b, x);
        nb_set_dims(&im->b, "start", (size_t)x->type->rank, start);
        nb_set_dims(&im->b, "count", (size_t)x->type->rank, count);
        nb_set_ints(&im->b, "step", (size_t)x->type->rank, step);
        x = nb_end(&im->b);
        if (!x) return NB_MALFORMED;
    }
    if (mode->border) return nb_node_output(im, 0, bordered(im, x, mode, before, after));
    nb_begin(&im->b, NB_OP_pad);
    nb_arg(&im->b, x);
    nb_arg(&im->b, value);
    nb_set_dims(&im->b, "before", (size_t)x->type->rank, before);
    nb_set_dims(&im->b, "after", (size_t)x->type->rank, after);
    return nb_node_output(im, 0, nb_end(&im->b));
}
