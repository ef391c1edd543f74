/* Whole files (output.h). */
#include "ir/support/output.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

nb_status nb_io_error(nb_diags *diags, const char *path, const char *what) {
    nb_where where = {.file = path, .offset = -1};
    return nb_error(diags, NB_IO, where, "cannot %s: %s", what, strerror(errno));
}

nb_status nb_output_open(const char *path, nb_diags *diags, nb_output *out) {
    struct stat st;
    bool in_place = lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
    *out = (nb_output){.diags = diags, .path = path, .temporary = path};
    if (!in_place) out->temporary = nb_format(diags->arena, "%s.%ld.tmp", path, (long)getpid());
    out->stream = fopen(out->temporary, "wb");
    return out->stream ? NB_OK : nb_io_error(diags, path, "write");
}

nb_status nb_output_close(nb_output *f, nb_status status) {
    bool in_place = f->temporary == f->path;
    bool written =
        fflush(f->stream) == 0 && !ferror(f->stream) && (in_place || fsync(fileno(f->stream)) == 0);
    written = fclose(f->stream) == 0 && written;
    if (status == NB_OK && !written) status = nb_io_error(f->diags, f->path, "write");
    if (in_place) return status;
    if (status == NB_OK && rename(f->temporary, f->path) != 0)
        status = nb_io_error(f->diags, f->path, "rename to");
    if (status != NB_OK) unlink(f->temporary);
    return status;
}

nb_status nb_write_file(const char *path, const void *data, size_t size, nb_diags *diags) {
    nb_output f;
    NB_TRY(nb_output_open(path, diags, &f));
    fwrite(data, 1, size, f.stream); /* closing looks for errors */
    return nb_output_close(&f, NB_OK);
}
