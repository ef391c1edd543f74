/* Parts of files as constants, for the text form.
 *
 * A text may come from anyone, so a file's name stays below the base directory: it is relative, has
 * no "..", and no link on its way is followed. The file is mapped once; blobs share the mapping,
 * which goes away with the last of them. Elements that are not aligned in the file are copied, and
 * count as if the text held them. */
#include "ir/text_parse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct mapping {
    void *data; /* NULL: an empty file */
    size_t size;
    size_t references;
    char *name;
} mapping;

struct nb_text_file {
    mapping *mapping; /* NULL: could not be read, and that was reported */
};

static void drop(mapping *m) {
    if (--m->references) return;
    if (m->data) munmap(m->data, m->size);
    free(m->name);
    free(m);
}

static void release(nb_blob *blob) {
    drop(blob->owner);
    free(blob);
}

static void release_copy(nb_blob *blob) {
    free((void *)(uintptr_t)blob->data);
    release(blob);
}

/* Opens `name` below `base` one directory at a time, following no links; -1 and errno. */
static int open_below(const char *base, const char *name) {
    int at = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (at >= 0) {
        size_t n = strcspn(name, "/");
        char part[256];
        if (n == 0 || n >= sizeof part || (n == 2 && name[0] == '.' && name[1] == '.')) {
            close(at);
            errno = n >= sizeof part ? ENAMETOOLONG : EACCES;
            return -1;
        }
        memcpy(part, name, n);
        part[n] = '\0';
        name += n;
        bool last = *name == '\0';
        int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
        int next = openat(at, part, flags);
        int error = errno;
        close(at);
        errno = error;
        at = next;
        if (last) return at;
        name++;
    }
    return -1;
}

static mapping *map_file(nb_parser *p, const nb_token *t, const char *name) {
    struct stat info;
    int fd = open_below(p->base, name);
    if (fd < 0) {
        nb_parse_error(p, t, "cannot open '%s' below the text's directory: %s", name,
                       strerror(errno));
        return NULL;
    }
    mapping *m = calloc(1, sizeof *m);
    char *copy = strdup(name);
    bool ok = m && copy && fstat(fd, &info) == 0;
    if (ok && !S_ISREG(info.st_mode)) {
        nb_parse_error(p, t, "'%s' is not a regular file", name);
    } else if (ok) {
        m->size = (size_t)info.st_size;
        void *data = m->size ? mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
        ok = data != MAP_FAILED;
        m->data = ok ? data : NULL;
    }
    if (!ok) nb_parse_error(p, t, "cannot read '%s': %s", name, strerror(errno));
    close(fd);
    if (!ok || !S_ISREG(info.st_mode)) {
        free(copy);
        free(m);
        return NULL;
    }
    m->references = 1;
    m->name = copy;
    return m;
}

/* The bytes at `data` in memory of their own; NULL when that is too much. */
static void *copy_of(nb_parser *p, const nb_token *t, const char *data, int64_t size) {
    if (size > NB_TEXT_MAX_INLINE - p->inline_bytes) {
        nb_parse_limit(p, t,
                       "the constants in this text and those that are not aligned in their files "
                       "are larger than %lld bytes",
                       (long long)NB_TEXT_MAX_INLINE);
        return NULL;
    }
    p->inline_bytes += size;
    void *copy = malloc((size_t)size + 1);
    if (!copy)
        nb_parse_limit(p, t, "out of memory for %lld bytes", (long long)size);
    else
        memcpy(copy, data, (size_t)size);
    return copy;
}

nb_blob *nb_text_blob(nb_parser *p, const nb_token *t, nb_elem e, int64_t begin, int64_t end) {
    const char *name = nb_token_name(p, t);
    if (!p->base) {
        nb_parse_error(p, t, "this text may not name files");
        return NULL;
    }
    nb_text_file *file = nb_map_get_str(&p->files, name, strlen(name));
    if (!file) {
        if (name[0] == '/') {
            nb_parse_error(p, t, "'%s' is an absolute path; files stand below the text's directory",
                           name);
            return NULL;
        }
        file = NB_NEW(p->scratch, nb_text_file);
        nb_map_set_str(&p->files, name, strlen(name), file);
        file->mapping = map_file(p, t, name);
        if (!file->mapping) return NULL;
    }
    mapping *m = file->mapping;
    if (!m || (uint64_t)end > m->size) {
        if (m)
            nb_parse_error(p, t, "'%s' has %zu bytes", name, m->size);
        else
            nb_parse_error(p, t, "'%s' could not be read", name);
        return NULL;
    }
    const char *data = m->data ? (const char *)m->data + begin : "";
    bool aligned = (uintptr_t)data % nb_elem_alignment(e) == 0;
    if (!aligned) data = copy_of(p, t, data, end - begin);
    if (!data) return NULL;
    nb_blob *blob = calloc(1, sizeof *blob);
    if (!blob) {
        if (!aligned) free((void *)(uintptr_t)data);
        nb_parse_limit(p, t, "out of memory");
        return NULL;
    }
    m->references++;
    *blob = (nb_blob){.data = data,
                      .size = end - begin,
                      .references = 1,
                      .mapped = aligned,
                      .release = aligned ? release : release_copy,
                      .owner = m,
                      .file = m->name,
                      .offset = begin};
    return blob;
}

void nb_text_files_close(nb_parser *p) {
    for (size_t i = 0; i < p->files.count; i++) {
        nb_text_file *file = p->files.entries[i].value;
        if (file->mapping) drop(file->mapping);
    }
}
