/* Coefficients of the specified functions, highest power first. ir/scalar.h and the code generator
 * both include this, so that what the evaluator computes and what is emitted cannot drift apart.
 * Minimax polynomials of the Cephes library (Moshier) for exp, log, tanh, sin and cos; erf after
 * Juffa; pow's are Taylor series in double precision. */
#ifndef NB_POLY_H
#define NB_POLY_H

#define NB_LOG2E 1.44269504f
/* ln 2 in two parts: n * NB_LN2_HI is exact for the n that occur. */
#define NB_LN2_HI 0.693359375f
#define NB_LN2_LO (-2.12194440e-4f)
/* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits. */
#define NB_ROUND_MAGIC      12582912.0f
#define NB_ROUND_MAGIC_BITS 0x4b400000

/* exp: arguments are clamped to these; beyond, the result is infinity or 0 anyway. */
#define NB_EXP_MAX 89.0f
#define NB_EXP_MIN (-104.0f)
#define NB_EXP_POLY                                                                               \
    {                                                                                             \
        1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, \
            5.0000001201e-1f                                                                      \
    }

#define NB_LOG_POLY                                                                   \
    {                                                                                 \
        7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f,     \
            1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, \
            3.3333331174e-1f                                                          \
    }

/* tanh: the polynomial below this |x|, exp above. */
#define NB_TANH_SPLIT 0.625f
#define NB_TANH_POLY                                                                  \
    {                                                                                 \
        -5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, \
            -3.33332819422e-1f                                                        \
    }

#define NB_ERF_SPLIT 0.927734375f
#define NB_ERF_MAX   10.0f
#define NB_ERF_SMALL                                                                       \
    {                                                                                      \
        -5.96761703e-4f, 4.99119423e-3f, -2.67681349e-2f, 1.12819925e-1f, -3.76125336e-1f, \
            1.28379166e-1f                                                                 \
    }
/* exponent of erfc for larger |x|, as a polynomial in |x| */
#define NB_ERF_LARGE                                                                       \
    {                                                                                      \
        -1.72853470e-5f, 3.83197126e-4f, -3.88396438e-3f, 2.42546219e-2f, -1.06777877e-1f, \
            -6.34846687e-1f, -1.28717512e-1f                                               \
    }

#define NB_TWO_OVER_PI 0.636619772f
/* pi/2 in three parts */
#define NB_PIO2_1 1.57079601287841796875f
#define NB_PIO2_2 3.1391647326017846e-7f
#define NB_PIO2_3 5.390302529957764e-15f
#define NB_SIN_POLY \
    { -1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f }
#define NB_COS_POLY \
    { 2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f }

/* atan(t) for |t| <= 1 as t + t^3 p(t^2): fitted for an even relative error of 1.7e-8. */
#define NB_ATAN_POLY                                                                 \
    {                                                                                \
        2.9206877e-3f, -1.6367910e-2f, 4.3211833e-2f, -7.5522125e-2f, 1.0666004e-1f, \
            -1.4211056e-1f, 1.9993773e-1f, -3.3333153e-1f                            \
    }
/* pi/2 in two parts */
#define NB_PIO2_HI 1.57079637f
#define NB_PIO2_LO (-4.37113883e-8f)

/* pow, in double: log2(m) = sum of c[i] * t^(2i+1), t = (m-1)/(m+1), lowest power last. */
#define NB_POW_LOG2_POLY                                                            \
    {                                                                               \
        2.8853900817779268 / 13, 2.8853900817779268 / 11, 2.8853900817779268 / 9,   \
            2.8853900817779268 / 7, 2.8853900817779268 / 5, 2.8853900817779268 / 3, \
            2.8853900817779268                                                      \
    }
#define NB_LN2_D 0.6931471805599453
/* e^x for |x| <= ln(2)/2 */
#define NB_POW_EXP_POLY                                                                       \
    {                                                                                         \
        1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, \
            1.0 / 6, 0.5, 1.0, 1.0                                                            \
    }
/* b * log2|a| is clamped to this before 2^: far beyond what f32 holds. */
#define NB_POW_MAX       200.0
#define NB_ROUND_MAGIC_D 6755399441055744.0 /* 1.5 * 2^52 */

#endif
