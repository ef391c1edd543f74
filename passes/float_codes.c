/* Codes of small floats (float_codes.h). */
#include "passes/float_codes.h"

#include "ir/minifloat.h"

#include <float.h>
#include <math.h>

/* The largest value, and the smallest above 0. */
static float largest_of(nb_elem e) { return nb_float_decode(e, nb_float_encode(e, FLT_MAX)); }
static float smallest_of(nb_elem e) { return nb_float_decode(e, 1); }

static float number_of(const nb_float_codes *f, float amax) {
    const float largest = largest_of(f->elem), exact = amax / largest / f->unit;
    if (!(exact > 0)) return 1;
    if (f->scale == NB_F32) return exact;
    if (f->scale == NB_F8E8M0) {
        int exponent = ilogbf(amax) - ilogbf(largest);
        if (f->unclipped && ldexpf(largest, exponent) < amax) exponent++;
        return fmaxf(ldexpf(1, exponent), nb_float_decode(NB_F8E8M0, 0));
    }
    return fmaxf(nb_float_decode(f->scale, nb_float_encode(f->scale, exact)),
                 smallest_of(f->scale));
}

void nb_float_fit(const nb_float_codes *f, const float *w, int64_t n, float *numbers) {
    for (int c = 0; c < NB_RTN_RUNS; c++) {
        float amax = 0;
        for (int64_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(w[i * NB_RTN_RUNS + c]));
        numbers[c] = number_of(f, amax);
    }
}

void nb_float_codes_of(const nb_float_codes *f, const float *w, int64_t n, const float *numbers,
                       uint8_t *codes) {
    for (int c = 0; c < NB_RTN_RUNS; c++) {
        const float scale = numbers[c] * f->unit;
        for (int64_t i = 0; i < n; i++) {
            const float x = scale != 0 ? w[i * NB_RTN_RUNS + c] / scale : 0;
            codes[i * NB_RTN_RUNS + c] = (uint8_t)nb_float_encode(f->elem, x);
        }
    }
}

float nb_float_unit(const nb_float_codes *f, const float *w, int64_t n) {
    float amax = 0;
    if (f->scale == NB_F32 || f->scale == NB_F8E8M0) return 1;
    for (int64_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(w[i]));
    const float unit = amax / largest_of(f->elem) / largest_of(f->scale);
    return unit > 0 && isfinite(unit) ? unit : 1;
}
