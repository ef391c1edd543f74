/* shift-fold: middles of channels, worked by hand. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <string.h>

/* Channels of middle 2 and 4: (2, 4) W = (14, 20). */
static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,2]) -> f32[B,2] {\n"
                           "  const @w: f32[2,2] = {1, 2, 3, 4}\n"
                           "  %y: f32[B,2] = matmul %x, @w\n"
                           "  return %y\n"
                           "}\n";
static float rows[] = {1, 10, 3, -2, 1.5F, 0};

static nb_arena *arena;
static nb_graph *graph;
static nb_tensor sample;
static nb_pass_env env;

static void set_up(void) {
    arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    static nb_sample samples = {&sample};
    sample =
        (nb_tensor){.elem = NB_F32, .rank = 2, .dims = {3, 2}, .data = rows, .bytes = sizeof rows};
    env = (nb_pass_env){.arena = arena,
                        .diags = diags,
                        .registry = nb_registry_create(arena),
                        .samples = &samples,
                        .n_samples = 1,
                        .verify_each = true};
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, diags, &graph), NB_OK);
}

static void tear_down(void) {
    nb_graph_destroy(graph);
    nb_arena_destroy(arena);
}

static void run(const char *passes) {
    nb_pipeline pipeline;
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, env.diags, &pipeline), NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&pipeline, graph, &env), NB_OK);
}

/* The op that the layer's input comes from, and the last before `return`. */
static nb_op *sub_of(nb_op *layer) { return nb_in(layer, 0)->def; }
static nb_op *last(void) { return graph->body.last->prev; }

START_TEST(by_hand) {
    run("calibrate, shift-fold");
    nb_op *add = last(), *layer = nb_in(add, 0)->def, *sub = sub_of(layer);
    ck_assert_int_eq(add->kind, NB_OP_add);
    ck_assert_int_eq(sub->kind, NB_OP_sub);
    const float *z = nb_in(sub, 1)->blob->data, *bias = nb_in(add, 1)->blob->data;
    ck_assert(z[0] == 2 && z[1] == 4);
    ck_assert(bias[0] == 14 && bias[1] == 20);
    const nb_stats *s = nb_map_get(&env.stats, nb_out(sub));
    ck_assert_ptr_nonnull(s);
    ck_assert(s->low[0] == -1 && s->high[0] == 1 && s->low[1] == -6 && s->high[1] == 6);
    ck_assert(s->amax[1] == 6 && s->clip == 6 && s->min == -6 && s->max == 6);
    ck_assert_float_eq_tol(s->mean[0], 5.5F / 3 - 2, 1e-6F);
}
END_TEST

/* 6 of 10 remain. */
START_TEST(only_where_it_is_worth_it) {
    run("calibrate, shift-fold{worth=0.59}");
    ck_assert_int_eq(last()->kind, NB_OP_matmul);
    run("calibrate, shift-fold{worth=0.61}");
    ck_assert_int_eq(last()->kind, NB_OP_add);
}
END_TEST

/* What bias-correct adds is made of the means of what the layers take now. */
START_TEST(means_follow) {
    nb_tensor before, after;
    ck_assert_int_eq(nb_eval(graph, &sample, &before, NULL, 0, arena, env.diags), NB_OK);
    run("calibrate, shift-fold, quantize-weights{bits=2}, bias-correct");
    ck_assert_int_eq(nb_eval(graph, &sample, &after, NULL, 0, arena, env.diags), NB_OK);
    for (int n = 0; n < 2; n++) {
        float sum = 0;
        for (int r = 0; r < 3; r++)
            sum += ((const float *)after.data)[2 * r + n] - ((const float *)before.data)[2 * r + n];
        ck_assert_float_eq_tol(sum, 0, 1e-4F);
    }
}
END_TEST

/* The mean |x - z| cannot be told from that of x. */
START_TEST(mean_magnitudes_are_gone) {
    nb_pipeline pipeline;
    const char *passes =
        "calibrate, shift-fold, quantize-weights{bits=2}, low-rank{rank=1, method=l2qer}";
    ck_assert_int_eq(nb_pipeline_parse(env.registry, passes, arena, env.diags, &pipeline), NB_OK);
    ck_assert_int_ne(nb_pipeline_run(&pipeline, graph, &env), NB_OK);
    ck_assert_ptr_nonnull(strstr(env.diags->list.items[0]->message, "the mean |x| of"));
}
END_TEST

Suite *nb_suite_shift_fold(void) {
    Suite *s = suite_create("shift_fold");
    TCase *c = tcase_create("shift_fold");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, by_hand);
    tcase_add_test(c, only_where_it_is_worth_it);
    tcase_add_test(c, means_follow);
    tcase_add_test(c, mean_magnitudes_are_gone);
    suite_add_tcase(s, c);
    return s;
}
