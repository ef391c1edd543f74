/* How `tools/bench tiny` measures a model, the same for every engine: open it, run it once, then
 * many times, each time as a program would that has it for a part. An engine is a row of functions.
 *
 * A model with a cache (an input that stays with the engine) is a decoder: it gets PROMPT tokens,
 * then as many single ones, one run each, and starts again. Any other is run with the same inputs
 * again and again: floats at random, integers 0, symbolic dimensions 1, unless an argument says
 * `NAME=DIM,DIM,...` or `NAME:NUMBER`. Prints one line of JSON; the first output of the
 * second run goes to a file, to be compared.
 *
 *   load_us   opening the model: the engine is loaded by then
 *   first_us  that and the first run
 *   run_us    median of a run; of a decoder with its inputs, which differ each time
 *   peak_mb   the largest resident size of the process so far */
#ifndef NB_PEER_TINY_H
#define NB_PEER_TINY_H

#include "peer.h"

enum { TINY_RANK = 8, TINY_INPUTS = 64, TINY_SAMPLE_NS = 20000 };

typedef struct tiny_engine {
    void (*open)(const char *model);
    int (*count)(void); /* inputs; those that are states stay with the engine */
    /* ONNX element type, name, dimensions (-1: symbolic); false for a state. */
    int (*input)(int i, const char **name, int *elem, int64_t *dims, size_t *rank);
    void (*set)(int i, void *data, size_t bytes, const int64_t *dims, size_t rank, int elem);
    void (*run)(void *);                  /* the argument means nothing */
    void (*reset)(void);                  /* states are empty again */
    const void *(*output)(size_t *bytes); /* the first one, of the last run */
} tiny_engine;

typedef struct tiny_input {
    const char *name;
    int index, elem;
    int64_t dims[TINY_RANK];
    size_t rank, bytes;
    void *data;
} tiny_input;

static tiny_input tiny_inputs[TINY_INPUTS];
static int tiny_n_inputs;
static char **tiny_arguments; /* what is said of inputs; NULL behind the last */
static double tiny_samples[PEER_SAMPLES];

static inline double tiny_peak_mb(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kb = 0;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %lf", &kb);
    if (f) fclose(f);
    return kb / 1024;
}

static inline double tiny_median(size_t n) {
    qsort(tiny_samples, n, sizeof *tiny_samples, peer_ascending);
    return tiny_samples[n / 2];
}

static inline size_t tiny_elem_bytes(int elem) { return elem == 7 || elem == 11 ? 8 : 4; }

/* What a decoder's input has for `n` tokens behind `past`: a mask, positions, or tokens. */
static inline int64_t tiny_token(const tiny_input *in, int64_t at) {
    if (strstr(in->name, "mask")) return 1;
    return strstr(in->name, "position") ? at : 32 + at * 7 % 64;
}

static inline void tiny_feed(const tiny_engine *e, int64_t past, int64_t n) {
    for (int i = 0; i < tiny_n_inputs; i++) {
        tiny_input *in = &tiny_inputs[i];
        int whole = strstr(in->name, "mask") != NULL;
        int64_t dims[2] = {1, whole ? past + n : n};
        int64_t *data = (int64_t *)in->data + (whole ? 0 : past);
        e->set(in->index, data, (size_t)dims[1] * 8, dims, 2, in->elem);
    }
    e->run(NULL);
}

/* What an argument says of an input behind `sign`, or NULL. */
static inline char *tiny_said(const char *name, char sign) {
    const size_t n = strlen(name);
    for (char **a = tiny_arguments; *a; a++)
        if (strncmp(*a, name, n) == 0 && (*a)[n] == sign) return *a + n + 1;
    return NULL;
}

static inline void tiny_fill(tiny_input *in, int64_t tokens, uint64_t *state) {
    size_t count = 1, elem = tiny_elem_bytes(in->elem);
    char *dims = tiny_said(in->name, '=');
    const char *number = tiny_said(in->name, ':');
    for (size_t d = 0; d < in->rank; d++) {
        if (dims) in->dims[d] = strtoll(dims, &dims, 10);
        if (dims && *dims == ',') dims++;
        if (in->dims[d] < 0) in->dims[d] = 1;
        count *= (size_t)in->dims[d];
    }
    in->bytes = count * elem;
    in->data = peer_memory(tokens ? (size_t)tokens * 8 : in->bytes);
    for (int64_t t = 0; t < tokens; t++) ((int64_t *)in->data)[t] = tiny_token(in, t);
    if (tokens) return;
    for (size_t i = 0; i < count && in->elem == 1; i++)
        ((float *)in->data)[i] = peer_uniform(state);
    for (size_t i = 0; i < count && in->elem == 7; i++)
        ((int64_t *)in->data)[i] = number ? atoll(number) : 0;
}

static inline void tiny_find_inputs(const tiny_engine *e, int64_t tokens) {
    uint64_t state = 1;
    for (int i = 0; i < e->count(); i++) {
        tiny_input *in = &tiny_inputs[tiny_n_inputs];
        if (tiny_n_inputs == TINY_INPUTS) peer_fail("inputs", "too many");
        in->index = i;
        if (!e->input(i, &in->name, &in->elem, in->dims, &in->rank)) continue;
        if (tokens && (in->elem != 7 || in->rank != 2)) peer_fail(in->name, "not of a decoder");
        tiny_fill(in, tokens, &state);
        tiny_n_inputs++;
    }
}

static inline void tiny_write(const tiny_engine *e, const char *path) {
    size_t bytes = 0;
    const void *data = e->output(&bytes);
    FILE *f = fopen(path, "wb");
    if (!f || !data || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0)
        peer_fail(path, "cannot be written");
}

static inline double tiny_decoder(const tiny_engine *e, int64_t prompt, const char *out) {
    size_t n = 0;
    double begin = peer_now(), last = begin;
    tiny_feed(e, prompt, 1);
    tiny_write(e, out);
    while (last - begin < PEER_TURN && n + (size_t)prompt <= PEER_SAMPLES) {
        e->reset();
        tiny_feed(e, 0, prompt);
        last = peer_now();
        for (int64_t t = 0; t < prompt; t++) {
            tiny_feed(e, prompt + t, 1);
            double now = peer_now();
            tiny_samples[n++] = now - last;
            last = now;
        }
    }
    return tiny_median(n);
}

static inline double tiny_batch(const tiny_engine *e, int runs) {
    double begin = peer_now();
    for (int i = 0; i < runs; i++) e->run(NULL);
    return peer_now() - begin;
}

/* A sample is long enough for the clock, and short, so that few are interrupted. */
static inline double tiny_plain(const tiny_engine *e, const char *out) {
    size_t n = 0;
    int runs = 1;
    e->run(NULL);
    tiny_write(e, out);
    while (tiny_batch(e, runs) < 1e-9 * TINY_SAMPLE_NS) runs *= 2;
    double begin = peer_now();
    while (n < PEER_SAMPLES && peer_now() - begin < PEER_TURN)
        tiny_samples[n++] = tiny_batch(e, runs) / runs;
    return tiny_median(n);
}

/* PROMPT 0: not a decoder. `arguments` say what inputs are. */
static inline void tiny_measure(const tiny_engine *e, const char *model, int64_t prompt,
                                const char *out, char **arguments) {
    tiny_arguments = arguments;
    double begin = peer_now();
    e->open(model);
    double loaded = peer_now(), prepared, first;
    tiny_find_inputs(e, 2 * prompt);
    prepared = peer_now();
    if (prompt) {
        tiny_feed(e, 0, prompt);
    } else {
        for (int i = 0; i < tiny_n_inputs; i++) {
            tiny_input *in = &tiny_inputs[i];
            e->set(in->index, in->data, in->bytes, in->dims, in->rank, in->elem);
        }
        e->run(NULL);
    }
    first = peer_now() - prepared + (loaded - begin);
    double run = prompt ? tiny_decoder(e, prompt, out) : tiny_plain(e, out);
    printf("{\"load_us\": %.9g, \"first_us\": %.9g, \"run_us\": %.9g, \"peak_mb\": %.9g}\n",
           1e6 * (loaded - begin), 1e6 * first, 1e6 * run, tiny_peak_mb());
}

#endif
