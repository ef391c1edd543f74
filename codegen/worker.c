/* Code generation in a child process: LLVM reports some problems by aborting, and its time has no
 * bound of its own. The child sends an object or its diagnostics through a pipe and exits; when it
 * dies instead, that is a diagnostic here.
 *
 * A message is a header (status, number of diagnostics, hash of the module), each diagnostic as
 * status, node, text and help, and the object's bytes. Strings and bytes have their length in
 * front. */
#include "codegen/model.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the child ----------------------------------------------------------------------------- */

static bool write_all(int fd, const void *data, size_t size) {
    const char *p = (const char *)data;
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static bool send_bytes(int fd, const void *data, size_t size) {
    uint64_t length = size;
    return write_all(fd, &length, sizeof length) && write_all(fd, data, size);
}

static bool send_text(int fd, const char *text) {
    return send_bytes(fd, text ? text : "", text ? strlen(text) : 0);
}

static bool send_result(int fd, nb_status status, const nb_diags *diags, const nb_object *object) {
    uint64_t head[3] = {(uint64_t)status, diags->list.count, object->module};
    if (!write_all(fd, head, sizeof head)) return false;
    for (size_t i = 0; i < diags->list.count; i++) {
        const nb_diag *d = diags->list.items[i];
        uint64_t code = (uint64_t)d->status;
        if (!write_all(fd, &code, sizeof code) || !send_text(fd, d->where.node) ||
            !send_text(fd, d->message) || !send_text(fd, d->help))
            return false;
    }
    return send_bytes(fd, object->data, object->size);
}

static void child(int fd, nb_worker_fn fn, void *user, int seconds, const nb_arena *parent) {
    const struct rlimit no_core = {0, 0};
    const struct rlimit cpu = {(rlim_t)seconds, (rlim_t)seconds + 1};
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_CPU, &cpu);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    nb_arena *arena = nb_arena_create_like(parent);
    nb_diags *diags = nb_diags_create(arena, NULL);
    nb_object object = {0};
    nb_status status = fn(user, arena, diags, &object);
    bool sent = send_result(fd, status, diags, &object);
    close(fd);
    _exit(sent ? 0 : 1);
}

/* ---- the parent ---------------------------------------------------------------------------- */

static bool read_all(int fd, void *data, size_t size) {
    char *p = (char *)data;
    while (size) {
        ssize_t n = read(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static void *receive_bytes(int fd, nb_arena *arena, size_t *size) {
    uint64_t length;
    if (!read_all(fd, &length, sizeof length) || length > SIZE_MAX / 2) return NULL;
    char *data = nb_alloc(arena, (size_t)length + 1);
    *size = (size_t)length;
    return read_all(fd, data, *size) ? data : NULL;
}

static bool receive(int fd, nb_arena *arena, nb_diags *diags, nb_object *out, nb_status *status) {
    uint64_t head[3];
    size_t size;
    if (!read_all(fd, head, sizeof head)) return false;
    for (uint64_t i = 0; i < head[1]; i++) {
        uint64_t code;
        if (!read_all(fd, &code, sizeof code)) return false;
        nb_where where = NB_NOWHERE;
        where.node = (const char *)receive_bytes(fd, arena, &size);
        const char *message = (const char *)receive_bytes(fd, arena, &size);
        const char *help = (const char *)receive_bytes(fd, arena, &size);
        if (!where.node || !message || !help) return false;
        nb_status recorded = nb_error(diags, (nb_status)code, where, "%s", message);
        (void)recorded;
        if (*help) nb_help(diags, "%s", help);
    }
    out->data = receive_bytes(fd, arena, &out->size);
    out->module = head[2];
    *status = (nb_status)head[0];
    return out->data != NULL;
}

static nb_status died(int wait_status, int seconds, nb_diags *diags) {
    if (WIFSIGNALED(wait_status) &&
        (WTERMSIG(wait_status) == SIGXCPU || WTERMSIG(wait_status) == SIGKILL))
        return nb_error(diags, NB_LIMIT, NB_NOWHERE,
                        "codegen: stopped after %d s of CPU time, or out of memory", seconds);
    if (WIFSIGNALED(wait_status))
        return nb_error(diags, NB_INTERNAL, NB_NOWHERE, "codegen: LLVM died of signal %d (%s)",
                        WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    return nb_error(diags, NB_INTERNAL, NB_NOWHERE, "codegen: the worker ended without a result");
}

nb_status nb_worker_run(nb_worker_fn fn, void *user, int seconds, nb_arena *arena, nb_diags *diags,
                        nb_object *out) {
    int ends[2];
    if (pipe(ends) != 0)
        return nb_error(diags, NB_IO, NB_NOWHERE, "codegen: no pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) {
        int reason = errno;
        close(ends[0]);
        close(ends[1]);
        return nb_error(diags, NB_IO, NB_NOWHERE, "codegen: no child: %s", strerror(reason));
    }
    if (pid == 0) {
        close(ends[0]);
        child(ends[1], fn, user, seconds, arena);
    }
    close(ends[1]);
    nb_status status = NB_INTERNAL;
    bool complete = receive(ends[0], arena, diags, out, &status);
    close(ends[0]);
    int wait_status = 0;
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
    }
    return complete ? status : died(wait_status, seconds, diags);
}
