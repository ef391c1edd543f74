/* Golden files of the built-in passes: tests/golden/<pass>/<case>.nir, as passes/golden.h has them.
 * NB_BLESS=1 rewrites the files with what the passes make.
 *
 *   golden [FOLDER OR CASE...]       e.g. golden simplify raise/silu */
#include "passes/golden.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOT NIBBLE_SOURCE_DIR "/tests/golden"

static bool run_case(const char *folder, const char *file) {
    nb_arena *arena = nb_arena_create(NULL, NULL);
    const nb_golden_options options = {.registry = nb_registry_create(arena),
                                       .bless = getenv("NB_BLESS") != NULL};
    const char *name = nb_format(arena, "%s/%.*s", folder, (int)strlen(file) - 4, file),
               *path = nb_format(arena, "%s/%s/%s", ROOT, folder, file),
               *faults = nb_golden_run(path, name, &options, arena);
    fputs(faults, stdout);
    bool passed = !*faults;
    nb_arena_destroy(arena);
    return passed;
}

/* ---- folders -------------------------------------------------------------------------------- */

static bool wanted(const char *folder, const char *file, int argc, char **argv) {
    size_t n = strlen(folder), m = strlen(file) - 4;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], folder) == 0) return true;
        if (strlen(argv[i]) == n + 1 + m && strncmp(argv[i], folder, n) == 0 && argv[i][n] == '/' &&
            strncmp(argv[i] + n + 1, file, m) == 0)
            return true;
    }
    return argc == 1;
}

static int is_folder(const struct dirent *e) { return e->d_type == DT_DIR && e->d_name[0] != '.'; }

static int is_case(const struct dirent *e) {
    size_t n = strlen(e->d_name);
    return n > 4 && strcmp(e->d_name + n - 4, ".nir") == 0;
}

/* Files that passes name are looked for from the root on. */
int main(int argc, char **argv) {
    if (chdir(NIBBLE_SOURCE_DIR) != 0) {
        perror(NIBBLE_SOURCE_DIR);
        return EXIT_FAILURE;
    }
    struct dirent **folders;
    int n_folders = scandir(ROOT, &folders, is_folder, alphasort), passed = 0, failed = 0;
    for (int i = 0; i < n_folders; i++) {
        nb_arena *arena = nb_arena_create(NULL, NULL);
        struct dirent **files;
        int n = scandir(nb_format(arena, "%s/%s", ROOT, folders[i]->d_name), &files, is_case,
                        alphasort);
        for (int k = 0; k < n; k++) {
            if (wanted(folders[i]->d_name, files[k]->d_name, argc, argv)) {
                if (run_case(folders[i]->d_name, files[k]->d_name))
                    passed++;
                else
                    failed++;
            }
            free(files[k]);
        }
        if (n >= 0) free(files);
        nb_arena_destroy(arena);
        free(folders[i]);
    }
    if (n_folders >= 0) free(folders);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed == 0 && passed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
