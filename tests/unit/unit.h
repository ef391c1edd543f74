/* What every unit test file includes: Check, the suites, and a way to say that a test is skipped.
 */
#ifndef NB_TEST_UNIT_H
#define NB_TEST_UNIT_H

#include "tests/support/test_data.h"

#include <check.h>

#define SUITE(name) Suite *nb_suite_##name(void);
#include "tests/unit/suites.def"
#undef SUITE

/* Counts the running test as skipped and prints why. The test must return right after. */
void nb_test_skip(const char *reason);

#endif
