/* Tensors that are counted: Range, and the windows and filters of signal processing. */
#include "frontend/import.h"

#include "ir/eval.h"

#include <math.h>

/* 0, 1, ... count - 1 as floats. */
static nb_value *steps(nb_importer *im, const nb_dim *count, nb_elem elem) {
    return nb_cast(&im->b, nb_count_up(im, nb_num(im, 0), count), elem);
}

/* start + i * step; how many there are is known of constants, or declared. */
static nb_status float_range(nb_importer *im, nb_elem elem) {
    double number[3]; /* start, limit, step */
    for (size_t i = 0; i < 3; i++) {
        nb_value *v = nb_node_input(im, i);
        if (!nb_is_const(v)) return nb_range_any(im);
        nb_tensor t = nb_tensor_of_const(v);
        number[i] = nb_tensor_get(&t, 0);
    }
    double count = ceil((number[1] - number[0]) / number[2]);
    if (!(fabs(count) < 0x1p40))
        return nb_node_error(im, NB_MALFORMED, "a range from %g to %g by %g has no length",
                             number[0], number[1], number[2]);
    nb_value *i = steps(im, nb_num(im, count > 0 ? (int64_t)count : 0), elem);
    return nb_node_output(im, 0, nb_plus(im, nb_times(im, i, number[2]), number[0]));
}

nb_status nb_import_range(nb_importer *im) {
    nb_value *first = nb_node_input(im, 0);
    const nb_dim *const *start, *const *limit;
    const int64_t *step;
    size_t n;
    if (!first) return NB_MALFORMED;
    for (size_t i = 0; i < 3; i++) {
        int64_t elements;
        if (!nb_type_static_count(nb_node_input(im, i)->type, &elements) || elements != 1)
            return nb_node_error(im, NB_MALFORMED, "input %zu is not a scalar", i);
    }
    if (nb_elem_is_float(first->type->elem)) return float_range(im, first->type->elem);
    if (!nb_is_known(im, 0) || !nb_is_known(im, 1) || !nb_is_known(im, 2)) return nb_range_any(im);
    NB_TRY(nb_dims_of(im, 0, &start, &n));
    NB_TRY(nb_dims_of(im, 1, &limit, &n));
    NB_TRY(nb_ints_of(im, 2, &step, &n));
    if (step[0] == 0 || step[0] == INT64_MIN)
        return nb_node_error(im, NB_MALFORMED, "the step is %lld", (long long)step[0]);
    nb_graph *g = im->g;
    const nb_dim *span =
        step[0] > 0 ? nb_dim_sub(g, *limit, *start) : nb_dim_sub(g, *start, *limit);
    const nb_dim *count = nb_dim_ceildiv(g, span, nb_num(im, step[0] > 0 ? step[0] : -step[0]));
    count = nb_dim_max(g, count, nb_num(im, 0));
    nb_begin(&im->b, NB_OP_iota);
    nb_set_dims(&im->b, "start", 1, start);
    nb_set_dims(&im->b, "count", 1, &count);
    nb_set_int(&im->b, "step", step[0]);
    nb_value *y = nb_end(&im->b);
    return nb_node_output(im, 0,
                          first->type->elem == NB_I64 ? y : nb_cast(&im->b, y, first->type->elem));
}

/* Sums of cosines over a period, one row for each im->argument: Hann, Hamming, Blackman. */
static const double windows[][3] = {{0.5, -0.5, 0}, {25.0 / 46, -21.0 / 46, 0}, {0.42, -0.5, 0.08}};

nb_status nb_import_window(nb_importer *im) {
    const nb_dim *const *size;
    size_t n;
    NB_TRY(nb_dims_of(im, 0, &size, &n));
    if (n != 1) return nb_node_error(im, NB_MALFORMED, "the size is %zu numbers", n);
    int64_t type = nb_node_int(im, "output_datatype", nb_elems[NB_F32].onnx);
    nb_elem elem = nb_elem_from_onnx((int)type);
    if (type != (int)type || elem == NB_ELEM_COUNT)
        return nb_node_error(im, NB_UNSUPPORTED, "element type %lld is not supported",
                             (long long)type);
    /* Not periodic: the last element is the first again. */
    int64_t less = nb_node_int(im, "periodic", 1) ? 0 : 1;
    const nb_dim *period =
        nb_dim_max(im->g, nb_dim_sub(im->g, *size, nb_num(im, less)), nb_num(im, 1));
    nb_value *length = nb_cast(&im->b, nb_make_dims(im, 1, &period, true), NB_F32);
    nb_value *phase = nb_combine(im, NB_OP_div, steps(im, *size, NB_F32), length), *y = NULL;
    const double *c = windows[im->argument];
    for (int k = 1; k < 3 && c[k] != 0; k++) {
        nb_value *wave = nb_unary(&im->b, NB_OP_cos, nb_times(im, phase, 2 * M_PI * k));
        wave = nb_times(im, wave, c[k]);
        y = y ? nb_combine(im, NB_OP_add, y, wave) : wave;
    }
    y = nb_plus(im, y, c[0]);
    return nb_node_output(im, 0, elem == NB_F32 ? y : nb_cast(&im->b, y, elem));
}

/* ---- MelWeightMatrix ------------------------------------------------------------------------ */

/* O'Shaughnessy's scale: 2595 log10(1 + f / 700). */
static nb_value *mel_of(nb_importer *im, nb_value *hertz) {
    nb_value *x = nb_unary(&im->b, NB_OP_log, nb_plus(im, nb_times(im, hertz, 1.0 / 700), 1));
    return nb_times(im, x, 2595 / M_LN10);
}

static nb_value *hertz_of(nb_importer *im, nb_value *mel) {
    nb_value *x = nb_unary(&im->b, NB_OP_exp, nb_times(im, mel, M_LN10 / 2595));
    return nb_times(im, nb_plus(im, x, -1), 700);
}

/* Edges of the bands as bins of the spectrum, f64[bands + 2]: equal steps in mel. */
static nb_value *band_edges(nb_importer *im, const nb_dim *bands) {
    nb_value *length = nb_one_number(im, 1, NB_F64), *rate = nb_one_number(im, 2, NB_F64),
             *low = nb_one_number(im, 3, NB_F64), *high = nb_one_number(im, 4, NB_F64);
    if (!length || !rate || !low || !high) return NULL;
    const nb_dim *count = nb_dim_add(im->g, bands, nb_num(im, 2));
    low = mel_of(im, low);
    nb_value *n = nb_cast(&im->b, nb_make_dims(im, 1, &count, true), NB_F64);
    nb_value *step = nb_combine(im, NB_OP_div, nb_combine(im, NB_OP_sub, mel_of(im, high), low), n);
    nb_value *mel =
        nb_combine(im, NB_OP_add, nb_combine(im, NB_OP_mul, steps(im, count, NB_F64), step), low);
    nb_value *scaled = nb_combine(im, NB_OP_mul, nb_plus(im, length, 1), hertz_of(im, mel));
    return nb_unary(&im->b, NB_OP_floor, nb_combine(im, NB_OP_div, scaled, rate));
}

/* [bins,bands]: each band a triangle, from its lower edge up to the next band's, and down to that
 * of the one after it. */
nb_status nb_import_mel_weight_matrix(nb_importer *im) {
    const nb_dim *const *bands, *const *length, *one = nb_num(im, 1);
    size_t n, n_length;
    NB_TRY(nb_dims_of(im, 0, &bands, &n));
    NB_TRY(nb_dims_of(im, 1, &length, &n_length));
    if (n != 1 || n_length != 1)
        return nb_node_error(im, NB_MALFORMED, "numbers of bands and of samples: %zu and %zu", n,
                             n_length);
    const int64_t type = nb_node_int(im, "output_datatype", nb_elems[NB_F32].onnx);
    const nb_elem elem = type == (int)type ? nb_elem_from_onnx((int)type) : NB_ELEM_COUNT;
    if (elem == NB_ELEM_COUNT)
        return nb_node_error(im, NB_UNSUPPORTED, "element type %lld is not supported",
                             (long long)type);
    const nb_dim *bins = nb_dim_add(im->g, nb_dim_floordiv(im->g, *length, nb_num(im, 2)), one);
    nb_value *edges = band_edges(im, *bands), *edge[3];
    if (!edges) return nb_node_output(im, 0, NULL);
    for (int k = 0; k < 3; k++)
        edge[k] = nb_along(im, nb_slice_axis(im, edges, 0, nb_num(im, k), *bands, 1), 2, 1);
    nb_value *bin = nb_along(im, steps(im, bins, NB_F64), 2, 0), *zero = nb_scalar(im, NB_F64, 0);
    nb_value *up = nb_combine(im, NB_OP_sub, edge[1], edge[0]),
             *down = nb_combine(im, NB_OP_sub, edge[2], edge[1]);
    nb_value *rising = nb_combine(im, NB_OP_div, nb_combine(im, NB_OP_sub, bin, edge[0]), up);
    rising = nb_choose(im, nb_combine(im, NB_OP_eq, up, zero), nb_scalar(im, NB_F64, 1), rising);
    nb_value *falling = nb_combine(im, NB_OP_div, nb_combine(im, NB_OP_sub, edge[2], bin), down);
    nb_value *below = nb_combine(im, NB_OP_and, nb_combine(im, NB_OP_le, edge[0], bin),
                                 nb_combine(im, NB_OP_le, bin, edge[1]));
    nb_value *above = nb_combine(im, NB_OP_and, nb_combine(im, NB_OP_le, edge[1], bin),
                                 nb_combine(im, NB_OP_lt, bin, edge[2]));
    nb_value *y = above && below ? nb_choose(im, below, rising, zero) : NULL;
    y = y ? nb_choose(im, above, falling, y) : NULL;
    return nb_node_output(im, 0, nb_as(im, y, elem));
}
