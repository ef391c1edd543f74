/* Divergence of outputs (divergence.h). */
#include "passes/divergence.h"

#include <float.h>
#include <math.h>

static bool is_softmax(const nb_value *v) {
    const nb_op *op = v->def;
    return op && op->kind == NB_OP_softmax && nb_attr_int(op, "axis") == v->type->rank - 1;
}

nb_counted nb_output_that_counts(const nb_graph *g) {
    for (size_t i = 0; i < g->outputs.count; i++) {
        const nb_value *v = nb_in(g->body.last, i);
        const nb_type *t = v->type;
        bool state = false;
        for (size_t k = 0; k < g->states.count; k++) state |= g->states.items[k].output == i;
        if (!state && t->elem == NB_F32 && !t->quant && t->rank > 0)
            return (nb_counted){i, is_softmax(v)};
    }
    return (nb_counted){SIZE_MAX, false};
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

double nb_divergence(const nb_tensor *wanted, const nb_tensor *found, bool probabilities) {
    const int64_t n = wanted->dims[wanted->rank - 1], rows = n ? nb_tensor_count(wanted) / n : 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *p = (const float *)wanted->data + r * n,
                    *q = (const float *)found->data + r * n;
        const double row = probabilities ? of_probabilities(p, q, n) : of_logits(p, q, n);
        /* Rows whose sum is rounded may come out below 0; what is no number stays none. */
        sum += row < 0 ? 0 : row;
    }
    return rows ? sum / (double)rows : 0;
}
