/* center-keys: the mean of each head's channels over all tokens of all samples, worked out here. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

#define HEADS 2
#define SIZE  3

/* New keys are twice x, new values x itself. */
static const char text[] =
    "nir 1\n"
    "graph @g(%x: f32[B,2,S,3], %k: f32[B,2,P,3], %v: f32[B,2,P,3]) -> (y: f32[B,2,S,3],\n"
    "    ko: f32[B,2,P+S,3], vo: f32[B,2,P+S,3]) where P in 0.. {\n"
    "  const @two: f32[] = {2}\n"
    "  %n: f32[B,2,S,3] = mul %x, @two\n"
    "  %m: f32[B,2,S,3] = neg %x\n"
    "  %ko: f32[B,2,P+S,3] = concat %k, %n {axis=2}\n"
    "  %vo: f32[B,2,P+S,3] = concat %v, %m {axis=2}\n"
    "  %y: f32[B,2,S,3] = attention %x, %ko, %vo {scale=0.5}\n"
    "  return %y, %ko, %vo\n"
    "}\n";

/* Inputs of `batch` rows of `tokens`, behind nothing. */
static void make(nb_tensor in[3], float *x, int64_t batch, int64_t tokens) {
    in[0] = (nb_tensor){.elem = NB_F32, .rank = 4, .dims = {batch, HEADS, tokens, SIZE}, .data = x};
    in[0].bytes = nb_tensor_count(&in[0]) * (int64_t)sizeof *x;
    in[1] = in[2] = (nb_tensor){.elem = NB_F32, .rank = 4, .dims = {batch, HEADS, 0, SIZE}};
    in[1].data = in[2].data = x;
}

/* One token of one row, and two tokens of two rows. Heads and channels differ, and so do tokens:
 * the five of channel 0 of head 0 are 1, 2, 3, 4, 10. */
static float first[HEADS * SIZE] = {1, 20, -3, 100, 0, 0.5F},
                           second[2 * HEADS * 2 * SIZE] = {
                               2, 20, 7,  3,  20, -1, /* row 0, head 0 */
                               0, -8, 1,  50, 8,  1,  /* head 1 */
                               4, 20, 2,  10, 20, 0,  /* row 1, head 0 */
                               0, -8, -1, 50, 8,  1 /* head 1 */};
static const double means[HEADS * SIZE] = {4, 20, 1, 40, 0, 0.5};

static nb_graph *parse(nb_diags *diags) {
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    return g;
}

static nb_status center(nb_graph *g, nb_arena *arena, nb_diags *diags) {
    nb_tensor in[2][3];
    make(in[0], first, 1, 1);
    make(in[1], second, 2, 2);
    const nb_sample samples[] = {{in[0]}, {in[1]}};
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .samples = samples,
                       .n_samples = 2,
                       .verify_each = true};
    nb_pipeline p;
    ck_assert_int_eq(nb_pipeline_parse(env.registry, "raise, center-keys", arena, diags, &p),
                     NB_OK);
    return nb_pipeline_run(&p, g, &env);
}

START_TEST(means_over_tokens) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g = parse(diags), *plain = parse(diags);
    nb_tensor in[3], out[3], wanted[3];
    const float *keys, *was;
    ck_assert_int_eq(center(g, arena, diags), NB_OK);
    make(in, second, 2, 2);
    ck_assert_int_eq(nb_eval(g, in, out, NULL, 0, arena, diags), NB_OK);
    ck_assert_int_eq(nb_eval(plain, in, wanted, NULL, 0, arena, diags), NB_OK);
    keys = out[1].data;
    was = wanted[1].data;
    /* Twice the means are off the keys, values stay. */
    ck_assert_int_eq(nb_tensor_count(&out[1]), NB_COUNT(second));
    for (size_t i = 0; i < NB_COUNT(second); i++) {
        const size_t channel = i / (2 * SIZE) % HEADS * SIZE + i % SIZE;
        ck_assert_double_eq((double)keys[i], (double)was[i] - 2 * means[channel]);
    }
    ck_assert_mem_eq(out[2].data, wanted[2].data, sizeof second);
    /* What attention computes is the same, up to rounding. */
    for (size_t i = 0; i < NB_COUNT(second); i++)
        ck_assert_float_eq_tol(((const float *)out[0].data)[i], ((const float *)wanted[0].data)[i],
                               1e-4F);
    nb_graph_destroy(g);
    nb_graph_destroy(plain);
    nb_arena_destroy(arena);
}
END_TEST

START_TEST(keys_that_are_not_finite) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g = parse(diags);
    const float was = second[5];
    second[5] = NAN;
    ck_assert_int_ne(center(g, arena, diags), NB_OK);
    second[5] = was;
    ck_assert_uint_eq(diags->list.count, 1);
    ck_assert_str_eq(diags->list.items[0]->message,
                     "center-keys: '%n' holds NaN or infinity on the calibration samples");
    nb_graph_destroy(g);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_center_keys(void) {
    Suite *s = suite_create("center_keys");
    TCase *c = tcase_create("means");
    tcase_add_test(c, means_over_tokens);
    tcase_add_test(c, keys_that_are_not_finite);
    suite_add_tcase(s, c);
    return s;
}
