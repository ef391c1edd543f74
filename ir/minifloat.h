/* Conversions between f32 and the smaller float types, in integer arithmetic: the same bits
 * everywhere, round to nearest even. Sources: IEEE 754-2019 (f16), ONNX float8 page (f8), OCP
 * Microscaling 1.0 (f4e2m1, f8e8m0), QLoRA (arXiv 2305.14314) and its bitsandbytes (nf4: 16 levels,
 * quantiles of the normal distribution; a value goes to the nearest, half way to the lower).
 * Overflow becomes infinity where the type has one, otherwise the largest finite value (ONNX
 * `saturate`); f8e8m0 holds positive powers of two only. */
#ifndef NB_MINIFLOAT_H
#define NB_MINIFLOAT_H

#include "ir/types.h"

/* The bits of x in element type e (f16, bf16, f8*, f4e2m1), in the low bits. */
uint32_t nb_float_encode(nb_elem e, float x);
/* The value of those bits; every one of them is exact in f32. */
float nb_float_decode(nb_elem e, uint32_t bits);

#endif
