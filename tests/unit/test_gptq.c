/* Second moments, their factors, and rounding by them: small cases worked by hand, and what must
 * hold for any. */
#include "passes/gptq.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float random_float(uint32_t *seed) {
    *seed = *seed * 1664525U + 1013904223U;
    return (float)(*seed >> 8) / (float)(1 << 23) - 1;
}

static float *random_floats(int64_t n, uint32_t seed) {
    float *out = malloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = random_float(&seed);
    return out;
}

/* ---- moments -------------------------------------------------------------------------------- */

START_TEST(sums_of_products) {
    static const float x[] = {1, 2, 3, -1, 0, 4}, y[] = {1, 0, 0, 1, 2, 2};
    nb_moments own, cross;
    ck_assert(nb_moments_create(&own, 2) && nb_moments_create(&cross, 2));
    nb_moments_add(&own, x, x, 3);
    nb_moments_add(&cross, x, y, 3);
    ck_assert_int_eq(own.rows, 3);
    ck_assert(own.sum[0] == 10 && own.sum[1] == -1 && own.sum[3] == 21);
    ck_assert(cross.sum[0] == 1 && cross.sum[1] == 3 && cross.sum[2] == 10 && cross.sum[3] == 7);
    nb_moments_free(&own);
    nb_moments_free(&cross);
}
END_TEST

/* However many rows come at once. */
START_TEST(sums_do_not_depend_on_pieces) {
    const int64_t n = 70, rows = 4 * NB_MOMENT_ROWS;
    float *x = random_floats(n * rows, 1);
    nb_moments whole, pieces;
    ck_assert(nb_moments_create(&whole, n) && nb_moments_create(&pieces, n));
    nb_moments_add(&whole, x, x, rows);
    for (int64_t r = 0; r < rows; r += NB_MOMENT_ROWS)
        nb_moments_add(&pieces, x + r * n, x + r * n, NB_MOMENT_ROWS);
    ck_assert_mem_eq(whole.sum, pieces.sum, (size_t)(n * n) * sizeof(float));
    nb_moments_free(&whole);
    nb_moments_free(&pieces);
    free(x);
}
END_TEST

/* (1, -1) costs 2 - 1 - 1 + 5, (0, 2) costs 20; of many columns each counts. */
START_TEST(cost_of_errors) {
    static const float h[] = {4, 2, NAN, 10}, e[] = {1, 0, -1, 2};
    float many[2 * 150];
    double cost;
    nb_moments m;
    ck_assert(nb_moments_create(&m, 2));
    memcpy(m.sum, h, sizeof h);
    m.rows = 2;
    ck_assert(nb_moments_cost(&m, e, 2, &cost));
    ck_assert_double_eq(cost, 25);
    for (int i = 0; i < 300; i++) many[i] = i < 150 ? 1 : -1;
    ck_assert(nb_moments_cost(&m, many, 150, &cost));
    ck_assert_double_eq(cost, 150 * 5);
    nb_moments_free(&m);
}
END_TEST

/* ---- factors -------------------------------------------------------------------------------- */

/* The moments whose H is `h`. */
static nb_moments moments_of(int64_t n, const float *h) {
    nb_moments m;
    ck_assert(nb_moments_create(&m, n));
    memcpy(m.sum, h, (size_t)(n * n) * sizeof *h);
    m.rows = 1;
    return m;
}

/* H = [2 1; 1 5], so that H^-1 = [5 -1; -1 2] / 9, without damping to speak of. In rising order
 * of the diagonal that is U'U with U = [sqrt(5)/3, -1/(3 sqrt 5); 0, 1/sqrt 5]. */
START_TEST(factor_of_the_inverse) {
    static const float h[] = {2, 1, 1, 5};
    const double root = sqrt(5);
    nb_moments m = moments_of(2, h);
    nb_hessian out;
    ck_assert_int_eq(nb_hessian_create(&out, &m, 1e-9, false), NB_HESSIAN_OK);
    ck_assert(out.order[0] == 0 && out.order[1] == 1);
    ck_assert_double_eq_tol((double)out.factor[0], root / 3, 1e-6);
    ck_assert_double_eq_tol((double)out.factor[1], -1 / (3 * root), 1e-6);
    ck_assert(out.factor[2] == 0);
    ck_assert_double_eq_tol((double)out.factor[3], 1 / root, 1e-6);
    nb_hessian_free(&out);
    /* The strongest first: the other way round, U = [sqrt(2)/3, -1/(3 sqrt 2); 0, 1/sqrt 2]. */
    ck_assert_int_eq(nb_hessian_create(&out, &m, 1e-9, true), NB_HESSIAN_OK);
    ck_assert(out.order[0] == 1 && out.order[1] == 0);
    ck_assert_double_eq_tol((double)out.factor[0], sqrt(2) / 3, 1e-6);
    ck_assert_double_eq_tol((double)out.factor[1], -1 / (3 * sqrt(2)), 1e-6);
    nb_hessian_free(&out);
    nb_moments_free(&m);
}
END_TEST

/* Moments of one row have no inverse: damping of their mean, 0.5, gives them one. */
START_TEST(damping) {
    static const float h[] = {1, 0, 0, 0};
    nb_moments m = moments_of(2, h);
    nb_hessian out;
    ck_assert_int_eq(nb_hessian_create(&out, &m, 0.5, false), NB_HESSIAN_OK);
    ck_assert(out.h[0] == 1.25F && out.h[3] == 0.25F);
    nb_hessian_free(&out);
    memset(m.sum, 0, 4 * sizeof *m.sum);
    ck_assert_int_eq(nb_hessian_create(&out, &m, 0.5, false), NB_HESSIAN_OK);
    nb_hessian_free(&out);
    m.sum[0] = NAN;
    ck_assert_int_eq(nb_hessian_create(&out, &m, 0.5, false), NB_HESSIAN_SINGULAR);
    ck_assert_ptr_null(out.h);
    nb_moments_free(&m);
}
END_TEST

/* With H = [2 0; 0 5] and C = [1 0; 2 5]: H^-1 C = [1/2 0; 2/5 1], half of it added. */
START_TEST(retarget) {
    static const float h[] = {2, 0, 0, 5}, c[] = {1, 0, 2, 5}, from[] = {4, 10};
    nb_moments m = moments_of(2, h), cross = moments_of(2, c);
    nb_hessian hessian;
    float to[2];
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 1e-9, true), NB_HESSIAN_OK);
    ck_assert(nb_hessian_retarget(&hessian, &cross, 0.5, from, 1, to));
    ck_assert_double_eq_tol((double)to[0], 4 + 0.5 * 2, 1e-5);
    ck_assert_double_eq_tol((double)to[1], 10 + 0.5 * (1.6 + 10), 1e-5);
    nb_hessian_free(&hessian);
    nb_moments_free(&m);
    nb_moments_free(&cross);
}
END_TEST

/* ---- rounding ------------------------------------------------------------------------------- */

/* A column of weights that share one scale, in 4 bits. */
static nb_gptq column_of(int64_t rows, const float *w, const nb_hessian *hessian, uint8_t *codes,
                         float *scale) {
    return (nb_gptq){.rtn = {.bits = 4},
                     .rows = rows,
                     .cols = 1,
                     .group = rows,
                     .weights = w,
                     .hessian = hessian,
                     .codes = codes,
                     .scales = scale};
}

/* The scale is 0.1. 0.34 becomes 3 steps and leaves 0.04, half of which the second input makes up
 * for: 0.64 + 0.02 is 7 steps, not 6. The third has nothing to do with them. */
START_TEST(what_is_left_is_made_up_for) {
    static const float h[] = {2, 1, 0, 1, 2, 0, 0, 0, 1}, w[] = {0.34F, 0.64F, 0.7F};
    nb_moments m = moments_of(3, h);
    nb_hessian hessian;
    uint8_t codes[3];
    float scale;
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 1e-9, false), NB_HESSIAN_OK);
    nb_gptq p = column_of(3, w, &hessian, codes, &scale);
    ck_assert(nb_gptq_solve(&p));
    ck_assert_float_eq_tol(scale, 0.1F, 1e-7F);
    ck_assert(codes[0] == 3 && codes[1] == 7 && codes[2] == 7);
    nb_hessian_free(&hessian);
    nb_moments_free(&m);
}
END_TEST

/* One pass of coordinate descent after rounding to nearest (H is diagonal: the sweep does nothing
 * else). Weights 1, 0.94 with steps 7, 7 of 1/7: the best scale is (7 * 1 + 7 * 0.94) / 98. */
START_TEST(scales_are_refitted) {
    static const float h[] = {1, 0, 0, 1}, w[] = {1, 0.94F};
    nb_moments m = moments_of(2, h);
    nb_hessian hessian;
    uint8_t codes[2];
    float scale;
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 1e-9, false), NB_HESSIAN_OK);
    nb_gptq p = column_of(2, w, &hessian, codes, &scale);
    p.refinements = 1;
    ck_assert(nb_gptq_solve(&p));
    ck_assert_float_eq_tol(scale, 1.94F / 14, 1e-6F);
    ck_assert(codes[0] == 7 && codes[1] == 7);
    nb_hessian_free(&hessian);
    nb_moments_free(&m);
}
END_TEST

/* The scale is 0.1: 0.7 is 7 steps, 0.34 becomes 3 and leaves 0.04. Rounding would cost
 * 3 * 0, 1 * 0.04^2 and 2 * 0.04^2. The last, left exact, makes up for half of what the second,
 * with which alone it has to do, leaves: 0.64 + 0.04 / 2. */
START_TEST(exact_inputs_make_up_for_the_rest) {
    static const float h[] = {3, 0, 0, 0, 1, 1, 0, 1, 2}, w[] = {0.7F, 0.34F, 0.64F};
    static const int32_t last[] = {2}, first[] = {0};
    nb_moments m = moments_of(3, h);
    nb_hessian hessian;
    uint8_t codes[3];
    float scale, exact;
    double costs[3];
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 1e-9, true), NB_HESSIAN_OK);
    ck_assert(hessian.order[0] == 0 && hessian.order[1] == 2 && hessian.order[2] == 1);
    nb_gptq p = column_of(3, w, &hessian, codes, &scale);
    ck_assert(nb_gptq_sensitivities(&p, costs));
    ck_assert_double_eq_tol(costs[0], 0, 1e-9);
    ck_assert_double_eq_tol(costs[1], 0.0016, 1e-6);
    ck_assert_double_eq_tol(costs[2], 0.0032, 1e-6);
    ck_assert_int_eq(nb_hessian_put_last(&hessian, first, 1), NB_HESSIAN_OK);
    ck_assert(hessian.order[0] == 2 && hessian.order[1] == 1 && hessian.order[2] == 0);
    ck_assert_int_eq(nb_hessian_put_last(&hessian, last, 1), NB_HESSIAN_OK);
    ck_assert(hessian.order[0] == 0 && hessian.order[1] == 1 && hessian.order[2] == 2);
    p.n_exact = 1;
    p.exact = &exact;
    for (p.refinements = 0; p.refinements < 2; p.refinements++) {
        ck_assert(nb_gptq_solve(&p));
        ck_assert(codes[0] == 7 && codes[1] == 3 && codes[2] == 0);
        if (p.refinements == 0) ck_assert_float_eq_tol(exact, 0.66F, 1e-5F);
        /* With a scale of its own for 7 and 3, H E is 0 at the exact input all the same. */
        ck_assert_float_eq_tol(exact, 0.64F + (0.34F - 3 * scale) / 2, 1e-5F);
    }
    nb_hessian_free(&hessian);
    nb_moments_free(&m);
}
END_TEST

/* The scale is 1. 0.45 becomes 0 and the second, at 0.1 + 0.9 * 0.45, becomes 1: e = (0.45, -0.9)
 * and e' H e = 0.2835. One step elsewhere is worse (0.2935 for 0, 0), two are better: 0.2135 for
 * 1, 0. There annealing finds, and what was held back decides: with its H the two cost 0.2835 and
 * 0.2135, or, where only the first input counts, 2.025 and 3.025. */
START_TEST(annealing_leaves_a_hollow) {
    static const float h[] = {1, 0.9F, 0, 0.9F, 1, 0, 0, 0, 0.1F},
                       other[] = {10, 0, 0, 0, 0, 0, 0, 0, 0}, w[] = {0.45F, 0.1F, 7};
    nb_moments m = moments_of(3, h), held = moments_of(3, other);
    nb_hessian hessian;
    uint8_t codes[3];
    float scale;
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 1e-9, false), NB_HESSIAN_OK);
    nb_gptq p = column_of(3, w, &hessian, codes, &scale);
    p.held = &m;
    ck_assert(nb_gptq_solve(&p));
    ck_assert(codes[0] == 0 && codes[1] == 1 && codes[2] == 7 && scale == 1);
    p.anneal = 200;
    ck_assert(nb_gptq_solve(&p));
    ck_assert(codes[0] == 1 && codes[1] == 0 && codes[2] == 7 && scale == 1);
    p.held = &held;
    ck_assert(nb_gptq_solve(&p));
    ck_assert(codes[0] == 0 && codes[1] == 1 && codes[2] == 7 && scale == 1);
    nb_hessian_free(&hessian);
    nb_moments_free(&m);
    nb_moments_free(&held);
}
END_TEST

enum { ROWS = 150, COLS = NB_GPTQ_STRIPE + 2, GROUP = 32, GROUPS = 5 };

typedef struct solution {
    uint8_t codes[ROWS * COLS], zeros[GROUPS * COLS];
    float scales[GROUPS * COLS];
} solution;

static nb_gptq problem_of(const float *w, const nb_hessian *h, int64_t cols, solution *out) {
    return (nb_gptq){.rtn = {.bits = 4, .asymmetric = true, .search = NB_RTN_RANGE},
                     .rows = ROWS,
                     .cols = cols,
                     .group = GROUP,
                     .weights = w,
                     .hessian = h,
                     .codes = out->codes,
                     .scales = out->scales,
                     .zeros = out->zeros};
}

/* tr(E' H E) */
static double objective(const nb_gptq *p) {
    double sum = 0;
    for (int64_t c = 0; c < p->cols; c++) {
        double error[ROWS];
        for (int64_t i = 0; i < ROWS; i++) {
            const int64_t g = i / GROUP * p->cols + c, at = i * p->cols + c;
            error[i] = (double)p->weights[at] -
                       (double)(p->codes[at] - p->zeros[g]) * (double)p->scales[g];
        }
        for (int64_t i = 0; i < ROWS; i++) {
            for (int64_t j = 0; j < ROWS; j++)
                sum += error[i] * (double)p->hessian->h[i * ROWS + j] * error[j];
        }
    }
    return sum;
}

/* Inputs that hang together: each is the one before and something new. */
static nb_moments related_inputs(void) {
    const int64_t rows = 600;
    float *x = random_floats(rows * ROWS, 3);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 1; i < ROWS; i++) x[r * ROWS + i] += 0.9F * x[r * ROWS + i - 1];
    }
    nb_moments m;
    ck_assert(nb_moments_create(&m, ROWS));
    nb_moments_add(&m, x, x, rows);
    free(x);
    return m;
}

START_TEST(each_step_lowers_the_objective) {
    float *w = random_floats(ROWS * COLS, 2);
    nb_moments m = related_inputs(), none;
    nb_hessian hessian, plain;
    solution *s = calloc(1, sizeof *s);
    ck_assert(nb_moments_create(&none, ROWS));
    for (int64_t i = 0; i < ROWS; i++) none.sum[i * ROWS + i] = m.sum[i * ROWS + i];
    none.rows = m.rows;
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 0.01, true), NB_HESSIAN_OK);
    ck_assert_int_eq(nb_hessian_create(&plain, &none, 0.01, true), NB_HESSIAN_OK);
    nb_gptq p = problem_of(w, &plain, COLS, s);
    ck_assert(nb_gptq_solve(&p)); /* nothing hangs together: each weight to the nearest code */
    p.hessian = &hessian;
    double before = objective(&p), after;
    for (p.refinements = 0; p.refinements < 4; p.refinements++) {
        ck_assert(nb_gptq_solve(&p));
        after = objective(&p);
        ck_assert_msg(after < before, "%d: %g, before %g", p.refinements, after, before);
        before = p.refinements ? after : after * 0.99;
    }
    nb_hessian_free(&hessian);
    nb_hessian_free(&plain);
    nb_moments_free(&m);
    nb_moments_free(&none);
    free(s);
    free(w);
}
END_TEST

/* The first column of a stripe has the same codes alone and among others. */
START_TEST(stripes_do_not_depend_on_each_other) {
    float *w = random_floats(ROWS * COLS, 4), *one = malloc(ROWS * sizeof *one);
    nb_moments m = related_inputs();
    nb_hessian hessian;
    solution *all = calloc(1, sizeof *all), *alone = calloc(1, sizeof *alone);
    ck_assert_int_eq(nb_hessian_create(&hessian, &m, 0.01, true), NB_HESSIAN_OK);
    nb_gptq p = problem_of(w, &hessian, COLS, all), q = problem_of(one, &hessian, 1, alone);
    p.refinements = q.refinements = 2;
    ck_assert(nb_gptq_solve(&p));
    for (int64_t c = 0; c < COLS; c += NB_GPTQ_STRIPE) {
        for (int64_t i = 0; i < ROWS; i++) one[i] = w[i * COLS + c];
        ck_assert(nb_gptq_solve(&q));
        for (int64_t i = 0; i < ROWS; i++) ck_assert(alone->codes[i] == all->codes[i * COLS + c]);
        for (int64_t g = 0; g < GROUPS; g++) {
            ck_assert(alone->scales[g] == all->scales[g * COLS + c]);
            ck_assert(alone->zeros[g] == all->zeros[g * COLS + c]);
        }
    }
    nb_hessian_free(&hessian);
    nb_moments_free(&m);
    free(all);
    free(alone);
    free(one);
    free(w);
}
END_TEST

Suite *nb_suite_gptq(void) {
    Suite *s = suite_create("gptq");
    TCase *c = tcase_create("gptq");
    tcase_add_test(c, sums_of_products);
    tcase_add_test(c, sums_do_not_depend_on_pieces);
    tcase_add_test(c, cost_of_errors);
    tcase_add_test(c, factor_of_the_inverse);
    tcase_add_test(c, damping);
    tcase_add_test(c, retarget);
    tcase_add_test(c, what_is_left_is_made_up_for);
    tcase_add_test(c, scales_are_refitted);
    tcase_add_test(c, exact_inputs_make_up_for_the_rest);
    tcase_add_test(c, annealing_leaves_a_hollow);
    tcase_add_test(c, each_step_lowers_the_objective);
    tcase_add_test(c, stripes_do_not_depend_on_each_other);
    suite_add_tcase(s, c);
    return s;
}
