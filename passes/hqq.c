/* Half-quadratic quantization (hqq.h). */
#include "passes/hqq.h"

#include "passes/grid.h"

#define RUNS NB_RTN_RUNS

#define NORM   0.7f
#define BETA   10.0f
#define KAPPA  1.01f
#define ROUNDS 20

/* Runs as they are now, and the sums that the next update takes. */
typedef struct splitting {
    float scale[RUNS];
    int64_t zero[RUNS];
    double error[RUNS]; /* sum |r| */
    double offset[RUNS], products[RUNS], squares[RUNS];
} splitting;

/* What of an error is more than the shrinkage takes; `least` is the largest that goes to 0. */
static float shrink(float r, float beta, float least) {
    const float size = fabsf(r);
    return size <= least ? 0 : copysignf(size - powf(size, NORM - 1) / beta, r);
}

static void add_up(splitting *s, const nb_rtn *rtn, const float *w, int64_t n, float beta) {
    const float least = powf(beta, -1 / (2 - NORM));
    for (int c = 0; c < RUNS; c++) s->error[c] = s->offset[c] = s->products[c] = s->squares[c] = 0;
    for (int64_t i = 0; i < n; i++, w += RUNS) {
        const double importance = rtn->importance ? (double)rtn->importance[i] : 1;
        for (int c = 0; c < RUNS; c++) {
            const float low = (float)(nb_rtn_bottom(rtn) - s->zero[c]),
                        high = (float)(nb_rtn_top(rtn) - s->zero[c]),
                        step = nb_nearest_step(w[c] / s->scale[c], low, high),
                        r = w[c] - step * s->scale[c], wanted = w[c] - shrink(r, beta, least);
            s->error[c] += importance * (double)fabsf(r);
            s->offset[c] += importance * (double)(step - wanted / s->scale[c]);
            s->products[c] += importance * (double)(step * wanted);
            s->squares[c] += importance * (double)(step * step);
        }
    }
}

/* The zero point moves by the mean offset, and the scale is the best for the steps. */
static void update(splitting *s, const nb_rtn *rtn, double weight) {
    for (int c = 0; c < RUNS; c++) {
        const double scale = s->squares[c] > 0 ? s->products[c] / s->squares[c] : 0;
        if (rtn->asymmetric && weight > 0) {
            const int64_t zero = s->zero[c] + (int64_t)nearbyint(s->offset[c] / weight);
            s->zero[c] = nb_max_i64(0, nb_min_i64(nb_rtn_top(rtn), zero));
        }
        if (scale * (double)s->scale[c] > 0) s->scale[c] = nb_stored_scale(rtn->half, (float)scale);
    }
}

void nb_hqq_fit(const nb_rtn *rtn, const float *w, int64_t n, float *scales, int64_t *zeros) {
    splitting s;
    double best[RUNS] = {0}, weight = 0;
    float beta = BETA;
    for (int64_t i = 0; i < n; i++) weight += rtn->importance ? (double)rtn->importance[i] : 1;
    memcpy(s.scale, scales, sizeof s.scale);
    memcpy(s.zero, zeros, sizeof s.zero);
    for (int round = 0; round <= ROUNDS; round++, beta *= KAPPA) {
        add_up(&s, rtn, w, n, beta);
        for (int c = 0; c < RUNS; c++) {
            if (round && s.error[c] >= best[c]) continue;
            best[c] = s.error[c];
            scales[c] = s.scale[c];
            zeros[c] = s.zero[c];
        }
        update(&s, rtn, weight);
    }
}
