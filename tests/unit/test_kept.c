/* Weights that are solved for are kept one by one: who is stopped anywhere and comes again has the
 * graph of one run, and samples run no further than they must. */
#include "ir/text.h"
#include "tests/unit/machine.h"
#include "tests/unit/unit.h"

#include <string.h>

enum { SAMPLES = 4 };

/* Two layers read %r; the third reads what both make of it. */
static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,4]) -> f32[B,4] {\n"
                           "  const @a: f32[4,4] = random(1, -1..1)\n"
                           "  const @b: f32[4,4] = random(2, -1..1)\n"
                           "  const @c: f32[4,4] = random(3, -1..1)\n"
                           "  const @d: f32[4,4] = random(4, -1..1)\n"
                           "  %p: f32[B,4] = matmul %x, @a\n"
                           "  %r: f32[B,4] = add %x, %p\n"
                           "  %s: f32[B,4] = matmul %r, @b\n"
                           "  %t: f32[B,4] = matmul %r, @c\n"
                           "  %u: f32[B,4] = mul %s, %t\n"
                           "  %v: f32[B,4] = matmul %u, @d\n"
                           "  %z: f32[B,4] = add %r, %v\n"
                           "  return %z\n"
                           "}\n";
enum { WEIGHTS = 4, SECTIONS = 4 }; /* up to %r and %u, of two walks */

/* The graph as text, or NULL when it failed. */
static const char *solve_behind(machine *m, const char *before, const char *more,
                                nb_diags **diags) {
    nb_graph *g;
    nb_pass_env env;
    const char *options = nb_format(m->arena, "bits=4, group=2, asymmetric, method=gptq%s", more),
               *passes = nb_format(m->arena, "%squantize-weights", before);
    const nb_sample *samples = machine_samples(m->arena, SAMPLES, 3, 4);
    nb_status status = machine_run(m, passes, options, text, samples, SAMPLES, &g, &env);
    const char *out = status == NB_OK ? nb_print_string(m->arena, g, &(nb_print_options){0}) : NULL;
    *diags = env.diags;
    nb_graph_destroy(g);
    return out;
}

static const char *solve(machine *m, const char *more, nb_diags **diags) {
    return solve_behind(m, "", more, diags);
}

START_TEST(taken_up) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine plain = {.arena = arena, .stop = SIZE_MAX};
    const char *expected = solve(&plain, "", &diags);
    ck_assert_ptr_nonnull(expected);
    ck_assert_uint_eq(plain.files, WEIGHTS);
    ck_assert_uint_eq(plain.runs, SECTIONS * SAMPLES);
    ck_assert(plain.shown[0] == 0 && plain.shown[plain.n_shown - 1] == WEIGHTS);
    ck_assert_uint_eq(plain.of_shown, WEIGHTS);
    for (size_t stop = 0; stop < SECTIONS * SAMPLES; stop++) {
        machine m = {.arena = arena, .stop = stop};
        ck_assert_ptr_null(solve(&m, "", &diags));
        const size_t solved = stop < 2 * SAMPLES ? 1 : 3;
        ck_assert_uint_eq(m.files, solved);
        m.stop = SIZE_MAX;
        ck_assert_str_eq(solve(&m, "", &diags), expected);
        ck_assert_uint_eq(m.files, WEIGHTS);
        ck_assert_uint_eq(m.runs, SECTIONS * SAMPLES);
        /* All of it is there now: nothing runs. */
        ck_assert_str_eq(solve(&m, "", &diags), expected);
        ck_assert_uint_eq(m.files, WEIGHTS);
        ck_assert_uint_eq(m.runs, 0);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Other options, other codes: they have names of their own. */
START_TEST(other_options) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine m = {.arena = arena, .stop = SIZE_MAX};
    const char *first = solve(&m, "", &diags),
               *others[] = {", refine=0", ", correct=0.25", ", keep=0.5"};
    for (size_t i = 0; i < NB_COUNT(others); i++) {
        const char *other = solve(&m, others[i], &diags);
        ck_assert_str_ne(other, first);
        ck_assert_uint_eq(m.files, (i + 2) * WEIGHTS);
        ck_assert_str_eq(solve(&m, others[i], &diags), other);
        ck_assert_uint_eq(m.runs, 0);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* What choose-bits measures serves other budgets too: the float model runs, and nothing else. Codes
 * do not, where layers before them have other bits. */
START_TEST(other_budgets) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine both = {.arena = arena, .stop = SIZE_MAX};
    const char *budgets[] = {"choose-bits{budget=11, bits=\"2,4,8\", groups=\"2\"}, ",
                             "choose-bits{budget=13, bits=\"2,4,8\", groups=\"2\"}, "},
               *found[2];
    for (int i = 0; i < 2; i++) {
        machine one = {.arena = arena, .stop = SIZE_MAX};
        found[i] = solve_behind(&both, budgets[i], "", &diags);
        ck_assert_ptr_nonnull(found[i]);
        ck_assert_str_eq(found[i], solve_behind(&one, budgets[i], "", &diags));
        ck_assert_uint_eq(one.files, 2 * WEIGHTS);
        ck_assert_uint_eq(one.runs, (1 + WEIGHTS + SECTIONS) * SAMPLES);
    }
    ck_assert_str_ne(found[0], found[1]);
    ck_assert_uint_le(both.runs, (1 + SECTIONS) * SAMPLES);
    nb_arena_destroy(arena);
}
END_TEST

/* A weight whose codes are damaged is solved once more. */
START_TEST(damaged) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine m = {.arena = arena, .stop = SIZE_MAX};
    const char *expected = solve(&m, "", &diags);
    ((char *)m.kept[2].data)[m.kept[2].size - 1] ^= 1;
    ck_assert_str_eq(solve(&m, "", &diags), expected);
    ck_assert_uint_eq(diags->warnings, 1);
    ck_assert_uint_eq(m.files, WEIGHTS);
    ck_assert_uint_eq(m.saves, 1);
    ck_assert_uint_eq(m.runs, SECTIONS / 2 * SAMPLES); /* as far as %r */
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_kept(void) {
    Suite *s = suite_create("kept");
    TCase *c = tcase_create("kept");
    tcase_add_test(c, taken_up);
    tcase_add_test(c, other_options);
    tcase_add_test(c, other_budgets);
    tcase_add_test(c, damaged);
    suite_add_tcase(s, c);
    return s;
}
