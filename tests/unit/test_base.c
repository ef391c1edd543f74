/* Checked arithmetic and rounding division at their edges. */
#include "ir/support/base.h"
#include "tests/unit/unit.h"

START_TEST(overflow_is_reported) {
    int64_t out;
    ck_assert(nb_mul_i64(3, -4, &out) && out == -12);
    ck_assert(nb_add_i64(INT64_MAX, -1, &out) && out == INT64_MAX - 1);
    ck_assert(!nb_mul_i64(INT64_MAX, 2, &out));
    ck_assert(!nb_mul_i64(INT64_MIN, -1, &out));
    ck_assert(!nb_add_i64(INT64_MAX, 1, &out));
    ck_assert(!nb_add_i64(INT64_MIN, -1, &out));
}
END_TEST

START_TEST(division_rounds_as_named) {
    for (int64_t a = -20; a <= 20; a++)
        for (int64_t b = 1; b <= 7; b++) {
            int64_t below = nb_floordiv(a, b), above = nb_ceildiv(a, b);
            ck_assert(below * b <= a && a < (below + 1) * b);
            ck_assert((above - 1) * b < a && a <= above * b);
        }
    ck_assert_int_eq(nb_floordiv(INT64_MIN, 1), INT64_MIN);
    ck_assert_int_eq(nb_ceildiv(INT64_MAX, 2), INT64_MAX / 2 + 1);
}
END_TEST

static nb_status outcome(nb_status status, bool *passed) {
    NB_TRY(status);
    *passed = true;
    return NB_OK;
}

START_TEST(try_returns_the_first_failure) {
    bool passed = false;
    ck_assert_int_eq(outcome(NB_LIMIT, &passed), NB_LIMIT);
    ck_assert(!passed);
    ck_assert_int_eq(outcome(NB_OK, &passed), NB_OK);
    ck_assert(passed);
}
END_TEST

Suite *nb_suite_base(void) {
    Suite *suite = suite_create("base");
    TCase *tests = tcase_create("base");
    tcase_add_test(tests, overflow_is_reported);
    tcase_add_test(tests, division_rounds_as_named);
    tcase_add_test(tests, try_returns_the_first_failure);
    suite_add_tcase(suite, tests);
    return suite;
}
