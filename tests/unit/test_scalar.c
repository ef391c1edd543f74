/* The specified functions of one float: accuracy against the double functions of libm, special
 * values, and a hash that pins every bit of a sample (compiled code has the same bits, so a change
 * here is a change there). */
#include "ir/scalar.h"

#include "ir/support/map.h"
#include "tests/unit/unit.h"

/* Distance of `got` from the true value in units of its last place. */
static double ulps(float got, double want) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : HUGE_VAL;
    if (isinf(got) || isinf((float)want))
        return got == (float)want ? 0 : fabs(want) > 3.4028e38 && fabsf(got) > 3.4028e38f ? 1 : 1e9;
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

/* `limit` as ir/NUMBERS.md states it, for all |x| <= range. */
static const struct {
    const char *name;
    float (*function)(float);
    double (*exact)(double);
    double limit;
    float range;
    uint64_t bits;
} functions[] = {
    {"exp", nb_expf, exp, 1.02, HUGE_VALF, UINT64_C(0xc710973e2d0b8c77)},
    {"log", nb_logf, log, 0.84, HUGE_VALF, UINT64_C(0x40dbb442275554d9)},
    {"tanh", nb_tanhf, tanh, 1.4, HUGE_VALF, UINT64_C(0x3719f01762222a5a)},
    {"erf", nb_erff, erf, 1.1, HUGE_VALF, UINT64_C(0xf6de63e9cc807749)},
    {"sin", nb_sinf, sin, 1.6, 1e5f, UINT64_C(0xa1f9ab025c78146b)},
    {"atan", nb_atanf, atan, 1.5, HUGE_VALF, UINT64_C(0x4352ad27e7c87231)},
    {"cos", nb_cosf, cos, 1.6, 1e5f, UINT64_C(0x9feff663109c4855)},
};

START_TEST(accuracy) {
    double worst = 0;
    float at = 0;
    for (uint64_t u = 0; u <= UINT32_MAX; u += 3989) {
        float x = nb_from_bits((uint32_t)u);
        if (fabsf(x) > functions[_i].range) continue;
        double distance = ulps(functions[_i].function(x), functions[_i].exact((double)x));
        if (distance > worst) {
            worst = distance;
            at = x;
        }
    }
    ck_assert_msg(worst <= functions[_i].limit, "%s is %g ulp off at %a", functions[_i].name, worst,
                  (double)at);
}
END_TEST

/* All arguments count here, those without accuracy too. */
START_TEST(bits_do_not_change) {
    uint64_t hash = 0;
    for (uint64_t u = 0; u <= UINT32_MAX; u += 30011) {
        float y = functions[_i].function(nb_from_bits((uint32_t)u));
        hash = nb_hash_mix(hash, isnan(y) ? 0x7fc00000u : nb_bits(y));
    }
    ck_assert_msg(hash == functions[_i].bits, "%s now hashes to 0x%016llx", functions[_i].name,
                  (unsigned long long)hash);
}
END_TEST

#define IS(x, bits)    ck_assert_uint_eq(nb_bits(x), bits)
#define INFINITE       0x7f800000u
#define MINUS_INFINITE 0xff800000u
#define ONE            0x3f800000u
#define SMALLEST       1.40129846e-45f

START_TEST(special_exp_log) {
    IS(nb_expf(0.0f), ONE);
    IS(nb_expf(-0.0f), ONE);
    IS(nb_expf(HUGE_VALF), INFINITE);
    IS(nb_expf(-HUGE_VALF), 0);
    ck_assert(nb_expf(88.72283f) <= 3.40282347e38f);
    IS(nb_expf(88.72284f), INFINITE);
    IS(nb_expf(-103.2f), 1);
    IS(nb_expf(-104.5f), 0);
    IS(nb_expf(-3.4028235e38f), 0);
    ck_assert(isnan(nb_expf(NAN)));
    IS(nb_logf(1.0f), 0);
    IS(nb_logf(0.0f), MINUS_INFINITE);
    IS(nb_logf(-0.0f), MINUS_INFINITE);
    IS(nb_logf(HUGE_VALF), INFINITE);
    IS(nb_logf(SMALLEST), nb_bits(-103.278929f));
    ck_assert(isnan(nb_logf(-1.0f)) && isnan(nb_logf(-HUGE_VALF)) && isnan(nb_logf(NAN)));
}
END_TEST

START_TEST(special_others) {
    IS(nb_tanhf(HUGE_VALF), ONE);
    IS(nb_tanhf(-HUGE_VALF), 0xbf800000u);
    IS(nb_tanhf(SMALLEST), 1);
    ck_assert(nb_tanhf(-0.0f) == 0 && isnan(nb_tanhf(NAN)));
    IS(nb_erff(HUGE_VALF), ONE);
    IS(nb_erff(-HUGE_VALF), 0xbf800000u);
    IS(nb_erff(-0.0f), 0x80000000u);
    ck_assert(isnan(nb_erff(NAN)));
    IS(nb_atanf(HUGE_VALF), nb_bits(1.57079633f));
    IS(nb_atanf(-HUGE_VALF), nb_bits(-1.57079633f));
    IS(nb_atanf(1.0f), nb_bits(0.785398163f));
    IS(nb_atanf(-0.0f), 0x80000000u);
    IS(nb_atanf(SMALLEST), 1);
    ck_assert(isnan(nb_atanf(NAN)));
    IS(nb_sinf(0.0f), 0);
    IS(nb_cosf(0.0f), ONE);
    IS(nb_sinf(SMALLEST), 1);
    ck_assert(isnan(nb_sinf(HUGE_VALF)) && isnan(nb_cosf(-HUGE_VALF)) && isnan(nb_sinf(NAN)));
}
END_TEST

START_TEST(odd_and_even) {
    for (uint32_t u = 1; u < 0x7f800000u; u += 100003) {
        float x = nb_from_bits(u);
        IS(nb_tanhf(-x), nb_bits(-nb_tanhf(x)));
        IS(nb_erff(-x), nb_bits(-nb_erff(x)));
        if (x > 1e5f) continue;
        IS(nb_sinf(-x), nb_bits(-nb_sinf(x)));
        IS(nb_cosf(-x), nb_bits(nb_cosf(x)));
    }
}
END_TEST

START_TEST(pow_accuracy) {
    uint64_t state = 1;
    for (uint64_t i = 1; i < 300000; i++) {
        state = nb_hash_mix(state, i);
        uint32_t low = (uint32_t)state, high = (uint32_t)(state >> 32);
        /* Any bits, then bases and exponents whose powers are finite, then halves. */
        float a = nb_from_bits(high), b = nb_from_bits(low);
        if (i % 3 == 1) {
            a = nb_from_bits(0x3f000000u + (high >> 8));
            b = (float)(int16_t)(low >> 16) / 128.0f;
        } else if (i % 3 == 2) {
            b = (float)(int8_t)low * 0.5f;
        }
        double distance = ulps(nb_powf(a, b), pow((double)a, (double)b));
        ck_assert_msg(distance <= 0.51, "%a to the %a is %g ulp off", (double)a, (double)b,
                      distance);
    }
}
END_TEST

START_TEST(special_pow) {
    static const float values[] = {0.0f,        -0.0f,        1.0f,        -1.0f,      2.0f,
                                   -2.0f,       0.5f,         -0.5f,       3.0f,       -3.0f,
                                   2.5f,        -2.5f,        HUGE_VALF,   -HUGE_VALF, NAN,
                                   SMALLEST,    -SMALLEST,    3.4e38f,     -3.4e38f,   8388609.0f,
                                   16777216.0f, -16777215.0f, 0.99999994f, 1.0000001f};
    for (size_t i = 0; i < NB_COUNT(values); i++) {
        for (size_t k = 0; k < NB_COUNT(values); k++) {
            double want = pow((double)values[i], (double)values[k]);
            float got = nb_powf(values[i], values[k]);
            ck_assert_msg(ulps(got, want) <= 0.51 &&
                              (isnan(want) || !signbit(got) == !signbit(want)),
                          "%g to the %g is %g, not %g", (double)values[i], (double)values[k],
                          (double)got, want);
        }
    }
}
END_TEST

Suite *nb_suite_scalar(void) {
    Suite *suite = suite_create("scalar");
    TCase *tests = tcase_create("scalar");
    tcase_add_loop_test(tests, accuracy, 0, (int)NB_COUNT(functions));
    tcase_add_loop_test(tests, bits_do_not_change, 0, (int)NB_COUNT(functions));
    tcase_add_test(tests, special_exp_log);
    tcase_add_test(tests, special_others);
    tcase_add_test(tests, odd_and_even);
    tcase_add_test(tests, pow_accuracy);
    tcase_add_test(tests, special_pow);
    suite_add_tcase(suite, tests);
    return suite;
}
