/* States: given by the user, read, reset, rewound, saved and restored. */
#include "tests/unit/test_runtime_toy.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

static nb_error_text err;
static nb_loaded *loaded;
static nb_session *session;
static const int64_t zero;

static void ok(nb_rt_status status) { ck_assert_msg(status == NB_RT_OK, "%s", err); }

static void expect(nb_rt_status got, nb_rt_status wanted, const char *text) {
    ck_assert_msg(got == wanted, "status %d, expected %d: %s", (int)got, (int)wanted, err);
    ck_assert_msg(strstr(err, text), "message '%s', expected '%s'", err, text);
}

static nb_session *open_one(const nb_model *model, int64_t capacity) {
    if (!loaded) ok(nb_load_model(model, NULL, NULL, NULL, &loaded, err));
    nb_session *s;
    nb_session_options options = {.threads = 1, .capacity = capacity};
    ok(nb_session_create(loaded, &options, &s, err));
    ok(nb_session_set_input(s, TOY_INDEX, &zero, NULL, err));
    return s;
}

static void close_all(void) {
    nb_session_destroy(session);
    nb_unload(loaded);
    loaded = NULL;
}

/* Appends `t` entries with x = first, first + 1, ... to each of the b sequences. */
static nb_rt_status append(nb_session *s, int64_t b, int64_t t, float first) {
    static float x[4 * 8];
    for (int64_t i = 0; i < b * t; i++) x[i] = first + (float)(i % t);
    ok(nb_session_set_input(s, TOY_X, x, (int64_t[]){b, t}, err));
    return nb_session_run(s, err);
}

/* The state holds x = 1 .. n. */
static void expect_state(nb_session *s, int64_t b, int64_t n) {
    int64_t dims[NB_MODEL_MAX_RANK] = {0};
    const float *present = nb_session_output(s, TOY_PRESENT, dims);
    ck_assert_int_eq(nb_session_length(s), n);
    if (n == 0) {
        ck_assert_ptr_null(present);
        return;
    }
    ck_assert(dims[0] == b && dims[1] == 2 && dims[2] == n && dims[3] == 3);
    for (int64_t row = 0; row < b * 2; row++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < 3; j++)
                ck_assert_float_eq(present[(row * n + i) * 3 + j],
                                   (float)((row % 2 + 1) * (i + 1) + j));
}

START_TEST(state_is_read_contiguous) {
    session = open_one(&toy_model, _i);
    expect_state(session, 2, 0);
    ok(append(session, 2, 3, 1));
    expect_state(session, 2, 3);
    ok(append(session, 2, 2, 4));
    expect_state(session, 2, 5);
    int64_t dims[NB_MODEL_MAX_RANK];
    const float *h = nb_session_output(session, TOY_H_OUT, dims);
    ck_assert(dims[0] == 2 && dims[1] == 2);
    ck_assert(h[0] == 15 && h[1] == 5 && h[2] == 15 && h[3] == 5);
    close_all();
}
END_TEST

START_TEST(reset_forgets) {
    session = open_one(&toy_model, 0);
    ok(append(session, 2, 3, 1));
    ok(nb_session_reset(session, err));
    expect_state(session, 2, 0);
    ck_assert_ptr_null(nb_session_output(session, TOY_H_OUT, NULL));
    ok(append(session, 4, 2, 1)); /* another batch size, and larger than what there is */
    expect_state(session, 4, 2);
    const float *h = nb_session_output(session, TOY_H_OUT, NULL);
    ck_assert(h[6] == 3 && h[7] == 2);
    close_all();
}
END_TEST

START_TEST(batch_change_needs_reset) {
    session = open_one(_i ? &toy_model : &toy_cache, 0);
    ok(append(session, 2, 3, 1));
    expect(append(session, 3, 1, 4), NB_RT_ARGUMENT,
           "state 'past' holds [2,2,3,3], but with the inputs given it must be [3,2,3,3]: reset");
    ok(append(session, 2, 1, 4));
    expect_state(session, 2, 4);
    if (!_i) { /* an empty state fits every batch size */
        ok(nb_session_rewind(session, 0, err));
        ok(append(session, 3, 2, 1));
        expect_state(session, 3, 2);
    }
    close_all();
}
END_TEST

START_TEST(rewind_goes_back) {
    session = open_one(&toy_cache, 0);
    ok(append(session, 2, 5, 1));
    expect(nb_session_rewind(session, 6, err), NB_RT_ARGUMENT,
           "cannot go back to 6 entries: 5 are held");
    expect(nb_session_rewind(session, -1, err), NB_RT_ARGUMENT, "-1 entries");
    ok(nb_session_rewind(session, 2, err));
    expect_state(session, 2, 2);
    ok(append(session, 2, 4, 3));
    expect_state(session, 2, 6);
    close_all();
}
END_TEST

START_TEST(plain_states_cannot_go_back) {
    session = open_one(&toy_model, 0);
    ok(append(session, 1, 5, 1));
    expect(nb_session_rewind(session, 2, err), NB_RT_ARGUMENT, "state 'h' is not appended to");
    ok(nb_session_rewind(session, 5, err));
    ok(append(session, 1, 1, 6));
    expect_state(session, 1, 6);
    close_all();
}
END_TEST

/* past with x = 1 .. n for b sequences; the caller frees it. */
static float *make_past(int64_t b, int64_t n) {
    float *past = malloc((size_t)(b * 2 * n * 3) * sizeof *past);
    for (int64_t row = 0; row < b * 2; row++)
        for (int64_t i = 0; i < n * 3; i++)
            past[row * n * 3 + i] = (float)((row % 2 + 1) * (i / 3 + 1) + i % 3);
    return past;
}

static void give_past(const float *past, int64_t b, int64_t n) {
    ok(nb_session_set_input(session, TOY_PAST, past, (int64_t[]){b, 2, n, 3}, err));
}

START_TEST(user_gives_a_state) {
    session = open_one(&toy_cache, _i);
    float *past = make_past(2, 4);
    for (int round = 0; round < 3; round++) {
        give_past(past, 2, 4);
        ok(append(session, 2, 2, 5));
        expect_state(session, 2, 6);
        ok(append(session, 2, 1, 7)); /* it counts once */
        expect_state(session, 2, 7);
    }
    give_past(NULL, 3, 0); /* empty: starts anew, with another batch size */
    ok(append(session, 3, 2, 1));
    expect_state(session, 3, 2);
    int64_t dims[NB_MODEL_MAX_RANK]; /* what it gave out may come back */
    const float *present = nb_session_output(session, TOY_PRESENT, dims);
    ok(nb_session_set_input(session, TOY_PAST, present, dims, err));
    ok(append(session, 3, 1, 3));
    expect_state(session, 3, 3);
    free(past);
    close_all();
}
END_TEST

START_TEST(given_state_that_fails) {
    session = open_one(&toy_model, 8);
    ok(append(session, 1, 3, 1));
    float *past = make_past(1, 8), h[2] = {100, 200};
    const int64_t bad = 9;
    give_past(past, 1, 8);
    expect(append(session, 1, 1, 9), NB_RT_FULL, "9 entries, its capacity is 8");
    give_past(past, 1, 5); /* not the layout of `past`, but the run fails before that matters */
    ok(nb_session_set_input(session, TOY_H, h, (int64_t[]){1, 2}, err));
    ok(nb_session_set_input(session, TOY_INDEX, &bad, NULL, err));
    expect(append(session, 1, 1, 9), NB_RT_INDEX, "/gather");
    expect_state(session, 1, 3);
    ok(nb_session_set_input(session, TOY_INDEX, &zero, NULL, err));
    ok(nb_session_rewind(session, 3, err)); /* drops what was given */
    ok(append(session, 1, 1, 4));
    expect_state(session, 1, 4);
    const float *held = nb_session_output(session, TOY_H_OUT, NULL);
    ck_assert(held[0] == 10 && held[1] == 4);

    ok(nb_session_set_input(session, TOY_H, h, (int64_t[]){1, 2}, err));
    ok(append(session, 1, 1, 5));
    held = nb_session_output(session, TOY_H_OUT, NULL);
    ck_assert(held[0] == 105 && held[1] == 201);
    ok(nb_session_set_input(session, TOY_H, held, (int64_t[]){1, 2}, err)); /* its own memory */
    ok(append(session, 1, 1, 6));
    held = nb_session_output(session, TOY_H_OUT, NULL);
    ck_assert(held[0] == 111 && held[1] == 202);
    ok(append(session, 1, 1, 7));
    held = nb_session_output(session, TOY_H_OUT, NULL);
    ck_assert(held[0] == 118 && held[1] == 203);
    expect_state(session, 1, 7);
    ck_assert(h[0] == 100 && h[1] == 200);
    free(past);
    close_all();
}
END_TEST

START_TEST(save_and_restore) {
    session = open_one(&toy_model, 0);
    ok(append(session, 2, 5, 1));
    size_t size = nb_session_state_size(session);
    unsigned char *saved = malloc(size);
    expect(nb_session_save(session, saved, size - 1, err), NB_RT_ARGUMENT, "the buffer");
    ok(nb_session_save(session, saved, size, err));
    ok(append(session, 2, 3, 60));

    nb_session *others[] = {session, open_one(&toy_model, 0), open_one(&toy_model, 20)};
    for (int i = 0; i < 3; i++) {
        ok(nb_session_restore(others[i], saved, size, err));
        expect_state(others[i], 2, 5);
        ok(append(others[i], 2, 2, 6));
        expect_state(others[i], 2, 7);
        const float *h = nb_session_output(others[i], TOY_H_OUT, NULL);
        ck_assert(h[0] == 28 && h[1] == 7);
    }
    nb_session *small = open_one(&toy_model, 4);
    expect(nb_session_restore(small, saved, size, err), NB_RT_FULL, "5 entries, the capacity is 4");
    nb_session_destroy(small);
    nb_session_destroy(others[1]);
    nb_session_destroy(others[2]);

    ok(nb_session_reset(session, err)); /* nothing is a state as well */
    size = nb_session_state_size(session);
    ok(nb_session_save(session, saved, size, err));
    ok(append(session, 3, 2, 1));
    ok(nb_session_restore(session, saved, size, err));
    expect_state(session, 1, 0);
    ok(append(session, 1, 2, 1));
    expect_state(session, 1, 2);
    free(saved);
    close_all();
}
END_TEST

START_TEST(damaged_saves) {
    session = open_one(&toy_model, 0);
    ok(append(session, 1, 3, 1));
    size_t size = nb_session_state_size(session);
    unsigned char *saved = malloc(size + 1);
    ok(nb_session_save(session, saved, size, err));
    for (size_t i = 0; i < size; i++) {
        saved[i] ^= 0x10;
        ck_assert_int_eq(nb_session_restore(session, saved, size, err), NB_RT_CORRUPT);
        saved[i] ^= 0x10;
        if (i > 0) ck_assert_int_ne(nb_session_restore(session, saved, i, err), NB_RT_OK);
    }
    ck_assert_int_eq(nb_session_restore(session, saved, size + 1, err), NB_RT_CORRUPT);
    ck_assert_int_eq(nb_session_restore(session, NULL, size, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_save(session, NULL, size, err), NB_RT_ARGUMENT);
    expect_state(session, 1, 3);
    ok(append(session, 1, 1, 4));
    expect_state(session, 1, 4);
    nb_session_destroy(session);
    nb_unload(loaded);
    loaded = NULL;
    session = open_one(&toy_cache, 0);
    expect(nb_session_restore(session, saved, size, err), NB_RT_CORRUPT,
           "belongs to another model than 'toy-cache'");
    free(saved);
    close_all();
}
END_TEST

Suite *nb_suite_runtime_state(void) {
    Suite *suite = suite_create("runtime_state");
    TCase *tcase = tcase_create("state");
    tcase_add_loop_test(tcase, state_is_read_contiguous, 0, 1);
    tcase_add_loop_test(tcase, state_is_read_contiguous, 5, 7);
    tcase_add_test(tcase, reset_forgets);
    tcase_add_loop_test(tcase, batch_change_needs_reset, 0, 2);
    tcase_add_test(tcase, rewind_goes_back);
    tcase_add_test(tcase, plain_states_cannot_go_back);
    tcase_add_loop_test(tcase, user_gives_a_state, 0, 1);
    tcase_add_loop_test(tcase, user_gives_a_state, 7, 9);
    tcase_add_test(tcase, given_state_that_fails);
    tcase_add_test(tcase, save_and_restore);
    tcase_add_test(tcase, damaged_saves);
    suite_add_tcase(suite, tcase);
    return suite;
}
