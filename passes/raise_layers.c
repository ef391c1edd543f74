/* Norms and activations: trees of plain ops, as rows. */
#include "passes/raise.h"

#include <math.h>

/* ---- conditions ----------------------------------------------------------------------------- */

static bool near(const nb_match *m, const char *name, double value) {
    double number;
    return nb_const_number(nb_got(m, name), &number) && fabs(number - value) <= 1e-4 * fabs(value);
}

/* reduce_mean over the last axis, kept. */
static bool over_last(const nb_op *mean) {
    const nb_attr *axes = nb_attr_of(mean, "axes");
    return nb_attr_bool(mean, "keep") && axes->ints.count == 1 &&
           axes->ints.items[0] == nb_in(mean, 0)->type->rank - 1;
}

static const char *norm_refuses(const nb_match *m, const char *x, const char *gain) {
    double eps;
    const nb_type *t = nb_got(m, x)->type, *g = nb_got(m, gain)->type;
    if (!over_last(nb_got_op(m, "mean"))) return "the mean is not over the last axis";
    if (!nb_const_number(nb_got(m, "eps"), &eps)) return "epsilon is not a constant number";
    if (g->rank != 1 || g->dims[0] != t->dims[t->rank - 1] || g->elem != t->elem)
        return "the gain is not a vector along the last axis";
    return NULL;
}

static const char *is_rms(const nb_match *m) { return norm_refuses(m, "x", "gain"); }

static nb_value *norm(nb_builder *b, nb_op_kind kind, nb_value *x, nb_value *gain, nb_value *bias,
                      double eps) {
    nb_begin(b, kind);
    nb_arg(b, x);
    nb_arg(b, gain);
    if (bias) nb_arg(b, bias);
    nb_set_float(b, "eps", (float)eps);
    return nb_end(b);
}

static nb_value *to_rms(nb_match *m, nb_builder *b) {
    double eps = 0;
    nb_const_number(nb_got(m, "eps"), &eps);
    return norm(b, NB_OP_rms_norm, nb_got(m, "x"), nb_got(m, "gain"), NULL, eps);
}

/* d = x - mean(x) */
static const char *is_layer_norm(const nb_match *m) {
    const nb_op *sub = nb_got_op(m, "d"),
                *mean = sub ? nb_made_by(nb_in(sub, 1), NB_OP_reduce_mean) : NULL;
    if (!sub || sub->kind != NB_OP_sub || !mean || nb_in(mean, 0) != nb_in(sub, 0) ||
        !over_last(mean))
        return "it is not centred on its own mean";
    return norm_refuses(m, "d", "gain");
}

static nb_value *to_layer_norm(nb_match *m, nb_builder *b) {
    double eps = 0;
    nb_const_number(nb_got(m, "eps"), &eps);
    return norm(b, NB_OP_layer_norm, nb_in(nb_got_op(m, "d"), 0), nb_got(m, "gain"), NULL, eps);
}

static const char *can_take_bias(const nb_match *m) {
    const nb_op *n = nb_got_op(m, "n");
    if (nb_in(n, 2)) return "it has a bias already";
    return nb_got(m, "bias")->type == nb_in(n, 1)->type
               ? NULL
               : "the addend is not a vector along the last axis";
}

static nb_value *add_bias(nb_match *m, nb_builder *b) {
    const nb_op *n = nb_got_op(m, "n");
    return norm(b, NB_OP_layer_norm, nb_in(n, 0), nb_in(n, 1), nb_got(m, "bias"),
                (double)nb_attr_float(n, "eps"));
}

static nb_value *to_silu(nb_match *m, nb_builder *b) {
    return nb_unary(b, NB_OP_silu, nb_got(m, "x"));
}

static const char *is_gelu_divided(const nb_match *m) {
    return near(m, "c", sqrt(2.0)) ? NULL : "erf's argument is not x / sqrt(2)";
}
static const char *is_gelu_multiplied(const nb_match *m) {
    return near(m, "c", sqrt(0.5)) ? NULL : "erf's argument is not x / sqrt(2)";
}
static nb_value *to_gelu(nb_match *m, nb_builder *b) {
    return nb_unary(b, NB_OP_gelu, nb_got(m, "x"));
}

/* ---- rows ----------------------------------------------------------------------------------- */

#define X    PAT_ANY("x")
#define D    PAT_ANY("d")
#define GAIN PAT_ANY("gain")
/* sqrt(mean(v*v) + eps) */
#define ROOT(square) \
    PAT_OP("sqrt", "", PAT_OP("add", "", PAT_OP("reduce_mean", "mean", square), PAT_CONST("eps")))
#define POW(v)      PAT_OP("pow", "", v, PAT_NUMBER(2))
#define MUL(v)      PAT_OP("mul", "", v, v)
#define ONE_OVER(v) PAT_OP("div", "", PAT_NUMBER(1), v)
#define INVERSE(v)  PAT_OP("reciprocal", "", v)
#define TIMES(a, b) PAT_OP("mul", "", a, b)
#define ERF_DIV \
    PAT_OP("add", "", PAT_OP("erf", "", PAT_OP("div", "", X, PAT_CONST("c"))), PAT_NUMBER(1))
#define ERF_MUL \
    PAT_OP("add", "", PAT_OP("erf", "", PAT_OP("mul", "", X, PAT_CONST("c"))), PAT_NUMBER(1))

static const nb_rule rules[] = {
    /* Before the RMS norms, which a centred value divided by its root mean square is too. */
    {"layer-norm-pow",
     "gain * (d / sqrt(mean(d^2) + eps)), d = x - mean(x)  ->  layer_norm(x, gain)",
     TIMES(GAIN, PAT_OP("div", "", D, ROOT(POW(D)))), is_layer_norm, to_layer_norm},
    {"layer-norm-mul",
     "gain * (d / sqrt(mean(d*d) + eps)), d = x - mean(x)  ->  layer_norm(x, gain)",
     TIMES(GAIN, PAT_OP("div", "", D, ROOT(MUL(D)))), is_layer_norm, to_layer_norm},
    {"rms-pow-div", "gain * (x * (1 / sqrt(mean(x^2) + eps)))  ->  rms_norm(x, gain)",
     TIMES(GAIN, TIMES(X, ONE_OVER(ROOT(POW(X))))), is_rms, to_rms},
    {"rms-mul-div", "gain * (x * (1 / sqrt(mean(x*x) + eps)))  ->  rms_norm(x, gain)",
     TIMES(GAIN, TIMES(X, ONE_OVER(ROOT(MUL(X))))), is_rms, to_rms},
    {"rms-pow-reciprocal", "gain * (x * reciprocal(sqrt(mean(x^2) + eps)))  ->  rms_norm(x, gain)",
     TIMES(GAIN, TIMES(X, INVERSE(ROOT(POW(X))))), is_rms, to_rms},
    {"rms-mul-reciprocal", "gain * (x * reciprocal(sqrt(mean(x*x) + eps)))  ->  rms_norm(x, gain)",
     TIMES(GAIN, TIMES(X, INVERSE(ROOT(MUL(X))))), is_rms, to_rms},
    {"rms-pow-quotient", "gain * (x / sqrt(mean(x^2) + eps))  ->  rms_norm(x, gain)",
     TIMES(GAIN, PAT_OP("div", "", X, ROOT(POW(X)))), is_rms, to_rms},
    {"rms-mul-quotient", "gain * (x / sqrt(mean(x*x) + eps))  ->  rms_norm(x, gain)",
     TIMES(GAIN, PAT_OP("div", "", X, ROOT(MUL(X)))), is_rms, to_rms},
    {"layer-norm-bias", "layer_norm(x, gain) + bias  ->  layer_norm(x, gain, bias)",
     PAT_OP("add", "", PAT_OP1("layer_norm", "n"), PAT_ANY("bias")), can_take_bias, add_bias},
    {"silu", "x * sigmoid(x)  ->  silu(x)", TIMES(X, PAT_OP("sigmoid", "", X)), NULL, to_silu},
    {"gelu-1", "(x * (erf(x / sqrt(2)) + 1)) * 0.5  ->  gelu(x)",
     TIMES(TIMES(X, ERF_DIV), PAT_NUMBER(0.5)), is_gelu_divided, to_gelu},
    {"gelu-2", "(x * 0.5) * (erf(x / sqrt(2)) + 1)  ->  gelu(x)",
     TIMES(TIMES(X, PAT_NUMBER(0.5)), ERF_DIV), is_gelu_divided, to_gelu},
    {"gelu-3", "x * ((erf(x / sqrt(2)) + 1) * 0.5)  ->  gelu(x)",
     TIMES(X, TIMES(ERF_DIV, PAT_NUMBER(0.5))), is_gelu_divided, to_gelu},
    {"gelu-4", "(x * (erf(x * sqrt(1/2)) + 1)) * 0.5  ->  gelu(x)",
     TIMES(TIMES(X, ERF_MUL), PAT_NUMBER(0.5)), is_gelu_multiplied, to_gelu},
    {"gelu-5", "(x * 0.5) * (erf(x * sqrt(1/2)) + 1)  ->  gelu(x)",
     TIMES(TIMES(X, PAT_NUMBER(0.5)), ERF_MUL), is_gelu_multiplied, to_gelu},
    {"gelu-6", "x * ((erf(x * sqrt(1/2)) + 1) * 0.5)  ->  gelu(x)",
     TIMES(X, TIMES(ERF_MUL, PAT_NUMBER(0.5))), is_gelu_multiplied, to_gelu},
};

bool nb_raise_layers(nb_pass_ctx *ctx, bool *changed) {
    return nb_rewrite_run(ctx, rules, NB_COUNT(rules), changed);
}
