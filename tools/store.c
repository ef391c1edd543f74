/* A store of passes in a folder (store.h). Files are written beside and renamed: a program that is
 * killed leaves what was kept before. */
#include "tools/store.h"

#include "ir/support/output.h"
#include "tools/tensor_file.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a killed program loses. */
#define SECONDS 10

static const char *file_of(const nbt_folder *f, const char *name) {
    return nb_format(f->diags->arena, "%s/%s.bin", f->path, name);
}

static nb_part load(void *user, const char *name, nb_arena *arena) {
    const nbt_folder *f = user;
    const char *path = file_of(f, name);
    nb_diags *quiet = nb_diags_create(arena, path);
    char *bytes;
    size_t size;
    if (access(path, F_OK) != 0) return (nb_part){0};
    if (nbt_read_file(path, arena, quiet, &bytes, &size) == NB_OK) return (nb_part){bytes, size};
    nb_warn(f->diags, (nb_where){.file = path, .offset = -1}, "%s", quiet->list.items[0]->message);
    return (nb_part){0};
}

static nb_status save(void *user, const char *name, const nb_part *parts, size_t n) {
    const nbt_folder *f = user;
    nb_output out;
    NB_TRY(nb_output_open(file_of(f, name), f->diags, &out));
    for (size_t i = 0; i < n; i++) {
        if (parts[i].size) fwrite(parts[i].data, 1, parts[i].size, out.stream);
    }
    return nb_output_close(&out, NB_OK);
}

nb_status nbt_open_folder(const char *path, nb_diags *diags, nbt_folder *out) {
    *out = (nbt_folder){.path = path,
                        .diags = diags,
                        .store = {.user = out, .interval = SECONDS, .load = load, .save = save}};
    if (mkdir(path, 0777) == 0) return NB_OK;
    struct stat st;
    if (errno == EEXIST && stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) errno = ENOTDIR;
    return errno == EEXIST ? NB_OK : nb_io_error(diags, path, "make the folder");
}
