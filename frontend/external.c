/* External data: tensors whose bytes stand in a file of the model's own directory, and nowhere
 * else.
 *
 * The kernel resolves the path below the directory (openat2), so no check can be raced; where the
 * call does not exist, each component is opened without following links. */
#include "frontend/model.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct nb_external {
    nb_file *file;
    nb_status status; /* other than NB_OK: there is no file, and that has been said */
} nb_external;

typedef struct location {
    const char *path;
    int64_t offset, length; /* length -1: to the end of the tensor */
} location;

NB_PRINTF(3, 4) static nb_status refuse(nb_onnx *m, const char *what, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(m->arena, fmt, args);
    va_end(args);
    return nb_error(m->diags, NB_MALFORMED, (nb_where){.file = m->name, .offset = -1},
                    "%s: external data: %s", what, text);
}

/* Decimal digits only. */
static bool parse_number(const char *text, int64_t *out) {
    if (!*text || strspn(text, "0123456789") != strlen(text)) return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

static nb_status parse_location(nb_onnx *m, const Onnx__TensorProto *t, const char *what,
                                location *out) {
    bool seen[4] = {false};
    static const char *const keys[4] = {"location", "offset", "length", "checksum"};
    *out = (location){.length = -1};
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = t->external_data[i]->key, *value = t->external_data[i]->value;
        size_t k = 0;
        while (key && k < 4 && strcmp(key, keys[k]) != 0) k++;
        if (!key || !value || k == 4) return refuse(m, what, "unknown key \"%s\"", key ? key : "");
        if (seen[k]) return refuse(m, what, "key \"%s\" is given twice", key);
        seen[k] = true;
        if (k == 0) out->path = value;
        if (k == 1 && !parse_number(value, &out->offset))
            return refuse(m, what, "offset \"%s\" is not a number", value);
        if (k == 2 && !parse_number(value, &out->length))
            return refuse(m, what, "length \"%s\" is not a number", value);
    }
    if (seen[3] && !m->warned_checksum) {
        m->warned_checksum = true;
        nb_warn(m->diags, (nb_where){.file = m->name, .offset = -1},
                "checksums of external data are not compared");
    }
    if (!out->path || !*out->path) return refuse(m, what, "no location");
    return NB_OK;
}

/* A relative path without "..", empty parts, drive letters or schemes. */
static bool is_plain_path(const char *path) {
    if (*path == '/' || strchr(path, '\\') || strchr(path, ':')) return false;
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 2 && memcmp(p, "..", 2) == 0)) return false;
        p += n;
        if (!*p) return true;
    }
}

static int open_component_by_component(int dir, const char *path) {
    struct stat st;
    if (fstat(dir, &st) != 0) return -1;
    dev_t device = st.st_dev;
    int fd = dup(dir);
    for (const char *p = path; fd >= 0 && *p;) {
        char part[256];
        size_t n = strcspn(p, "/");
        if (n >= sizeof part) {
            errno = ENAMETOOLONG;
            close(fd);
            return -1;
        }
        memcpy(part, p, n);
        part[n] = 0;
        p += n + (p[n] == '/');
        int next = openat(fd, part,
                          O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (*p ? O_DIRECTORY : 0));
        if (next >= 0 && fstat(next, &st) == 0 && st.st_dev != device) { /* another file system */
            close(next);
            next = -1;
            errno = EXDEV;
        }
        int saved = errno;
        close(fd);
        errno = saved;
        fd = next;
    }
    return fd;
}

static int open_beneath(const char *directory, const char *path) {
    int dir = open(*directory ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return -1;
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
                                      RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) fd = open_component_by_component(dir, path);
    int saved = errno;
    close(dir);
    errno = saved;
    return fd;
}

static void close_external(void *file) {
    nb_file_close(file);
    free(file);
}

static nb_status open_file(nb_onnx *m, const char *what, const char *path, nb_file **out) {
    if (!m->directory)
        return refuse(m, what, "a model that is not a file has no directory to look in");
    if (!is_plain_path(path))
        return refuse(m, what, "\"%s\" is not a path below the model's directory", path);
    int fd = open_beneath(m->directory, path);
    if (fd < 0) {
        bool outside = errno == ELOOP || errno == EXDEV;
        nb_error(
            m->diags, outside ? NB_MALFORMED : NB_IO, (nb_where){.file = m->name, .offset = -1},
            "%s: external data \"%s\": %s", what, path,
            outside ? "it leads through a link or out of the model's directory" : strerror(errno));
        if (outside) nb_help(m->diags, "copy the file itself beside the model");
        return outside ? NB_MALFORMED : NB_IO;
    }
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink > 1) {
        close(fd);
        return refuse(m, what, "\"%s\" is a hard link to a file that also stands elsewhere", path);
    }
    nb_file *file = calloc(1, sizeof *file);
    if (!file) {
        close(fd);
        return nb_error(m->diags, NB_LIMIT, NB_NOWHERE, "out of memory");
    }
    nb_status status =
        nb_file_from(fd, nb_format(m->arena, "%s/%s", m->directory, path), m->diags, file);
    if (status != NB_OK) {
        free(file);
        return status;
    }
    nb_graph_on_destroy(m->graph, close_external, file);
    *out = file;
    return NB_OK;
}

/* The file of that name, opened once for all tensors; what is wrong with it is said once. */
static nb_status find_file(nb_onnx *m, const char *what, const char *path, nb_file **out) {
    nb_external *known = nb_map_get_str(&m->external, path, strlen(path));
    if (!known) {
        known = NB_NEW(m->arena, nb_external);
        known->status = open_file(m, what, path, &known->file);
        nb_map_set_str(&m->external, path, strlen(path), known);
    }
    *out = known->file;
    return known->status;
}

nb_status nb_onnx_external(nb_onnx *m, const Onnx__TensorProto *t, const char *what, int64_t size,
                           nb_blob **out) {
    location where;
    nb_file *file;
    NB_TRY(parse_location(m, t, what, &where));
    NB_TRY(find_file(m, what, where.path, &file));
    if (where.length >= 0 && where.length != size)
        return refuse(m, what, "length is %lld, the tensor needs %lld bytes",
                      (long long)where.length, (long long)size);
    if (where.offset > (int64_t)file->size || size > (int64_t)file->size - where.offset)
        return refuse(m, what, "%lld bytes from byte %lld of \"%s\", which has %zu",
                      (long long)size, (long long)where.offset, where.path, file->size);
    *out = nb_blob_borrow(m->graph->arena, file->bytes + where.offset, size);
    (*out)->file = nb_strdup(m->graph->arena, where.path);
    (*out)->offset = where.offset;
    (*out)->mapped = file->mapped;
    return NB_OK;
}
