/* Blocks of GGUF: small ones by hand, and random ones against the formats' definitions worked out
 * in double, where next to no choice falls otherwise than in float. */
#include "ir/minifloat.h"
#include "ir/support/map.h"
#include "passes/block_codes.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

static double half(uint16_t bits) { return (double)nb_float_decode(NB_F16, bits); }
static uint16_t to_half(double x) { return (uint16_t)nb_float_encode(NB_F16, (float)x); }

/* What weight i of a block has become. */
static double real_of(const nb_block_form *f, const nb_block *b, int64_t i) {
    const int64_t part = i / f->part;
    const bool levels = f->scales != NB_F16;
    const double scale = half(b->scale) * (levels ? b->scales[part] : 1),
                 minimum = f->minima ? half(b->minimum) * b->minima[part] : 0;
    return b->codes[i] * scale + minimum;
}

static void expect_reals(const nb_block_form *f, const nb_block *b, const float *w, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(real_of(f, b, i) == (double)w[i], "weight %d is %g, not %g", (int)i,
                      real_of(f, b, i), (double)w[i]);
}

/* Largest 127/2: the scale is 0.5; halves go away from 0. */
START_TEST(q8_0) {
    static const float w[] = {0, 63.5F, 0.25F, -0.25F, 0.75F, 1.25F, -1.25F, 0.24F, -63.3F};
    static const int codes[] = {0, 127, 1, -1, 2, 3, -3, 0, -127};
    nb_block b;
    nb_block_q8_0.round(w, NB_COUNT(w), &b);
    ck_assert(half(b.scale) == 0.5);
    for (size_t i = 0; i < NB_COUNT(w); i++) ck_assert_int_eq(b.codes[i], codes[i]);
    /* f16 rounds 1/127 after codes were chosen by it. */
    nb_block_q8_0.round((float[]){1, 0.5F}, 2, &b);
    ck_assert(b.scale == to_half(1.0 / 127) && b.codes[0] == 127 && b.codes[1] == 64);
    nb_block_q8_0.round((float[]){0, 0, 0}, 3, &b);
    ck_assert(b.scale == 0 && b.codes[0] == 0 && b.codes[2] == 0);
    nb_block_q8_0.round((float[]){1e-40F, 0, -1e-40F}, 3, &b);
    ck_assert(b.scale == 0 && b.codes[1] == -127); /* 0 times infinity: any, it stands for 0 */
}
END_TEST

/* The first of the largest gets -8, which no other sign can; halves go up. */
START_TEST(q4_0) {
    static const float w[] = {1, 4, -4, 0.25F, -0.25F, 0.3F, 3.6F, 0};
    static const int codes[] = {-2, -8, 7, 0, 1, -1, -7, 0};
    nb_block b;
    nb_block_q4_0.round(w, NB_COUNT(w), &b);
    ck_assert(half(b.scale) == -0.5);
    for (size_t i = 0; i < NB_COUNT(w); i++)
        ck_assert_msg(b.codes[i] == codes[i], "code %zu is %d", i, b.codes[i]);
    nb_block_q4_0.round((float[]){0, 0}, 2, &b);
    ck_assert(b.scale == 0x8000 && b.codes[0] == 0); /* 0 / -8 */
}
END_TEST

/* Weights that a block holds exactly come back: parts of scales -s, k/128 of the largest. */
START_TEST(q6_k_exact) {
    float w[256];
    nb_block b;
    for (int i = 0; i < 256; i++) {
        const int part = i / 16, code = i % 16 == 3 ? -32 : (i * 7) % 63 - 31;
        w[i] = 0.0078125F * (float)code * (float)(part == 5 ? 0 : part == 9 ? 128 : 8 * part + 1);
    }
    nb_block_q6_k.round(w, 256, &b);
    expect_reals(&nb_block_q6_k, &b, w, 256);
    ck_assert(b.scales[9] == -128 && b.scales[5] == 0 && b.codes[5 * 16] == -32);
    ck_assert(half(b.scale) == -0.0078125);
    memset(w, 0, sizeof w);
    nb_block_q6_k.round(w, 256, &b);
    ck_assert(b.scale == 0 && b.scales[0] == 0 && b.codes[255] == -32);
}
END_TEST

/* Weights on lines of 16 or 32 steps, whose ends are there; scales and depths in steps of 1/63. */
static void expect_lines(const nb_block_form *f, int top) {
    float w[256];
    nb_block b;
    for (int i = 0; i < 256; i++) {
        const int part = i / 32, code = i % 32 == 0 ? 0 : i % 32 == 1 ? top : (i * 5) % (top + 1);
        w[i] = 0.25F * (float)(code * (part == 2 ? 63 : 5 * part)) -
               0.5F * (float)(part == 6 ? 63 : 9 * part);
    }
    f->round(w, 256, &b);
    expect_reals(f, &b, w, 256);
    ck_assert(half(b.scale) == 0.25 && half(b.minimum) == -0.5);
    ck_assert(b.scales[2] == 63 && b.minima[6] == 63 && b.scales[0] == 0 && b.minima[0] == 0);
    /* Above 0 the minimum is 0. */
    for (int i = 0; i < 256; i++) w[i] = (float)(1 + i % top);
    f->round(w, 256, &b);
    ck_assert(b.minima[0] == 0 && half(b.minimum) == 0 && b.codes[0] == 1);
    for (int i = 0; i < 256; i++) w[i] = -2;
    f->round(w, 256, &b);
    ck_assert(b.scale == 0 && b.minima[7] == 63 && b.codes[0] == 0);
}

START_TEST(lines_exact) {
    expect_lines(&nb_block_q4_k, 15);
    expect_lines(&nb_block_q5_k, 31);
}
END_TEST

/* ---- the definitions, in double ------------------------------------------------------------- */

static double clip(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

static double nearest(double x, double low, double high) { return clip(rint(x), low, high); }

/* The factor of the codes round(w * inverse) that makes the error weighted by w^2 least, for the
 * inverse that makes it least of all. */
static double best_factor(const float *w, int n) {
    double extreme = 0, best = -1, factor = 0;
    for (int i = 0; i < n; i++)
        extreme = fabs((double)w[i]) > fabs(extreme) ? (double)w[i] : extreme;
    for (int step = -9; step <= 9; step++) {
        const double inverse = -(32 + 0.1 * step) / extreme;
        double wc = 0, cc = 0;
        for (int i = 0; i < n; i++) {
            const double x = (double)w[i], c = nearest(inverse * x, -32, 31);
            wc += x * x * x * c;
            cc += x * x * c * c;
        }
        if (wc * wc / cc <= best) continue; /* what it takes from the sum of squares */
        best = wc * wc / cc;
        factor = wc / cc;
    }
    return factor;
}

static int wrong_of_q6_k(const float *w, const nb_block *b) {
    double factors[16], extreme = 0;
    int wrong = 0;
    for (int p = 0; p < 16; p++) {
        factors[p] = best_factor(w + 16 * p, 16);
        if (fabs(factors[p]) > fabs(extreme)) extreme = factors[p];
    }
    wrong += b->scale != to_half(-extreme / 128);
    for (int p = 0; p < 16; p++) {
        wrong += b->scales[p] != (int)nearest(-128 * factors[p] / extreme, -128, 127);
        const double scale = half(b->scale) * b->scales[p];
        for (int i = 16 * p; i < 16 * p + 16; i++)
            wrong += b->codes[i] != (int)nearest((double)w[i] / scale, -32, 31);
    }
    return wrong;
}

/* The line that fits w best under the weights, from as many beginnings as the format has. */
static void best_line(const float *w, int n, double top, double from, int tries, double *scale,
                      double *depth) {
    double rms = 0, low = 0, high = (double)w[0], best = 0;
    for (int i = 0; i < n; i++) {
        rms += (double)w[i] * (double)w[i] / n;
        low = fmin(low, (double)w[i]);
        high = fmax(high, (double)w[i]);
    }
    rms = sqrt(rms);
    for (int try = -1; try < tries; try++) { /* -1: the range as it is */
        double s = 0, sx = 0, sc = 0, scc = 0, scx = 0, error = 0, a, m;
        const double lowest = try < 0 ? low : -*depth,
                     inverse = (try < 0 ? top : top + from + 0.1 * try) / (high - lowest);
        for (int i = 0; i < n; i++) {
            const double x = (double)w[i], v = rms + fabs(x),
                         c = nearest(inverse * (x - lowest), 0, top);
            s += v;
            sx += v * x;
            sc += v * c;
            scc += v * c * c;
            scx += v * c * x;
        }
        a = (s * scx - sx * sc) / (s * scc - sc * sc);
        m = (sx - a * sc) / s;
        if (m > 0) m = 0, a = scx / scc;
        if (try < 0) m = low, a = 1 / inverse;
        for (int i = 0; i < n; i++) {
            const double x = (double)w[i], c = nearest(inverse * (x - lowest), 0, top);
            error += (rms + fabs(x)) * (a * c + m - x) * (a * c + m - x);
        }
        if (try >= 0 && error >= best) continue;
        best = error;
        *scale = a;
        *depth = -m;
    }
}

static int wrong_of_lines(const float *w, const nb_block *b, double top, double from, int tries) {
    double scales[8], depths[8], most = 0, deepest = 0;
    int wrong = 0;
    for (int p = 0; p < 8; p++) {
        best_line(w + 32 * p, 32, top, from, tries, &scales[p], &depths[p]);
        most = fmax(most, scales[p]);
        deepest = fmax(deepest, depths[p]);
    }
    wrong += (b->scale != to_half(most / 63)) + (b->minimum != to_half(-deepest / 63));
    for (int p = 0; p < 8; p++) {
        wrong += b->scales[p] != (int)nearest(63 * scales[p] / most, 0, 63);
        wrong += b->minima[p] != (int)nearest(63 * depths[p] / deepest, 0, 63);
        const double scale = half(b->scale) * b->scales[p], low = half(b->minimum) * b->minima[p];
        for (int i = 32 * p; i < 32 * p + 32; i++)
            wrong += b->codes[i] != (int)nearest(((double)w[i] - low) / scale, 0, top);
    }
    return wrong;
}

START_TEST(definitions) {
    enum { BLOCKS = 64 };
    uint64_t state = 7;
    int wrong[3] = {0};
    for (int block = 0; block < BLOCKS; block++) {
        float w[256];
        nb_block b;
        for (int i = 0; i < 256; i++) {
            double sum = -4; /* bell-shaped */
            for (int k = 0; k < 8; k++) {
                state = nb_hash_mix(state, (uint64_t)i + (uint64_t)k);
                sum += (double)(state >> 40) * 0x1p-24;
            }
            w[i] = (float)(sum * 0.01 * (1 + i / 16 % 5));
        }
        nb_block_q6_k.round(w, 256, &b);
        wrong[0] += wrong_of_q6_k(w, &b);
        nb_block_q4_k.round(w, 256, &b);
        wrong[1] += wrong_of_lines(w, &b, 15, -1, 21);
        nb_block_q5_k.round(w, 256, &b);
        wrong[2] += wrong_of_lines(w, &b, 31, -0.5, 16);
    }
    for (int i = 0; i < 3; i++) /* of 17,000 */
        ck_assert_msg(wrong[i] <= 40, "%d: %d numbers differ", i, wrong[i]);
}
END_TEST

/* The last block of a column may be short, and so may its last part. */
START_TEST(short_blocks) {
    static const nb_block_form *const forms[] = {&nb_block_q8_0, &nb_block_q4_0, &nb_block_q6_k,
                                                 &nb_block_q4_k, &nb_block_q5_k};
    for (size_t f = 0; f < NB_COUNT(forms); f++) {
        float w[256] = {0};
        nb_block b;
        const int64_t n = forms[f]->size - 9;
        for (int64_t i = 0; i < n; i++) w[i] = (float)((i * 37) % 101 - 50) / 64;
        forms[f]->round(w, n, &b);
        for (int64_t i = 0; i < n; i++)
            ck_assert_msg(fabs(real_of(forms[f], &b, i) - (double)w[i]) < 0.07, "%zu: %d", f,
                          (int)i);
    }
}
END_TEST

Suite *nb_suite_block_codes(void) {
    Suite *s = suite_create("block_codes");
    TCase *c = tcase_create("block_codes");
    tcase_add_test(c, q8_0);
    tcase_add_test(c, q4_0);
    tcase_add_test(c, q6_k_exact);
    tcase_add_test(c, lines_exact);
    tcase_add_test(c, definitions);
    tcase_add_test(c, short_blocks);
    suite_add_tcase(s, c);
    return s;
}
