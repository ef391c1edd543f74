/* Conversions between f32 and the smaller float types, in integer arithmetic: the same bits
 * everywhere, round to nearest even. Sources: IEEE 754-2019 (f16), ONNX float8 page (f8), OCP
 * Microscaling 1.0 (f4e2m1, f8e8m0), QLoRA (arXiv 2305.14314) and its bitsandbytes (nf4: 16 levels,
 * quantiles of the normal distribution; a value goes to the nearest, half way to the lower).
 * Overflow becomes infinity where the type has one, otherwise the largest finite value (ONNX
 * `saturate`); f8e8m0 holds positive powers of two only. */
#ifndef NB_MINIFLOAT_H
#define NB_MINIFLOAT_H

#include "ir/types.h"

/* How a small float type is built: what the conversions here, and those in vectors, go by. */
typedef enum nb_specials {
    NB_SPECIALS_IEEE,     /* all-ones exponent: infinity and NaN */
    NB_SPECIALS_NAN_ONES, /* one NaN, all ones (FN) */
    NB_SPECIALS_NAN_ZERO, /* one NaN, the code of -0 (FNUZ) */
    NB_SPECIALS_NONE
} nb_specials;

typedef struct nb_float_format {
    int exponent, mantissa, bias; /* bits, bits */
    nb_specials specials;
} nb_float_format;

/* Of f16, bf16, f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz and f4e2m1. */
nb_float_format nb_float_format_of(nb_elem e);
/* The code of the largest finite number, and of what is too large with `overflow`: infinity or,
 * where there is none, NaN; where there is neither, the largest. */
uint32_t nb_float_largest(nb_float_format f);
uint32_t nb_float_overflow(nb_float_format f);

/* The bits of x in element type e (f16, bf16, f8*, f4e2m1), in the low bits. */
uint32_t nb_float_encode(nb_elem e, float x);
/* The same, but what is too large for an f8, infinity too, becomes infinity or NaN (ONNX
 * saturate=0). */
uint32_t nb_float_encode_overflow(nb_elem e, float x);
/* The value of those bits; every one of them is exact in f32. */
float nb_float_decode(nb_elem e, uint32_t bits);

#endif
