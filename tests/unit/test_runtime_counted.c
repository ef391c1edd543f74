/* Sizes that only data tell: a session plans for what was there so far, runs again where there is
 * more, and gives out what there was.
 *
 * The model, by hand:  inputs n: i64[S]  outputs few: i64[K], all: i64[A]. K is how many of n are
 * not 0, at most S; A is their sum, without a bound. few holds them, all 0, 1, 2, ... */
#include "runtime/nb_runtime.h"
#include "tests/unit/unit.h"

#include <stdbool.h>
#include <string.h>

enum { S, K, A, N_SYMBOLS };

static int runs;
static bool liar; /* asks for memory that it has */

static int64_t bind(const int64_t *const *shapes, int64_t *symbols) {
    symbols[S] = symbols[K] = shapes[0][0];
    symbols[A] = 0;
    return 0;
}

static void input_shape(const int64_t *s, int64_t input, int64_t *dims) {
    (void)input;
    dims[0] = s[S];
}

static void shape(const int64_t *s, int64_t output, int64_t *dims) { dims[0] = s[output + 1]; }

static int64_t plan(const int64_t *s, int64_t *offsets) {
    offsets[0] = 0;
    return 8 * s[A];
}

static int32_t run(const nb_frame *f) {
    const int64_t *n = f->ports[0], count = f->symbols[S];
    int64_t *few = f->ports[1], *all = f->ports[2], *arena = (int64_t *)(void *)f->arena;
    runs++;
    if (liar) return NB_RUN_MORE;
    f->symbols[K] = f->symbols[A] = 0;
    for (int64_t i = 0; i < count; i++) {
        if (n[i]) few[f->symbols[K]++] = n[i];
        f->symbols[A] += n[i];
    }
    if (f->symbols[A] > f->planned[A]) return NB_RUN_MORE;
    for (int64_t i = 0; i < f->symbols[A]; i++) arena[i] = i;
    for (int64_t i = 0; i < f->symbols[A]; i++) all[i] = arena[i];
    return NB_RUN_OK;
}

static const nb_port inputs[] = {{"n", 7, 1, -1, 0, "[S]"}};
static const nb_port outputs[] = {{"few", 7, 1, -1, 0, "[K]"}, {"all", 7, 1, -1, 0, "[A]"}};
static const nb_model_symbol symbols[] = {{"S", 0, 8}, {"K", 0, INT64_MAX}, {"A", 0, 1000}};
static const int32_t counted[] = {K, A};
static const nb_model model = {.size = sizeof(nb_model),
                               .abi = NB_MODEL_ABI,
                               .name = "counting",
                               .compiler = "by hand",
                               .target = "any",
                               .scheme = "",
                               .n_inputs = 1,
                               .n_outputs = 2,
                               .n_symbols = N_SYMBOLS,
                               .inputs = inputs,
                               .outputs = outputs,
                               .symbols = symbols,
                               .n_buffers = 1,
                               .bind = bind,
                               .input_shape = input_shape,
                               .shape = shape,
                               .plan = plan,
                               .run = run,
                               .n_counted = 2,
                               .counted = counted};

static nb_error_text err;

static nb_session *open_session(nb_loaded **loaded) {
    nb_session *s = NULL;
    ck_assert_msg(nb_load_model(&model, NULL, NULL, NULL, loaded, err) == NB_RT_OK, "%s", err);
    ck_assert_int_eq(nb_session_create(*loaded, &(nb_session_options){.threads = 1}, &s, err),
                     NB_RT_OK);
    runs = 0;
    return s;
}

/* Runs with these numbers; the outputs have the sizes of this run. */
static void expect(nb_session *s, int64_t n, const int64_t *numbers, int64_t k, int64_t a,
                   int times) {
    int64_t dims[NB_MODEL_MAX_RANK];
    runs = 0;
    ck_assert_int_eq(nb_session_set_input(s, 0, numbers, &n, err), NB_RT_OK);
    ck_assert_msg(nb_session_run(s, err) == NB_RT_OK, "%s", err);
    ck_assert_int_eq(runs, times);
    ck_assert_ptr_nonnull(nb_session_output(s, 0, dims));
    ck_assert_int_eq(dims[0], k);
    const int64_t *all = nb_session_output(s, 1, dims);
    ck_assert_int_eq(dims[0], a);
    for (int64_t i = 0; i < a; i++) ck_assert_int_eq(all[i], i);
}

START_TEST(grows) {
    nb_loaded *loaded;
    nb_session *s = open_session(&loaded);
    expect(s, 3, (int64_t[]){2, 0, 5}, 2, 7, 2);
    expect(s, 3, (int64_t[]){1, 1, 1}, 3, 3, 1); /* there is room */
    expect(s, 2, (int64_t[]){3, 4}, 2, 7, 1);    /* with other shapes, too */
    expect(s, 2, (int64_t[]){4, 4}, 2, 8, 2);    /* to twice as much */
    expect(s, 2, (int64_t[]){7, 7}, 2, 14, 1);   /* which is enough */
    expect(s, 2, (int64_t[]){500, 500}, 2, 1000, 2);
    expect(s, 0, NULL, 0, 0, 1);
    nb_session_destroy(s);
    nb_unload(loaded);
}
END_TEST

/* Memory of the user must be large enough for what is planned. */
START_TEST(outputs_of_the_user) {
    nb_loaded *loaded;
    nb_session *s = open_session(&loaded);
    const int64_t more[] = {3, 0, 6, 0};
    int64_t few[4], all[8], n = 4;
    ck_assert_int_eq(nb_session_set_output(s, 0, few, sizeof few, err), NB_RT_OK);
    ck_assert_int_eq(nb_session_set_output(s, 1, all, sizeof all, err), NB_RT_OK);
    expect(s, 4, (int64_t[]){2, 0, 6, 0}, 2, 8, 2);
    ck_assert_int_eq(few[1], 6);
    ck_assert_int_eq(all[7], 7);
    ck_assert_int_eq(nb_session_set_input(s, 0, more, &n, err), NB_RT_OK);
    ck_assert_int_eq(nb_session_run(s, err), NB_RT_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err, "output 'all' of shape [16] needs 128 bytes"));
    nb_session_destroy(s);
    nb_unload(loaded);
}
END_TEST

START_TEST(refused) {
    nb_loaded *loaded;
    nb_session *s = open_session(&loaded);
    const int64_t n = 2;
    ck_assert_int_eq(nb_session_set_input(s, 0, (int64_t[]){500, 501}, &n, err), NB_RT_OK);
    liar = true;
    ck_assert_int_eq(nb_session_run(s, err), NB_RT_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err, "asks for more memory than it says"));
    liar = false;
    nb_session_destroy(s);
    nb_unload(loaded);
    nb_model bad = model;
    const int32_t beyond[] = {K, N_SYMBOLS};
    bad.counted = beyond;
    ck_assert_int_eq(nb_load_model(&bad, NULL, NULL, NULL, &loaded, err), NB_RT_CORRUPT);
    bad.counted = NULL;
    ck_assert_int_eq(nb_load_model(&bad, NULL, NULL, NULL, &loaded, err), NB_RT_CORRUPT);
}
END_TEST

Suite *nb_suite_runtime_counted(void) {
    Suite *suite = suite_create("runtime_counted");
    TCase *tests = tcase_create("runtime_counted");
    tcase_add_test(tests, grows);
    tcase_add_test(tests, outputs_of_the_user);
    tcase_add_test(tests, refused);
    suite_add_tcase(suite, tests);
    return suite;
}
