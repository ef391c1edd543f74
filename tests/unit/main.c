/* Runs the suites named on the command line, or all. Prints the failures, then as the last line
 * the counts that tools/test adds up.
 *
 * Each suite has a process of its own, and in it, by Check, each test (CK_FORK=no switches both
 * off for a debugger): what a suite leaves in memory does not slow the tests of the next one, which
 * leak checkers and forks would walk each time. */
#include "tests/unit/unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    Suite *(*create)(void);
} suites[] = {
#define SUITE(name) {#name, nb_suite_##name},
#include "tests/unit/suites.def"
#undef SUITE
};
#define N_SUITES (sizeof suites / sizeof suites[0])

/* What all suites did, in memory that they share. */
struct totals {
    int run, failed, skipped;
};
static struct totals *totals;

void nb_test_skip(const char *reason) {
    __atomic_add_fetch(&totals->skipped, 1, __ATOMIC_RELAXED);
    printf("skipped: %s\n", reason);
    fflush(stdout);
}

static bool wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return argc == 1;
}

static void run_suite(Suite *(*create)(void)) {
    SRunner *runner = srunner_create(create());
    srunner_run_all(runner, CK_NORMAL);
    totals->run += srunner_ntests_run(runner);
    totals->failed += srunner_ntests_failed(runner);
    srunner_free(runner);
}

/* A suite that ends with its process has failed. */
static void run_apart(Suite *(*create)(void)) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        run_suite(create);
        exit(EXIT_SUCCESS);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        totals->run++;
        totals->failed++;
    }
}

int main(int argc, char **argv) {
    totals = mmap(NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (totals == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    /* Seconds for a test; sanitizers and busy machines need more than Check's 4. */
    setenv("CK_DEFAULT_TIMEOUT", "120", 0);

    const char *fork_tests = getenv("CK_FORK");
    const bool apart = fork_tests == NULL || strcmp(fork_tests, "no") != 0;
    for (size_t i = 0; i < N_SUITES; i++)
        if (wanted(suites[i].name, argc, argv)) (apart ? run_apart : run_suite)(suites[i].create);

    printf("%d passed, %d failed, %d skipped\n", totals->run - totals->failed - totals->skipped,
           totals->failed, totals->skipped);
    return totals->failed == 0 && totals->run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
