/* Divergence of outputs (divergence.h). */
#include "passes/divergence.h"

#include <math.h>

size_t nb_output_that_counts(const nb_graph *g) {
    for (size_t i = 0; i < g->outputs.count; i++) {
        const nb_type *t = nb_in(g->body.last, i)->type;
        bool state = false;
        for (size_t k = 0; k < g->states.count; k++) state |= g->states.items[k].output == i;
        if (!state && t->elem == NB_F32 && !t->quant && t->rank > 0) return i;
    }
    return SIZE_MAX;
}

static double log_sum(const float *x, int64_t n) {
    float most = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) most = fmaxf(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    return (double)most + log(sum);
}

double nb_divergence(const nb_tensor *wanted, const nb_tensor *found) {
    const int64_t n = wanted->dims[wanted->rank - 1], rows = n ? nb_tensor_count(wanted) / n : 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *p = (const float *)wanted->data + r * n,
                    *q = (const float *)found->data + r * n;
        const double zp = log_sum(p, n), zq = log_sum(q, n);
        for (int64_t i = 0; i < n; i++)
            sum += exp((double)p[i] - zp) * ((double)p[i] - zp - ((double)q[i] - zq));
    }
    return rows ? sum / (double)rows : 0;
}
