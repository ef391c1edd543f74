/* Private to the API's files: what its objects are, and how a call survives running out of memory.
 *
 * An arena calls its handler when memory runs out, and the handler must not return. Those made here
 * have nbl_out_of_memory, which jumps back to the nbl_guard of the call that is under way on this
 * thread. */
#ifndef NBL_PRIVATE_H
#define NBL_PRIVATE_H

#include "lib/execute.h"
#include "lib/nibble.h"
#include "passes/pass.h"

struct nibble_diags {
    nb_arena *arena;
    nb_diags *list;
    bool no_memory; /* a call ran out of it: one more diagnostic, behind the others */
};

struct nibble_graph {
    nb_graph *graph;
    nb_arena *arena;      /* of what passes find; lives as long */
    nibble_graph *origin; /* of a clone: whose memory the constants are in */
    size_t references;    /* its own handle, unless that was freed, and its clones */
};

struct nibble_model {
    nbl_program program;
    int threads;
};

struct nibble_result {
    nb_arena *arena;
    nb_tensor *tensors;
    size_t count;
};

/* An nb_oom_fn, for all arenas and graphs that a call makes; `user` is NULL. */
void nbl_out_of_memory(void *user);
/* body(job, NULL), which may run out of memory: then NB_LIMIT. */
NB_MUST_USE nb_status nbl_try(nb_status (*body)(void *job, nb_diags *unused), void *job);
/* body(job, diags), which may run out of memory: then NIBBLE_LIMIT. The caller's `diags` may be
 * NULL; the body's is not. */
nibble_status nbl_guard(nb_status (*body)(void *job, nb_diags *diags), void *job,
                        nibble_diags *diags);

/* Copies a struct of the library's to a caller's, whose `size` says how much of it he knows. */
#define NBL_GIVE(out, value)                                                            \
    do {                                                                                \
        uint32_t nbl_size_ = (out)->size;                                               \
        memcpy((out), &(value), nbl_size_ < sizeof(value) ? nbl_size_ : sizeof(value)); \
        (out)->size = nbl_size_;                                                        \
    } while (0)

/* What the caller wrote of a struct, the rest 0. */
#define NBL_TAKE(to, options)                                                        \
    do {                                                                             \
        if (options)                                                                 \
            memcpy((to), (options),                                                  \
                   (options)->size < sizeof *(to) ? (options)->size : sizeof *(to)); \
    } while (0)

/* Arrays of a caller as tensors, whose data is borrowed; `n` must be as many as there are ports.
 * With `optional`, one that has no data, no type and no axes is not given. */
nb_status nbl_tensors(const nb_array *arrays, size_t n, size_t want, bool optional, nb_arena *arena,
                      nb_diags *diags, nb_tensor **out);
/* Each is of an input's type and shape; symbols agree. */
nb_status nbl_check_inputs(const nb_graph *g, const nb_tensor *inputs, nb_arena *arena,
                           nb_diags *diags);
/* Room for so many outputs. */
nb_status nbl_result(size_t count, nb_diags *diags, nibble_result **out);
/* NB_USAGE when it is NULL: the argument of that name. */
nb_status nbl_given(const void *argument, const char *name, nb_diags *diags);

#endif
