/* The thread pool: every item once, all sizes, sleeping threads. Meant for TSan too. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/cpu.h"
#include "runtime/pool.h"
#include "tests/unit/unit.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define MAX_ITEMS 1000

/* Not atomic: two threads at one item are a race that TSan sees. */
static int seen[MAX_ITEMS];
static int parts; /* atomic */

static void count_items(const nb_frame *frame, int64_t begin, int64_t end) {
    (void)frame;
    __atomic_add_fetch(&parts, 1, __ATOMIC_RELAXED);
    for (int64_t i = begin; i < end; i++) seen[i]++;
}

static nb_pool *make_pool(int threads) {
    nb_error_text err;
    nb_pool *pool = NULL;
    ck_assert_msg(nb_pool_create(threads, &nb_default_memory, &pool, err) == NB_RT_OK, "%s", err);
    return pool;
}

static void check_loop(nb_pool *pool, int threads, int64_t count) {
    memset(seen, 0, sizeof seen);
    parts = 0;
    nb_pool_for(pool, count, count_items, NULL);
    for (int64_t i = 0; i < MAX_ITEMS; i++) ck_assert_int_eq(seen[i], i < count);
    ck_assert_int_le(parts, NB_POOL_CHUNKS * threads);
}

START_TEST(each_item_once) {
    int threads = _i;
    nb_pool *pool = make_pool(threads);
    static const int64_t counts[] = {0, 1, 2, 3, 7, 8, 9, 64, 999, 1000};
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
            check_loop(pool, threads, counts[i]);
    nb_pool_destroy(pool);
}
END_TEST

START_TEST(sleeping_threads_wake) {
    nb_pool *pool = make_pool(4);
    for (int i = 0; i < 20; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        check_loop(pool, 4, 100);
    }
    nb_pool_destroy(pool);
}
END_TEST

static void slow_last_part(const nb_frame *frame, int64_t begin, int64_t end) {
    if (begin > 0) nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    count_items(frame, begin, end);
}

START_TEST(caller_sleeps_until_done) {
    nb_pool *pool = make_pool(3);
    for (int i = 1; i <= 5; i++) {
        memset(seen, 0, sizeof seen);
        nb_pool_for(pool, 3, slow_last_part, NULL);
        ck_assert(seen[0] == 1 && seen[1] == 1 && seen[2] == 1);
    }
    nb_pool_destroy(pool);
}
END_TEST

START_TEST(unused_pool_ends) {
    for (int i = 0; i < 50; i++) nb_pool_destroy(make_pool(8));
    nb_pool_destroy(NULL);
}
END_TEST

static int blocked; /* atomic: chunks on threads of the pool that would take SIGUSR1 themselves */
static pthread_t caller;

static void look_at_signals(const nb_frame *frame, int64_t begin, int64_t end) {
    (void)frame, (void)begin, (void)end;
    sigset_t set;
    /* Long enough for the others to take their chunks. */
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    if (!pthread_equal(pthread_self(), caller) && !sigismember(&set, SIGUSR1))
        __atomic_add_fetch(&blocked, 1, __ATOMIC_RELAXED);
}

START_TEST(signals_stay_with_the_program) {
    nb_pool *pool = make_pool(4);
    caller = pthread_self();
    nb_pool_for(pool, 16, look_at_signals, NULL);
    ck_assert_int_eq(blocked, 0);
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    ck_assert(!sigismember(&set, SIGUSR1));
    nb_pool_destroy(pool);
}
END_TEST

/* A thread that was moved may be elsewhere when it looks, but not each time. */
START_TEST(threads_move_and_stay_free) {
    cpu_set_t before, after, one;
    int moved = 0;
    const int here = nb_cpu_here(), others = nb_cpu_count() - 1;
    ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
    for (int i = 0; i < 100; i++) {
        nb_cpu_go(here, 0);
        nb_cpu_go(here, 1);
        moved += nb_cpu_here() != here;
    }
    ck_assert_int_eq(moved > 0, others > 0);
    nb_cpu_go(here, others + 1);
    nb_cpu_go(-1, 0);
    ck_assert_int_eq(sched_getaffinity(0, sizeof after, &after), 0);
    ck_assert(CPU_EQUAL(&before, &after));

    CPU_ZERO(&one);
    CPU_SET((size_t)here, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    nb_cpu_go(here, 1); /* a program that has one CPU keeps to it */
    ck_assert_int_eq(nb_cpu_here(), here);
}
END_TEST

START_TEST(cpu_features) {
    nb_error_text err;
    ck_assert_int_eq(nb_cpu_check(nb_cpu_features(), err), NB_RT_OK);
    ck_assert_int_eq(nb_cpu_check(UINT64_C(1) << 60, err), NB_RT_CPU);
    ck_assert_str_eq(err,
                     "the model needs what this CPU lacks: unknown features 0x1000000000000000");
#if defined(__x86_64__)
    ck_assert_int_eq(nb_cpu_check(NB_CPU_ARM_DOTPROD, err), NB_RT_CPU);
    ck_assert_str_eq(err, "the model needs what this CPU lacks: Arm dot product");
#endif
    ck_assert_int_ge(nb_cpu_count(), 1);
}
END_TEST

Suite *nb_suite_runtime_pool(void) {
    Suite *suite = suite_create("runtime_pool");
    TCase *tcase = tcase_create("pool");
    tcase_add_loop_test(tcase, each_item_once, 2, 9);
    tcase_add_test(tcase, sleeping_threads_wake);
    tcase_add_test(tcase, caller_sleeps_until_done);
    tcase_add_test(tcase, unused_pool_ends);
    tcase_add_test(tcase, signals_stay_with_the_program);
    tcase_add_test(tcase, threads_move_and_stay_free);
    tcase_add_test(tcase, cpu_features);
    suite_add_tcase(suite, tcase);
    return suite;
}
