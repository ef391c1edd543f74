/* Divergence of outputs (divergence.h). */
#include "passes/divergence.h"

#include <float.h>
#include <math.h>

/* What `op` only shows otherwise, or NULL. */
static const nb_value *shown(const nb_op *op) {
    switch (op->kind) {
    case NB_OP_reshape:
    case NB_OP_transpose:
    case NB_OP_slice:
    case NB_OP_gather:
    case NB_OP_cast:
    case NB_OP_quantize:
    case NB_OP_dequantize:
        return nb_in(op, 0);
    default:
        return NULL;
    }
}

/* What `op` adds a bias to, scales, caps, or takes the mean of, or NULL. */
static const nb_value *adjusted(const nb_op *op) {
    switch (op->kind) {
    case NB_OP_tanh:
    case NB_OP_reduce_mean:
        return nb_in(op, 0);
    case NB_OP_add:
    case NB_OP_sub:
    case NB_OP_mul:
    case NB_OP_div:
        return nb_in(op, nb_is_const(nb_in(op, 0)) ? 1 : 0);
    default:
        return NULL;
    }
}

nb_outputs nb_outputs_kind(const nb_value *v) {
    const nb_value *from = v;
    while (from && from->def && shown(from->def)) from = shown(from->def);
    const nb_op *op = from->def;
    if (!op) return NB_FEATURES;
    if (op->kind == NB_OP_softmax && from == v && nb_attr_int(op, "axis") == v->type->rank - 1)
        return NB_PROBABILITIES;
    if (op->kind == NB_OP_sigmoid) return NB_CHANCES;
    while (op && (shown(op) || adjusted(op))) op = (shown(op) ? shown(op) : adjusted(op))->def;
    const bool layer =
        op && (op->kind == NB_OP_matmul || op->kind == NB_OP_qmatmul || op->kind == NB_OP_conv);
    return layer && v->type->rank <= 3 ? NB_LOGITS : NB_FEATURES;
}

nb_counted nb_output_that_counts(const nb_graph *g) {
    for (size_t i = 0; i < g->outputs.count; i++) {
        const nb_value *v = nb_in(g->body.last, i);
        const nb_type *t = v->type;
        bool state = false;
        for (size_t k = 0; k < g->states.count; k++) state |= g->states.items[k].output == i;
        if (!state && t->elem == NB_F32 && !t->quant && t->rank > 0)
            return (nb_counted){i, nb_outputs_kind(v)};
    }
    return (nb_counted){SIZE_MAX, NB_FEATURES};
}

static double log_sum(const float *x, int64_t n) {
    float most = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) most = fmaxf(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    return (double)most + log(sum);
}

/* p's divergence from q, of logits. */
static double of_logits(const float *p, const float *q, int64_t n) {
    const double zp = log_sum(p, n), zq = log_sum(q, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)p[i] - zp) * ((double)p[i] - zp - ((double)q[i] - zq));
    return sum;
}

/* What rounds to 0 is as small as floats are. */
static double log_of(float p) { return log((double)fmaxf(p, FLT_MIN)); }

static double of_probabilities(const float *p, const float *q, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += isnan(q[i]) ? (double)NAN : (double)p[i] * (log_of(p[i]) - log_of(q[i]));
    return sum;
}

static double of_chances(const float *p, const float *q, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float both[][2] = {{p[i], 1 - p[i]}, {q[i], 1 - q[i]}};
        sum += of_probabilities(both[0], both[1], 2);
    }
    return sum / (double)n;
}

static double of_features(const float *p, const float *q, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)q[i] - (double)p[i]) * ((double)q[i] - (double)p[i]);
    return sum / (2 * (double)n);
}

/* Mean square of all elements; 1 where they are all 0. Not their variance: elements that are nearly
 * equal, as those of one small sample can be, would make it as good as 0. */
static double power(const float *x, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    return squares > 0 ? squares / (double)n : 1;
}

double nb_divergence(const nb_tensor *wanted, const nb_tensor *found, nb_outputs kind) {
    static double (*const of_row[])(const float *, const float *, int64_t) = {
        [NB_LOGITS] = of_logits,
        [NB_PROBABILITIES] = of_probabilities,
        [NB_CHANCES] = of_chances,
        [NB_FEATURES] = of_features,
    };
    const int64_t n = wanted->dims[wanted->rank - 1], rows = n ? nb_tensor_count(wanted) / n : 0;
    if (!rows) return 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        const double row = of_row[kind]((const float *)wanted->data + r * n,
                                        (const float *)found->data + r * n, n);
        /* Rows whose sum is rounded may come out below 0; what is no number stays none. */
        sum += row < 0 ? 0 : row;
    }
    return sum / (double)rows / (kind == NB_FEATURES ? power(wanted->data, rows * n) : 1);
}
