/* bias-correct: over the calibration rows the mean of every result is that of the float model. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

#define ROWS 40
#define K    12
#define N    9

static const char *const graphs[] = {
    "nir 1\ngraph @g(%x: f32[B,12]) -> f32[B,9] {\n"
    "  const @w: f32[12,9] = random(3, -1..1)\n"
    "  %y: f32[B,9] = matmul %x, @w\n  return %y\n}\n",
    "nir 1\ngraph @g(%x: f32[B,12]) -> f32[B,9] {\n"
    "  const @b: f32[9] = random(4, -1..1)\n  const @w: f32[12,9] = random(3, -1..1)\n"
    "  %h: f32[B,9] = matmul %x, @w\n  %y: f32[B,9] = add @b, %h\n  return %y\n}\n",
};

/* Mean results over the rows after some passes; their biases and scales are far from 0. */
static void means(const char *text, const char *passes, double *out) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    float x[ROWS * K];
    for (int i = 0; i < ROWS * K; i++) x[i] = sinf((float)(i * i)) + (float)(i % K) - 3;
    nb_tensor in = {.elem = NB_F32, .rank = 2, .dims = {ROWS, K}, .data = x, .bytes = sizeof x}, y;
    nb_sample sample = {&in};
    nb_pass_env env = {.arena = arena,
                       .diags = diags,
                       .registry = nb_registry_create(arena),
                       .samples = &sample,
                       .n_samples = 1,
                       .verify_each = true};
    nb_graph *g;
    nb_pipeline pipeline;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &pipeline), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
    ck_assert_int_eq(nb_eval(g, &in, &y, NULL, 0, arena, diags), NB_OK);
    for (int n = 0; n < N; n++) {
        out[n] = 0;
        for (int m = 0; m < ROWS; m++) out[n] += (double)((const float *)y.data)[m * N + n] / ROWS;
    }
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
}

static double largest_difference(const double *a, const double *b) {
    double d = 0;
    for (int n = 0; n < N; n++) d = fmax(d, fabs(a[n] - b[n]));
    return d;
}

START_TEST(keeps_means) {
    static const char *const branches[] = {"", "low-rank{rank=2}, ", "low-rank{rank=2, bits=8}, "};
    for (size_t i = 0; i < NB_COUNT(branches); i++) {
        char front[128], back[192];
        double wanted[N], rounded[N], got[N];
        snprintf(front, sizeof front, "calibrate, quantize-weights{bits=4}, %s", branches[i]);
        snprintf(back, sizeof back, "%sbias-correct, fuse-dequant", front);
        means(graphs[_i], "", wanted);
        means(graphs[_i], front, rounded);
        means(graphs[_i], back, got);
        ck_assert_double_gt(largest_difference(wanted, rounded), 1e-2);
        ck_assert_double_lt(largest_difference(wanted, got), 2e-6 * ROWS);
    }
}
END_TEST

/* Where norms are smoothed, means follow. */
START_TEST(behind_smoothing) {
    static const char text[] = "nir 1\ngraph @g(%x: f32[B,12]) -> f32[B,9] {\n"
                               "  const @g: f32[12] = {1, 2, 30, 1, 0.1, 1, 5, 1, 1, 2, 2, 1}\n"
                               "  const @w: f32[12,9] = random(3, -1..1)\n"
                               "  %n: f32[B,12] = rms_norm %x, @g {eps=1e-05}\n"
                               "  %y: f32[B,9] = matmul %n, @w\n  return %y\n}\n";
    double wanted[N], got[N];
    means(text, "", wanted);
    means(text, "calibrate, smooth-fold, quantize-weights{bits=4}, bias-correct", got);
    ck_assert_double_lt(largest_difference(wanted, got), 2e-6 * ROWS);
}
END_TEST

Suite *nb_suite_bias_correct(void) {
    Suite *s = suite_create("bias_correct");
    TCase *c = tcase_create("means");
    tcase_add_loop_test(c, keeps_means, 0, NB_COUNT(graphs));
    tcase_add_test(c, behind_smoothing);
    suite_add_tcase(s, c);
    return s;
}
