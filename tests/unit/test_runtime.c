/* Sessions: runs, shapes, memory, threads, errors, cancel. States have test_runtime_state.c. */
#include "runtime/support.h"
#include "tests/unit/test_runtime_toy.h"
#include "tests/unit/unit.h"

#include <fenv.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static nb_error_text err;
static nb_loaded *loaded;
static nb_session *session;

static void load(const nb_model *model) {
    ck_assert_msg(nb_load_model(model, NULL, NULL, NULL, &loaded, err) == NB_RT_OK, "%s", err);
}

static void open_session(const nb_session_options *options) {
    load(&toy_model);
    ck_assert_msg(nb_session_create(loaded, options, &session, err) == NB_RT_OK, "%s", err);
}

static void close_session(void) {
    nb_session_destroy(session);
    nb_unload(loaded);
}

static void ok(nb_rt_status status) { ck_assert_msg(status == NB_RT_OK, "%s", err); }

static void expect(nb_rt_status got, nb_rt_status wanted, const char *text) {
    ck_assert_msg(got == wanted, "status %d, expected %d: %s", (int)got, (int)wanted, err);
    ck_assert_msg(strstr(err, text), "message '%s', expected '%s'", err, text);
}

/* x[b,t] = first + t for every b. */
static float x[4 * 8];
static int64_t index_;

static void set_x(int64_t b, int64_t t, float first) {
    for (int64_t i = 0; i < b * t; i++) x[i] = first + (float)(i % t);
    ok(nb_session_set_input(session, TOY_X, x, (int64_t[]){b, t}, err));
}

static void set_all(int64_t b, int64_t t) {
    index_ = 0;
    ok(nb_session_set_input(session, TOY_INDEX, &index_, NULL, err));
    set_x(b, t, 1);
}

/* What y is after a run on 1 .. n. */
static float expected_y(int n) {
    float sum = 0, state = 0;
    for (int i = 1; i <= n; i++) {
        sum += (float)i;
        for (int c = 1; c <= 2; c++) state += 3 * (float)(c * i) + 3;
    }
    return state + sum + 10;
}

START_TEST(runs_and_grows) {
    open_session(&(nb_session_options){.threads = _i});
    set_all(2, 3);
    ok(nb_session_run(session, err));
    ck_assert_float_eq(((const float *)nb_session_output(session, TOY_Y, NULL))[1], expected_y(3));
    for (int n = 4; n <= 32; n++) {
        set_x(2, 1, (float)n);
        ok(nb_session_run(session, err));
        int64_t dims[NB_MODEL_MAX_RANK];
        const float *y = nb_session_output(session, TOY_Y, dims);
        ck_assert_int_eq(dims[0], 2);
        ck_assert_float_eq(y[0], expected_y(n));
        ck_assert_float_eq(y[1], expected_y(n));
        ck_assert_int_eq(nb_session_length(session), n);
    }
    set_x(2, 1, 33);
    expect(nb_session_run(session, err), NB_RT_FULL,
           "'present' would have 33 entries, its capacity is 32");
    close_session();
}
END_TEST

START_TEST(capacity_is_a_limit) {
    open_session(&(nb_session_options){.threads = 1, .capacity = 5});
    set_all(1, 4);
    ok(nb_session_run(session, err));
    set_x(1, 2, 5);
    expect(nb_session_run(session, err), NB_RT_FULL, "6 entries, its capacity is 5");
    ck_assert_int_eq(nb_session_length(session), 4);
    set_x(1, 1, 5);
    ok(nb_session_run(session, err));
    ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL), expected_y(5));
    expect(nb_session_run(session, err), NB_RT_FULL, "6 entries");
    close_session();
}
END_TEST

START_TEST(bad_options) {
    load(&toy_model);
#define CREATE(...) \
    nb_session_create(loaded, &(nb_session_options){__VA_ARGS__}, &session, err), NB_RT_ARGUMENT
    expect(CREATE(.threads = -1), "-1 threads");
    expect(CREATE(.threads = 100000), "100000 threads");
    expect(CREATE(.capacity = -3), "negative: -3");
    expect(CREATE(.capacity = 33), "compiled for at most 32 ('P')");
    expect(CREATE(.release = (void (*)(void *, void *))abort), "come together");
    ck_assert_int_eq(nb_session_create(NULL, NULL, &session, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_create(loaded, NULL, NULL, NULL), NB_RT_ARGUMENT);
    ok(nb_session_create(loaded, NULL, &session, err));
    close_session();
}
END_TEST

START_TEST(null_session) {
    int64_t dims[2] = {1, 1};
    ck_assert_int_eq(nb_session_set_input(NULL, 0, x, dims, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_set_output(NULL, 0, x, 4, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_run(NULL, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_reset(NULL, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_rewind(NULL, 0, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_save(NULL, x, 4, err), NB_RT_ARGUMENT);
    ck_assert_int_eq(nb_session_restore(NULL, x, 4, err), NB_RT_ARGUMENT);
    ck_assert_ptr_null(nb_session_output(NULL, 0, NULL));
    ck_assert_int_eq(nb_session_length(NULL), 0);
    ck_assert_uint_eq(nb_session_state_size(NULL), 0);
    nb_session_cancel(NULL);
    nb_session_destroy(NULL);
}
END_TEST

START_TEST(bad_inputs) {
    open_session(&(nb_session_options){.threads = 1});
    expect(nb_session_run(session, err), NB_RT_ARGUMENT, "input 'x' was never set");
    ck_assert_ptr_null(nb_session_output(session, TOY_Y, NULL));
    set_all(1, 1);
#define SET(port, data, ...) \
    nb_session_set_input(session, port, data, (int64_t[]){__VA_ARGS__}, err), NB_RT_ARGUMENT
    expect(SET(-1, x, 1), "no input -1");
    expect(SET(4, x, 1), "no input 4: the model has 4");
    expect(SET(TOY_X, NULL, 1, 1), "input 'x': `data` is null");
    expect(SET(TOY_X, (char *)x + 2, 1, 1), "'x' is misaligned");
    expect(SET(TOY_X, x, 1, -2), "'x' has the shape [1,-2], expected [B,T]");
    expect(SET(TOY_X, x, INT64_MAX, 2), "expected [B,T]");
    expect(nb_session_set_input(session, TOY_X, x, NULL, err), NB_RT_ARGUMENT, "`dims` is null");
    ok(nb_session_run(session, err));

    ok(nb_session_set_input(session, TOY_X, x, (int64_t[]){1, 9}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT,
           "'T' is 9, the model was compiled for at "
           "most 8");
    ok(nb_session_set_input(session, TOY_X, NULL, (int64_t[]){1, 0}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT,
           "'T' is 0, the model was compiled for at "
           "least 1");
    ck_assert_int_eq(nb_session_length(session), 1);
    set_x(1, 1, 2);
    ok(nb_session_run(session, err));
    ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL), expected_y(2));
    close_session();
}
END_TEST

START_TEST(disagreeing_inputs) {
    open_session(&(nb_session_options){.threads = 1});
    set_all(1, 1);
    ok(nb_session_set_input(session, TOY_PAST, x, (int64_t[]){1, 2, 1, 4}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT,
           "input 'past' has the shape [1,2,1,4], expected [B,2,P,3]: dimension 3 is 4 and should "
           "be 3");
    ok(nb_session_set_input(session, TOY_PAST, x, (int64_t[]){2, 2, 1, 3}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT, "dimension 0 is 2 and should be 1");
    ok(nb_session_set_input(session, TOY_PAST, x, (int64_t[]){2, 2, 1, 4}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT, "dimension 0 does not fit");
    close_session();
}
END_TEST

START_TEST(outputs_of_the_user) {
    open_session(&(nb_session_options){.threads = 1});
    set_all(2, 1);
    float y[3] = {0};
#define SET_OUTPUT(port, data, size) \
    nb_session_set_output(session, port, data, size, err), NB_RT_ARGUMENT
    expect(SET_OUTPUT(3, y, 8), "no output 3");
    expect(SET_OUTPUT(TOY_PRESENT, y, 8), "output 'present' is a state");
    expect(SET_OUTPUT(TOY_Y, (char *)y + 1, 8), "misaligned");
    ok(nb_session_set_output(session, TOY_Y, y, 7, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT,
           "output 'y' of shape [2] needs 8 bytes, the memory set for it has 7");
    ok(nb_session_set_output(session, TOY_Y, x + 1, 8, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT, "'x' overlaps that of 'y'");
    ok(nb_session_set_output(session, TOY_Y, y, 8, err));
    ok(nb_session_run(session, err));
    ck_assert_ptr_eq(nb_session_output(session, TOY_Y, NULL), y);
    ck_assert_float_eq(y[1], expected_y(1));
    ok(nb_session_set_output(session, TOY_Y, NULL, 0, err));
    set_x(2, 1, 2);
    ok(nb_session_run(session, err));
    ck_assert_float_eq(y[1], expected_y(1));

    float *own = (float *)(uintptr_t)nb_session_output(session, TOY_Y, NULL);
    ok(nb_session_set_input(session, TOY_X, own, (int64_t[]){2, 1}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT, "'x' overlaps that of 'y'");
    const float *h = nb_session_output(session, TOY_H_OUT, NULL);
    ok(nb_session_set_input(session, TOY_X, h, (int64_t[]){2, 1}, err));
    expect(nb_session_run(session, err), NB_RT_ARGUMENT, "'x' overlaps that of 'h.out'");
    ck_assert_int_eq(nb_session_length(session), 2);
    close_session();
}
END_TEST

START_TEST(index_error_advances_nothing) {
    open_session(&(nb_session_options){.threads = 2});
    set_all(1, 2);
    ok(nb_session_run(session, err));
    set_x(1, 1, 3);
    for (int i = 0; i < 3; i++) {
        index_ = i == 1 ? -1 : 4;
        expect(nb_session_run(session, err), NB_RT_INDEX, "'/gather': an index is out of range");
        ck_assert_int_eq(nb_session_length(session), 2);
        ck_assert_ptr_null(nb_session_output(session, TOY_Y, NULL));
    }
    index_ = 0;
    ok(nb_session_run(session, err));
    ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL), expected_y(3));
    close_session();
}
END_TEST

static void *cancel_it(void *argument) {
    nb_session_cancel(argument);
    return NULL;
}

static void cancel_from_another_thread(const nb_frame *frame) {
    pthread_t thread;
    (void)frame;
    ck_assert_int_eq(pthread_create(&thread, NULL, cancel_it, session), 0);
    pthread_join(thread, NULL);
}

START_TEST(cancel) {
    open_session(&(nb_session_options){.threads = 2});
    set_all(1, 2);
    ok(nb_session_run(session, err));
    set_x(1, 1, 3);
    nb_session_cancel(session);
    expect(nb_session_run(session, err), NB_RT_CANCELLED, "cancelled");
    toy_on_run = cancel_from_another_thread;
    expect(nb_session_run(session, err), NB_RT_CANCELLED, "cancelled");
    toy_on_run = NULL;
    ck_assert_int_eq(nb_session_length(session), 2);
    ok(nb_session_run(session, err));
    ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL), expected_y(3));
    close_session();
}
END_TEST

static void check_rounding(const nb_frame *frame) {
    (void)frame;
    volatile float one = 1, tiny = 1e-10f;
    ck_assert_float_eq(one + tiny, 1);
}

START_TEST(rounding_of_the_caller_does_not_matter) {
    open_session(&(nb_session_options){.threads = 1});
    set_all(1, 1);
    toy_on_run = check_rounding;
    fesetround(FE_UPWARD);
    ok(nb_session_run(session, err));
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    close_session();
}
END_TEST

/* An allocator that counts, and fails from the `fail_at`th call on. */
typedef struct counter {
    int calls, alive, fail_at;
    bool misaligned;
} counter;

static void *counting_allocate(void *user, size_t size) {
    counter *c = user;
    if (c->calls++ >= c->fail_at) return NULL;
    c->alive++;
    char *block = aligned_alloc(64, size + 64);
    return c->misaligned ? block + 16 : block;
}

static void counting_release(void *user, void *block) {
    counter *c = user;
    c->alive--;
    free(c->misaligned ? (char *)block - 16 : block);
}

static nb_session_options counted(counter *c, int threads, int64_t capacity) {
    return (nb_session_options){threads, capacity, counting_allocate, counting_release, c};
}

START_TEST(steady_state_allocates_nothing) {
    counter c = {.fail_at = 1 << 30};
    nb_session_options options = counted(&c, 2, 32);
    open_session(&options);
    set_all(1, 2);
    ok(nb_session_run(session, err));
    int calls = c.calls;
    for (int n = 3; n <= 32; n++) {
        set_x(1, 1, (float)n);
        ok(nb_session_run(session, err));
    }
    ck_assert_int_eq(c.calls, calls);
    close_session();
    ck_assert_int_eq(c.alive, 0);
}
END_TEST

/* Everything that allocates; the first error ends it, and what was held is still there. */
static bool use_it_all(void) {
    static unsigned char saved[4096];
    set_all(1, 2);
    if (nb_session_run(session, err) != NB_RT_OK) return false;
    const size_t size = nb_session_state_size(session);
    ok(nb_session_save(session, saved, size, err));
    set_x(1, 1, 3);
    if (nb_session_run(session, err) != NB_RT_OK) {
        ck_assert_int_eq(nb_session_length(session), 2);
        return false;
    }
    ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL), expected_y(3));
    if (!nb_session_output(session, TOY_PRESENT, NULL)) return false;
    set_x(1, 6, 4);
    if (nb_session_run(session, err) != NB_RT_OK) {
        ck_assert_int_eq(nb_session_length(session), 3);
        return false;
    }
    ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL), expected_y(9));
    if (nb_session_restore(session, saved, size, err) != NB_RT_OK) {
        ck_assert_int_eq(nb_session_length(session), 9);
        set_x(1, 1, 10); /* still runs, or says why not */
        if (nb_session_run(session, err) == NB_RT_OK)
            ck_assert_float_eq(*(const float *)nb_session_output(session, TOY_Y, NULL),
                               expected_y(10));
        return false;
    }
    return true;
}

START_TEST(every_allocation_may_fail) {
    load(&toy_model);
    bool done = false;
    int fail_at = 0;
    for (; !done; fail_at++) {
        ck_assert_int_lt(fail_at, 1000);
        counter c = {.fail_at = fail_at};
        nb_session_options options = counted(&c, 2, 0);
        nb_rt_status status = nb_session_create(loaded, &options, &session, err);
        if (status == NB_RT_OK) {
            done = use_it_all();
            c.fail_at = 1 << 30; /* and a failure does not last */
            ok(nb_session_reset(session, err));
            ck_assert(use_it_all());
            nb_session_destroy(session);
        } else {
            expect(status, NB_RT_NO_MEMORY, "no memory for");
            ck_assert_ptr_null(session);
        }
        ck_assert_int_eq(c.alive, 0);
    }
    ck_assert_int_gt(fail_at, 15);
    nb_unload(loaded);
}
END_TEST

START_TEST(misaligned_allocator) {
    load(&toy_model);
    counter c = {.fail_at = 1 << 30, .misaligned = true};
    nb_session_options options = counted(&c, 1, 0);
    expect(nb_session_create(loaded, &options, &session, err), NB_RT_NO_MEMORY,
           "not 64-byte aligned");
    ck_assert_int_eq(c.alive, 0);
    nb_unload(loaded);
}
END_TEST

START_TEST(element_sizes) {
    static const unsigned char sizes[] = {0, 4, 1,  1, 2, 2, 4, 8, 0, 1, 2, 8, 4,
                                          8, 8, 16, 2, 1, 1, 1, 1, 0, 0, 0, 1, 0};
    for (int i = 0; i < (int)sizeof sizes; i++) ck_assert_uint_eq(nb_elem_bytes(i), sizes[i]);
    ck_assert_uint_eq(nb_elem_bytes(-1), 0);
    static const unsigned char packed[] = {4, 4, 4, 8, 2, 2, 0};
    for (int i = 0; i < (int)sizeof packed; i++) ck_assert_uint_eq(nb_elem_bits(21 + i), packed[i]);
    size_t bytes;
    ck_assert(nb_bytes_of((int64_t[]){3, 3}, 2, 22, &bytes)); /* int4 */
    ck_assert_uint_eq(bytes, 5);
    ck_assert(nb_bytes_of((int64_t[]){9}, 1, 25, &bytes)); /* uint2 */
    ck_assert_uint_eq(bytes, 3);
}
END_TEST

Suite *nb_suite_runtime(void) {
    Suite *suite = suite_create("runtime");
    TCase *tcase = tcase_create("session");
    tcase_add_loop_test(tcase, runs_and_grows, 1, 9);
    tcase_add_test(tcase, capacity_is_a_limit);
    tcase_add_test(tcase, bad_options);
    tcase_add_test(tcase, null_session);
    tcase_add_test(tcase, bad_inputs);
    tcase_add_test(tcase, disagreeing_inputs);
    tcase_add_test(tcase, outputs_of_the_user);
    tcase_add_test(tcase, index_error_advances_nothing);
    tcase_add_test(tcase, cancel);
    tcase_add_test(tcase, rounding_of_the_caller_does_not_matter);
    tcase_add_test(tcase, steady_state_allocates_nothing);
    tcase_add_test(tcase, every_allocation_may_fail);
    tcase_add_test(tcase, misaligned_allocator);
    tcase_add_test(tcase, element_sizes);
    suite_add_tcase(suite, tcase);
    return suite;
}
