/* Round-to-nearest quantization of runs of weights that share a scale: the choice of scales and
 * zero points, and codes. 16 runs at a time, side by side, so that the compiler makes vectors of
 * them.
 *
 * Symmetric: code = clip(rint(w/scale)); scale and codes as nb_rtn_range says. Asymmetric (Jacob et
 * al., arXiv 1712.05877): lo = min(0,min), hi = max(0,max), scale = (hi-lo)/(2^b-1),
 * zero = clip(rint(-lo/scale)), code = clip(rint(w/scale)+zero). A scale is rounded before codes
 * are chosen by it.
 *
 * With `search`, the range is shrunk, or stretched a little, by the factor from a grid that
 * minimises the squared error (as GPTQ's and OMSE's clip search do), and then the scale is
 * refitted: it becomes the best for the codes that it gave, <code-zero,w> / |code-zero|^2, as long
 * as that helps. NB_RTN_ENDS gives the two ends of a range factors of their own, one after the
 * other: the clipping that OmniQuant learns (arXiv 2308.13137) without its gradients. */
#ifndef NB_PASSES_RTN_H
#define NB_PASSES_RTN_H

#include "ir/support/base.h"

/* How symmetric codes of b bits cover amax = max|w|, which of them they are, and who does so. */
typedef enum nb_rtn_range {
    NB_RTN_NARROW, /* amax/(2^(b-1)-1), codes without the smallest one: AWQ, QuaRot */
    NB_RTN_FULL,   /* w/-2^(b-1) for the w of amax, all codes: ggml's Q4_0, AutoRound. The scale is
                    * negative where that w is positive; of equals it is the negative one */
    NB_RTN_EVEN    /* 2*amax/(2^b-1), all codes: GPTQ's code. amax is clipped half a step */
} nb_rtn_range;

typedef enum nb_rtn_search {
    NB_RTN_WHOLE, /* the range of the weights: none */
    NB_RTN_RANGE,
    NB_RTN_ENDS /* as NB_RTN_RANGE where there is no zero point */
} nb_rtn_search;

typedef struct nb_rtn {
    int bits;
    bool asymmetric;    /* codes 0 .. 2^bits-1 with a zero point */
    nb_rtn_range range; /* otherwise */
    nb_rtn_search search;
    bool hqq;  /* then half-quadratic splitting (hqq.h) */
    bool half; /* scales have 11 significant bits, so that they are kept as f16 without loss */
    const float *importance; /* of a run's n errors, for search and hqq; NULL: all alike */
} nb_rtn;

#define NB_RTN_RUNS 16

/* The largest and the smallest code. */
static inline int64_t nb_rtn_top(const nb_rtn *rtn) {
    return (INT64_C(1) << (rtn->asymmetric ? rtn->bits : rtn->bits - 1)) - 1;
}
static inline int64_t nb_rtn_bottom(const nb_rtn *rtn) {
    if (rtn->asymmetric) return 0;
    return rtn->range == NB_RTN_NARROW ? -nb_rtn_top(rtn) : -nb_rtn_top(rtn) - 1;
}

/* Chooses scales and zero points of 16 runs of n weights: w[16*i + c] is number i of run c. A run
 * of zeros gets scale 1. */
void nb_rtn_fit(const nb_rtn *rtn, const float *w, int64_t n, float *scales, int64_t *zeros);
/* The codes, laid out as the weights; the low bits count. */
void nb_rtn_codes(const nb_rtn *rtn, const float *w, int64_t n, const float *scales,
                  const int64_t *zeros, uint8_t *codes);

/* to = the [rows,cols] matrix w rounded: `group` rows of a column share a scale (0: all). On all
 * processors; false when memory is short. */
bool nb_rtn_round(const nb_rtn *rtn, const float *w, int64_t rows, int64_t cols, int64_t group,
                  float *to);

#endif
