/* What passes tell about their choices, and which channels count as outliers. */
#include "ir/text.h"
#include "passes/observe.h"
#include "tests/unit/unit.h"

#include <string.h>

/* Two norms: the first gives channel 2 sixteen times the others, its layer takes it back; in the
 * second all are alike. */
static const char model[] =
    "nir 1\n"
    "graph @g(%x: f32[B,4]) -> (y: f32[B,4]) {\n"
    "  const @g1: f32[4] = {1, 1, 16, 1}\n"
    "  const @g2: f32[4] = {1, 1, 1, 1}\n"
    "  const @w1: f32[4,4] = {1, 1, 1, 1, 1, 1, 1, 1, 0.0625, 0.0625, 0.0625, 0.0625, 1, 1, 1, 1}\n"
    "  const @w2: f32[4,4] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}\n"
    "  %n: f32[B,4] = rms_norm %x, @g1 {eps=1e-05} at \"/first\"\n"
    "  %a: f32[B,4] = matmul %n, @w1\n"
    "  %m: f32[B,4] = rms_norm %a, @g2 {eps=1e-05} at \"/second\"\n"
    "  %y: f32[B,4] = matmul %m, @w2\n"
    "  return %y\n"
    "}\n";

/* The place that moves tells its alpha, the one that is left alone tells 0. */
START_TEST(alpha) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_graph *g;
    ck_assert_int_eq(nb_parse(model, strlen(model), "g.nir", NULL, NULL, NULL, diags, &g), NB_OK);
    nb_pass_env env = {.registry = nb_registry_create(arena), .diags = diags, .arena = arena};
    nb_pipeline p;
    ck_assert_int_eq(
        nb_pipeline_parse(env.registry, "smooth-fold{alpha=0.75, leave=4}", arena, diags, &p),
        NB_OK);
    ck_assert_int_eq(nb_pipeline_run(&p, g, &env), NB_OK);
    nb_graph_destroy(g); /* facts outlive it */
    static const char *const nodes[] = {"/first", "/second"};
    static const double values[] = {0.75, 0};
    ck_assert_uint_eq(env.facts.count, 2);
    for (size_t i = 0; i < 2; i++) {
        const nb_fact *f = &env.facts.items[i];
        ck_assert_str_eq(f->pass, "smooth-fold");
        ck_assert_str_eq(f->node, nodes[i]);
        ck_assert_str_eq(f->name, "alpha");
        ck_assert(f->value == values[i]);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* More than 16 times the median. */
START_TEST(outliers) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    float range[40];
    for (int i = 0; i < 40; i++) range[i] = i % 2 ? -2 : 2;
    range[7] = -33;
    range[9] = 32;
    nb_outliers o = nb_outliers_of(range, 40, arena);
    ck_assert(o.median == 2 && o.largest == 33);
    ck_assert_int_eq(o.count, 1);
    range[9] = 32.5f;
    ck_assert_int_eq(nb_outliers_of(range, 40, arena).count, 2);
    range[11] = 100;
    ck_assert_int_eq(nb_outliers_of(range, 40, arena).count, 3);
    ck_assert_int_eq(nb_outliers_of(range, 8, arena).count, 1);
    memset(range, 0, sizeof range);
    range[3] = 1;
    ck_assert_int_eq(nb_outliers_of(range, 40, arena).count, 0);
    ck_assert_int_eq(nb_outliers_of(range, 0, arena).count, 0);
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_facts(void) {
    Suite *s = suite_create("facts");
    TCase *c = tcase_create("passes");
    tcase_add_test(c, alpha);
    tcase_add_test(c, outliers);
    suite_add_tcase(s, c);
    return s;
}
