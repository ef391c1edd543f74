/* Running out of memory, and one code generation at a time (private.h). */
#include "lib/private.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct frame {
    jmp_buf out;
    struct frame *outer; /* a pass' callback may call the library again */
    pid_t process;
    bool generates; /* holds the lock */
} frame;

static _Thread_local frame *innermost;

void nbl_out_of_memory(void *user) {
    (void)user;
    if (!innermost) abort();
    /* A child that generates code must not come back as a second caller; its parent says that it
     * was killed. */
    if (innermost->process != getpid()) kill(getpid(), SIGKILL);
    longjmp(innermost->out, 1);
}

/* ---- one at a time -------------------------------------------------------------------------- */

static pthread_mutex_t generating = PTHREAD_MUTEX_INITIALIZER;

void nbl_begin_code(void) {
    pthread_mutex_lock(&generating);
    if (innermost) innermost->generates = true;
}

void nbl_end_code(void) {
    if (innermost) innermost->generates = false;
    pthread_mutex_unlock(&generating);
}

/* ---- the guard ------------------------------------------------------------------------------ */

/* Apart from its caller, so that no variable that changes lives across setjmp. */
static nb_status attempt(frame *f, nb_status (*body)(void *job, nb_diags *diags), void *job,
                         nb_diags *diags) {
    if (setjmp(f->out) == 0) return body(job, diags);
    if (f->generates) pthread_mutex_unlock(&generating);
    return NB_LIMIT;
}

static nb_status guarded(nb_status (*body)(void *job, nb_diags *diags), void *job,
                         nb_diags *diags) {
    frame f = {.outer = innermost, .process = getpid()};
    innermost = &f;
    nb_status status = attempt(&f, body, job, diags);
    innermost = f.outer;
    return status;
}

nb_status nbl_try(nb_status (*body)(void *job, nb_diags *unused), void *job) {
    return guarded(body, job, NULL);
}

nibble_status nbl_guard(nb_status (*body)(void *job, nb_diags *diags), void *job,
                        nibble_diags *diags) {
    nibble_diags *own = diags ? NULL : nibble_diags_create(), *used = diags ? diags : own;
    if (!used) return NIBBLE_LIMIT;
    const size_t before = used->list->errors;
    nb_status status = guarded(body, job, used->list);
    if (status == NB_LIMIT && used->list->errors == before) used->no_memory = true;
    nibble_diags_free(own);
    return (nibble_status)status;
}
