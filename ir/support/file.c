/* Reading files (file.h). */
#include "ir/support/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Up to this a copy costs little and makes the bytes immune to changes of the file. */
#define READ_WHOLE ((off_t)64 << 20)

static nb_status io_error(nb_diags *diags, const char *path, const char *what) {
    return nb_error(diags, NB_IO, (nb_where){.file = path, .offset = -1}, "%s: %s", what,
                    strerror(errno));
}

static nb_status read_whole(int fd, const char *path, size_t size, nb_diags *diags, nb_file *out) {
    uint8_t *memory = malloc(size + 1);
    if (!memory)
        return nb_error(diags, NB_LIMIT, (nb_where){.file = path, .offset = -1},
                        "out of memory for %zu bytes", size);
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, memory + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        nb_status status = n < 0 ? io_error(diags, path, "cannot read")
                                 : nb_error(diags, NB_IO, (nb_where){.file = path, .offset = -1},
                                            "the file became shorter while it was read");
        free(memory);
        return status;
    }
    *out = (nb_file){.bytes = memory, .size = size};
    return NB_OK;
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

static nb_status from_descriptor(int fd, const char *path, nb_diags *diags, nb_file *out) {
    struct stat st;
    if (fstat(fd, &st) != 0) return io_error(diags, path, "cannot read");
    if (!S_ISREG(st.st_mode))
        return nb_error(diags, NB_IO, (nb_where){.file = path, .offset = -1},
                        "expected a regular file, found %s", kind_of(st.st_mode));
    if (st.st_size <= READ_WHOLE) return read_whole(fd, path, (size_t)st.st_size, diags, out);
    void *memory = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED) return io_error(diags, path, "cannot map");
    *out = (nb_file){.bytes = memory, .size = (size_t)st.st_size, .mapped = true};
    return NB_OK;
}

nb_status nb_file_from(int fd, const char *path, nb_diags *diags, nb_file *out) {
    nb_status status = from_descriptor(fd, path, diags, out);
    close(fd);
    return status;
}

nb_status nb_file_open(const char *path, nb_diags *diags, nb_file *out) {
    /* O_NONBLOCK: opening a pipe must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return io_error(diags, path, "cannot open");
    return nb_file_from(fd, path, diags, out);
}

void nb_file_close(nb_file *file) {
    if (file->mapped)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    else
        free((void *)(uintptr_t)file->bytes);
    *file = (nb_file){0};
}
