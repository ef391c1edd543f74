/* Convolutions. Padding becomes an op of its own (pad), so that conv reads no element that is not
 * there; `auto_pad` becomes sizes, which are expressions when the input's are. */
#include "frontend/import.h"

#include <string.h>

#define MOST_PAD INT32_MAX

typedef struct conv {
    nb_value *x, *w;
    int axes; /* that the kernel slides along */
    int64_t strides[NB_MAX_RANK], dilations[NB_MAX_RANK];
    const nb_dim *before[NB_MAX_RANK], *after[NB_MAX_RANK]; /* of all axes of x */
} conv;

static nb_status read_steps(nb_importer *im, const char *name, int axes, int64_t *out) {
    size_t n;
    const int64_t *given = nb_node_ints(im, name, &n);
    if (given && n != (size_t)axes)
        return nb_node_error(im, NB_MALFORMED, "%zu %s for %d axes", n, name, axes);
    for (int d = 0; d < axes; d++) out[d] = given ? given[d] : 1;
    return NB_OK;
}

static nb_status check_kernel(nb_importer *im, const conv *c) {
    size_t n;
    const int64_t *given = nb_node_ints(im, "kernel_shape", &n);
    if (!given) return NB_OK;
    if (n != (size_t)c->axes)
        return nb_node_error(im, NB_MALFORMED, "kernel_shape has %zu numbers for %d axes", n,
                             c->axes);
    for (int d = 0; d < c->axes; d++)
        NB_TRY(nb_unify(im, c->w->type->dims[d + 2], nb_num(im, given[d])));
    return NB_OK;
}

static nb_status given_pads(nb_importer *im, conv *c) {
    size_t n;
    const int64_t *pads = nb_node_ints(im, "pads", &n);
    if (!pads) return NB_OK;
    if (n != 2 * (size_t)c->axes)
        return nb_node_error(im, NB_MALFORMED, "%zu pads for %d axes", n, c->axes);
    for (int d = 0; d < c->axes; d++) {
        int64_t low = pads[d], high = pads[c->axes + d];
        if (low < 0 || low > MOST_PAD || high < 0 || high > MOST_PAD)
            return nb_node_error(im, NB_MALFORMED, "pads %lld and %lld, expected 0 .. 2^31-1",
                                 (long long)low, (long long)high);
        c->before[d + 2] = nb_num(im, low);
        c->after[d + 2] = nb_num(im, high);
    }
    return NB_OK;
}

/* As many outputs as ceil(length / stride); an odd element of padding goes to the end, or to the
 * start if `lower`. */
static nb_status same_pads(nb_importer *im, conv *c, bool lower) {
    nb_graph *g = im->g;
    for (int d = 0; d < c->axes; d++) {
        const nb_dim *length = c->x->type->dims[d + 2], *size = c->w->type->dims[d + 2];
        const nb_dim *stride = nb_num(im, c->strides[d]), *one = nb_num(im, 1);
        if (c->strides[d] < 1)
            return nb_node_error(im, NB_MALFORMED, "a stride of %lld", (long long)c->strides[d]);
        const nb_dim *reach = nb_dim_mul(g, nb_dim_sub(g, size, one), nb_num(im, c->dilations[d]));
        const nb_dim *steps = nb_dim_sub(g, nb_dim_ceildiv(g, length, stride), one);
        const nb_dim *last = nb_dim_add(g, nb_dim_mul(g, steps, stride), nb_dim_add(g, reach, one));
        const nb_dim *all = nb_dim_max(g, nb_dim_sub(g, last, length), nb_num(im, 0));
        const nb_dim *less = nb_dim_floordiv(g, all, nb_num(im, 2)),
                     *more = nb_dim_sub(g, all, less);
        c->before[d + 2] = lower ? more : less;
        c->after[d + 2] = lower ? less : more;
    }
    return NB_OK;
}

static nb_status read_pads(nb_importer *im, conv *c) {
    const char *mode = nb_node_string(im, "auto_pad", "NOTSET");
    for (int d = 0; d < c->axes + 2; d++) c->before[d] = c->after[d] = nb_num(im, 0);
    if (strcmp(mode, "NOTSET") == 0) return given_pads(im, c);
    if (strcmp(mode, "VALID") == 0) return NB_OK;
    bool lower = strcmp(mode, "SAME_LOWER") == 0;
    if (lower || strcmp(mode, "SAME_UPPER") == 0) return same_pads(im, c, lower);
    return nb_node_error(im, NB_MALFORMED,
                         "auto_pad is '%s', expected NOTSET, SAME_UPPER, SAME_LOWER or VALID",
                         mode);
}

static nb_value *padded(nb_importer *im, const conv *c) {
    bool any = false;
    for (int d = 2; d < c->axes + 2; d++)
        any = any || !nb_dim_is(c->before[d], 0) || !nb_dim_is(c->after[d], 0);
    if (!any) return c->x;
    nb_begin(&im->b, NB_OP_pad);
    nb_arg(&im->b, c->x);
    nb_arg(&im->b, NULL);
    nb_set_dims(&im->b, "before", (size_t)c->axes + 2, c->before);
    nb_set_dims(&im->b, "after", (size_t)c->axes + 2, c->after);
    return nb_end(&im->b);
}

nb_status nb_import_conv(nb_importer *im) {
    conv c = {.x = nb_node_input(im, 0), .w = nb_node_input(im, 1)};
    if (!c.x || !c.w) return NB_MALFORMED;
    int rank = c.x->type->rank;
    if (rank < 3 || c.w->type->rank != rank)
        return nb_node_error(
            im, NB_MALFORMED,
            "expected an input and a kernel of one rank, at least 3, found %d and %d", rank,
            c.w->type->rank);
    c.axes = rank - 2;
    NB_TRY(read_steps(im, "strides", c.axes, c.strides));
    NB_TRY(read_steps(im, "dilations", c.axes, c.dilations));
    NB_TRY(check_kernel(im, &c));
    NB_TRY(read_pads(im, &c));
    int64_t groups = nb_node_int(im, "group", 1);
    NB_TRY(nb_unify(im, c.x->type->dims[1],
                    nb_dim_mul(im->g, c.w->type->dims[1], nb_num(im, groups))));
    nb_value *x = padded(im, &c);
    nb_begin(&im->b, NB_OP_conv);
    nb_arg(&im->b, x);
    nb_arg(&im->b, c.w);
    nb_arg(&im->b, nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL);
    nb_set_ints(&im->b, "strides", (size_t)c.axes, c.strides);
    nb_set_ints(&im->b, "dilations", (size_t)c.axes, c.dilations);
    nb_set_int(&im->b, "groups", groups);
    return nb_node_output(im, 0, nb_end(&im->b));
}
