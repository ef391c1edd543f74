/* What errors of a layer's weights cost (sensitivity.h). */
#include "passes/sensitivity.h"

#include "ir/support/map.h"

#include <math.h>
#include <stdlib.h>

#define DRAWS 4 /* of noise */

bool nb_sensitivity_begin(nb_sensitivity *s, nb_pass_ctx *ctx, nb_measure how,
                          int64_t most_samples) {
    *s = (nb_sensitivity){.ctx = ctx, .how = how};
    if (how != NB_MEASURE_LAYER) return nb_output_loss_begin(&s->model, ctx, most_samples);
    s->walk = nb_walk_begin(ctx, ctx->graph);
    return true;
}

void nb_sensitivity_end(nb_sensitivity *s) {
    nb_output_loss_end(&s->model);
    if (s->how == NB_MEASURE_LAYER) nb_walk_end(&s->walk);
    nb_moments_free(&s->moments);
}

static double no_memory(const nb_sensitivity *s, const nb_value *w) {
    nb_error(nb_diags_of(s->ctx), NB_LIMIT, NB_NOWHERE, "out of memory for '@%s'", w->name);
    return -1;
}

double nb_squared_error(const nb_blob *a, const nb_blob *b, int64_t n) {
    const float *x = a->data, *y = b->data;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

/* ---- by the model's outputs ----------------------------------------------------------------- */

/* The loss with `other` in place of w's bytes for a while, for each unit of its squared error. */
static double loss_with(nb_sensitivity *s, nb_value *w, nb_blob *other) {
    nb_blob *own = w->blob;
    const double error =
        nb_squared_error(own, other, w->type->dims[0]->value * w->type->dims[1]->value);
    if (!s->ran && !nb_output_loss_float(&s->model)) return -1;
    s->ran = true;
    w->blob = other;
    const double loss = nb_output_loss_now(&s->model);
    w->blob = own;
    return loss < 0 ? -1 : error > 0 ? loss / error : 0;
}

/* -1 to 1, from bits that a hash has mixed. */
static double uniform(uint64_t bits) { return ldexp((double)(bits >> 11), -52) - 1; }

/* Rows [first, last) of each column get noise of their errors' mean square: that of uniform noise
 * from -a to a is a^2 / 3. */
static void add_noise(const float *w, const float *rounded, int64_t first, int64_t last,
                      int64_t cols, uint64_t seed, double *width, float *to) {
    for (int64_t c = 0; c < cols; c++) width[c] = 0;
    for (int64_t i = first * cols; i < last * cols; i++) {
        const double error = (double)rounded[i] - (double)w[i];
        width[i % cols] += error * error;
    }
    for (int64_t c = 0; c < cols; c++) width[c] = sqrt(3 * width[c] / (double)(last - first));
    for (int64_t i = first * cols; i < last * cols; i++)
        to[i] = (float)((double)w[i] + width[i % cols] * uniform(nb_hash_mix(seed, (uint64_t)i)));
}

/* The mean over some draws. */
static double loss_with_noise(nb_sensitivity *s, nb_value *w, const nb_blob *rounded,
                              int64_t group) {
    const int64_t rows = w->type->dims[0]->value, cols = w->type->dims[1]->value,
                  step = group > 0 && group < rows ? group : rows;
    double sum = 0, *width = malloc((size_t)(cols + 1) * sizeof *width);
    if (!width) return no_memory(s, w);
    for (uint64_t draw = 0; draw < DRAWS && sum >= 0; draw++) {
        void *data;
        nb_blob *noisy = nb_blob_create(w->blob->size, &data);
        for (int64_t first = 0; noisy && first < rows; first += step)
            add_noise(w->blob->data, rounded->data, first, nb_min_i64(first + step, rows), cols,
                      draw + 1, width, data);
        const double loss = noisy ? loss_with(s, w, noisy) : no_memory(s, w);
        sum = loss < 0 ? -1 : sum + loss;
        nb_blob_release(noisy);
    }
    free(width);
    return sum < 0 ? -1 : sum / DRAWS;
}

/* ---- by the layer's outputs ----------------------------------------------------------------- */

/* Brings the moments to x. */
static bool see(nb_sensitivity *s, const nb_op *op, const nb_value *x, const nb_value *w) {
    if (x == s->x) return true;
    nb_moments_free(&s->moments);
    s->x = NULL;
    if (!nb_walk_to(&s->walk, x)) return false;
    const int64_t n = w->type->dims[0]->value;
    if (!nb_moments_create(&s->moments, n)) return no_memory(s, w) >= 0;
    for (size_t i = 0; i < nb_state_of(s->ctx)->env->n_samples; i++) {
        const nb_tensor *t = nb_walk_sample(&s->walk, x, i);
        nb_moments_add(&s->moments, t->data, t->data, nb_tensor_count(t) / n);
    }
    double trace = 0;
    for (int64_t i = 0; i < n; i++) trace += (double)s->moments.sum[i * n + i];
    if (isfinite(trace))
        s->x = x;
    else
        nb_walk_not_finite(s->ctx, op, x);
    return s->x != NULL;
}

static double relative_loss(nb_sensitivity *s, const nb_op *op, const nb_value *w,
                            const nb_blob *rounded) {
    const int64_t count = w->type->dims[0]->value * w->type->dims[1]->value;
    if (!see(s, op, nb_in(op, 0), w)) return -1;
    const float *own = w->blob->data, *other = rounded->data;
    float *error = malloc(((size_t)count + 1) * sizeof *error);
    for (int64_t i = 0; error && i < count; i++) error[i] = other[i] - own[i];
    const double squares = nb_squared_error(w->blob, rounded, count);
    double all = 0, lost = 0;
    const bool ok = error && nb_moments_cost(&s->moments, own, w->type->dims[1]->value, &all) &&
                    nb_moments_cost(&s->moments, error, w->type->dims[1]->value, &lost);
    free(error);
    if (!ok) return no_memory(s, w);
    return all > 0 && squares > 0 ? lost / all / squares : 0;
}

double nb_sensitivity_of(nb_sensitivity *s, const nb_op *op, nb_value *w, nb_blob *rounded,
                         int64_t group) {
    switch (s->how) {
    case NB_MEASURE_NOISE:
        return loss_with_noise(s, w, rounded, group);
    case NB_MEASURE_LAYER:
        return relative_loss(s, op, w, rounded);
    default:
        return loss_with(s, w, rounded);
    }
}
