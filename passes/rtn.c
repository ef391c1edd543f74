/* Round to nearest (rtn.h). */
#include "passes/rtn.h"

#include "ir/minifloat.h"

#include <math.h>

/* The range is tried at 1, 1-STEP, ... STEPS times; below 0.6 clipping always loses at 4 and 8
 * bits. */
#define STEPS 20
#define STEP  0.02f

int64_t nb_rtn_code(const nb_rtn *rtn, float w, float scale, int64_t zero) {
    int64_t top =
        rtn->asymmetric ? (INT64_C(1) << rtn->bits) - 1 : (INT64_C(1) << (rtn->bits - 1)) - 1;
    int64_t bottom = rtn->asymmetric ? 0 : -top;
    float q = rintf(w / scale) + (float)zero;
    if (!(q > (float)bottom)) return bottom; /* NaN cannot occur: weights are checked before */
    return q >= (float)top ? top : (int64_t)q;
}

/* Normal f16 numbers; a scale beyond them keeps all of its bits. */
#define HALF_MIN 0x1p-14f
#define HALF_MAX 65504.0f

static float stored_scale(const nb_rtn *rtn, float scale) {
    if (!(scale > 0)) return 1;
    if (!rtn->half || scale < HALF_MIN || scale > HALF_MAX) return scale;
    return nb_float_decode(NB_F16, nb_float_encode(NB_F16, scale));
}

static void range_to_grid(const nb_rtn *rtn, float lo, float hi, float *scale, int64_t *zero) {
    *zero = 0;
    if (rtn->asymmetric) {
        float levels = (float)((1 << rtn->bits) - 1);
        *scale = stored_scale(rtn, (hi - lo) / levels);
        float z = rintf(-lo / *scale);
        *zero = (int64_t)(z < 0 ? 0 : z > levels ? levels : z);
        return;
    }
    float amax = hi > -lo ? hi : -lo;
    *scale = stored_scale(rtn, amax / (float)((1 << (rtn->bits - 1)) - 1));
}

static double squared_error(const nb_rtn *rtn, const float *w, int64_t n, int64_t stride,
                            float scale, int64_t zero) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)((float)(nb_rtn_code(rtn, w[i * stride], scale, zero) - zero) * scale) -
                   (double)w[i * stride];
        sum += d * d;
    }
    return sum;
}

void nb_rtn_fit(const nb_rtn *rtn, const float *w, int64_t n, int64_t stride, float *scale,
                int64_t *zero) {
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = w[i * stride];
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    range_to_grid(rtn, lo, hi, scale, zero);
    if (!rtn->search || lo == hi) return;
    double best = squared_error(rtn, w, n, stride, *scale, *zero);
    for (int i = 1; i <= STEPS; i++) {
        float factor = 1.0f - STEP * (float)i, s;
        int64_t z;
        range_to_grid(rtn, lo * factor, hi * factor, &s, &z);
        double error = squared_error(rtn, w, n, stride, s, z);
        if (error >= best) continue;
        best = error;
        *scale = s;
        *zero = z;
    }
}
