/* Trigonometric and hyperbolic functions and their inverses, of the few that the IR has: each form
 * is one that loses no digits where its argument is small or close to the end of its range. */
#include "frontend/import.h"

#include <math.h>

/* Beyond, x*x + 1 is x*x: the logarithm of 2x is what is left of asinh and acosh. */
#define LARGE 0x1p30

static nb_value *op(nb_importer *im, nb_op_kind kind, nb_value *x) {
    return nb_unary(&im->b, kind, x);
}

/* log(1 + x): u = 1 + x is rounded, but log(u) * x / (u - 1) is right again (Higham, "Accuracy and
 * Stability of Numerical Algorithms", 1.14.1). */
static nb_value *log1p_of(nb_importer *im, nb_value *x) {
    nb_value *u = nb_plus(im, x, 1), *d = nb_plus(im, u, -1);
    nb_value *factor = nb_combine(im, NB_OP_div, x, d);
    nb_value *y = nb_combine(im, NB_OP_mul, op(im, NB_OP_log, u), factor);
    nb_value *none = d ? nb_combine(im, NB_OP_eq, d, nb_scalar(im, d->type->elem, 0)) : NULL;
    return none ? nb_choose(im, none, x, y) : NULL;
}

/* y with the sign of x: y is at least 0, and 0 where x is. */
static nb_value *signed_as(nb_importer *im, nb_value *x, nb_value *y) {
    return nb_combine(im, NB_OP_mul, op(im, NB_OP_sign, x), y);
}

static nb_value *less_than(nb_importer *im, nb_value *x, double bound) {
    return x ? nb_combine(im, NB_OP_lt, x, nb_scalar(im, x->type->elem, bound)) : NULL;
}

/* (1 - x) (1 + x), which is 0 only at the ends. */
static nb_value *room(nb_importer *im, nb_value *x) {
    return nb_combine(im, NB_OP_mul, nb_plus(im, op(im, NB_OP_neg, x), 1), nb_plus(im, x, 1));
}

static nb_value *tan_of(nb_importer *im, nb_value *x) {
    return nb_combine(im, NB_OP_div, op(im, NB_OP_sin, x), op(im, NB_OP_cos, x));
}

static nb_value *asin_of(nb_importer *im, nb_value *x) {
    nb_value *side = op(im, NB_OP_sqrt, room(im, x));
    return op(im, NB_OP_atan, nb_combine(im, NB_OP_div, x, side));
}

static nb_value *acos_of(nb_importer *im, nb_value *x) {
    nb_value *ratio =
        nb_combine(im, NB_OP_div, nb_plus(im, op(im, NB_OP_neg, x), 1), nb_plus(im, x, 1));
    return nb_times(im, op(im, NB_OP_atan, op(im, NB_OP_sqrt, ratio)), 2);
}

/* exp(|x|) / 2, as a square: nothing overflows before the result does. */
static nb_value *half_exp(nb_importer *im, nb_value *x) {
    nb_value *root = op(im, NB_OP_exp, nb_times(im, op(im, NB_OP_abs, x), 0.5));
    return nb_combine(im, NB_OP_mul, nb_times(im, root, 0.5), root);
}

/* 2t / (1 - t^2) with t = tanh(x/2) for small x. */
static nb_value *sinh_of(nb_importer *im, nb_value *x) {
    nb_value *large = half_exp(im, x),
             *inverse = nb_combine(im, NB_OP_div, nb_scalar(im, x->type->elem, 0.25), large);
    large = signed_as(im, x, nb_combine(im, NB_OP_sub, large, inverse));
    nb_value *t = op(im, NB_OP_tanh, nb_times(im, x, 0.5));
    nb_value *small = nb_combine(im, NB_OP_div, nb_times(im, t, 2), room(im, t));
    return nb_choose(im, less_than(im, op(im, NB_OP_abs, x), 1), small, large);
}

static nb_value *cosh_of(nb_importer *im, nb_value *x) {
    nb_value *large = half_exp(im, x),
             *inverse = nb_combine(im, NB_OP_div, nb_scalar(im, x->type->elem, 0.25), large);
    return nb_combine(im, NB_OP_add, large, inverse);
}

/* log1p(a + a^2 / (1 + sqrt(a^2 + 1))) of a = |x| */
static nb_value *asinh_of(nb_importer *im, nb_value *x) {
    nb_value *a = op(im, NB_OP_abs, x), *square = nb_combine(im, NB_OP_mul, a, a);
    nb_value *root = nb_plus(im, op(im, NB_OP_sqrt, nb_plus(im, square, 1)), 1);
    nb_value *rest = nb_combine(im, NB_OP_div, square, root);
    nb_value *small = log1p_of(im, nb_combine(im, NB_OP_add, a, rest));
    nb_value *large = nb_plus(im, op(im, NB_OP_log, a), M_LN2);
    return signed_as(im, x, nb_choose(im, less_than(im, a, LARGE), small, large));
}

/* log1p(t + sqrt(t) sqrt(x + 1)) of t = x - 1; NaN below 1, by either root. */
static nb_value *acosh_of(nb_importer *im, nb_value *x) {
    nb_value *t = nb_plus(im, x, -1), *more = op(im, NB_OP_sqrt, nb_plus(im, x, 1));
    nb_value *root = nb_combine(im, NB_OP_mul, op(im, NB_OP_sqrt, t), more);
    nb_value *small = log1p_of(im, nb_combine(im, NB_OP_add, t, root));
    nb_value *large = nb_plus(im, op(im, NB_OP_log, x), M_LN2);
    return nb_choose(im, less_than(im, x, LARGE), small, large);
}

/* log1p(2a / (1 - a)) / 2 of a = |x|; from 1/2 on the plain logarithm, which has no 0/0 at 1. */
static nb_value *atanh_of(nb_importer *im, nb_value *x) {
    nb_value *a = op(im, NB_OP_abs, x), *left = nb_plus(im, op(im, NB_OP_neg, a), 1);
    nb_value *small = log1p_of(im, nb_combine(im, NB_OP_div, nb_times(im, a, 2), left));
    nb_value *large = op(im, NB_OP_log, nb_combine(im, NB_OP_div, nb_plus(im, a, 1), left));
    nb_value *twice = nb_choose(im, less_than(im, a, 0.5), small, large);
    return signed_as(im, x, nb_times(im, twice, 0.5));
}

nb_status nb_import_trig(nb_importer *im) {
    static const nb_form forms[] = {
        {"Tan", tan_of},   {"Asin", asin_of},   {"Acos", acos_of},   {"Sinh", sinh_of},
        {"Cosh", cosh_of}, {"Asinh", asinh_of}, {"Acosh", acosh_of}, {"Atanh", atanh_of},
    };
    return nb_apply_form(im, NB_COUNT(forms), forms);
}
