/* Codes of small floats for runs of weights that share a scale: NF4 (QLoRA, arXiv 2305.14314), FP8
 * (arXiv 2209.05433), FP4 as MXFP4 (OCP Microscaling 1.0) and NVFP4. The largest weight is brought
 * to the end of the type's range, code = the nearest of w/scale (ir/minifloat.h). Runs lie side by
 * side as in rtn.h.
 *
 * scale = number * unit. The number is of type f32, amax/largest/unit; of type f8e8m0, a power of
 * two; or of another small float, the nearest. Powers of two are 2^(floor(log2 amax) - floor(log2
 * largest)) (OCP), beyond which weights are clipped, or, `unclipped`, 2^ceil(log2(amax/largest)),
 * which loses less: MXFP4 of books3m comes to a KL divergence of 1.94e-2 instead of 2.12e-2. */
#ifndef NB_PASSES_FLOAT_CODES_H
#define NB_PASSES_FLOAT_CODES_H

#include "ir/types.h"
#include "passes/rtn.h"

typedef struct nb_float_codes {
    nb_elem elem, scale; /* types of codes and numbers */
    float unit;
    bool unclipped;
} nb_float_codes;

/* Numbers of 16 runs of n weights. A run of zeros gets the number 1. */
void nb_float_fit(const nb_float_codes *f, const float *w, int64_t n, float *numbers);
/* Their codes; where a number is 0, those of 0. */
void nb_float_codes_of(const nb_float_codes *f, const float *w, int64_t n, const float *numbers,
                       uint8_t *codes);
/* The unit with which the largest weight of all gets the largest number. */
float nb_float_unit(const nb_float_codes *f, const float *w, int64_t n);

#endif
