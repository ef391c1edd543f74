/* Activations: functions of one float, most of them a few elementwise ops. */
#include "frontend/import.h"

#include <string.h>
#include <strings.h>

static nb_value *at_least(nb_importer *im, nb_value *x, double bound) {
    return x ? nb_combine(im, NB_OP_max, x, nb_scalar(im, x->type->elem, bound)) : NULL;
}
static nb_value *at_most(nb_importer *im, nb_value *x, double bound) {
    return x ? nb_combine(im, NB_OP_min, x, nb_scalar(im, x->type->elem, bound)) : NULL;
}
static nb_value *hard_sigmoid(nb_importer *im, nb_value *x, double alpha, double beta) {
    return at_most(im, at_least(im, nb_plus(im, nb_times(im, x, alpha), beta), 0), 1);
}

/* `below` where x is less than 0, else `other`. */
static nb_value *if_negative(nb_importer *im, nb_value *x, nb_value *below, nb_value *other) {
    nb_value *zero = nb_scalar(im, x->type->elem, 0);
    return nb_choose(im, nb_combine(im, NB_OP_lt, x, zero), below, other);
}

/* alpha * (exp(x) - 1) */
static nb_value *exp_branch(nb_importer *im, nb_value *x, double alpha) {
    return nb_times(im, nb_plus(im, nb_unary(&im->b, NB_OP_exp, x), -1), alpha);
}

/* What the operators of these names and cells of recurrent layers share: alpha and beta are given.
 */
static nb_value *leaky(nb_importer *im, nb_value *x, double alpha, double beta) {
    (void)beta;
    return if_negative(im, x, nb_times(im, x, alpha), x);
}
static nb_value *exponential(nb_importer *im, nb_value *x, double alpha, double beta) {
    (void)beta;
    return if_negative(im, x, exp_branch(im, x, alpha), x);
}
static nb_value *above(nb_importer *im, nb_value *x, double alpha, double beta) {
    (void)beta;
    nb_value *bound = nb_scalar(im, x->type->elem, alpha), *zero = nb_scalar(im, x->type->elem, 0);
    return nb_choose(im, nb_combine(im, NB_OP_lt, bound, x), x, zero);
}
static nb_value *affine(nb_importer *im, nb_value *x, double alpha, double beta) {
    return nb_plus(im, nb_times(im, x, alpha), beta);
}
static nb_value *scaled_tanh(nb_importer *im, nb_value *x, double alpha, double beta) {
    return nb_times(im, nb_unary(&im->b, NB_OP_tanh, nb_times(im, x, beta)), alpha);
}

static nb_value *leaky_relu(nb_importer *im, nb_value *x) {
    return leaky(im, x, (double)nb_node_float(im, "alpha", 0.01f), 0);
}

static nb_value *elu(nb_importer *im, nb_value *x) {
    return exponential(im, x, (double)nb_node_float(im, "alpha", 1), 0);
}

static nb_value *selu(nb_importer *im, nb_value *x) {
    double alpha = (double)nb_node_float(im, "alpha", 1.67326319217681884765625f),
           gamma = (double)nb_node_float(im, "gamma", 1.05070102214813232421875f);
    return nb_times(im, if_negative(im, x, exp_branch(im, x, alpha), x), gamma);
}

static nb_value *celu(nb_importer *im, nb_value *x) {
    double alpha = (double)nb_node_float(im, "alpha", 1);
    nb_value *scaled = nb_combine(im, NB_OP_div, x, nb_scalar(im, x->type->elem, alpha));
    return if_negative(im, x, exp_branch(im, scaled, alpha), x);
}

static nb_value *hard_sigmoid_of(nb_importer *im, nb_value *x) {
    return hard_sigmoid(im, x, (double)nb_node_float(im, "alpha", 0.2f),
                        (double)nb_node_float(im, "beta", 0.5f));
}

static nb_value *hard_swish(nb_importer *im, nb_value *x) {
    return nb_combine(im, NB_OP_mul, x, hard_sigmoid(im, x, 1.0 / 6, 0.5));
}

static nb_value *thresholded_relu(nb_importer *im, nb_value *x) {
    return above(im, x, (double)nb_node_float(im, "alpha", 1), 0);
}

static nb_value *softsign(nb_importer *im, nb_value *x) {
    return nb_combine(im, NB_OP_div, x, nb_plus(im, nb_unary(&im->b, NB_OP_abs, x), 1));
}

static nb_value *mish(nb_importer *im, nb_value *x) {
    nb_value *gate = nb_unary(&im->b, NB_OP_tanh, nb_unary(&im->b, NB_OP_softplus, x));
    return nb_combine(im, NB_OP_mul, x, gate);
}

/* Towards 0 by `bias`; 0 between -lambd and lambd. */
static nb_value *shrink(nb_importer *im, nb_value *x) {
    double lambd = (double)nb_node_float(im, "lambd", 0.5f),
           bias = (double)nb_node_float(im, "bias", 0);
    nb_elem elem = x->type->elem;
    nb_value *high = nb_combine(im, NB_OP_lt, nb_scalar(im, elem, lambd), x),
             *low = nb_combine(im, NB_OP_lt, x, nb_scalar(im, elem, -lambd));
    nb_value *inside = nb_choose(im, high, nb_plus(im, x, -bias), nb_scalar(im, elem, 0));
    return nb_choose(im, low, nb_plus(im, x, bias), inside);
}

nb_status nb_import_activation(nb_importer *im) {
    static const nb_form forms[] = {
        {"LeakyRelu", leaky_relu},
        {"Elu", elu},
        {"Selu", selu},
        {"Celu", celu},
        {"HardSigmoid", hard_sigmoid_of},
        {"HardSwish", hard_swish},
        {"ThresholdedRelu", thresholded_relu},
        {"Softsign", softsign},
        {"Mish", mish},
        {"Shrink", shrink},
    };
    return nb_apply_form(im, NB_COUNT(forms), forms);
}

static nb_value *softsign_of(nb_importer *im, nb_value *x, double alpha, double beta) {
    (void)alpha;
    (void)beta;
    return softsign(im, x);
}

const nb_cell_function *nb_cell_function_named(const char *name) {
    static const nb_cell_function functions[] = {
        {"Sigmoid", NB_OP_sigmoid, NULL, 0, 0, 0},
        {"Tanh", NB_OP_tanh, NULL, 0, 0, 0},
        {"Relu", NB_OP_relu, NULL, 0, 0, 0},
        {"Softplus", NB_OP_softplus, NULL, 0, 0, 0},
        {"Softsign", NB_OP_COUNT, softsign_of, 0, 0, 0},
        {"Affine", NB_OP_COUNT, affine, 2, 1, 0},
        {"LeakyRelu", NB_OP_COUNT, leaky, 1, 0.01f, 0},
        {"ThresholdedRelu", NB_OP_COUNT, above, 1, 1, 0},
        {"ScaledTanh", NB_OP_COUNT, scaled_tanh, 2, 1, 1},
        {"HardSigmoid", NB_OP_COUNT, hard_sigmoid, 2, 0.2f, 0.5f},
        {"Elu", NB_OP_COUNT, exponential, 1, 1, 0},
    };
    for (size_t i = 0; i < NB_COUNT(functions); i++)
        if (strcasecmp(functions[i].name, name) == 0) return &functions[i];
    return NULL;
}

nb_value *nb_activated(nb_importer *im, nb_value *x, size_t n, const float *numbers) {
    const char *name = nb_node_string(im, "activation", "");
    if (!*name || !x) return x;
    if (strcmp(name, "Clip") == 0 && n == 2)
        return at_most(im, at_least(im, x, (double)numbers[0]), (double)numbers[1]);
    const nb_cell_function *f = nb_cell_function_named(name);
    if (!f) {
        nb_node_error(im, NB_UNSUPPORTED, "activation '%s' is not supported", name);
        return NULL;
    }
    if (f->kind != NB_OP_COUNT) return nb_unary(&im->b, f->kind, x);
    return f->of(im, x, (double)(n > 0 ? numbers[0] : f->alpha),
                 (double)(n > 1 ? numbers[1] : f->beta));
}

nb_status nb_import_prelu(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *slope = nb_node_input(im, 1);
    if (!x || !slope) return NB_MALFORMED;
    nb_value *scaled = nb_combine(im, NB_OP_mul, x, slope);
    return nb_node_output(
        im, 0,
        nb_choose(im, nb_combine(im, NB_OP_lt, x, nb_scalar(im, x->type->elem, 0)), scaled, x));
}

/* x * sigmoid(alpha * x) */
nb_value *nb_swish(nb_importer *im, nb_value *x, float alpha) {
    if (alpha == 1.0f || !x) return nb_unary(&im->b, NB_OP_silu, x);
    return nb_combine(im, NB_OP_mul, x,
                      nb_unary(&im->b, NB_OP_sigmoid, nb_times(im, x, (double)alpha)));
}

/* Swish, QuickGelu. */
nb_status nb_import_swish(nb_importer *im) {
    float alpha = nb_node_float(im, "alpha", im->argument ? 1.702f : 1);
    return nb_node_output(im, 0, nb_swish(im, nb_node_input(im, 0), alpha));
}

nb_status nb_import_swiglu(nb_importer *im) {
    nb_value *gate = nb_swish(im, nb_node_input(im, 0), nb_node_float(im, "alpha", 1)),
             *up = nb_node_input(im, 1);
    return nb_node_output(im, 0, gate && up ? nb_combine(im, NB_OP_mul, gate, up) : NULL);
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
