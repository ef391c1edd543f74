/* What the files that choose codes share: rounding to a grid, and loops over weights side by side
 * that the compiler makes vectors of. */
#ifndef NB_PASSES_GRID_H
#define NB_PASSES_GRID_H

#include "ir/support/base.h"

#include <math.h>
#include <string.h>

/* Also compiled for wider vectors, with the same results (no fused multiply-add is formed).
 * Run-time choice and sanitizers do not go together. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define NB_VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define NB_VECTORS
#endif
#define NB_INLINE inline __attribute__((always_inline)) /* into each form */

/* Rounds |x| < 2^22 to even, as rintf does, without a call. */
static NB_INLINE float nb_round_small(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: its last bit is worth 1 */
    return x + magic - magic;
}

/* f16 numbers with 8 significant bits or more; a scale beyond them keeps all of its bits, and with
 * it all scales of the weight. Below NB_HALF_NORMAL f16 has steps of 2^-24. */
#define NB_HALF_MIN    0x1p-17f
#define NB_HALF_NORMAL 0x1p-14f
#define NB_HALF_MAX    65504.0f

/* The scale as it is stored: with `half`, rounded to f16; 1 for what is no scale. */
static NB_INLINE float nb_stored_scale(bool half, float scale) {
    uint32_t bits;
    const float size = fabsf(scale);
    if (!(size > 0)) return 1;
    if (!half || size < NB_HALF_MIN || size > NB_HALF_MAX) return scale;
    if (size < NB_HALF_NORMAL) return nearbyintf(scale * 0x1p24f) * 0x1p-24f;
    memcpy(&bits, &scale, sizeof bits);
    bits += 0xfff + (bits >> 13 & 1); /* 13 of 23 bits go, ties to even */
    bits &= ~UINT32_C(0x1fff);
    memcpy(&scale, &bits, sizeof bits);
    return scale;
}

/* The nearest step of x (a weight divided by its scale) in low..high, which are integers, so that
 * clipping first is the same. */
static NB_INLINE float nb_nearest_step(float x, float low, float high) {
    x = x > low ? x : low;
    x = x < high ? x : high;
    return nb_round_small(x);
}

#endif
