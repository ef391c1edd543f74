/* DFT and STFT as products with matrices of cosines and sines, in f64; lengths are known. */
#include "frontend/import.h"

#include <math.h>
#include <string.h>

/* n^2 elements of a matrix. */
#define MOST_LENGTH 4096

typedef struct dft {
    int64_t rows, columns; /* of the matrices: inputs that count, results */
    int64_t n;             /* length of the transform */
    bool inverse, onesided;
} dft;

/* Of x[..., axis, ..., c]: c numbers, 1 or 2, real or complex. `n` 0: as long as the axis, or what
 * it is half of. */
static nb_status read_dft(nb_importer *im, const nb_value *x, int64_t axis, int64_t n, dft *f) {
    const nb_dim *length = x->type->dims[axis];
    if (!nb_dim_is_const(length))
        return nb_node_error(im, NB_UNSUPPORTED, "the transform of %s elements, expected a number",
                             nb_dim_text(im->arena, length));
    const bool halves = f->inverse && f->onesided;
    f->n = n ? n : halves ? 2 * (length->value - 1) : length->value;
    if (f->n < 1 || f->n > MOST_LENGTH)
        return nb_node_error(im, NB_LIMIT, "a transform of length %lld, expected 1 to %d",
                             (long long)f->n, MOST_LENGTH);
    f->columns = f->onesided && !f->inverse ? f->n / 2 + 1 : f->n;
    f->rows = nb_min_i64(length->value, halves ? f->n / 2 + 1 : f->n);
    return NB_OK;
}

static double entry(const dft *f, int64_t row, int64_t column, bool sine) {
    const double angle = 2 * M_PI * (double)(row * column % f->n) / (double)f->n;
    double v = sine ? sin(angle) : cos(angle);
    if (!f->inverse) return v;
    /* Of a one-sided input all but the ends stand for two. */
    bool twice = f->onesided && row > 0 && 2 * row != f->n;
    return v * (twice ? 2 : 1) / (double)f->n;
}

static nb_value *matrix(nb_importer *im, const dft *f, bool sine) {
    void *data;
    nb_blob *blob = nb_blob_create(f->rows * f->columns * 8, &data);
    if (!blob) {
        nb_node_error(im, NB_LIMIT, "out of memory for a matrix");
        return NULL;
    }
    for (int64_t r = 0; r < f->rows; r++)
        for (int64_t c = 0; c < f->columns; c++)
            ((double *)data)[r * f->columns + c] = entry(f, r, c, sine);
    const nb_dim *dims[] = {nb_num(im, f->rows), nb_num(im, f->columns)};
    return nb_graph_add_const(im->g, sine ? "sines" : "cosines",
                              nb_type_intern(im->g, NB_F64, NULL, 2, dims), blob, im->b.loc);
}

/* Real or imaginary part of x[..., L, c] as f64[..., rows]; NULL: there is none. */
static nb_value *part(nb_importer *im, nb_value *x, const dft *f, int which) {
    const int last = x->type->rank - 1;
    if (which && nb_dim_is(x->type->dims[last], 1)) return NULL;
    nb_value *y = nb_slice_axis(im, x, last, nb_num(im, which), nb_num(im, 1), 1);
    y = nb_slice_axis(im, y, last - 1, nb_num(im, 0), nb_num(im, f->rows), 1);
    return y ? nb_as(im, nb_reshape(&im->b, y, last, y->type->dims), NB_F64) : NULL;
}

/* The transform of x along its last axis but one. */
static nb_value *transformed(nb_importer *im, nb_value *x, const dft *f) {
    nb_value *cosines = matrix(im, f, false), *sines = matrix(im, f, true);
    nb_value *re = part(im, x, f, 0), *i = part(im, x, f, 1), *out[2];
    if (!cosines || !sines || !re) return NULL;
    out[0] = nb_multiply(im, re, cosines);
    out[1] = nb_multiply(im, re, sines);
    /* (a + bi)(c - si), for inverses (a + bi)(c + si) */
    if (!f->inverse) out[1] = nb_unary(&im->b, NB_OP_neg, out[1]);
    if (i) {
        nb_value *crossed = nb_multiply(im, i, sines);
        out[0] = nb_combine(im, f->inverse ? NB_OP_sub : NB_OP_add, out[0], crossed);
        out[1] = nb_combine(im, NB_OP_add, out[1], nb_multiply(im, i, cosines));
    }
    const bool real = f->inverse && f->onesided;
    nb_value *y = NULL;
    for (int k = 0; k < (real ? 1 : 2); k++) {
        if (!out[k]) return NULL;
        const nb_dim *dims[NB_MAX_RANK];
        const int rank = out[k]->type->rank;
        memcpy(dims, out[k]->type->dims, sizeof dims);
        dims[rank] = nb_num(im, 1);
        nb_value *one = nb_as(im, nb_reshape(&im->b, out[k], rank + 1, dims), x->type->elem);
        y = y ? nb_join(im, y, one, rank) : one;
    }
    return y;
}

static nb_status check_signal(nb_importer *im, const nb_value *x, int least) {
    const int rank = x->type->rank;
    if (rank < least || !nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "takes floats of rank %d or more, found %s", least,
                             nb_type_text(im->arena, x->type));
    const nb_dim *numbers = x->type->dims[rank - 1];
    if (!nb_dim_is(numbers, 1) && !nb_dim_is(numbers, 2))
        return nb_node_error(im, NB_MALFORMED, "the last axis has length %s, expected 1 or 2",
                             nb_dim_text(im->arena, numbers));
    return NB_OK;
}

static nb_value *along(nb_importer *im, nb_value *x, int axis, const dft *f) {
    const int before_last = x->type->rank - 2;
    nb_value *y = transformed(im, nb_swap_axes(im, x, axis, before_last), f);
    return nb_swap_axes(im, y, axis, before_last);
}

static bool has_declared(const nb_value *y, const int64_t *out, int rank) {
    for (int d = 0; d < rank; d++) {
        const nb_dim *dim = y->type->dims[d];
        if (nb_dim_is_const(dim) && dim->value != out[d]) return false;
    }
    return y->type->rank == rank;
}

/* The axis is known to the run only: those that give the declared shape are tried. */
static nb_status any_axis(nb_importer *im, nb_value *x, int64_t n, const dft *how) {
    int64_t out[NB_MAX_RANK];
    int rank;
    size_t count;
    nb_value *axis = nb_vector_of(im, 2, &count), *y = NULL, *found = NULL;
    if (!axis || count != 1 || !nb_declared(im, 0, out, &rank))
        return nb_node_error(im, NB_UNSUPPORTED,
                             "the axis depends on data, and the shape of the output is not "
                             "declared");
    for (int d = 0; d + 1 < x->type->rank; d++) {
        dft f = *how;
        bool halves = f.inverse && f.onesided && !n;
        if (halves && nb_dim_is(x->type->dims[d], 1)) continue;
        NB_TRY(read_dft(im, x, d, n, &f));
        nb_value *one = along(im, x, d, &f), *is = nb_axes_are(im, axis, x->type->rank, 1u << d);
        if (!one || !is) return nb_node_output(im, 0, NULL);
        if (!has_declared(one, out, rank)) continue;
        found = found ? nb_combine(im, NB_OP_or, found, is) : is;
        y = y ? nb_choose(im, is, one, y) : one;
    }
    if (!y) return nb_node_error(im, NB_MALFORMED, "no axis gives the declared shape");
    return nb_node_output(im, 0, nb_require(im, y, found));
}

nb_status nb_import_dft(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    const int64_t *given;
    int64_t axis = im->opset < 20 ? nb_node_int(im, "axis", 1) : -2, n = 0;
    size_t count;
    if (!x) return NB_MALFORMED;
    NB_TRY(check_signal(im, x, 2));
    dft f = {.inverse = nb_node_int(im, "inverse", 0) != 0,
             .onesided = nb_node_int(im, "onesided", 0) != 0};
    if (nb_has_input(im, 1)) {
        NB_TRY(nb_ints_of(im, 1, &given, &count));
        if (count != 1 || given[0] < 1)
            return nb_node_error(im, NB_MALFORMED, "the length is not one number above 0");
        n = given[0];
    }
    if (!nb_is_known(im, 2)) return any_axis(im, x, n, &f);
    if (nb_has_input(im, 2)) {
        NB_TRY(nb_ints_of(im, 2, &given, &count));
        if (count != 1) return nb_node_error(im, NB_MALFORMED, "the axis is not one number");
        axis = given[0];
    }
    NB_TRY(nb_axis(im, axis, x->type->rank, &axis));
    if (axis == x->type->rank - 1)
        return nb_node_error(im, NB_MALFORMED, "the last axis holds real and imaginary parts");
    NB_TRY(read_dft(im, x, axis, n, &f));
    return nb_node_output(im, 0, along(im, x, (int)axis, &f));
}

/* ---- STFT ----------------------------------------------------------------------------------- */

/* How many frames: known with the step, or declared. */
static nb_status read_frames(nb_importer *im, const nb_value *x, int64_t length, nb_value **step,
                             const nb_dim **frames) {
    int64_t out[NB_MAX_RANK];
    const int64_t *given;
    int rank;
    size_t n;
    nb_graph *g = im->g;
    const nb_dim *room = nb_dim_sub(g, x->type->dims[1], nb_num(im, length));
    *step = nb_vector_of(im, 1, &n);
    if (!*step || n != 1) return nb_node_error(im, NB_MALFORMED, "the step is not one number");
    if (nb_is_known(im, 1)) {
        NB_TRY(nb_ints_of(im, 1, &given, &n));
        if (given[0] < 1)
            return nb_node_error(im, NB_MALFORMED, "the step is %lld", (long long)given[0]);
        *frames = nb_dim_add(g, nb_dim_floordiv(g, room, nb_num(im, given[0])), nb_num(im, 1));
        return NB_OK;
    }
    if (!nb_declared(im, 0, out, &rank) || rank != 4)
        return nb_node_error(im, NB_UNSUPPORTED,
                             "the step depends on data, and the shape of the output is not "
                             "declared");
    *frames = nb_num(im, out[1]);
    nb_value *count = nb_combine(im, NB_OP_div, nb_make_dims(im, 1, &room, false), *step);
    nb_value *holds = nb_combine(im, NB_OP_eq, count, nb_scalar(im, NB_I64, (double)(out[1] - 1)));
    *step = nb_require(im, *step, holds);
    return *step ? NB_OK : NB_MALFORMED;
}

nb_status nb_import_stft(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *window = NULL, *step;
    const nb_dim *frames = NULL;
    dft f = {.onesided = nb_node_int(im, "onesided", 1) != 0};
    int64_t length = 0;
    if (!x) return NB_MALFORMED;
    NB_TRY(check_signal(im, x, 3));
    if (nb_has_input(im, 2)) {
        window = nb_node_input(im, 2);
        if (!window || window->type->rank != 1 || !nb_dim_is_const(window->type->dims[0]))
            return nb_node_error(im, NB_MALFORMED, "the window is not a vector of known length");
        length = window->type->dims[0]->value;
    }
    if (nb_has_input(im, 3)) {
        const int64_t *given;
        size_t n;
        NB_TRY(nb_ints_of(im, 3, &given, &n));
        if (n != 1 || given[0] < 1 || (length && length != given[0]))
            return nb_node_error(im, NB_MALFORMED,
                                 "the length of frames is not that of the window");
        length = given[0];
    }
    if (length < 1 || length > MOST_LENGTH || x->type->rank != 3)
        return nb_node_error(im, NB_MALFORMED, "frames of length %lld of a signal of rank %d",
                             (long long)length, x->type->rank);
    NB_TRY(read_frames(im, x, length, &step, &frames));
    nb_value *at = nb_combine(im, NB_OP_mul, nb_positions(im, 2, 0, frames), step);
    at = nb_combine(im, NB_OP_add, at, nb_positions(im, 2, 1, nb_num(im, length)));
    nb_value *y = at ? nb_take(im, x, at, 1) : NULL; /* [B,frames,length,c] */
    if (window && y)
        y = nb_combine(im, NB_OP_mul, y, nb_as(im, nb_along(im, window, 2, 0), x->type->elem));
    if (!y) return nb_node_output(im, 0, NULL);
    NB_TRY(read_dft(im, y, 2, 0, &f));
    return nb_node_output(im, 0, transformed(im, y, &f));
}
