/* Round to nearest (rtn.h). */
#include "passes/rtn.h"

#include <math.h>
#include <string.h>

#define RUNS NB_RTN_RUNS

/* Also compiled for wider vectors, with the same results (no fused multiply-add is formed).
 * Run-time choice and sanitizers do not go together. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define VECTORS
#endif
#define INLINE inline __attribute__((always_inline)) /* into each form */

/* The range is tried at 1, 1-STEP, ... STEPS times; below 0.6 clipping always loses at 4 and 8
 * bits. */
#define STEPS 20
#define STEP  0.02f

/* What turns weights into codes, for each run: code - zero = clip(rint(w / scale), low, high). */
typedef struct grid {
    float scale[RUNS], low[RUNS], high[RUNS];
    int64_t zero[RUNS];
} grid;

/* Rounds |x| < 2^22 to even, as rintf does, without a call. */
static INLINE float round_small(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: its last bit is worth 1 */
    return x + magic - magic;
}

/* Normal f16 numbers; a scale beyond them keeps all of its bits. */
#define HALF_MIN 0x1p-14f
#define HALF_MAX 65504.0f

static INLINE float stored_scale(const nb_rtn *rtn, float scale) {
    uint32_t bits;
    if (!(scale > 0)) return 1;
    if (!rtn->half || scale < HALF_MIN || scale > HALF_MAX) return scale;
    memcpy(&bits, &scale, sizeof bits);
    bits += 0xfff + (bits >> 13 & 1); /* 13 of 23 bits go, ties to even */
    bits &= ~UINT32_C(0x1fff);
    memcpy(&scale, &bits, sizeof bits);
    return scale;
}

static INLINE void set_run(const nb_rtn *rtn, grid *g, int c, float lo, float hi) {
    int64_t top = (INT64_C(1) << (rtn->asymmetric ? rtn->bits : rtn->bits - 1)) - 1,
            bottom = rtn->asymmetric ? 0 : -top;
    g->zero[c] = 0;
    if (rtn->asymmetric) {
        g->scale[c] = stored_scale(rtn, (hi - lo) / (float)top);
        float z = -lo / g->scale[c];
        g->zero[c] = z < 0 ? 0 : z > (float)top ? top : (int64_t)round_small(z);
    } else {
        g->scale[c] = stored_scale(rtn, (hi > -lo ? hi : -lo) / (float)top);
    }
    g->low[c] = (float)(bottom - g->zero[c]);
    g->high[c] = (float)(top - g->zero[c]);
}

/* Clipping first is the same: the bounds are integers. */
static INLINE float steps_of(const grid *g, int c, float w) {
    float x = w / g->scale[c];
    x = x > g->low[c] ? x : g->low[c];
    x = x < g->high[c] ? x : g->high[c];
    return round_small(x);
}

static INLINE void squared_errors(const grid *g, const float *w, int64_t n, double *sums) {
    double total[RUNS] = {0};
    for (int64_t i = 0; i < n; i++, w += RUNS) {
        for (int c = 0; c < RUNS; c++) {
            double d = (double)(steps_of(g, c, w[c]) * g->scale[c]) - (double)w[c];
            total[c] += d * d;
        }
    }
    memcpy(sums, total, sizeof total);
}

static INLINE void ranges(const float *w, int64_t n, float *lo, float *hi) {
    for (int c = 0; c < RUNS; c++) lo[c] = hi[c] = 0;
    for (int64_t i = 0; i < n; i++, w += RUNS) {
        for (int c = 0; c < RUNS; c++) {
            lo[c] = w[c] < lo[c] ? w[c] : lo[c];
            hi[c] = w[c] > hi[c] ? w[c] : hi[c];
        }
    }
}

/* Takes the scale and zero point of a run over. */
static void keep_run(const grid *g, int c, float *scales, int64_t *zeros) {
    scales[c] = g->scale[c];
    zeros[c] = g->zero[c];
}

VECTORS void nb_rtn_fit(const nb_rtn *rtn, const float *w, int64_t n, float *scales,
                        int64_t *zeros) {
    float lo[RUNS], hi[RUNS];
    double best[RUNS], errors[RUNS];
    grid g;
    ranges(w, n, lo, hi);
    for (int c = 0; c < RUNS; c++) {
        set_run(rtn, &g, c, lo[c], hi[c]);
        keep_run(&g, c, scales, zeros);
    }
    if (!rtn->search) return;
    squared_errors(&g, w, n, best);
    for (int i = 1; i <= STEPS; i++) {
        float factor = 1.0f - STEP * (float)i;
        for (int c = 0; c < RUNS; c++) set_run(rtn, &g, c, lo[c] * factor, hi[c] * factor);
        squared_errors(&g, w, n, errors);
        for (int c = 0; c < RUNS; c++) {
            if (errors[c] >= best[c]) continue;
            best[c] = errors[c];
            keep_run(&g, c, scales, zeros);
        }
    }
}

VECTORS void nb_rtn_codes(const nb_rtn *rtn, const float *w, int64_t n, const float *scales,
                          const int64_t *zeros, uint8_t *codes) {
    int64_t top = (INT64_C(1) << (rtn->asymmetric ? rtn->bits : rtn->bits - 1)) - 1,
            bottom = rtn->asymmetric ? 0 : -top;
    grid g;
    for (int c = 0; c < RUNS; c++) {
        g.scale[c] = scales[c];
        g.zero[c] = zeros[c];
        g.low[c] = (float)(bottom - zeros[c]);
        g.high[c] = (float)(top - zeros[c]);
    }
    for (int64_t i = 0; i < n; i++, w += RUNS, codes += RUNS) {
        for (int c = 0; c < RUNS; c++)
            codes[c] = (uint8_t)((int)steps_of(&g, c, w[c]) + (int)g.zero[c]);
    }
}
