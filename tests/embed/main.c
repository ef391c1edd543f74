/* A whole program around a compiled decoder: links the object and its header, needs libc and
 * pthreads only, and prints a checksum of the logits' bits for a fixed prompt.
 *
 *   nibble compile sample.onnx -o sample.o --weights embed --scheme w4a8
 *   cc main.c sample.o RUNTIME_SOURCES -I. -Iruntime -pthread -o demo */
#include "runtime/nb_runtime.h"
#include "sample.h"

#include <stdio.h>
#include <string.h>

#define N 19

/* FNV-1a over the bytes. */
static unsigned long long checksum(const void *data, size_t size) {
    const unsigned char *bytes = data;
    unsigned long long h = 1469598103934665603ULL;
    for (size_t i = 0; i < size; i++) h = (h ^ bytes[i]) * 1099511628211ULL;
    return h;
}

static int fail(const char *err) {
    fprintf(stderr, "%s\n", err);
    return 1;
}

int main(void) {
    const char *text = "And it came to pass";
    int64_t tokens[N], mask[N], positions[N], dims[2] = {1, N}, shape[NB_MODEL_MAX_RANK];
    for (int i = 0; i < N; i++) {
        tokens[i] = (unsigned char)text[i];
        mask[i] = 1;
        positions[i] = i;
    }
    nb_loaded *model;
    nb_session *session;
    nb_error_text err;
    if (nb_load_model(sample_model(NB_MODEL_ABI), NULL, NULL, NULL, &model, err)) return fail(err);
    nb_session_options options = {.threads = 1};
    if (nb_session_create(model, &options, &session, err)) return fail(err);
    if (nb_session_set_input(session, 0, tokens, dims, err) ||
        nb_session_set_input(session, 1, mask, dims, err) ||
        nb_session_set_input(session, 2, positions, dims, err) || nb_session_run(session, err))
        return fail(err);
    const float *logits = nb_session_output(session, 0, shape);
    printf("%016llx\n", checksum(logits, (size_t)(N * shape[2]) * sizeof *logits));
    nb_session_destroy(session);
    nb_unload(model);
    return 0;
}
