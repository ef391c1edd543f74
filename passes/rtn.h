/* Round-to-nearest quantization of one run of weights: the choice of scale and zero point, and
 * codes.
 *
 * Symmetric: scale = amax/qmax, code = clip(rint(w/scale), -qmax, qmax). Asymmetric (Jacob et al.,
 * arXiv 1712.05877): lo = min(0,min), hi = max(0,max), scale = (hi-lo)/(2^b-1),
 * zero = clip(rint(-lo/scale)), code = clip(rint(w/scale)+zero). With `search`, the range is shrunk
 * by the factor from a grid that minimises the squared error (as GPTQ's and OMSE's clip search do).
 * A scale is rounded before codes are chosen by it. */
#ifndef NB_PASSES_RTN_H
#define NB_PASSES_RTN_H

#include "ir/support/base.h"

typedef struct nb_rtn {
    int bits;
    bool asymmetric; /* codes 0 .. 2^bits-1 with a zero point; else -(2^(bits-1)-1) .. 2^(bits-1)-1
                      */
    bool search;
    bool half; /* scales have 11 significant bits, so that they are kept as f16 without loss */
} nb_rtn;

/* Chooses scale and zero for n weights, `stride` floats apart. All-zero weights get scale 1. */
void nb_rtn_fit(const nb_rtn *rtn, const float *w, int64_t n, int64_t stride, float *scale,
                int64_t *zero);
/* The code of one weight. */
int64_t nb_rtn_code(const nb_rtn *rtn, float w, float scale, int64_t zero);

#endif
