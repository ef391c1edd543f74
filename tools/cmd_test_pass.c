/* nibble test-pass: runs the golden files of a plug-in (passes/golden.h). */
#include "lib/files.h"
#include "passes/golden.h"
#include "tools/model.h"
#include "tools/tensor_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_DEPTH 16 /* of folders */

typedef NB_VEC(const char *) paths;

static nb_status cannot_read(nbt_args *args, const char *path) {
    return nb_error(args->diags, NB_IO, (nb_where){.file = path, .offset = -1}, "cannot read: %s",
                    strerror(errno));
}

static int is_visible(const struct dirent *e) { return e->d_name[0] != '.'; }

/* All golden files at or below `path`, in order of their names; links to folders are not followed.
 */
static nb_status collect(nbt_args *args, const char *path, int depth, paths *out) {
    struct stat st;
    if ((depth ? lstat(path, &st) : stat(path, &st)) != 0) return cannot_read(args, path);
    if (!S_ISDIR(st.st_mode)) {
        if (depth == 0 || nbl_ends_with(path, ".nir")) nb_vec_push(args->arena, out, path);
        return NB_OK;
    }
    if (depth == MAX_DEPTH)
        return nb_error(args->diags, NB_LIMIT, (nb_where){.file = path, .offset = -1},
                        "folders are nested more than %d deep", MAX_DEPTH);
    struct dirent **entries;
    int n = scandir(path, &entries, is_visible, alphasort);
    if (n < 0) return cannot_read(args, path);
    const size_t length = strlen(path);
    const char *slash = length && path[length - 1] == '/' ? "" : "/";
    nb_status status = NB_OK;
    for (int i = 0; i < n; i++) {
        const char *child = nb_format(args->arena, "%s%s%s", path, slash, entries[i]->d_name);
        if (status == NB_OK) status = collect(args, child, depth + 1, out);
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* What ends in .so is a plug-in, the rest are golden files and folders of them. */
static nb_status sort_arguments(nbt_args *args, nb_registry *registry, paths *files) {
    size_t plugins = 0;
    for (size_t i = 0; i < args->positional.count; i++) {
        const char *path = args->positional.items[i];
        if (nbl_ends_with(path, ".so")) {
            plugins++;
            NB_TRY(nb_registry_load(registry, path, args->diags));
        } else {
            NB_TRY(collect(args, path, 0, files));
        }
    }
    if (plugins && files->count) return NB_OK;
    nb_error(args->diags, NB_USAGE, NB_NOWHERE, "%s",
             plugins ? "found no golden file (.nir)" : "expected a plug-in (.so) and golden files");
    nb_help(args->diags, "nibble test-pass ./mine.so tests/");
    return NB_USAGE;
}

nb_status nbt_test_pass(nbt_args *args) {
    nb_registry *registry = nb_registry_create(args->arena);
    paths files = {0};
    NB_TRY(sort_arguments(args, registry, &files));
    const nb_golden_options options = {.registry = registry, .bless = nbt_has(args, "bless")};
    size_t failed = 0;
    for (size_t i = 0; i < files.count; i++) {
        nb_arena *arena = nb_arena_create_like(args->arena);
        const char *path = files.items[i], *name = nb_escape(args->arena, path, strlen(path)),
                   *faults = nb_golden_run(path, name, &options, arena);
        failed += *faults != '\0';
        fputs(faults, stdout);
        if (!*faults && nbt_has(args, "verbose")) printf("ok %s\n", name);
        nb_arena_destroy(arena);
    }
    printf("%zu passed, %zu failed%s\n", files.count - failed, failed,
           options.bless ? " (blessed)" : "");
    if (!failed) return NB_OK;
    return nb_error(args->diags, NB_CHECK_FAILED, NB_NOWHERE, "%zu of %zu golden files failed",
                    failed, files.count);
}
