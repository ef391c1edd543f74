/* Weights that are solved for are kept one by one: who is stopped anywhere and comes again has the
 * graph of one run, and samples run no further than they must. */
#include "ir/text.h"
#include "passes/pass.h"
#include "tests/unit/unit.h"

#include <string.h>

enum { SAMPLES = 4, FILES = 16 };

/* A store, and a machine that stops before it runs a section for the `stop`-th time. */
typedef struct machine {
    nb_arena *arena;
    const char *names[FILES];
    nb_part kept[FILES];
    size_t files, runs, stop;
    size_t first, last, total; /* that progress was shown of */
} machine;

static nb_part load(void *user, const char *name, nb_arena *arena) {
    const machine *m = user;
    for (size_t i = 0; i < m->files; i++) {
        if (strcmp(m->names[i], name) != 0) continue;
        nb_part copy = {nb_alloc(arena, m->kept[i].size + 1), m->kept[i].size};
        memcpy(copy.data, m->kept[i].data, copy.size);
        return copy;
    }
    return (nb_part){0};
}

static nb_status save(void *user, const char *name, const nb_part *parts, size_t n) {
    machine *m = user;
    size_t size = 0;
    ck_assert_uint_lt(m->files, FILES);
    for (size_t i = 0; i < n; i++) size += parts[i].size;
    char *to = nb_alloc(m->arena, size + 1);
    m->names[m->files] = nb_strdup(m->arena, name);
    m->kept[m->files++] = (nb_part){to, size};
    for (size_t i = 0; i < n; i++) {
        if (parts[i].size) memcpy(to, parts[i].data, parts[i].size);
        to += parts[i].size;
    }
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
    ck_assert_str_eq(pass, "quantize-weights");
    if (m->total == 0) m->first = done;
    m->last = done;
    m->total = total;
}

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

#define PASS "quantize-weights{bits=4, group=2, asymmetric, method=gptq%s}"

/* The graph as text, or NULL when it failed. */
static const char *solve(machine *m, const char *more, nb_diags **diags) {
    nb_arena *arena = m->arena;
    nb_sample samples[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        float *x = NB_NEW_ARRAY(arena, float, 12);
        for (int k = 0; k < 12; k++) x[k] = (float)((i * 7 + k * 5) % 11 - 5) / 3.0f;
        nb_tensor *t = NB_NEW(arena, nb_tensor);
        *t = (nb_tensor){.elem = NB_F32, .rank = 2, .dims = {3, 4}, .data = x, .bytes = 48};
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
    m->runs = m->total = 0;
    ck_assert_int_eq(nb_parse(text, strlen(text), "g", NULL, NULL, NULL, *diags, &g), NB_OK);
    ck_assert_int_eq(
        nb_pipeline_parse(env.registry, nb_format(arena, PASS, more), arena, *diags, &pipeline),
        NB_OK);
    const char *out = nb_pipeline_run(&pipeline, g, &env) == NB_OK
                          ? nb_print_string(arena, g, &(nb_print_options){0})
                          : NULL;
    nb_graph_destroy(g);
    return out;
}

START_TEST(taken_up) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine plain = {.arena = arena, .stop = SIZE_MAX};
    const char *expected = solve(&plain, "", &diags);
    ck_assert_ptr_nonnull(expected);
    ck_assert_uint_eq(plain.files, WEIGHTS);
    ck_assert_uint_eq(plain.runs, SECTIONS * SAMPLES);
    ck_assert(plain.first == 0 && plain.last == WEIGHTS && plain.total == WEIGHTS);
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

/* A weight whose codes are damaged is solved once more. */
START_TEST(damaged) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_diags *diags;
    machine m = {.arena = arena, .stop = SIZE_MAX};
    const char *expected = solve(&m, "", &diags);
    ((char *)m.kept[2].data)[m.kept[2].size - 1] ^= 1;
    ck_assert_str_eq(solve(&m, "", &diags), expected);
    ck_assert_uint_eq(diags->warnings, 1);
    ck_assert_uint_eq(m.files, WEIGHTS + 1);
    ck_assert_uint_eq(m.runs, SECTIONS / 2 * SAMPLES); /* as far as %r */
    nb_arena_destroy(arena);
}
END_TEST

Suite *nb_suite_kept(void) {
    Suite *s = suite_create("kept");
    TCase *c = tcase_create("kept");
    tcase_add_test(c, taken_up);
    tcase_add_test(c, other_options);
    tcase_add_test(c, damaged);
    suite_add_tcase(s, c);
    return s;
}
