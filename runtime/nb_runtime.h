/* Runs compiled models: loads them, plans memory, keeps state, spreads work over threads.
 *
 * Plain C, needs libc and pthreads only; use it as a library or add the .c files to your build.
 *
 *   nb_loaded *loaded;                          nb_error_text err;
 *   if (nb_load("model.so", &loaded, err)) ...  // or nb_load_model(NAME_model(NB_MODEL_ABI), ...)
 *   nb_session *s;
 *   nb_session_create(loaded, &(nb_session_options){.threads = 2, .capacity = 512}, &s, err);
 *   nb_session_set_input(s, 0, tokens, (int64_t[]){1, n}, err);
 *   nb_session_run(s, err);
 *   const float *logits = nb_session_output(s, 0, dims);
 *
 * A loaded model may be shared by any number of sessions on any threads; a session belongs to one
 * thread at a time. Every function that can fail returns an nb_rt_status and, unless `err` is NULL,
 * writes one line of text into it. No function prints, exits or installs signal handlers. */
#ifndef NB_RUNTIME_H
#define NB_RUNTIME_H

#include "runtime/nb_model.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum nb_rt_status {
    NB_RT_OK = 0,
    NB_RT_ARGUMENT, /* a null, misaligned, aliased or badly shaped argument */
    NB_RT_NO_MEMORY,
    NB_RT_IO,      /* a file could not be read */
    NB_RT_CORRUPT, /* magic, size or hash do not match */
    NB_RT_ABI,     /* made for another ABI version or machine */
    NB_RT_CPU,     /* this CPU lacks a feature the model needs */
    NB_RT_FULL,    /* the state's capacity is used up; the session is unchanged */
    NB_RT_INDEX,   /* a run-time index was out of range */
    NB_RT_CANCELLED
} nb_rt_status;

typedef char nb_error_text[256];

typedef struct nb_loaded nb_loaded;
typedef struct nb_session nb_session;

typedef struct nb_load_options {
    int huge;   /* 1: copy weights into anonymous huge pages (faster decode); 0: map the file */
    int verify; /* 1: check the full hash of the weights */
} nb_load_options;

/* Opens a .so and, unless it has its weights inside, the .nbw beside it: the same path with .nbw in
 * place of .so, or else the model's name. `options` may be NULL (map, verify). */
nb_rt_status nb_load(const char *path, const nb_load_options *options, nb_loaded **out, char *err);
/* Uses a model that is linked in or was made in memory. `weights` may be NULL when the model has
 * them inside or `weights_path` names its .nbw; otherwise model->weights_size bytes, 64-byte
 * aligned, kept by the caller. */
nb_rt_status nb_load_model(const nb_model *model, const void *weights, const char *weights_path,
                           const nb_load_options *options, nb_loaded **out, char *err);
void nb_unload(nb_loaded *loaded); /* after its sessions are gone */
const nb_model *nb_loaded_model(const nb_loaded *loaded);

/* Features of the CPU that runs this, NB_CPU_*. */
uint64_t nb_cpu_features(void);

typedef struct nb_session_options {
    int threads;      /* 0: as many as CPUs this process may use */
    int64_t capacity; /* entries appended states can hold; 0: what the first calls need, growing
                         on demand up to the symbol's maximum */
    /* 64-byte aligned, or NULL when there is no memory; both functions NULL: aligned_alloc, free.
     * Called from the thread that uses the session only. */
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *memory);
    void *user;
} nb_session_options;

nb_rt_status nb_session_create(nb_loaded *loaded, const nb_session_options *options,
                               nb_session **out, char *err);
void nb_session_destroy(nb_session *session);

/* Port numbers by name, or -1. */
int nb_find_input(const nb_model *model, const char *name);
int nb_find_output(const nb_model *model, const char *name);

/* `dims` has the port's rank. Borrows `data`: every run reads it until another call replaces it, so
 * a loop may set an input once and write new values to the same place. It must not overlap the
 * outputs; NULL is right only for an empty tensor.
 * Giving a state's input replaces the state, once: the next run that succeeds starts from `data`
 * (contiguous, any length along the axis) and what the session held is dropped. */
nb_rt_status nb_session_set_input(nb_session *session, int input, const void *data,
                                  const int64_t *dims, char *err);
/* Where an output goes: `data` has room for `bytes`. NULL: memory of the session (the default).
 * Outputs that are states stay with the session. */
nb_rt_status nb_session_set_output(nb_session *session, int output, void *data, size_t bytes,
                                   char *err);

/* Runs once with the inputs set; states advance. On an error the states are as before. */
nb_rt_status nb_session_run(nb_session *session, char *err);
/* The output of the last run, valid until the next; `dims` (NB_MODEL_MAX_RANK values, may be NULL)
 * gets its shape. For an appended state this makes a contiguous copy. NULL: there was no run, it
 * failed, the state is empty after a reset, or there is no memory for the copy. */
const void *nb_session_output(nb_session *session, int output, int64_t *dims);

/* State: entries held, forget all, go back to `length` entries. Only appended states can go back:
 * a model that also has others refuses. Reset and rewind drop state inputs that no run has used
 * yet. */
int64_t nb_session_length(const nb_session *session);
nb_rt_status nb_session_reset(nb_session *session, char *err);
nb_rt_status nb_session_rewind(nb_session *session, int64_t length, char *err);
/* Bytes needed, or the state written to / read from `buffer`. The format is private to one model;
 * contents that do not match it, or were damaged, are refused and leave the session as it was. */
size_t nb_session_state_size(const nb_session *session);
nb_rt_status nb_session_save(const nb_session *session, void *buffer, size_t size, char *err);
nb_rt_status nb_session_restore(nb_session *session, const void *buffer, size_t size, char *err);

/* `mark` is called as nb_frame.mark says, with `user`; NULL: no longer. Models that were not
 * compiled to be profiled never call it. */
void nb_session_set_mark(nb_session *session, void (*mark)(void *user, int64_t op), void *user);
/* Values of nb_model.symbols in the last run, valid until the next; NULL before the first. */
const int64_t *nb_session_symbols(const nb_session *session);

/* From any thread: the current or next run ends with NB_RT_CANCELLED. */
void nb_session_cancel(nb_session *session);

/* Bytes of one element of an ONNX data type, 0 for types of less than a byte or unknown. */
size_t nb_elem_bytes(int32_t elem);
/* Bits of one element, 0 for unknown types. Those of less than a byte are packed as ONNX does: the
 * first in the low bits, over the whole tensor. */
size_t nb_elem_bits(int32_t elem);

#ifdef __cplusplus
}
#endif
#endif
