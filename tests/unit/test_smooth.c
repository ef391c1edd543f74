/* Factors for smooth-fold, what they cost, and the searches for them: a place with one layer,
 * worked by hand. */
#include "ir/text.h"
#include "passes/smooth.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

#define N 4

/* A column of weights, and one row of inputs for each of them alone. */
static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,4]) -> f32[B,1] {\n"
                           "  const @w: f32[4,1] = {1, 0.39, -0.39, 0.39}\n"
                           "  %y: f32[B,1] = matmul %x, @w\n"
                           "  return %y\n"
                           "}\n";
static float alone[N * N] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
static const nb_smooth_aim aim = {.weight_bits = 2, .act = NB_AIM_WEIGHTS};

static nb_arena *arena;
static nb_graph *graph;
static nb_site site;

static void set_up(void) {
    arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &graph), NB_OK);
    site = (nb_site){.channels = N, .factors = N, .head = N, .share = 1};
    nb_vec_push(arena, &site.readers, &graph->body.first->operands[1]);
}

static void tear_down(void) {
    nb_graph_destroy(graph);
    nb_arena_destroy(arena);
}

/* mean^alpha by the root of the largest times the smallest. */
START_TEST(awq_factors) {
    static const float mean[N] = {1, 16, 4, 0}, wanted[N] = {50, 200, 100, 0.005F};
    float s[N];
    nb_awq_factors(&site, mean, 0.5F, s); /* 1, 4, 2, 1e-4, by 0.02 */
    for (int f = 0; f < N; f++) ck_assert_float_eq_tol(s[f], wanted[f], 1e-4F * wanted[f]);
    nb_awq_factors(&site, mean, 0, s);
    for (int f = 0; f < N; f++) ck_assert(s[f] == 1);
}
END_TEST

/* Codes -1, 0, 1 of the best scale, 2.17/4, leave errors of 0.4575 and three of 0.1525; none where
 * factors make the weights equal. */
START_TEST(loss) {
    static const float none[N] = {1, 1, 1, 1}, even[N] = {0.39F, 1, 1, 1};
    const nb_rows_seen seen = {.rows = alone, .n_rows = N};
    ck_assert_double_eq_tol(nb_smooth_loss(&site, &seen, &aim, none),
                            (0.4575 * 0.4575 + 3 * 0.1525 * 0.1525) / (1 + 3 * 0.39 * 0.39), 1e-6);
    ck_assert_double_lt(nb_smooth_loss(&site, &seen, &aim, even), 1e-12);
}
END_TEST

/* alpha = 0.5 makes the weights equal: factors 1 and 1/0.39, by their root. */
START_TEST(awq) {
    double alpha;
    const float other = 1 / (0.39F * 0.39F), root = sqrtf(0.39F);
    float mean[N] = {1, other, other, other}, amax[N] = {1, 1, 1, 1}, s[N];
    const nb_rows_seen seen = {.mean = mean, .amax = amax, .rows = alone, .n_rows = N};
    ck_assert(nb_smooth_search(&site, &seen, &aim, NB_AWQ, arena, s, &alpha));
    ck_assert_double_eq_tol(alpha, 0.5, 1e-12);
    ck_assert_float_eq_tol(s[0], root, 1e-5F);
    for (int f = 1; f < N; f++) ck_assert_float_eq_tol(s[f], 1 / root, 1e-5F);
}
END_TEST

/* Where all channels are alike there is no alpha to choose, but single factors help: by 1.4
 * and 1.2, or their inverses, each. */
START_TEST(omniquant) {
    double alpha;
    float mean[N] = {1, 1, 1, 1}, amax[N] = {1, 1, 1, 1}, s[N];
    const float steps[] = {1 / 1.68F, 1 / 1.4F,    1.4F / 1.2F, 1 / 1.2F, 1,
                           1.2F,      1.2F / 1.4F, 1.4F,        1.68F};
    const nb_rows_seen seen = {.mean = mean, .amax = amax, .rows = alone, .n_rows = N};
    ck_assert(!nb_smooth_search(&site, &seen, &aim, NB_AWQ, arena, s, &alpha));
    const double before = nb_smooth_loss(&site, &seen, &aim, s);
    ck_assert(nb_smooth_search(&site, &seen, &aim, NB_OMNIQUANT, arena, s, &alpha));
    ck_assert_double_lt(nb_smooth_loss(&site, &seen, &aim, s), before / 4);
    for (int f = 0; f < N; f++) {
        float nearest = INFINITY;
        for (size_t i = 0; i < NB_COUNT(steps); i++)
            nearest = fminf(nearest, fabsf(s[f] - steps[i]));
        ck_assert_float_le(nearest, 1e-6F);
    }
}
END_TEST

Suite *nb_suite_smooth(void) {
    Suite *s = suite_create("smooth");
    TCase *c = tcase_create("smooth");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, awq_factors);
    tcase_add_test(c, loss);
    tcase_add_test(c, awq);
    tcase_add_test(c, omniquant);
    suite_add_tcase(s, c);
    return s;
}
