/* Work over samples: stopped anywhere and taken up again it has the bits of one run, and what is
 * kept is used only where it belongs. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <string.h>

#define SAMPLES 9

/* A store of one entry, and a machine that stops before sample `stop`. */
typedef struct machine {
    nb_arena *arena;
    char *name;
    nb_part kept;
    size_t saves, runs, stop;
    size_t shown[2 * SAMPLES + 2], n_shown;
} machine;

static nb_part load(void *user, const char *name, nb_arena *arena) {
    const machine *m = user;
    if (!m->name || strcmp(m->name, name) != 0) return (nb_part){0};
    nb_part copy = {nb_alloc(arena, m->kept.size + 1), m->kept.size};
    memcpy(copy.data, m->kept.data, copy.size);
    return copy;
}

static nb_status save(void *user, const char *name, const nb_part *parts, size_t n) {
    machine *m = user;
    m->name = nb_strdup(m->arena, name);
    m->kept = (nb_part){0};
    for (size_t i = 0; i < n; i++) m->kept.size += parts[i].size;
    char *to = m->kept.data = nb_alloc(m->arena, m->kept.size + 1);
    for (size_t i = 0; i < n; i++) {
        memcpy(to, parts[i].data, parts[i].size);
        to += parts[i].size;
    }
    m->saves++;
    return NB_OK;
}

static nb_status run(void *user, const nb_graph *g, const nb_tensor *inputs, nb_tensor *outputs,
                     const nb_tap *taps, size_t n_taps, nb_arena *arena, nb_diags *diags) {
    machine *m = user;
    if (m->runs++ == m->stop) return nb_error(diags, NB_LIMIT, NB_NOWHERE, "stopped");
    return nb_eval(g, inputs, outputs, taps, n_taps, arena, diags);
}

static void progress(void *user, const char *pass, size_t done, size_t total) {
    machine *m = user;
    ck_assert_str_eq(pass, "calibrate");
    ck_assert_uint_eq(total, SAMPLES);
    m->shown[m->n_shown++] = done;
}

static const char text[] = "nir 1\n"
                           "graph @g(%x: f32[B,3]) -> f32[B,2] {\n"
                           "  const @w: f32[3,2] = {1, 2, 3, 4, 5, 6}\n"
                           "  %y: f32[B,2] = matmul %x, @w\n"
                           "  return %y\n"
                           "}\n";

/* Calibrates on samples of one row that `first` begins; the statistics of x, NULL when it failed.
 */
static const nb_stats *calibrate(machine *m, const char *graph, float first, nb_diags **diags) {
    nb_arena *arena = m->arena;
    nb_sample samples[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        float *x = NB_NEW_ARRAY(arena, float, 3);
        for (int k = 0; k < 3; k++)
            x[k] = (float)((i * 7 + k * 5) % 11 - 5) / 3.0f * (i ? 1.0f : first);
        nb_tensor *t = NB_NEW(arena, nb_tensor);
        *t = (nb_tensor){.elem = NB_F32, .rank = 2, .dims = {1, 3}, .data = x, .bytes = 12};
        samples[i].inputs = t;
    }
    nb_store store = {.user = m, .load = load, .save = save};
    nb_graph *g;
    nb_pipeline pipeline;
    *diags = nb_diags_create(arena, NULL);
    nb_pass_env env = {.registry = nb_registry_create(arena),
                       .diags = *diags,
                       .arena = arena,
                       .run = run,
                       .run_user = m,
                       .samples = samples,
                       .n_samples = SAMPLES,
                       .store = &store,
                       .progress = progress,
                       .progress_user = m};
    m->runs = m->saves = m->n_shown = 0;
    ck_assert_int_eq(nb_parse(graph, strlen(graph), "g", NULL, NULL, NULL, *diags, &g), NB_OK);
    ck_assert_int_eq(
        nb_pipeline_parse(env.registry, "calibrate{method=average}", arena, *diags, &pipeline),
        NB_OK);
    nb_status status = nb_pipeline_run(&pipeline, g, &env);
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
    size_t size = plain.kept.size;
    for (size_t i = 0; i < size + 3; i += i < 64 ? 1 : 997) {
        machine m = plain;
        m.kept.data = nb_alloc(arena, size + 3);
        memcpy(m.kept.data, plain.kept.data, size);
        if (i < size) ((char *)m.kept.data)[i] ^= 1;
        if (i >= size - 64) m.kept.size = i >= size ? size + 3 : size - 1;
        ck_assert(same(calibrate(&m, text, 1, &diags), expected));
        ck_assert_msg(m.runs == SAMPLES, "byte %zu: %zu samples ran", i, m.runs);
        ck_assert_uint_eq(diags->list.count, 1);
        ck_assert_ptr_nonnull(strstr(diags->list.items[0]->message, "is damaged"));
    }
    machine cut = plain;
    for (cut.kept.size = 0; cut.kept.size < 60; cut.kept.size++) {
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
