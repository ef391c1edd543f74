/* Round-to-nearest quantization of runs of weights that share a scale: the choice of scales and
 * zero points, and codes. 16 runs at a time, side by side, so that the compiler makes vectors of
 * them.
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

#define NB_RTN_RUNS 16

/* Chooses scales and zero points of 16 runs of n weights: w[16*i + c] is number i of run c. A run
 * of zeros gets scale 1. */
void nb_rtn_fit(const nb_rtn *rtn, const float *w, int64_t n, float *scales, int64_t *zeros);
/* The codes, laid out as the weights; the low bits count. */
void nb_rtn_codes(const nb_rtn *rtn, const float *w, int64_t n, const float *scales,
                  const int64_t *zeros, uint8_t *codes);

#endif
