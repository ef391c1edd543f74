/* Runs the suites named on the command line, or all. Prints the failures, then as the last line
 * the counts that tools/test adds up.
 *
 * Check runs each test in a process of its own (CK_FORK=no switches that off for a debugger), so
 * the number of skipped tests is kept in memory that they share. */
#include "tests/unit/unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct {
    const char *name;
    Suite *(*create)(void);
} suites[] = {
#define SUITE(name) {#name, nb_suite_##name},
#include "tests/unit/suites.def"
#undef SUITE
};
#define N_SUITES (sizeof suites / sizeof suites[0])

static int *skipped;

void nb_test_skip(const char *reason) {
    __atomic_add_fetch(skipped, 1, __ATOMIC_RELAXED);
    printf("skipped: %s\n", reason);
    fflush(stdout);
}

static bool wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return argc == 1;
}

int main(int argc, char **argv) {
    skipped =
        mmap(NULL, sizeof *skipped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (skipped == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    /* Seconds for a test; sanitizers and busy machines need more than Check's 4. */
    setenv("CK_DEFAULT_TIMEOUT", "120", 0);

    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; i < N_SUITES; i++)
        if (wanted(suites[i].name, argc, argv)) srunner_add_suite(runner, suites[i].create());
    srunner_run_all(runner, CK_NORMAL);

    int run = srunner_ntests_run(runner);
    int failed = srunner_ntests_failed(runner);
    printf("%d passed, %d failed, %d skipped\n", run - failed - *skipped, failed, *skipped);
    srunner_free(runner);
    return failed == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
