/* Elementwise operators and reductions. */
#include "frontend/import.h"

#include <math.h>
#include <string.h>

nb_status nb_import_unary(nb_importer *im) {
    return nb_node_output(im, 0, nb_unary(&im->b, (nb_op_kind)im->argument, nb_node_input(im, 0)));
}

nb_status nb_import_binary(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    return nb_node_output(im, 0, a && b ? nb_combine(im, (nb_op_kind)im->argument, a, b) : NULL);
}

/* a > b is b < a. */
nb_status nb_import_swapped(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    return nb_node_output(im, 0, a && b ? nb_combine(im, (nb_op_kind)im->argument, b, a) : NULL);
}

/* The exponent may have another type than the base. */
nb_status nb_import_pow(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    if (!a || !b) return NB_MALFORMED;
    nb_elem to = a->type->elem;
    bool widen = !nb_elem_is_float(to) && nb_elem_is_float(b->type->elem);
    nb_elem common = widen ? b->type->elem : to;
    if (a->type->elem != common) a = nb_cast(&im->b, a, common);
    if (b->type->elem != common) b = nb_cast(&im->b, b, common);
    nb_value *y = nb_combine(im, NB_OP_pow, a, b);
    return nb_node_output(im, 0, widen && y ? nb_cast(&im->b, y, to) : y);
}

/* fmod=0 has the sign of the divisor, fmod=1 (floats, or by choice) that of the dividend. */
nb_status nb_import_mod(nb_importer *im) {
    nb_value *a = nb_node_input(im, 0), *b = nb_node_input(im, 1);
    if (!a || !b) return NB_MALFORMED;
    bool floats = nb_elem_is_float(a->type->elem), c_like = nb_node_int(im, "fmod", 0) != 0;
    if (floats || !c_like) return nb_node_output(im, 0, nb_combine(im, NB_OP_mod, a, b));
    /* a - (a / b) * b truncates towards zero */
    nb_value *q = nb_combine(im, NB_OP_div, a, b);
    return nb_node_output(im, 0, nb_combine(im, NB_OP_sub, a, nb_combine(im, NB_OP_mul, q, b)));
}

static nb_value *fold_inputs(nb_importer *im, nb_op_kind kind) {
    nb_value *y = nb_node_input(im, 0);
    for (size_t i = 1; y && i < nb_node_inputs(im); i++) {
        nb_value *x = nb_node_input(im, i);
        y = x ? nb_combine(im, kind, y, x) : NULL;
    }
    return y;
}

nb_status nb_import_variadic(nb_importer *im) {
    return nb_node_output(im, 0, fold_inputs(im, (nb_op_kind)im->argument));
}

nb_status nb_import_mean(nb_importer *im) {
    nb_value *sum = fold_inputs(im, NB_OP_add);
    if (!sum) return NB_MALFORMED;
    return nb_node_output(
        im, 0,
        nb_combine(im, NB_OP_div, sum, nb_scalar(im, sum->type->elem, (double)nb_node_inputs(im))));
}

nb_status nb_import_where(nb_importer *im) {
    nb_value *c = nb_node_input(im, 0), *a = nb_node_input(im, 1), *b = nb_node_input(im, 2);
    return nb_node_output(im, 0, c && a && b ? nb_choose(im, c, a, b) : NULL);
}

static nb_status cast_to(nb_importer *im, int onnx) {
    nb_elem to = nb_elem_from_onnx(onnx);
    if (to == NB_ELEM_COUNT)
        return nb_node_error(im, NB_UNSUPPORTED, "a cast to element type %d is not supported",
                             onnx);
    nb_value *x = nb_node_input(im, 0);
    return nb_node_output(im, 0, x && x->type->elem == to ? x : nb_cast(&im->b, x, to));
}

nb_status nb_import_cast(nb_importer *im) { return cast_to(im, (int)nb_node_int(im, "to", 0)); }

nb_status nb_import_cast_like(nb_importer *im) {
    nb_value *like = nb_node_input(im, 1);
    return like ? cast_to(im, nb_elems[like->type->elem].onnx) : NB_MALFORMED;
}

nb_status nb_import_clip(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (im->opset < 11) { /* bounds were attributes, of floats only */
        if (nb_node_attr(im, "min"))
            x = nb_combine(im, NB_OP_max, x,
                           nb_scalar(im, x->type->elem, (double)nb_node_float(im, "min", 0)));
        if (x && nb_node_attr(im, "max"))
            x = nb_combine(im, NB_OP_min, x,
                           nb_scalar(im, x->type->elem, (double)nb_node_float(im, "max", 0)));
        return nb_node_output(im, 0, x);
    }
    if (nb_has_input(im, 1)) x = nb_combine(im, NB_OP_max, x, nb_node_input(im, 1));
    if (nb_has_input(im, 2)) x = nb_combine(im, NB_OP_min, x, nb_node_input(im, 2));
    return nb_node_output(im, 0, x);
}

/* ---- activations ---------------------------------------------------------------------------- */

static nb_value *times(nb_importer *im, nb_value *x, double factor) {
    return x ? nb_combine(im, NB_OP_mul, x, nb_scalar(im, x->type->elem, factor)) : NULL;
}
static nb_value *plus(nb_importer *im, nb_value *x, double addend) {
    return x ? nb_combine(im, NB_OP_add, x, nb_scalar(im, x->type->elem, addend)) : NULL;
}
static nb_value *at_least(nb_importer *im, nb_value *x, double bound) {
    return x ? nb_combine(im, NB_OP_max, x, nb_scalar(im, x->type->elem, bound)) : NULL;
}
static nb_value *at_most(nb_importer *im, nb_value *x, double bound) {
    return x ? nb_combine(im, NB_OP_min, x, nb_scalar(im, x->type->elem, bound)) : NULL;
}
static nb_value *hard_sigmoid(nb_importer *im, nb_value *x, double alpha, double beta) {
    return at_most(im, at_least(im, plus(im, times(im, x, alpha), beta), 0), 1);
}

nb_status nb_import_activation(nb_importer *im) {
    const char *op = im->node->op_type;
    nb_value *x = nb_node_input(im, 0), *y = NULL;
    if (!x) return NB_MALFORMED;
    if (!nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "takes floats, found %s",
                             nb_elems[x->type->elem].text);
    nb_value *zero = nb_scalar(im, x->type->elem, 0);
    if (strcmp(op, "LeakyRelu") == 0) {
        y = nb_choose(im, nb_combine(im, NB_OP_lt, x, zero),
                      times(im, x, (double)nb_node_float(im, "alpha", 0.01f)), x);
    } else if (strcmp(op, "Elu") == 0) {
        nb_value *e = times(im, plus(im, nb_unary(&im->b, NB_OP_exp, x), -1),
                            (double)nb_node_float(im, "alpha", 1));
        y = nb_choose(im, nb_combine(im, NB_OP_lt, x, zero), e, x);
    } else if (strcmp(op, "HardSigmoid") == 0) {
        y = hard_sigmoid(im, x, (double)nb_node_float(im, "alpha", 0.2f),
                         (double)nb_node_float(im, "beta", 0.5f));
    } else if (strcmp(op, "HardSwish") == 0) {
        y = nb_combine(im, NB_OP_mul, x, hard_sigmoid(im, x, 1.0 / 6, 0.5));
    } else { /* ThresholdedRelu */
        nb_value *alpha = nb_scalar(im, x->type->elem, (double)nb_node_float(im, "alpha", 1));
        y = nb_choose(im, nb_combine(im, NB_OP_lt, alpha, x), x, zero);
    }
    return nb_node_output(im, 0, y);
}

nb_status nb_import_prelu(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *slope = nb_node_input(im, 1);
    if (!x || !slope) return NB_MALFORMED;
    nb_value *scaled = nb_combine(im, NB_OP_mul, x, slope);
    return nb_node_output(
        im, 0,
        nb_choose(im, nb_combine(im, NB_OP_lt, x, nb_scalar(im, x->type->elem, 0)), scaled, x));
}

/* Swish, QuickGelu: x * sigmoid(alpha * x). */
nb_status nb_import_swish(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    float alpha = nb_node_float(im, "alpha", im->argument ? 1.702f : 1);
    if (alpha == 1.0f) return nb_node_output(im, 0, nb_unary(&im->b, NB_OP_silu, x));
    return nb_node_output(
        im, 0,
        x ? nb_combine(im, NB_OP_mul, x,
                       nb_unary(&im->b, NB_OP_sigmoid, times(im, x, (double)alpha)))
          : NULL);
}

nb_status nb_import_gelu(nb_importer *im) {
    bool tanh_form = strcmp(nb_node_string(im, "approximate", "none"), "tanh") == 0;
    return nb_node_output(
        im, 0, nb_unary(&im->b, tanh_form ? NB_OP_gelu_tanh : NB_OP_gelu, nb_node_input(im, 0)));
}

static nb_value *with_bias(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    return nb_has_input(im, 1) && x ? nb_combine(im, NB_OP_add, x, nb_node_input(im, 1)) : x;
}

nb_status nb_import_fast_gelu(nb_importer *im) {
    return nb_node_output(im, 0, nb_unary(&im->b, NB_OP_gelu_tanh, with_bias(im)));
}
nb_status nb_import_bias_gelu(nb_importer *im) {
    return nb_node_output(im, 0, nb_unary(&im->b, NB_OP_gelu, with_bias(im)));
}

/* ---- reductions ----------------------------------------------------------------------------- */

/* im->argument is the reduction itself, or what ReduceL1 (abs), L2 (sqrt), SumSquare (mul) and
 * LogSum (log) do around a sum. */
nb_status nb_import_reduce(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    const int64_t *axes;
    size_t n;
    NB_TRY(nb_axes(im, 1, x->type->rank, &axes, &n));
    if (n == 0 && nb_node_int(im, "noop_with_empty_axes", 0)) return nb_node_output(im, 0, x);
    bool keep = nb_node_int(im, "keepdims", 1) != 0;
    nb_op_kind kind = (nb_op_kind)im->argument;
    if (kind == NB_OP_abs) x = nb_unary(&im->b, NB_OP_abs, x);
    if (kind == NB_OP_mul || kind == NB_OP_sqrt) x = nb_binary(&im->b, NB_OP_mul, x, x);
    bool around = kind == NB_OP_abs || kind == NB_OP_mul || kind == NB_OP_sqrt || kind == NB_OP_log;
    nb_value *y = nb_reduce(im, around ? NB_OP_reduce_sum : kind, x, n, axes, keep);
    if (kind == NB_OP_sqrt || kind == NB_OP_log) y = nb_unary(&im->b, kind, y);
    return nb_node_output(im, 0, y);
}

/* log(sum(exp(x - m))) + m with m the largest, where it is finite: nothing overflows. */
nb_status nb_import_log_sum_exp(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (!nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_UNSUPPORTED, "logarithms of integers are not supported");
    const int64_t *axes;
    size_t n;
    NB_TRY(nb_axes(im, 1, x->type->rank, &axes, &n));
    if (n == 0 && nb_node_int(im, "noop_with_empty_axes", 0)) return nb_node_output(im, 0, x);
    nb_value *m = nb_reduce(im, NB_OP_reduce_max, x, n, axes, true);
    if (!m) return NB_MALFORMED;
    nb_value *huge = nb_scalar(im, x->type->elem, 3e38), *zero = nb_scalar(im, x->type->elem, 0);
    nb_value *finite = nb_combine(im, NB_OP_lt, nb_unary(&im->b, NB_OP_abs, m), huge);
    m = nb_choose(im, finite, m, zero);
    nb_value *e = nb_unary(&im->b, NB_OP_exp, nb_combine(im, NB_OP_sub, x, m));
    nb_value *sum = nb_reduce(im, NB_OP_reduce_sum, e, n, axes, true);
    nb_value *y = nb_combine(im, NB_OP_add, nb_unary(&im->b, NB_OP_log, sum), m);
    if (y && !nb_node_int(im, "keepdims", 1)) /* each reduced axis has length 1 */
        y = nb_reduce(im, NB_OP_reduce_max, y, n, axes, false);
    return nb_node_output(im, 0, y);
}
