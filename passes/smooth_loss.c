/* What factors cost (smooth.h): the layers' outputs on some rows, with everything quantized as it
 * will be, against the float ones. */
#include "passes/grid.h"
#include "passes/rtn.h"
#include "passes/smooth.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* SmoothQuant's floor for both ranges: a channel that is never used must not get an infinite
 * factor. */
#define FLOOR 1e-5f

void nb_smooth_factors(const nb_site *site, const float *range, float alpha, float *s) {
    float *weights = calloc((size_t)site->factors + 1, sizeof *weights);
    for (size_t r = 0; weights && r < site->readers.count; r++) {
        const nb_value *w = site->readers.items[r]->value;
        const float *data = w->blob->data;
        const int64_t cols = w->type->dims[1]->value;
        for (int64_t j = 0; j < site->channels; j++) {
            float *most = &weights[nb_site_factor(site, j)];
            for (int64_t i = 0; i < cols; i++) *most = fmaxf(*most, fabsf(data[j * cols + i]));
        }
    }
    for (int64_t f = 0; f < site->factors; f++)
        s[f] = weights
                   ? powf(fmaxf(range[f], FLOOR), alpha) / powf(fmaxf(weights[f], FLOOR), 1 - alpha)
                   : 1;
    free(weights);
}

void nb_awq_factors(const nb_site *site, const float *mean, float alpha, float *s) {
    float most = 0, least = INFINITY;
    for (int64_t f = 0; f < site->factors; f++) {
        s[f] = fmaxf(powf(mean[f], alpha), 1e-4F);
        most = fmaxf(most, s[f]);
        least = fminf(least, s[f]);
    }
    const float middle = sqrtf(most * least);
    for (int64_t f = 0; f < site->factors; f++) s[f] /= middle;
}

/* x / s, quantized. */
static void quantize_rows(const nb_site *site, const nb_rows_seen *seen, const nb_smooth_aim *aim,
                          const float *s, float *x) {
    const int64_t n = site->channels;
    float whole = 0;
    for (int64_t r = 0; r < seen->n_rows; r++) {
        for (int64_t j = 0; j < n; j++) {
            float *v = &x[r * n + j];
            *v = seen->rows[r * n + j] / s[nb_site_factor(site, j)];
            whole = fmaxf(whole, fabsf(*v));
        }
    }
    for (int64_t r = 0; aim->act != NB_AIM_WEIGHTS && r < seen->n_rows; r++) {
        float amax = whole;
        for (int64_t j = 0; aim->act == NB_AIM_TOKENS && j < n; j++)
            amax = j ? fmaxf(amax, fabsf(x[r * n + j])) : fabsf(x[r * n]);
        const float scale = amax > 0 ? amax / 127 : 1;
        for (int64_t j = 0; j < n; j++) x[r * n + j] = scale * nb_round_small(x[r * n + j] / scale);
    }
}

/* ---- outputs -------------------------------------------------------------------------------- */

/* Columns of a layer that are looked at; more say the same. */
#define COLUMNS 512

/* The first columns of w, and s times them. */
static bool take_columns(const nb_site *site, const nb_value *weight, const float *s, int64_t cols,
                         float *w, float *scaled) {
    const int64_t all = weight->type->dims[1]->value;
    const float *data = weight->blob->data;
    for (int64_t j = 0; w && scaled && j < site->channels; j++) {
        memcpy(w + j * cols, data + j * all, (size_t)cols * sizeof *w);
        for (int64_t c = 0; c < cols; c++)
            scaled[j * cols + c] = s[nb_site_factor(site, j)] * data[j * all + c];
    }
    return w && scaled;
}

static void product(const float *x, const float *w, int64_t m, int64_t k, int64_t n, float scale,
                    float *y) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1, x, (int)k, w,
                (int)n, scale, y, (int)n);
}

/* |Q(x/s) Q(s w) - x w|^2 / |x w|^2; negative when memory is short. */
static double layer_loss(const nb_site *site, const nb_rows_seen *seen, const nb_smooth_aim *aim,
                         const float *s, const float *x, const nb_value *weight) {
    const int64_t m = seen->n_rows, k = site->channels,
                  n = nb_min_i64(COLUMNS, weight->type->dims[1]->value);
    const size_t size_of_w = (size_t)(k * n + 1) * sizeof(float);
    float *w = malloc(size_of_w), *scaled = malloc(size_of_w), *q = malloc(size_of_w),
          *y = calloc((size_t)(m * n + 1), sizeof *y);
    const nb_rtn rtn = {
        .bits = aim->weight_bits, .asymmetric = aim->asymmetric, .search = NB_RTN_RANGE};
    double error = 0, size = 0;
    const bool ok = take_columns(site, weight, s, n, w, scaled) && q && y &&
                    nb_rtn_round(&rtn, scaled, k, n, aim->group, q);
    if (ok) {
        product(seen->rows, w, m, k, n, 0, y);
        for (int64_t i = 0; i < m * n; i++) size += (double)y[i] * (double)y[i];
        product(x, q, m, k, n, -1, y);
        for (int64_t i = 0; i < m * n; i++) error += (double)y[i] * (double)y[i];
    }
    free(w);
    free(scaled);
    free(q);
    free(y);
    return !ok ? -1 : size > 0 ? error / size : 0;
}

double nb_smooth_loss(const nb_site *site, const nb_rows_seen *seen, const nb_smooth_aim *aim,
                      const float *s) {
    float *x = malloc((size_t)(seen->n_rows * site->channels + 1) * sizeof *x);
    double sum = x ? 0 : -1;
    openblas_set_num_threads(1);
    if (x) quantize_rows(site, seen, aim, s, x);
    for (size_t i = 0; i < site->readers.count && sum >= 0; i++) {
        const double loss = layer_loss(site, seen, aim, s, x, site->readers.items[i]->value);
        sum = loss < 0 ? -1 : sum + loss;
    }
    free(x);
    return sum;
}
