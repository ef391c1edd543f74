/* wide-inputs, against divergences worked out here. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

/* Weights are exact in 8 bits: 100 times the identity, so that logits are 100 x. What a and b see
 * of x has a scale for each token: 0.5 is code 127, and 0.497835 lies between codes 126 and 127. */
static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,2], %z: f32[B,2]) -> (y: f32[B,2]) {\n"
                           "  const @w: f32[2,2] = {100, 0, 0, 100}\n"
                           "  const @v: f32[2,2] = {50, 0, 0, 50}\n"
                           "  %a: f32[B,2] = matmul %x, @w at \"/a/MatMul\"\n"
                           "  %b: f32[B,2] = matmul %z, @v at \"/b/MatMul\"\n"
                           "  %y: f32[B,2] = add %a, %b\n"
                           "  return %y\n"
                           "}\n";
#define LARGE   0.5
#define BETWEEN 0.497835
#define ROUNDED (126.0 / 127 * LARGE)

/* Of softmax(d, 0) from softmax(e, 0). */
static double divergence(double d, double e) {
    const double p = 1 / (1 + exp(-d)), q = 1 / (1 + exp(-e));
    return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q));
}

/* What is said of a sample with z as x, or without loss, or with none in x either, and how many
 * inputs of x and z have codes of 16 bits. */
static nb_diags *widen_as(double most, bool loses, bool both, nb_wide_choice *choice,
                          nb_arena *arena, int wide[2]) {
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    float x[] = {(float)LARGE, loses ? (float)BETWEEN : (float)LARGE},
          z[] = {(float)LARGE, both ? (float)BETWEEN : (float)LARGE};
    const nb_tensor in[] = {{.elem = NB_F32, .rank = 2, .dims = {1, 2}, .data = x, .bytes = 8},
                            {.elem = NB_F32, .rank = 2, .dims = {1, 2}, .data = z, .bytes = 8}};
    const nb_sample sample = {in};
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = diags,
                       .arena = arena,
                       .samples = &sample,
                       .n_samples = 1,
                       .wide = choice};
    nb_pipeline p;
    const char *passes = nb_format(
        arena, "quantize-weights{bits=8}, insert-qdq{act=i8}, wide-inputs{max-kld=%.9g}", most);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &p), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&p, g, &env), NB_OK);
    wide[0] = wide[1] = 0;
    NB_FOR_OPS(op, &g->body) {
        if (op->kind == NB_OP_quantize)
            wide[nb_in(op, 0) == g->body.params[1]] += nb_out(op)->type->quant->storage == NB_I16;
    }
    nb_graph_destroy(g);
    ck_assert_uint_eq(env.n_samples, 1);
    return diags;
}

static const char *widen(double most, bool both, nb_arena *arena, int wide[2]) {
    const nb_diags *diags = widen_as(most, true, both, NULL, arena, wide);
    ck_assert_uint_gt(diags->list.count, 0);
    return diags->list.items[diags->list.count - 1]->message;
}

/* One input costs something, the other nothing. */
START_TEST(one_input) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const double cost = divergence(100 * (LARGE - BETWEEN), 100 * (LARGE - ROUNDED));
    int wide[2];
    ck_assert_double_gt(cost, 3e-3);
    const char *said = widen(1.01 * cost, false, arena, wide);
    ck_assert_msg(
        strstr(
            said,
            nb_format(arena, "0 of 2 inputs have 16-bit codes; the outputs diverge by %.2g", cost)),
        "%s", said);
    ck_assert(!wide[0] && !wide[1]);
    said = widen(0.99 * cost, false, arena, wide);
    ck_assert_msg(strstr(said, "1 of 2 inputs"), "%s", said);
    ck_assert(wide[0] == 1 && !wide[1]);
    nb_arena_destroy(arena);
}
END_TEST

/* Both are within the bound alone, and in sum, not together: errors that point the same way add up
 * before they are squared. The costlier one is to be wide. */
START_TEST(together) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const double d = 150 * (LARGE - BETWEEN), step = LARGE - ROUNDED - (LARGE - BETWEEN),
                 x = divergence(d, d + 100 * step), z = divergence(d, d + 50 * step),
                 all = divergence(d, d + 150 * step);
    int wide[2];
    ck_assert_double_gt(all, 1.3 * (x + z));
    widen(1.01 * all, true, arena, wide);
    ck_assert(!wide[0] && !wide[1]);
    widen(1.1 * (x + z), true, arena, wide);
    ck_assert(wide[0] == 1 && !wide[1]);
    widen(0.9 * z, true, arena, wide);
    ck_assert(wide[0] == 1 && wide[1] == 1);
    nb_arena_destroy(arena);
}
END_TEST

/* What the first form of a model needs all others get, whatever they would lose; one that needs
 * nothing says so for all. */
START_TEST(chosen_once) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_wide_choice one = {.arena = arena, .n_samples = 1}, none = one;
    int wide[2];
    widen_as(1e-6, true, false, &one, arena, wide);
    ck_assert(one.known && one.names.count == 1 && wide[0] == 1 && !wide[1]);
    const nb_diags *diags = widen_as(1e-6, false, false, &one, arena, wide);
    ck_assert(one.names.count == 1 && wide[0] == 1 && !wide[1]);
    ck_assert_uint_eq(diags->list.count, 0); /* nothing was measured */
    widen_as(1e-6, false, false, &none, arena, wide);
    ck_assert(none.known && none.names.count == 0 && !wide[0] && !wide[1]);
    widen_as(1e-6, true, true, &none, arena, wide);
    ck_assert(!wide[0] && !wide[1]);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_wide_inputs(void) {
    Suite *s = suite_create("wide_inputs");
    TCase *c = tcase_create("costs");
    tcase_add_test(c, one_input);
    tcase_add_test(c, together);
    tcase_add_test(c, chosen_once);
    suite_add_tcase(s, c);
    return s;
}
