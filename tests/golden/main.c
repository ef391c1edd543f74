/* Checks the golden files tests/golden/<pass>/<case>.nir, or those whose path contains one of the
 * arguments. NB_BLESS=1 rewrites what the passes make of the graphs. */
#include "tests/golden/golden.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_wanted(const char *path, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strstr(path, argv[i])) return true;
    return argc == 1;
}

static bool check(const char *path, bool bless) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    nb_golden golden;
    bool ok = nb_golden_read(path, arena, &golden) && nb_golden_check(&golden, arena, bless);
    nb_arena_destroy(arena);
    return ok;
}

int main(int argc, char **argv) {
    const char *bless = getenv("NB_BLESS");
    glob_t files;
    if (glob(NIBBLE_SOURCE_DIR "/tests/golden/*/*.nir", 0, NULL, &files) != 0) {
        fputs("no golden files\n", stderr);
        return EXIT_FAILURE;
    }
    int passed = 0, failed = 0;
    for (size_t i = 0; i < files.gl_pathc; i++) {
        const char *path = files.gl_pathv[i];
        if (!is_wanted(path, argc, argv)) continue;
        bool ok = check(path, bless && strcmp(bless, "1") == 0);
        passed += ok;
        failed += !ok;
        if (!ok) printf("FAILED: %s\n", path + strlen(NIBBLE_SOURCE_DIR) + 1);
    }
    globfree(&files);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed == 0 && passed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
