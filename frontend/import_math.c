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

/* ONNX rounds to powers of two up, down or to the nearest, whatever the sign; the IR's cast rounds
 * to the nearest. An f32 is brought to one in its bits. */
static nb_value *to_power_of_two(nb_importer *im, nb_value *x) {
    const char *mode = nb_node_string(im, "round_mode", "up");
    if (x && x->type->elem != NB_F32) x = nb_cast(&im->b, x, NB_F32);
    x = nb_unary(&im->b, NB_OP_abs, x);
    if (strcmp(mode, "nearest") == 0 || !x) return x;
    bool up = strcmp(mode, "up") == 0;
    if (!up && strcmp(mode, "down") != 0) {
        nb_node_error(im, NB_MALFORMED, "round_mode is '%s', expected up, down or nearest", mode);
        return NULL;
    }
    nb_value *number = nb_binary(&im->b, NB_OP_eq, x, x), *bits = nb_bitcast(im, x, NB_I32);
    if (up) bits = nb_plus(im, bits, 0x7fffff); /* no number's bits overflow */
    bits = nb_combine(im, NB_OP_and, bits, nb_scalar(im, NB_I32, 0x7f800000));
    return nb_choose(im, number, nb_bitcast(im, bits, NB_F32), x);
}

/* ONNX saturates casts to f8, if the node does not say otherwise. Numbers beyond integers of 4 and
 * 2 bits lose their high bits. */
static nb_status cast_to(nb_importer *im, int onnx) {
    nb_elem to = nb_elem_from_onnx(onnx);
    if (to == NB_ELEM_COUNT)
        return nb_node_error(im, NB_UNSUPPORTED, "a cast to element type %d is not supported",
                             onnx);
    nb_value *x = nb_node_input(im, 0);
    if (!x || x->type->elem == to) return nb_node_output(im, 0, x);
    bool from_float = nb_elem_is_float(x->type->elem), small = nb_elems[to].bits < 8;
    if (to == NB_F8E8M0) x = to_power_of_two(im, x);
    if (from_float && small && nb_elem_is_integer(to)) x = nb_cast(&im->b, x, NB_I32);
    if (!x) return nb_node_output(im, 0, NULL);
    nb_begin(&im->b, NB_OP_cast);
    nb_arg(&im->b, x);
    nb_set_elem(&im->b, "to", to);
    bool f8 = nb_elem_is_float(to) && nb_elems[to].bits == 8;
    if (f8 && !nb_node_int(im, "saturate", 1)) nb_set_bool(&im->b, "overflow", true);
    return nb_node_output(im, 0, nb_end(&im->b));
}

/* Booleans are bytes of 0 and 1. */
nb_status nb_import_bit_cast(nb_importer *im) {
    int64_t onnx = nb_node_int(im, "to", 0);
    nb_elem to = onnx == (int)onnx ? nb_elem_from_onnx((int)onnx) : NB_ELEM_COUNT;
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (to == NB_ELEM_COUNT || nb_elems[to].bits != nb_elems[x->type->elem].bits)
        return nb_node_error(im, NB_MALFORMED,
                             "the bits of %s cannot be those of element type %lld",
                             nb_elems[x->type->elem].text, (long long)onnx);
    if (x->type->elem == NB_BOOL) x = nb_cast(&im->b, x, NB_U8);
    nb_value *y = x && to == NB_BOOL ? nb_cast(&im->b, x, NB_BOOL) : nb_bitcast(im, x, to);
    return nb_node_output(im, 0, y);
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

/* A whole number of ones: x shifted by y is x * 2^y or x / 2^y, and 0 beyond the width, where 2^y
 * wraps to 0 and so does its quotient. */
nb_status nb_import_bit_shift(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *y = nb_node_input(im, 1);
    if (!x || !y) return NB_MALFORMED;
    if (nb_elems[x->type->elem].class_ != NB_CLASS_UINT)
        return nb_node_error(im, NB_MALFORMED, "takes unsigned integers, found %s",
                             nb_elems[x->type->elem].text);
    const char *direction = nb_node_string(im, "direction", "");
    bool left = strcmp(direction, "LEFT") == 0;
    if (!left && strcmp(direction, "RIGHT") != 0)
        return nb_node_error(im, NB_MALFORMED, "direction is '%s', expected LEFT or RIGHT",
                             direction);
    nb_value *factor = nb_combine(im, NB_OP_pow, nb_scalar(im, x->type->elem, 2), y);
    return nb_node_output(im, 0, nb_combine(im, left ? NB_OP_mul : NB_OP_div, x, factor));
}

static bool check_bits(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x || nb_elem_is_integer(x->type->elem)) return x;
    nb_node_error(im, NB_MALFORMED, "takes integers, found %s", nb_elems[x->type->elem].text);
    return false;
}

nb_status nb_import_bitwise(nb_importer *im) {
    return check_bits(im) ? nb_import_binary(im) : NB_MALFORMED;
}
nb_status nb_import_bitwise_not(nb_importer *im) {
    return check_bits(im) ? nb_import_unary(im) : NB_MALFORMED;
}

nb_status nb_import_is_nan(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    return nb_node_output(
        im, 0, x ? nb_unary(&im->b, NB_OP_not, nb_binary(&im->b, NB_OP_eq, x, x)) : NULL);
}

nb_status nb_import_is_inf(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    bool negative = nb_node_int(im, "detect_negative", 1) != 0,
         positive = nb_node_int(im, "detect_positive", 1) != 0;
    nb_value *infinity =
        nb_scalar(im, x->type->elem, positive ? (double)INFINITY : -(double)INFINITY);
    if (negative && positive) x = nb_unary(&im->b, NB_OP_abs, x);
    nb_value *is = nb_combine(im, NB_OP_eq, x, infinity);
    if (!negative && !positive) /* nothing is looked for */
        is = nb_binary(&im->b, NB_OP_xor, is, is);
    return nb_node_output(im, 0, is);
}

/* ---- reductions ----------------------------------------------------------------------------- */

/* The node's reduction `of` x over its axes, which may be known to a run only. */
static nb_status reduce_node(nb_importer *im, nb_value *x, nb_reduced_fn of) {
    const int64_t *axes;
    size_t n;
    int64_t count = 1;
    if (!nb_node_attr(im, "axes") && !nb_is_known(im, 1)) {
        /* How many there are is known: none are all, or none. */
        if (!nb_type_static_count(nb_node_input(im, 1)->type, &count) || count)
            return nb_reduce_any_axes(im, x, nb_node_int(im, "keepdims", 1) != 0, of);
        n = 0;
        axes = NULL;
    } else {
        NB_TRY(nb_axes(im, 1, x->type->rank, &axes, &n));
    }
    if (n == 0 && nb_node_int(im, "noop_with_empty_axes", 0)) return nb_node_output(im, 0, x);
    return nb_node_output(im, 0, of(im, x, n, axes));
}

static nb_value *reduced(nb_importer *im, nb_value *x, size_t n, const int64_t *axes) {
    bool keep = nb_node_int(im, "keepdims", 1) != 0;
    nb_op_kind kind = (nb_op_kind)im->argument;
    if (kind == NB_OP_abs) x = nb_unary(&im->b, NB_OP_abs, x);
    if (kind == NB_OP_mul || kind == NB_OP_sqrt) x = nb_binary(&im->b, NB_OP_mul, x, x);
    bool around = kind == NB_OP_abs || kind == NB_OP_mul || kind == NB_OP_sqrt || kind == NB_OP_log;
    nb_value *y = nb_reduce(im, around ? NB_OP_reduce_sum : kind, x, n, axes, keep);
    return kind == NB_OP_sqrt || kind == NB_OP_log ? nb_unary(&im->b, kind, y) : y;
}

/* im->argument is the reduction itself, or what ReduceL1 (abs), L2 (sqrt), SumSquare (mul) and
 * LogSum (log) do around a sum. */
nb_status nb_import_reduce(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    return reduce_node(im, x, reduced);
}

/* log(sum(exp(x - m))) + m with m the largest, where it is finite: nothing overflows. */
static nb_value *log_sum_exp(nb_importer *im, nb_value *x, size_t n, const int64_t *axes) {
    nb_value *m = nb_reduce(im, NB_OP_reduce_max, x, n, axes, true);
    if (!m) return NULL;
    nb_value *huge = nb_scalar(im, x->type->elem, 3e38), *zero = nb_scalar(im, x->type->elem, 0);
    nb_value *finite = nb_combine(im, NB_OP_lt, nb_unary(&im->b, NB_OP_abs, m), huge);
    m = nb_choose(im, finite, m, zero);
    nb_value *e = nb_unary(&im->b, NB_OP_exp, nb_combine(im, NB_OP_sub, x, m));
    nb_value *sum = nb_reduce(im, NB_OP_reduce_sum, e, n, axes, true);
    nb_value *y = nb_combine(im, NB_OP_add, nb_unary(&im->b, NB_OP_log, sum), m);
    if (y && !nb_node_int(im, "keepdims", 1)) /* each reduced axis has length 1 */
        y = nb_reduce(im, NB_OP_reduce_max, y, n, axes, false);
    return y;
}

nb_status nb_import_log_sum_exp(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    if (!x) return NB_MALFORMED;
    if (!nb_elem_is_float(x->type->elem))
        return nb_node_error(im, NB_UNSUPPORTED, "logarithms of integers are not supported");
    return reduce_node(im, x, log_sum_exp);
}
