/* Conversions of small float types (minifloat.h). */
#include "ir/minifloat.h"

#include "ir/scalar.h"

nb_float_format nb_float_format_of(nb_elem e) {
    switch (e) {
    case NB_F16:
        return (nb_float_format){5, 10, 15, NB_SPECIALS_IEEE};
    case NB_BF16:
        return (nb_float_format){8, 7, 127, NB_SPECIALS_IEEE};
    case NB_F8E5M2:
        return (nb_float_format){5, 2, 15, NB_SPECIALS_IEEE};
    case NB_F8E4M3FN:
        return (nb_float_format){4, 3, 7, NB_SPECIALS_NAN_ONES};
    case NB_F8E4M3FNUZ:
        return (nb_float_format){4, 3, 8, NB_SPECIALS_NAN_ZERO};
    case NB_F8E5M2FNUZ:
        return (nb_float_format){5, 2, 16, NB_SPECIALS_NAN_ZERO};
    default:
        return (nb_float_format){2, 1, 1, NB_SPECIALS_NONE}; /* f4e2m1 */
    }
}

uint32_t nb_float_largest(nb_float_format f) {
    uint32_t all = (1u << (f.exponent + f.mantissa)) - 1;
    if (f.specials == NB_SPECIALS_IEEE) return all - (1u << f.mantissa);
    return f.specials == NB_SPECIALS_NAN_ONES ? all - 1 : all;
}

uint32_t nb_float_overflow(nb_float_format f) {
    if (f.specials == NB_SPECIALS_NAN_ZERO) return 1u << (f.exponent + f.mantissa);
    return nb_float_largest(f) + (f.specials != NB_SPECIALS_NONE);
}

static uint32_t encode_e8m0(float x, bool overflow) {
    uint32_t u = nb_bits(x);
    if (x != x || (overflow && x == HUGE_VALF)) return 255;
    if (u >> 31) return 0;
    /* The nearest power of two, ties to the even code. Code 0 is 2^-127, a denormal f32: half way
     * to code 1 is 0x600000 there, and half way between other neighbours has a fraction of 1/2. */
    uint32_t e = u >> 23, m = u & 0x7fffffu, half = e ? 0x400000u : 0x600000u;
    e += m > half || (m == half && (e & 1));
    return e > 254 ? 254 : e;
}

static const float nf4[16] = {-1.0F,
                              -0.6961928009986877F,
                              -0.5250730514526367F,
                              -0.39491748809814453F,
                              -0.28444138169288635F,
                              -0.18477343022823334F,
                              -0.09105003625154495F,
                              0.0F,
                              0.07958029955625534F,
                              0.16093020141124725F,
                              0.24611230194568634F,
                              0.33791524171829224F,
                              0.44070982933044434F,
                              0.5626170039176941F,
                              0.7229568362236023F,
                              1.0F};

/* Exact in double: how many points half way between levels are below x. A NaN becomes 0. */
static uint32_t encode_nf4(float x) {
    uint32_t code = 0;
    if (x != x) return 7;
    while (code < 15 && 2 * (double)x > (double)nf4[code] + (double)nf4[code + 1]) code++;
    return code;
}

static uint32_t encode(nb_elem e, float x, bool overflow) {
    if (e == NB_F8E8M0) return encode_e8m0(x, overflow);
    if (e == NB_NF4) return encode_nf4(x);
    nb_float_format f = nb_float_format_of(e);
    uint32_t u = nb_bits(x), sign = u >> 31 << (f.exponent + f.mantissa), a = u & 0x7fffffffu;
    uint32_t infinity = ((1u << f.exponent) - 1) << f.mantissa;
    if (a > 0x7f800000u) {
        if (f.specials == NB_SPECIALS_IEEE) return infinity | 1u << (f.mantissa - 1);
        return f.specials == NB_SPECIALS_NONE ? 0 : nb_float_overflow(f);
    }
    int32_t exponent = (int32_t)(a >> 23) - 127 + f.bias;
    uint64_t mantissa = a >> 23 ? (a & 0x7fffffu) | 0x800000u : (uint64_t)(a & 0x7fffffu);
    if (!(a >> 23)) exponent++;
    int shift = 23 - f.mantissa + (exponent < 1 ? 1 - exponent : 0);
    if (exponent < 1) exponent = 1;
    if (shift > 40) shift = 40; /* all of it is lost */
    uint64_t kept = mantissa >> shift, rest = mantissa & ((UINT64_C(1) << shift) - 1),
             half = UINT64_C(1) << (shift - 1);
    kept += rest > half || (rest == half && (kept & 1));
    /* `kept` carries the implicit bit, which adds one to the exponent field. */
    uint64_t code = ((uint64_t)(exponent - 1) << f.mantissa) + kept;
    if (code > nb_float_largest(f) || a == 0x7f800000u) {
        bool open = overflow || (f.specials == NB_SPECIALS_IEEE && e != NB_F8E5M2);
        code = open ? nb_float_overflow(f) : nb_float_largest(f);
        if (open && f.specials != NB_SPECIALS_IEEE) sign = 0; /* a NaN */
    }
    /* There is no -0; its code is the NaN's. */
    if (f.specials == NB_SPECIALS_NAN_ZERO && code == 0) return 0;
    return sign | (uint32_t)code;
}

uint32_t nb_float_encode(nb_elem e, float x) { return encode(e, x, false); }
uint32_t nb_float_encode_overflow(nb_elem e, float x) { return encode(e, x, true); }

float nb_float_decode(nb_elem e, uint32_t bits) {
    if (e == NB_NF4) return nf4[bits & 15];
    if (e == NB_F8E8M0)
        return bits == 255 ? nb_from_bits(0x7fc00000u)
               : bits == 0 ? nb_from_bits(0x00400000u)
                           : nb_from_bits(bits << 23);
    nb_float_format f = nb_float_format_of(e);
    uint32_t sign = bits >> (f.exponent + f.mantissa) & 1,
             code = bits & ((1u << (f.exponent + f.mantissa)) - 1);
    uint32_t infinity = ((1u << f.exponent) - 1) << f.mantissa;
    bool nan = f.specials == NB_SPECIALS_IEEE ? code > infinity
               : f.specials == NB_SPECIALS_NAN_ONES
                   ? code == (infinity | ((1u << f.mantissa) - 1))
                   : f.specials == NB_SPECIALS_NAN_ZERO && sign && !code;
    if (nan) return nb_from_bits(0x7fc00000u);
    if (f.specials == NB_SPECIALS_IEEE && code == infinity)
        return nb_from_bits(sign << 31 | 0x7f800000u);
    int32_t exponent = (int32_t)(code >> f.mantissa);
    uint32_t mantissa = code & ((1u << f.mantissa) - 1);
    if (exponent)
        mantissa |= 1u << f.mantissa;
    else
        exponent = 1;
    /* mantissa * 2^k: k goes down to -133, beyond f32's powers of two, but the product is exact. */
    int32_t k = exponent - f.bias - f.mantissa;
    float value = (float)((double)mantissa * nb_from_bits_d((uint64_t)(k + 1023) << 52));
    return sign ? -value : value;
}
