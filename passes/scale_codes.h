/* Scales as codes: double quantization (QLoRA, arXiv 2305.14314). The mean of all scales of a
 * weight is taken from them, and the rest is rounded to 8 bits in runs of 256 along the last axis
 * (the outputs of a linear layer) with an f32 scale each: an f32 for each group of 64 weights, 0.5
 * bits, becomes 0.127 bits. The paper's 8 bits are floats; integers, spread evenly between -amax
 * and amax, lose less of what is left once the mean is gone. */
#ifndef NB_PASSES_SCALE_CODES_H
#define NB_PASSES_SCALE_CODES_H

#include "passes/pass.h"

/* A constant of codes for the scales of weight w, of plain type `type`. They are replaced by what
 * their codes stand for; one that is 0 belongs to a run of zeros, and may become anything. NULL
 * when memory is short. */
nb_value *nb_scale_codes(nb_pass_ctx *ctx, const nb_value *w, const nb_type *type, float *scales);

#endif
