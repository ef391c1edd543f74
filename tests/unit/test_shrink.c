/* Moments of few rows: the share worked by hand, what it saves, and what is said of them. */
#include "ir/text.h"
#include "passes/gptq.h"
#include "passes/pass.h"
#include "passes/shrink.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* z_1 z_2 is 1 eight times and -1 once: r is 7/9, and its variance (1 - 49/81) / 8 = 4/81, of which
 * r^2 has 49/81. The size of inputs tells nothing. */
START_TEST(share_by_hand) {
    float x[18];
    nb_moments m, cross;
    nb_shrink s;
    for (int i = 0; i < 9; i++) {
        x[2 * i] = i % 2 ? 2 : -2;
        x[2 * i + 1] = (i == 4 ? -15 : 15) * x[2 * i];
    }
    ck_assert(nb_moments_create(&m, 2) && nb_moments_create(&cross, 2));
    nb_moments_add(&m, x, x, 9);
    nb_moments_add(&cross, x, x, 9);
    ck_assert(nb_shrink_begin(&s, &m));
    nb_shrink_see(&s, x, 4);
    nb_shrink_see(&s, x + 8, 5);
    ck_assert_double_eq_tol(nb_shrink_share(&s, 1), 4.0 / 49, 1e-9);
    const double share = nb_shrink_share(&s, 4);
    ck_assert_double_eq_tol(share, 16.0 / 61, 1e-9);
    nb_shrink_end(&s);
    nb_moments_shrink(&m, share, false);
    nb_moments_shrink(&cross, share, true);
    ck_assert(m.sum[0] == 36 && m.sum[3] == 8100);
    ck_assert_float_eq_tol(m.sum[1], 420.0F * 45 / 61, 1e-3F);
    ck_assert_float_eq_tol(cross.sum[0], 36.0F * 45 / 61, 1e-4F);
    ck_assert_float_eq_tol(cross.sum[2], 420.0F * 45 / 61, 1e-3F);
    nb_moments_free(&m);
    nb_moments_free(&cross);
}
END_TEST

static double share_of(const float *x, int64_t n, int64_t rows) {
    nb_moments m;
    nb_shrink s;
    ck_assert(nb_moments_create(&m, n));
    nb_moments_add(&m, x, x, rows);
    ck_assert(nb_shrink_begin(&s, &m));
    nb_shrink_see(&s, x, rows);
    const double share = nb_shrink_share(&s, 4);
    nb_shrink_end(&s);
    nb_moments_free(&m);
    return share;
}

START_TEST(ends_of_the_scale) {
    static const float one[] = {1, 2, 3}, alike[] = {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3},
                       apart[] = {1, 1, 1, -1}, silent[] = {0, 1, 0, 2, 0, 3},
                       bad[] = {1, NAN, 2, 1};
    ck_assert(share_of(one, 3, 1) == 1);   /* one row tells nothing of how others differ */
    ck_assert(share_of(alike, 3, 4) == 0); /* rows that do not differ have no noise */
    ck_assert(share_of(apart, 2, 2) == 1); /* nothing but noise */
    ck_assert(share_of(silent, 2, 3) == 0);
    ck_assert(share_of(bad, 2, 2) == 0); /* what is not finite stays, and is found elsewhere */
}
END_TEST

/* ---- what it saves -------------------------------------------------------------------------- */

enum { INPUTS = 150, COLS = 40, FEW = 100, MANY = 20000 };

static float random_float(uint32_t *seed) {
    *seed = *seed * 1664525U + 1013904223U;
    return (float)(*seed >> 8) / (float)(1 << 23) - 1;
}

/* Inputs that hang together a little: each is a part of the one before and something new. */
static float *related(int64_t rows, uint32_t seed) {
    float *x = malloc((size_t)(rows * INPUTS) * sizeof *x);
    for (int64_t i = 0; i < rows * INPUTS; i++)
        x[i] = random_float(&seed) + (i % INPUTS ? 0.7F * x[i - 1] : 0);
    return x;
}

static nb_moments moments_of(const float *x, int64_t rows) {
    nb_moments m;
    ck_assert(nb_moments_create(&m, INPUTS));
    nb_moments_add(&m, x, x, rows);
    return m;
}

/* What 4-bit codes chosen by `by` cost by `all`. */
static double cost(const nb_moments *by, const nb_moments *all, const float *w) {
    uint8_t codes[INPUTS * COLS];
    float scales[COLS], error[INPUTS * COLS];
    nb_hessian hessian;
    double out;
    ck_assert_int_eq(nb_hessian_create(&hessian, by, 0.01, true), NB_HESSIAN_OK);
    const nb_gptq p = {.rtn = {.bits = 4},
                       .rows = INPUTS,
                       .cols = COLS,
                       .group = INPUTS,
                       .weights = w,
                       .hessian = &hessian,
                       .refinements = 3,
                       .codes = codes,
                       .scales = scales};
    ck_assert(nb_gptq_solve(&p));
    for (int i = 0; i < INPUTS * COLS; i++)
        error[i] = w[i] - (float)(int8_t)codes[i] * scales[i % COLS];
    ck_assert(nb_moments_cost(all, error, COLS, &out));
    nb_hessian_free(&hessian);
    return out;
}

/* Of fewer rows than inputs: as they are they cost more than none of what hangs together, and drawn
 * to their diagonal less. Of many rows nothing is lost. */
START_TEST(few_rows_are_better_than_none) {
    float *all = related(MANY, 1), *x = related(FEW, 2), w[INPUTS * COLS];
    uint32_t seed = 3;
    for (int i = 0; i < INPUTS * COLS; i++) w[i] = random_float(&seed);
    nb_moments truth = moments_of(all, MANY), few = moments_of(x, FEW), alone = moments_of(x, FEW),
               many = moments_of(all, MANY);
    nb_moments_shrink(&alone, 1, false);
    const double raw = cost(&few, &truth, w), none = cost(&alone, &truth, w),
                 best = cost(&truth, &truth, w);
    ck_assert_msg(best < 0.9 * none && none < raw, "%g %g %g", best, none, raw);
    nb_moments_shrink(&few, share_of(x, INPUTS, FEW), false);
    const double drawn = cost(&few, &truth, w);
    ck_assert_msg(drawn < 0.97 * none, "%g %g", drawn, none);
    const double share = share_of(all, INPUTS, MANY);
    ck_assert_double_lt(share, 0.1);
    nb_moments_shrink(&many, share, false);
    ck_assert_double_lt(cost(&many, &truth, w), 1.01 * best);
    nb_moments_free(&truth);
    nb_moments_free(&few);
    nb_moments_free(&alone);
    nb_moments_free(&many);
    free(all);
    free(x);
}
END_TEST

/* ---- what is said --------------------------------------------------------------------------- */

/* Three layers: the first two read 4 inputs, the last 6. */
static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,4]) -> f32[B,2] {\n"
                           "  const @w: f32[4,6] = random(1, -1..1)\n"
                           "  const @v: f32[4,6] = random(2, -1..1)\n"
                           "  const @u: f32[6,2] = random(3, -1..1)\n"
                           "  %a: f32[B,6] = matmul %x, @w\n"
                           "  %b: f32[B,6] = matmul %x, @v\n"
                           "  %h: f32[B,6] = add %a, %b\n"
                           "  %y: f32[B,2] = matmul %h, @u\n"
                           "  return %y\n"
                           "}\n";

/* What quantize-weights says of two samples of `rows` each; NULL for nothing. */
static const nb_diag *said(int64_t rows, bool drawn, nb_arena *arena) {
    float x[80];
    uint32_t seed = 4;
    for (int i = 0; i < 80; i++) x[i] = random_float(&seed);
    const nb_tensor in = {
        .elem = NB_F32, .rank = 2, .dims = {rows, 4}, .data = x, .bytes = rows * 16};
    const nb_sample samples[] = {{&in}, {&in}};
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .samples = samples,
                       .n_samples = 2,
                       .drawn = drawn};
    nb_graph *g;
    nb_pipeline p;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    ck_assert_int_eq(
        nb_pipeline_parse(env.registry, "quantize-weights{method=gptq}", arena, diags, &p), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&p, g, &env), NB_OK);
    nb_graph_destroy(g);
    ck_assert_uint_le(diags->list.count, 1);
    return diags->list.count ? diags->list.items[0] : NULL;
}

START_TEST(few_rows_are_told_once) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    ck_assert_ptr_null(said(9, false, arena)); /* 18 rows for 6 inputs */
    const nb_diag *d = said(8, false, arena);
    ck_assert_ptr_nonnull(d);
    ck_assert_int_eq(d->severity, NB_WARNING);
    ck_assert_str_eq(d->message,
                     "quantize-weights: the samples have fewer than 3 rows for each input of 1 of "
                     "3 layers, at worst 16 for 6 inputs: method=gptq has little to round those "
                     "by");
    ck_assert_str_eq(d->help, "give 2 times as many with --calib");
    d = said(1, false, arena);
    ck_assert_ptr_nonnull(strstr(d->message, "of 3 of 3 layers, at worst 2 for 6 inputs"));
    ck_assert_str_eq(d->help, "give 9 times as many with --calib");
    ck_assert_ptr_null(said(1, true, arena)); /* nobody gave those */
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_shrink(void) {
    Suite *s = suite_create("shrink");
    TCase *c = tcase_create("few rows");
    tcase_add_test(c, share_by_hand);
    tcase_add_test(c, ends_of_the_scale);
    tcase_add_test(c, few_rows_are_better_than_none);
    tcase_add_test(c, few_rows_are_told_once);
    suite_add_tcase(s, c);
    return s;
}
