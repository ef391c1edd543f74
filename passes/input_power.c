/* Mean squares of inputs (input_power.h), summed in double in the order of the rows. */
#include "passes/input_power.h"

#include <math.h>

bool nb_input_power_begin(nb_input_power *p, nb_pass_ctx *ctx) {
    *p = (nb_input_power){.walk = nb_walk_begin(ctx, ctx->graph)};
    return nb_walk_samples(ctx);
}

void nb_input_power_end(nb_input_power *p) { nb_walk_end(&p->walk); }

bool nb_input_power_to(nb_input_power *p, const nb_op *op) {
    nb_pass_ctx *ctx = p->walk.ctx;
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const nb_value *x = nb_in(op, 0);
    if (x == p->x) return true;
    if (!nb_walk_to(&p->walk, x)) return false;
    const int64_t n = nb_in(op, 1)->type->dims[0]->value;
    double *sum = NB_NEW_ARRAY(scratch, double, (size_t)n), total = 0;
    int64_t rows = 0;
    for (size_t s = 0; s < nb_state_of(ctx)->env->n_samples; s++) {
        const nb_tensor *t = nb_walk_sample(&p->walk, x, s);
        const float *data = t->data;
        const int64_t count = nb_tensor_count(t) / n;
        for (int64_t r = 0; r < count; r++, data += n) {
            for (int64_t i = 0; i < n; i++) sum[i] += (double)data[i] * (double)data[i];
        }
        rows += count;
    }
    p->mean = NB_NEW_ARRAY(scratch, float, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        total += sum[i];
        p->mean[i] = (float)(sum[i] / (double)nb_max_i64(rows, 1));
    }
    p->x = x;
    if (!isfinite(total)) nb_walk_not_finite(ctx, op, x);
    return isfinite(total);
}
