/* Work over samples: stopped anywhere and taken up again it has the bits of one run, and what is
 * kept is used only where it belongs. */
#include "tests/unit/machine.h"
#include "tests/unit/unit.h"

#include <string.h>

#define SAMPLES 9

static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,3]) -> f32[B,2] {\n"
                           "  const @w: f32[3,2] = {1, 2, 3, 4, 5, 6}\n"
                           "  %y: f32[B,2] = matmul %x, @w\n"
                           "  return %y\n"
                           "}\n";

/* Calibrates on samples of one row that `first` begins; the statistics of x, NULL when it failed.
 */
static const nb_stats *calibrate(machine *m, const char *graph, float first, nb_diags **diags) {
    nb_sample *samples = machine_samples(m->arena, SAMPLES, 1, 3);
    float *x = samples[0].inputs->data;
    nb_graph *g;
    nb_pass_env env;
    for (int k = 0; k < 3; k++) x[k] *= first;
    nb_status status =
        machine_run(m, "calibrate", "method=average", graph, samples, SAMPLES, &g, &env);
    if (m->n_shown) ck_assert_uint_eq(m->of_shown, SAMPLES);
    *diags = env.diags;
    const nb_stats *s = nb_map_get(&env.stats, g->body.params[0]);
    ck_assert_int_eq(status == NB_OK, s != NULL);
    nb_graph_destroy(g);
    return s;
}

static bool same(const nb_stats *a, const nb_stats *b) {
    size_t n = (size_t)a->channels * sizeof(float);
    return a->rows == b->rows && a->clip == b->clip && a->min == b->min && a->max == b->max &&
           memcmp(a->mean, b->mean, n) == 0 && memcmp(a->mean_abs, b->mean_abs, n) == 0 &&
           memcmp(a->low, b->low, n) == 0 && memcmp(a->high, b->high, n) == 0 &&
           memcmp(a->histogram, b->histogram, sizeof *a->histogram) == 0;
}

START_TEST(resumed) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine plain = {.arena = arena, .stop = SIZE_MAX};
    const nb_stats *expected = calibrate(&plain, text, 1, &diags);
    ck_assert_uint_eq(plain.runs, SAMPLES);
    ck_assert_uint_eq(plain.saves, SAMPLES);
    for (size_t stop = 0; stop < SAMPLES; stop++) {
        machine m = {.arena = arena, .stop = stop};
        ck_assert_ptr_null(calibrate(&m, text, 1, &diags));
        ck_assert_uint_eq(m.saves, stop);
        m.stop = SIZE_MAX;
        const nb_stats *s = calibrate(&m, text, 1, &diags);
        ck_assert_uint_eq(m.runs, SAMPLES - stop);
        ck_assert(same(s, expected));
        ck_assert_uint_eq(diags->warnings, stop > 0); /* says that it goes on */
        /* Shown: what was there, each sample, the end. */
        ck_assert_uint_eq(m.n_shown, SAMPLES - stop + 1);
        ck_assert_uint_eq(m.shown[0], stop);
        ck_assert_uint_eq(m.shown[m.n_shown - 1], SAMPLES);
        /* All of it is there now. */
        ck_assert(same(calibrate(&m, text, 1, &diags), expected));
        ck_assert_uint_eq(m.runs, 0);
        ck_assert_uint_eq(m.saves, 0);
    }
    nb_arena_destroy(arena);
}
END_TEST

/* Another sample, another weight: another name. */
START_TEST(other_work) {
    static const char other[] = "nir 1\n"
                                "graph @g(%x: f32[B,3]) -> f32[B,2] {\n"
                                "  const @w: f32[3,2] = {1, 2, 3, 4, 5, 7}\n"
                                "  %y: f32[B,2] = matmul %x, @w\n"
                                "  return %y\n"
                                "}\n";
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine m = {.arena = arena, .stop = SIZE_MAX};
    (void)calibrate(&m, text, 1, &diags);
    (void)calibrate(&m, text, 2, &diags);
    ck_assert_uint_eq(m.runs, SAMPLES);
    (void)calibrate(&m, other, 2, &diags);
    ck_assert_uint_eq(m.runs, SAMPLES);
    (void)calibrate(&m, other, 2, &diags);
    ck_assert_uint_eq(m.runs, 0);
    nb_arena_destroy(arena);
}
END_TEST

/* Any byte that is wrong, and any that is missing or too many: a warning, and all runs again. */
START_TEST(damaged) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine plain = {.arena = arena, .stop = SIZE_MAX};
    const nb_stats *expected = calibrate(&plain, text, 1, &diags);
    size_t size = plain.kept[0].size;
    for (size_t i = 0; i < size + 3; i += i < 64 ? 1 : 997) {
        machine m = plain;
        m.kept[0].data = nb_alloc(arena, size + 3);
        memcpy(m.kept[0].data, plain.kept[0].data, size);
        if (i < size) ((char *)m.kept[0].data)[i] ^= 1;
        if (i >= size - 64) m.kept[0].size = i >= size ? size + 3 : size - 1;
        ck_assert(same(calibrate(&m, text, 1, &diags), expected));
        ck_assert_msg(m.runs == SAMPLES, "byte %zu: %zu samples ran", i, m.runs);
        ck_assert_uint_eq(diags->list.count, 1);
        ck_assert_ptr_nonnull(strstr(diags->list.items[0]->message, "is damaged"));
    }
    machine cut = plain;
    for (cut.kept[0].size = 0; cut.kept[0].size < 60; cut.kept[0].size++) {
        machine m = cut;
        ck_assert(same(calibrate(&m, text, 1, &diags), expected));
        ck_assert_uint_eq(m.runs, SAMPLES);
    }
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_accumulate(void) {
    Suite *s = suite_create("accumulate");
    TCase *c = tcase_create("accumulate");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, resumed);
    tcase_add_test(c, other_work);
    tcase_add_test(c, damaged);
    suite_add_tcase(s, c);
    return s;
}
