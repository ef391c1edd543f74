/* States of several element types side by side, as a cache of codes with its scales: appended to,
 * moved to a larger capacity, rewound, saved, restored and given by the user together.
 *
 * The model, by hand:  inputs  x: f32[T]   codes: i8[2,P,3]   scales: f32[2,P,1]   half: f16[2,P]
 * and outputs of the last three with P+T entries. Entry t of row r is made from x[t] = n:
 * codes {n, n + 1, n + 2} + 10 r, scale n / 4 + r, and as bits of a half 1000 n + r. */
#include "runtime/nb_runtime.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

enum { T, P, N_SYMBOLS };
enum { X, CODES, SCALES, HALF, N_INPUTS };
#define N_STATES 3

static const int rank_of[] = {1, 3, 3, 2};

static void dims_of(int64_t input, int64_t entries, int64_t *dims) {
    dims[0] = 2;
    dims[1] = entries;
    if (rank_of[input] == 3) dims[2] = input == CODES ? 3 : 1;
}

static int64_t bind(const int64_t *const *shapes, int64_t *symbols) {
    symbols[T] = shapes[X][0];
    symbols[P] = -1;
    for (int i = CODES; i < N_INPUTS; i++) {
        int64_t wanted[3];
        dims_of(i, shapes[i][1], wanted);
        for (int axis = 0; axis < rank_of[i]; axis++)
            if (shapes[i][axis] != -1 && shapes[i][axis] != wanted[axis]) return 1 + 16 * i + axis;
        if (symbols[P] >= 0 && shapes[i][1] >= 0 && shapes[i][1] != symbols[P])
            return 1 + 16 * i + 1;
        if (shapes[i][1] >= 0) symbols[P] = shapes[i][1];
    }
    return symbols[P] < 0 ? -1 - P : 0;
}

static void input_shape(const int64_t *s, int64_t input, int64_t *dims) {
    dims[0] = s[T];
    if (input != X) dims_of(input, s[P], dims);
}

static void shape(const int64_t *s, int64_t output, int64_t *dims) {
    dims_of(output + 1, s[P] + s[T], dims);
}

static int64_t plan(const int64_t *s, int64_t *offsets) {
    (void)s;
    offsets[0] = 0;
    return 0;
}

static int32_t run(const nb_frame *f) {
    const int64_t *s = f->symbols, room = s[N_SYMBOLS];
    const float *x = f->ports[X];
    for (int64_t row = 0; row < 2; row++) {
        for (int64_t t = 0; t < s[T]; t++) {
            int64_t at = row * room + s[P] + t;
            int n = (int)x[t];
            for (int j = 0; j < 3; j++)
                ((int8_t *)f->ports[CODES])[at * 3 + j] = (int8_t)(n + j + 10 * (int)row);
            ((float *)f->ports[SCALES])[at] = (float)n / 4 + (float)row;
            ((uint16_t *)f->ports[HALF])[at] = (uint16_t)(1000 * n + (int)row);
        }
    }
    return NB_RUN_OK;
}

static const nb_port inputs[] = {{"x", 1, 1, -1, 0, "[T]"},
                                 {"codes", 3, 3, 0, 0, "[2,P,3]"},
                                 {"scales", 1, 3, 1, 0, "[2,P,1]"},
                                 {"half", 10, 2, 2, 0, "[2,P]"}};
static const nb_port outputs[] = {{"codes.out", 3, 3, 0, 0, "[2,P+T,3]"},
                                  {"scales.out", 1, 3, 1, 0, "[2,P+T,1]"},
                                  {"half.out", 10, 2, 2, 0, "[2,P+T]"}};
static const nb_model_symbol symbols[] = {{"T", 1, 8}, {"P", 0, 64}};
static const nb_model_state states[] = {
    {CODES, CODES - 1, 1, 1, P, 0}, {SCALES, SCALES - 1, 1, 1, P, 0}, {HALF, HALF - 1, 1, 1, P, 0}};
static const nb_model model = {.size = sizeof(nb_model),
                               .abi = NB_MODEL_ABI,
                               .name = "types",
                               .compiler = "by hand",
                               .target = "any",
                               .scheme = "",
                               .n_inputs = N_INPUTS,
                               .n_outputs = N_STATES,
                               .n_symbols = N_SYMBOLS,
                               .n_states = N_STATES,
                               .inputs = inputs,
                               .outputs = outputs,
                               .symbols = symbols,
                               .states = states,
                               .n_buffers = 1,
                               .bind = bind,
                               .input_shape = input_shape,
                               .shape = shape,
                               .plan = plan,
                               .run = run};

static nb_error_text err;
static nb_loaded *loaded;

static void ok(nb_rt_status status) { ck_assert_msg(status == NB_RT_OK, "%s", err); }

static nb_session *open_one(int64_t capacity) {
    nb_session *s;
    if (!loaded) ok(nb_load_model(&model, NULL, NULL, NULL, &loaded, err));
    ok(nb_session_create(loaded, &(nb_session_options){.threads = 1, .capacity = capacity}, &s,
                         err));
    return s;
}

static void append(nb_session *s, int64_t t, float first) {
    static float x[8];
    for (int64_t i = 0; i < t; i++) x[i] = first + (float)i;
    ok(nb_session_set_input(s, X, x, &t, err));
    ok(nb_session_run(s, err));
}

/* The states hold what x = 1 .. n made. */
static void expect(nb_session *s, int64_t n) {
    int64_t dims[3][NB_MODEL_MAX_RANK];
    const int8_t *codes = nb_session_output(s, CODES - 1, dims[0]);
    const float *scales = nb_session_output(s, SCALES - 1, dims[1]);
    const uint16_t *half = nb_session_output(s, HALF - 1, dims[2]);
    ck_assert_int_eq(nb_session_length(s), n);
    ck_assert(dims[0][1] == n && dims[1][1] == n && dims[2][1] == n);
    for (int64_t i = 0; i < 2 * n; i++) {
        int64_t row = i / n, x = i % n + 1;
        for (int64_t j = 0; j < 3; j++) ck_assert_int_eq(codes[3 * i + j], x + j + 10 * row);
        ck_assert_float_eq(scales[i], (float)x / 4 + (float)row);
        ck_assert_uint_eq(half[i], (unsigned)(1000 * x + row));
    }
}

START_TEST(grow_and_rewind) {
    nb_session *s = open_one(_i);
    append(s, 3, 1);
    expect(s, 3);
    append(s, 5, 4); /* moves to a larger capacity, unless it is fixed */
    expect(s, 8);
    append(s, 4, 90);
    ok(nb_session_rewind(s, 7, err));
    expect(s, 7);
    append(s, 6, 8);
    expect(s, 13);
    nb_session_destroy(s);
}
END_TEST

START_TEST(save_and_restore) {
    nb_session *s = open_one(0), *fresh = open_one(40);
    append(s, 5, 1);
    size_t size = nb_session_state_size(s), empty = nb_session_state_size(fresh);
    ck_assert_uint_eq(size - empty, 5 * 2 * (3 * 1 + 4 + 2));
    unsigned char *saved = malloc(size);
    ok(nb_session_save(s, saved, size, err));
    append(s, 3, 70);
    nb_session *both[] = {s, fresh};
    for (int i = 0; i < 2; i++) {
        ok(nb_session_restore(both[i], saved, size, err));
        expect(both[i], 5);
        append(both[i], 4, 6);
        expect(both[i], 9);
        nb_session_destroy(both[i]);
    }
    free(saved);
}
END_TEST

/* All that belong together are given together; one alone of another length is refused. */
START_TEST(user_gives_states) {
    nb_session *s = open_one(_i);
    static const int8_t codes[] = {1, 2, 3, 2, 3, 4, 11, 12, 13, 12, 13, 14};
    static const float scales[] = {0.25F, 0.5F, 1.25F, 1.5F};
    static const uint16_t half[] = {1000, 2000, 1001, 2001};
    append(s, 3, 50);
    ok(nb_session_set_input(s, CODES, codes, (int64_t[]){2, 2, 3}, err));
    ok(nb_session_set_input(s, X, (float[]){3}, (int64_t[]){1}, err));
    ck_assert_int_eq(nb_session_run(s, err), NB_RT_ARGUMENT);
    ck_assert_msg(strstr(err, "'scales'"), "%s", err);
    ok(nb_session_set_input(s, SCALES, scales, (int64_t[]){2, 2, 1}, err));
    ok(nb_session_set_input(s, HALF, half, (int64_t[]){2, 2}, err));
    append(s, 2, 3);
    expect(s, 4);
    nb_session_destroy(s);
}
END_TEST

static void unload(void) {
    nb_unload(loaded);
    loaded = NULL;
}

Suite *nb_suite_runtime_types(void) {
    Suite *suite = suite_create("runtime_types");
    TCase *tests = tcase_create("types");
    tcase_add_checked_fixture(tests, NULL, unload);
    tcase_add_loop_test(tests, grow_and_rewind, 0, 1);
    tcase_add_loop_test(tests, grow_and_rewind, 16, 17);
    tcase_add_test(tests, save_and_restore);
    tcase_add_loop_test(tests, user_gives_states, 0, 1);
    tcase_add_loop_test(tests, user_gives_states, 9, 10);
    suite_add_tcase(suite, tests);
    return suite;
}
