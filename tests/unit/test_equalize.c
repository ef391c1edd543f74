/* equalize: factors by hand, what it costs one scale for a whole weight, and channels it must not
 * touch. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

static nb_arena *arena;
static nb_diags *diags;
static nb_graph *g;

static void open_arena(void) {
    arena = nb_arena_create(NULL, NULL);
    diags = nb_diags_create(arena, NULL);
}
static void close_arena(void) { nb_arena_destroy(arena); }

static void run(const char *text, const char *passes) {
    nb_pass_env env = {
        .arena = arena, .diags = diags, .registry = nb_registry_create(arena), .verify_each = true};
    nb_pipeline pipeline;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &g), NB_OK);
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, diags, &pipeline), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, g, &env), NB_OK);
}

/* Operand `i` of convolution number `n` holds these. */
static void expect(int n, uint32_t i, size_t count, const float *want) {
    const nb_op *op = g->body.first;
    while (op && (op->kind != NB_OP_conv || n-- > 0)) op = op->next;
    ck_assert_ptr_nonnull(op);
    const float *data = nb_in(op, i)->blob->data;
    ck_assert_int_eq(nb_in(op, i)->blob->size, (int64_t)(count * sizeof *want));
    for (size_t k = 0; k < count; k++)
        ck_assert_msg(data[k] == want[k], "%zu: %g, not %g", k, (double)data[k], (double)want[k]);
}

/* Two channels in, three between, kernels of two: ranges {6, 1, 0.5} and {1.5, 4, 2}, so that
 * s = {2, 1/2, 1/2} and both sides have {3, 2, 1}. */
START_TEST(by_hand) {
    run("nir 1\ngraph @g(%x: f32[B,2,S]) -> f32[B,2,S-1] {\n"
        "  const @b: f32[3] = {4, 5, 6}\n"
        "  const @v: f32[2,3,2] = {1.5, 0, 1, -4, 2, 1, 0.5, -1, 3, 2, 0.5, -2}\n"
        "  const @w: f32[3,2,1] = {-6, 3, 0.25, 1, 0.5, -0.5}\n"
        "  %a: f32[B,3,S] = conv %x, @w, bias=@b\n"
        "  %r: f32[B,3,S] = relu %a\n"
        "  %y: f32[B,2,S-1] = conv %r, @v\n  return %y\n}\n",
        "equalize");
    expect(0, 1, 6, (float[]){-3, 1.5F, 0.5F, 2, 1, -1});
    expect(0, 2, 3, (float[]){2, 10, 12});
    expect(1, 1, 12, (float[]){3, 0, 0.5F, -2, 1, 0.5F, 1, -2, 1.5F, 1, 0.25F, -1});
    nb_graph_destroy(g);
}
END_TEST

/* Grouped on both sides: channel 2 is made by output 2 and read by the second group alone. */
START_TEST(groups) {
    run("nir 1\ngraph @g(%x: f32[B,2,S]) -> f32[B,2,S] {\n"
        "  const @v: f32[2,2,1] = {1, 2, 4, 4}\n"
        "  const @w: f32[4,1,1] = {1, 2, 16, 4}\n"
        "  %a: f32[B,4,S] = conv %x, @w {groups=2}\n"
        "  %y: f32[B,2,S] = conv %a, @v {groups=2}\n  return %y\n}\n",
        "equalize");
    expect(0, 1, 4, (float[]){1, 2, 8, 4});
    expect(1, 1, 4, (float[]){1, 2, 8, 4});
    nb_graph_destroy(g);
}
END_TEST

/* Zeros, and weights that are not finite, have no factor. */
START_TEST(without_factors) {
    run("nir 1\ngraph @g(%x: f32[B,1,S]) -> f32[B,1,S] {\n"
        "  const @v: f32[1,4,1] = {1, 0, 1, 4}\n"
        "  const @w: f32[4,1,1] = {0, 2, inf, 16}\n"
        "  %a: f32[B,4,S] = conv %x, @w\n"
        "  %y: f32[B,1,S] = conv %a, @v\n  return %y\n}\n",
        "equalize");
    expect(0, 1, 4, (float[]){0, 2, INFINITY, 8});
    expect(1, 1, 4, (float[]){1, 0, 1, 8});
    nb_graph_destroy(g);
}
END_TEST

Suite *nb_suite_equalize(void) {
    Suite *s = suite_create("equalize");
    TCase *c = tcase_create("equalize");
    tcase_add_checked_fixture(c, open_arena, close_arena);
    tcase_add_test(c, by_hand);
    tcase_add_test(c, groups);
    tcase_add_test(c, without_factors);
    suite_add_tcase(s, c);
    return s;
}
