/* Round to nearest: scales and codes of small runs, worked by hand. */
#include "ir/minifloat.h"
#include "passes/float_codes.h"
#include "passes/hqq.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdlib.h>

#define N 4

/* The scale, and codes of b bits as signed numbers, of one run among 16. */
static float fit(const nb_rtn *rtn, const float *run, int64_t *zero, int *codes) {
    float w[N * NB_RTN_RUNS] = {0}, scales[NB_RTN_RUNS];
    int64_t zeros[NB_RTN_RUNS];
    uint8_t bytes[N * NB_RTN_RUNS];
    for (int i = 0; i < N; i++) w[i * NB_RTN_RUNS + 5] = run[i];
    nb_rtn_fit(rtn, w, N, scales, zeros);
    nb_rtn_codes(rtn, w, N, scales, zeros, bytes);
    const int half = rtn->asymmetric ? 1 << 8 : 1 << (rtn->bits - 1);
    for (int i = 0; i < N; i++) {
        const int code = bytes[i * NB_RTN_RUNS + 5] & ((1 << rtn->bits) - 1);
        codes[i] = code < half ? code : code - 2 * half;
    }
    *zero = zeros[5];
    ck_assert(scales[0] == 1); /* a run of zeros */
    return scales[5];
}

/* Codes of the runs, each with its scale. */
typedef struct wanted {
    nb_rtn rtn;
    float run[N];
    float scale;
    int codes[N];
    int64_t zero;
} wanted;

static void expect(const nb_rtn *rtn, const wanted *w, size_t number) {
    int codes[N];
    int64_t zero;
    const float scale = fit(rtn, w->run, &zero, codes);
    ck_assert_msg(fabsf(scale - w->scale) <= 1e-7F, "case %zu: scale %g", number, (double)scale);
    ck_assert_msg(zero == w->zero, "case %zu: zero %lld", number, (long long)zero);
    for (int i = 0; i < N; i++)
        ck_assert_msg(codes[i] == w->codes[i], "case %zu: code %d is %d", number, i, codes[i]);
}

START_TEST(ranges) {
    static const wanted cases[] = {
        {{.bits = 4}, {1, -0.6F, 0.25F, 0.875F}, 1 / 7.0F, {7, -4, 2, 6}, 0},
        {{.bits = 3}, {1, -0.6F, 0.25F, 0.875F}, 1 / 3.0F, {3, -2, 1, 3}, 0},
        {{.bits = 2}, {1, -0.6F, 0.25F, 0.875F}, 1, {1, -1, 0, 1}, 0},
        /* the largest gets the code that has no counterpart: negative scale, or positive */
        {{.bits = 4, .range = NB_RTN_FULL}, {1, -0.5F, 0.25F, 0.875F}, -0.125F, {-8, 4, -2, -7}, 0},
        {{.bits = 4, .range = NB_RTN_FULL}, {-1, 0.5F, 0.25F, 0.9375F}, 0.125F, {-8, 4, 2, 7}, 0},
        {{.bits = 4, .range = NB_RTN_FULL}, {1, -1, 0, 0}, 0.125F, {7, -8, 0, 0}, 0},
        {{.bits = 3, .range = NB_RTN_FULL}, {2, 1.25F, -1.5F, -2}, 0.5F, {3, 2, -3, -4}, 0},
        {{.bits = 6, .range = NB_RTN_FULL}, {0.25F, 1, 0, -0.5F}, -0.03125F, {-8, -32, 0, 16}, 0},
        /* 7.5 steps, of which 7 are there */
        {{.bits = 4, .range = NB_RTN_EVEN}, {1.5F, -1.5F, 0.25F, -0.9F}, 0.2F, {7, -8, 1, -4}, 0},
        {{.bits = 5, .range = NB_RTN_EVEN}, {-3.1F, 1, 0, 0.45F}, 0.2F, {-16, 5, 0, 2}, 0},
        {{.bits = 3, .asymmetric = true}, {-1, 2.5F, 0.2F, 1}, 0.5F, {0, 7, 2, 4}, 2},
        /* 7 zero points do not reach below: the range begins at 0 */
        {{.bits = 5, .asymmetric = true}, {31, 62, 4, 0}, 2, {16, 31, 2, 0}, 0},
    };
    for (size_t c = 0; c < NB_COUNT(cases); c++) expect(&cases[c].rtn, &cases[c], c);
}
END_TEST

/* A scale that f16 holds, of either sign. */
START_TEST(half_scales) {
    static const float run[N] = {1.001F, -0.5F, 0.25F, 0.1F};
    int codes[N];
    int64_t zero;
    nb_rtn rtn = {.bits = 4, .range = NB_RTN_FULL, .half = true};
    ck_assert(fit(&rtn, run, &zero, codes) == -0.1251220703125F); /* -(1 + 2^-10) / 8 */
    rtn.range = NB_RTN_NARROW;
    rtn.bits = 2;
    ck_assert(fit(&rtn, run, &zero, codes) == 1.0009765625F);
    /* Subnormal in f16, in steps of 2^-24; of too few such steps: as it is. */
    static const float small[N] = {554.4F * 0x1p-24F}, tiny[N] = {100.4F * 0x1p-24F};
    ck_assert(fit(&rtn, small, &zero, codes) == 554 * 0x1p-24F);
    ck_assert(fit(&rtn, tiny, &zero, codes) == 100.4F * 0x1p-24F);
}
END_TEST

/* The search finds a range, and the best scale for its codes. */
START_TEST(search) {
    static const float large[N] = {0, 1, 1, 1}, first[N] = {1, 0, 0, 0};
    static const wanted cases[] = {
        /* codes -1, 0, 1 of scale s: the error is (1-s)^2 + 3(0.39-s)^2, least at 2.17/4: 0.2791;
         * at 1, where the small ones are 0, it is 0.4563 */
        {{.bits = 2}, {1, 0.39F, -0.39F, 0.39F}, 0.5425F, {1, 1, -1, 1}, 0},
        /* only what counts */
        {{.bits = 2, .importance = first}, {1, 0.39F, -0.39F, 0.39F}, 1, {1, 0, 0, 0}, 0},
        {{.bits = 2, .importance = large}, {1, 0.39F, -0.39F, 0.39F}, 0.39F, {1, 1, -1, 1}, 0},
        /* 1 has no code in -2, -1, 0, 1 of scale 0.5: (1 + 1 + 2 + 2) / (1 + 1 + 4 + 4) */
        {{.bits = 2, .range = NB_RTN_FULL}, {1, -1, 1, -1}, 0.6F, {1, -2, 1, -2}, 0},
        /* 0.2 of the range -0.9 .. 0.2 has a code of its own: steps -2 .. 1, 5/13; but -3 .. 0 are
         * better: an error of 0.04, not 0.0969 */
        {{.bits = 2, .asymmetric = true}, {-0.6F, -0.9F, -0.9F, 0.2F}, 5 / 13.0F, {0, 0, 0, 3}, 2},
        {{.bits = 2, .asymmetric = true, .search = NB_RTN_ENDS},
         {-0.6F, -0.9F, -0.9F, 0.2F},
         0.3F,
         {1, 0, 0, 3},
         3},
    };
    for (size_t c = 0; c < NB_COUNT(cases); c++) {
        nb_rtn rtn = cases[c].rtn;
        if (!rtn.search) rtn.search = NB_RTN_RANGE;
        expect(&rtn, &cases[c], c);
    }
}
END_TEST

/* Half-quadratic splitting, of symmetric codes. */
START_TEST(hqq) {
    /* Errors this small are all shrunk to 0: the scale is the mean of |w|. */
    static const wanted mean = {
        {.bits = 2, .hqq = true}, {0.1F, 0.06F, 0.06F, -0.06F}, 0.07F, {1, 1, 1, -1}, 0};
    expect(&mean.rtn, &mean, 0);
    /* Of larger ones the shrinkage leaves d = (1-s)^-0.3 / beta, so that 4 s = s + d + 3 * 0.6:
     * near what most weights want, where the mean would be 0.7. */
    static const float run[N] = {1, 0.6F, 0.6F, -0.6F};
    int codes[N];
    int64_t zero;
    double s = 0.6;
    for (int i = 0; i < 50; i++) s = 0.6 + pow(1 - s, -0.3) / (10 * pow(1.01, 19)) / 3;
    ck_assert_double_eq_tol((double)fit(&mean.rtn, run, &zero, codes), s, 1e-3);
}
END_TEST

/* From steps -2 .. 1 of 2: codes 1, 1, 1, 0 are 0, 1, 2, 0 steps too low, so that the zero point
 * moves by the mean, rounded, and the scale becomes (2 + 4 + 6) / 3. By steps -1 .. 2 of 4, 16/5
 * and 18/6 the steps become 1, 1, 2, 0, whose best scale is 3. */
START_TEST(hqq_zero_points) {
    static const float run[N] = {2, 4, 6, 0};
    const nb_rtn rtn = {.bits = 2, .asymmetric = true};
    float w[N * NB_RTN_RUNS], scales[NB_RTN_RUNS];
    int64_t zeros[NB_RTN_RUNS];
    for (int c = 0; c < NB_RTN_RUNS; c++) {
        scales[c] = 2 / 64.0F;
        zeros[c] = 2;
        for (int i = 0; i < N; i++) w[i * NB_RTN_RUNS + c] = run[i] / 64;
    }
    nb_hqq_fit(&rtn, w, N, scales, zeros);
    for (int c = 0; c < NB_RTN_RUNS; c++) {
        ck_assert_int_eq(zeros[c], 1);
        ck_assert_float_eq_tol(scales[c], 3 / 64.0F, 1e-7F);
    }
}
END_TEST

/* sum |w - scale (code - zero)| of run c */
static double distance(const nb_rtn *rtn, const float *w, int n, int c, const float *scales,
                       const int64_t *zeros) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const double x = (double)w[i * NB_RTN_RUNS + c], s = (double)scales[c];
        const double code = fmin(fmax(rint(x / s) + (double)zeros[c], 0), (double)nb_rtn_top(rtn));
        sum += fabs(x - s * (code - (double)zeros[c]));
    }
    return sum;
}

/* With zero points it is never worse, and mostly better. */
START_TEST(hqq_betters) {
    enum { LENGTH = 32 };
    nb_rtn rtn = {.bits = 4, .asymmetric = true, .half = true};
    float w[LENGTH * NB_RTN_RUNS], scales[2][NB_RTN_RUNS];
    int64_t zeros[2][NB_RTN_RUNS];
    int better = 0;
    for (int i = 0; i < LENGTH * NB_RTN_RUNS; i++) w[i] = powf(sinf((float)(i * i + i)), 3) + 0.1F;
    for (int k = 0; k < 2; k++, rtn.hqq = true) nb_rtn_fit(&rtn, w, LENGTH, scales[k], zeros[k]);
    for (int c = 0; c < NB_RTN_RUNS; c++) {
        const double before = distance(&rtn, w, LENGTH, c, scales[0], zeros[0]),
                     after = distance(&rtn, w, LENGTH, c, scales[1], zeros[1]);
        ck_assert_double_le(after, before + 1e-5);
        better += after < 0.98 * before;
    }
    ck_assert_int_ge(better, NB_RTN_RUNS / 2);
}
END_TEST

/* NF4 levels are decoded as they are, and half way between them is below. */
START_TEST(nf4) {
    ck_assert(nb_float_decode(NB_NF4, 0) == -1 && nb_float_decode(NB_NF4, 7) == 0);
    ck_assert(nb_float_decode(NB_NF4, 8) == 0.07958029955625534F);
    ck_assert(nb_float_decode(NB_NF4, 15) == 1);
    static const struct {
        float x;
        uint32_t code;
    } cases[] = {{-2, 0},
                 {-0.85F, 0},
                 {-0.84F, 1},
                 {0, 7},
                 {-0.0F, 7},
                 {0.0397901497F, 7},
                 {0.0397901535F, 8},
                 {0.86F, 14},
                 {0.8614785F, 15},
                 {9, 15}};
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        ck_assert_msg(nb_float_encode(NB_NF4, cases[i].x) == cases[i].code, "%g",
                      (double)cases[i].x);
    ck_assert_uint_eq(nb_float_encode(NB_NF4, NAN), 7);
}
END_TEST

/* The largest weight gets the type's largest value. */
START_TEST(float_codes) {
    static const struct {
        nb_elem elem;
        float scale;
        uint8_t codes[N];
    } cases[] = {
        /* 3.5, -7/4, 7/16, 0 by 3.5 */
        {NB_NF4, 3.5F, {15, 2, 9, 7}},
        /* by 3.5/6: 6, -3, 0.75 (between 0.5 and 1: to the even code, 1) and 0 */
        {NB_F4E2M1, 3.5F / 6, {7, 8 + 5, 2, 0}},
        /* by 2^-7: 448 = 1.75 * 2^8, -224 = -1.75 * 2^7, 56 = 1.75 * 2^5 */
        {NB_F8E4M3FN, 0.0078125F, {0x7e, 0xf6, 0x66, 0}},
        /* by 2^-14: 57344 = 1.75 * 2^15 and so on */
        {NB_F8E5M2, 0x1p-14F, {0x7b, 0xf7, 0x6f, 0}},
    };
    float w[N * NB_RTN_RUNS] = {0}, scales[NB_RTN_RUNS];
    uint8_t codes[N * NB_RTN_RUNS];
    w[3] = 3.5F;
    w[NB_RTN_RUNS + 3] = -1.75F;
    w[2 * NB_RTN_RUNS + 3] = 0.4375F;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const nb_float_codes form = {.elem = cases[i].elem, .scale = NB_F32, .unit = 1};
        nb_float_fit(&form, w, N, scales);
        nb_float_codes_of(&form, w, N, scales, codes);
        ck_assert_msg(scales[3] == cases[i].scale && scales[0] == 1, "%zu: %g", i,
                      (double)scales[3]);
        for (int k = 0; k < N; k++)
            ck_assert_msg(codes[k * NB_RTN_RUNS + 3] == cases[i].codes[k], "%zu: %d is %d", i, k,
                          codes[k * NB_RTN_RUNS + 3]);
    }
}
END_TEST

/* Scales of small floats: MXFP4 and NVFP4. */
START_TEST(small_scales) {
    float w[N * NB_RTN_RUNS] = {0}, numbers[NB_RTN_RUNS];
    uint8_t codes[N * NB_RTN_RUNS];
    w[3] = 3.75F;
    w[NB_RTN_RUNS + 3] = -1.5F;
    w[NB_RTN_RUNS + 4] = 12;
    nb_float_codes form = {.elem = NB_F4E2M1, .scale = NB_F8E8M0};
    form.unit = nb_float_unit(&form, w, N * NB_RTN_RUNS);
    nb_float_fit(&form, w, N, numbers);
    nb_float_codes_of(&form, w, N, numbers, codes);
    /* floor(log2 3.75) - 2 = -1: 7.5 is clipped to 6, -3 stays; 12 gets 2, and 6 */
    ck_assert(form.unit == 1 && numbers[3] == 0.5F && numbers[4] == 2 && numbers[0] == 1);
    ck_assert(codes[3] == 7 && codes[NB_RTN_RUNS + 3] == 8 + 5 && codes[NB_RTN_RUNS + 4] == 7);
    /* Nothing is clipped: 3.75/6 is below 1, -1.5 stays; 12/6 is 2. */
    form.unclipped = true;
    nb_float_fit(&form, w, N, numbers);
    nb_float_codes_of(&form, w, N, numbers, codes);
    ck_assert(numbers[3] == 1 && numbers[4] == 2 && numbers[0] == 1);
    ck_assert(codes[3] == 6 && codes[NB_RTN_RUNS + 3] == 8 + 3 && codes[NB_RTN_RUNS + 4] == 7);
    form.scale = NB_F8E4M3FN;
    form.unit = nb_float_unit(&form, w, N * NB_RTN_RUNS);
    nb_float_fit(&form, w, N, numbers);
    nb_float_codes_of(&form, w, N, numbers, codes);
    /* 12/6 = 2 is 448 units; 3.75/6 is 140, which e4m3 rounds to 144: 3.75 by 144/224 is 5.83,
     * nearest 6, and -1.5 is -2.33, nearest -2 */
    ck_assert(form.unit == 12.0F / 6 / 448 && numbers[3] == 144 && numbers[4] == 448);
    ck_assert(codes[3] == 7 && codes[NB_RTN_RUNS + 3] == 8 + 4 && codes[NB_RTN_RUNS + 4] == 7);
}
END_TEST

Suite *nb_suite_rtn(void) {
    Suite *s = suite_create("rtn");
    TCase *c = tcase_create("rtn");
    tcase_add_test(c, ranges);
    tcase_add_test(c, half_scales);
    tcase_add_test(c, search);
    tcase_add_test(c, hqq);
    tcase_add_test(c, hqq_zero_points);
    tcase_add_test(c, hqq_betters);
    tcase_add_test(c, nf4);
    tcase_add_test(c, float_codes);
    tcase_add_test(c, small_scales);
    suite_add_tcase(s, c);
    return s;
}
