/* Parallel loops of the compiler: each turn is taken once. */
#include "ir/support/parallel.h"
#include "tests/unit/unit.h"

#include <stdatomic.h>

#define TURNS 5000

static void count(void *user, int64_t i) {
    atomic_int *seen = user;
    atomic_fetch_add(&seen[i], 1);
}

START_TEST(each_turn_is_taken_once) {
    static atomic_int seen[TURNS];
    for (int64_t n = 0; n <= TURNS; n += TURNS / 4) {
        for (int i = 0; i < TURNS; i++) atomic_store(&seen[i], 0);
        nb_parallel(n, count, seen);
        for (int i = 0; i < TURNS; i++) ck_assert_int_eq(atomic_load(&seen[i]), i < n);
    }
}
END_TEST

Suite *nb_suite_parallel(void) {
    Suite *suite = suite_create("parallel");
    TCase *tests = tcase_create("parallel");
    tcase_add_test(tests, each_turn_is_taken_once);
    suite_add_tcase(suite, tests);
    return suite;
}
