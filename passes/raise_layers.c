/* Norms and activations: formulas of plain ops, as rows.
 *
 * Products match in every spelling (rewrite.h), so a row is the formula, not one exporter's way to
 * write it. Layer norm stands before RMS norm, which its centred form contains. */
#include "passes/raise.h"

#include <string.h>

/* ---- conditions ----------------------------------------------------------------------------- */

/* reduce_mean over the last axis, kept. */
static bool over_last(const nb_op *mean) {
    const nb_attr *axes = nb_attr_of(mean, "axes");
    int rank = nb_in(mean, 0)->type->rank;
    return nb_attr_bool(mean, "keep") && axes->ints.count == 1 &&
           (axes->ints.items[0] == rank - 1 || axes->ints.items[0] == -1);
}

/* One number for each index of the last axis of x, the same for all rows. */
static bool is_row_vector(const nb_value *v, const nb_type *x) {
    const nb_type *t = v->type;
    if (t->rank < 1 || t->rank > x->rank || t->quant || x->rank < 1) return false;
    for (int d = 0; d < t->rank - 1; d++) {
        if (!nb_dim_is(t->dims[d], 1)) return false;
    }
    return t->dims[t->rank - 1] == x->dims[x->rank - 1];
}

static bool same_shape(const nb_type *a, const nb_type *b) {
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

static const char *norm_refuses(const nb_match *m, const char *x) {
    double eps;
    const nb_type *t = nb_got(m, x)->type;
    if (!over_last(nb_got_op(m, "mean"))) return "the mean is not over the last axis, kept";
    if (!nb_const_number(nb_got(m, "eps"), &eps)) return "epsilon is not a constant number";
    if (!is_row_vector(nb_got(m, "gain"), t)) return "the gain is not a vector along the last axis";
    return same_shape(t, nb_out(m->root)->type) ? NULL : "the shape changes";
}

static const char *is_rms(const nb_match *m) { return norm_refuses(m, "x"); }

static const char *is_layer_norm(const nb_match *m) {
    if (!over_last(nb_got_op(m, "centre"))) return "the centre is not the mean of the last axis";
    return norm_refuses(m, "d");
}

static const char *can_take_bias(const nb_match *m) {
    const nb_op *n = nb_got_op(m, "n");
    if (nb_in(n, 2)) return "it has a bias already";
    return is_row_vector(nb_got(m, "bias"), nb_out(n)->type)
               ? NULL
               : "the addend is not a vector along the last axis";
}

static const char *keeps_type(const nb_match *m) {
    const nb_type *x = nb_got(m, "x")->type;
    return x == nb_out(m->root)->type && nb_elem_is_float(x->elem) ? NULL : "the type changes";
}

/* ---- replacements --------------------------------------------------------------------------- */

static nb_value *flat(nb_builder *b, nb_value *v) {
    return v->type->rank == 1 ? v : nb_reshape(b, v, 1, &v->type->dims[v->type->rank - 1]);
}

static nb_value *norm(nb_builder *b, nb_op_kind kind, nb_value *x, nb_value *gain, nb_value *bias,
                      float eps) {
    nb_value *vector = flat(b, gain), *addend = bias ? flat(b, bias) : NULL;
    nb_begin(b, kind);
    nb_arg(b, x);
    nb_arg(b, vector);
    if (addend) nb_arg(b, addend);
    nb_set_float(b, "eps", eps);
    return nb_end(b);
}

static float epsilon(const nb_match *m) {
    double eps = 0;
    nb_const_number(nb_got(m, "eps"), &eps);
    return (float)eps;
}

static nb_value *to_rms(nb_match *m, nb_builder *b) {
    return norm(b, NB_OP_rms_norm, nb_got(m, "x"), nb_got(m, "gain"), NULL, epsilon(m));
}

/* The gain is applied before the cast instead of after it: one rounding less. */
static nb_value *to_rms_cast(nb_match *m, nb_builder *b) {
    nb_value *x = nb_got(m, "x"), *gain = nb_cast(b, nb_got(m, "gain"), x->type->elem);
    if (!gain) return NULL;
    return nb_cast(b, norm(b, NB_OP_rms_norm, x, gain, NULL, epsilon(m)),
                   nb_out(m->root)->type->elem);
}

static nb_value *to_layer_norm(nb_match *m, nb_builder *b) {
    return norm(b, NB_OP_layer_norm, nb_got(m, "x"), nb_got(m, "gain"), NULL, epsilon(m));
}

static nb_value *add_bias(nb_match *m, nb_builder *b) {
    const nb_op *n = nb_got_op(m, "n");
    return norm(b, NB_OP_layer_norm, nb_in(n, 0), nb_in(n, 1), nb_got(m, "bias"),
                nb_attr_float(n, "eps"));
}

static nb_value *to_silu(nb_match *m, nb_builder *b) {
    return nb_unary(b, NB_OP_silu, nb_got(m, "x"));
}
static nb_value *to_gelu(nb_match *m, nb_builder *b) {
    return nb_unary(b, NB_OP_gelu, nb_got(m, "x"));
}
static nb_value *to_gelu_tanh(nb_match *m, nb_builder *b) {
    return nb_unary(b, NB_OP_gelu_tanh, nb_got(m, "x"));
}

/* ---- rows ----------------------------------------------------------------------------------- */

#define X            PAT_ANY("x")
#define GAIN         PAT_ANY("gain")
#define MEAN(v)      PAT_OP("reduce_mean", "mean", v)
#define SQUARE(v)    PAT_PRODUCT(1, PAT_POWER(2, v))
#define ONE_PLUS(v)  PAT_OP("add", "", v, PAT_NUMBER(1))
#define HALF_X(v)    PAT_PRODUCT(0.5, X, ONE_PLUS(v))
#define SQRT_HALF    0.70710678118654752
#define SQRT_2_PI    0.79788456080286536 /* sqrt(2/pi) */
#define OVER_RMS(v)  PAT_POWER(-0.5, PAT_OP("add", "", MEAN(SQUARE(v)), PAT_CONST("eps")))
#define CENTRED      PAT_OP("sub", "d", X, PAT_OP("reduce_mean", "centre", X))
#define EXP_MINUS(v) PAT_OP("exp", "", PAT_PRODUCT(-1, v))

static const nb_rule rules[] = {
    {"layer-norm", "gain * d / sqrt(mean(d^2) + eps), d = x - mean(x)  ->  layer_norm(x, gain)",
     PAT_PRODUCT(1, CENTRED, OVER_RMS(PAT_ANY("d")), GAIN), is_layer_norm, to_layer_norm},
    {"layer-norm-bias", "layer_norm(x, gain) + bias  ->  layer_norm(x, gain, bias)",
     PAT_OP("add", "", PAT_OP1("layer_norm", "n"), PAT_ANY("bias")), can_take_bias, add_bias},
    {"rms-norm", "gain * x / sqrt(mean(x^2) + eps)  ->  rms_norm(x, gain)",
     PAT_PRODUCT(1, X, OVER_RMS(X), GAIN), is_rms, to_rms},
    {"rms-norm-cast", "gain * cast(x / sqrt(mean(x^2) + eps))  ->  cast(rms_norm(x, cast(gain)))",
     PAT_PRODUCT(1, PAT_OP("cast", "", PAT_PRODUCT(1, X, OVER_RMS(X))), GAIN), is_rms, to_rms_cast},
    {"silu", "x * sigmoid(x)  ->  silu(x)", PAT_PRODUCT(1, X, PAT_OP("sigmoid", "", X)), keeps_type,
     to_silu},
    {"silu-exp", "x / (1 + exp(-x))  ->  silu(x)",
     PAT_PRODUCT(1, X, PAT_POWER(-1, ONE_PLUS(EXP_MINUS(X)))), keeps_type, to_silu},
    {"gelu", "0.5 * x * (1 + erf(sqrt(1/2) * x))  ->  gelu(x)",
     HALF_X(PAT_OP("erf", "", PAT_PRODUCT(SQRT_HALF, X))), keeps_type, to_gelu},
    {"gelu-tanh", "0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))  ->  gelu_tanh(x)",
     HALF_X(PAT_OP(
         "tanh", "",
         PAT_PRODUCT(SQRT_2_PI, PAT_OP("add", "", X, PAT_PRODUCT(0.044715, PAT_POWER(3, X)))))),
     keeps_type, to_gelu_tanh},
    {"gelu-tanh-factored",
     "0.5 * x * (1 + tanh(sqrt(2/pi) * x * (1 + 0.044715 * x^2)))  ->  gelu_tanh(x)",
     HALF_X(PAT_OP("tanh", "",
                   PAT_PRODUCT(SQRT_2_PI, X, ONE_PLUS(PAT_PRODUCT(0.044715, PAT_POWER(2, X)))))),
     keeps_type, to_gelu_tanh},
};

bool nb_raise_layers(nb_pass_ctx *ctx, bool *changed) {
    return nb_rewrite_run(ctx, rules, NB_COUNT(rules), changed);
}
