/* What the drivers of other systems share: they set up their work, print one line "ready TEXT", and
 * then, for each line on stdin, do it for a while and print the figures of that turn. So one
 * process after another can have its turn on the same machine, many times, with all of them set up
 * once. */
#ifndef NB_PEER_H
#define NB_PEER_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PEER_TURN    0.25 /* seconds of work in a turn, at least */
#define PEER_RUNS    3    /* runs in a turn, at least, unless they take much longer than it */
#define PEER_SAMPLES 4096

static inline void peer_fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why ? why : "failed");
    exit(1);
}

static inline double peer_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Looks a function up; it must be there. */
static inline void *peer_symbol(void *library, const char *name) {
    void *p = dlsym(library, name);
    if (!p) peer_fail(name, "not in the library");
    return p;
}

static inline void *peer_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) peer_fail(path, dlerror());
    return library;
}

/* malloc that succeeds, on cache lines; big blocks hold no page that was never written. */
static inline void *peer_memory(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) peer_fail("memory", "not enough");
    memset(p, 0, bytes);
    return p;
}

static inline uint64_t peer_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* Uniform in -1..1. */
static inline float peer_uniform(uint64_t *state) {
    return (float)(int32_t)(peer_random(state) >> 32) * 0x1p-31F;
}

static inline void peer_bytes(void *p, size_t n, uint64_t *state) {
    unsigned char *out = p;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t x = peer_random(state);
        memcpy(out + i, &x, n - i < 8 ? n - i : 8);
    }
}

static inline int peer_ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of what `run(what)` takes, in seconds, over one turn. */
static inline double peer_turn(void (*run)(void *), void *what) {
    static double samples[PEER_SAMPLES];
    size_t n = 0;
    double begin = peer_now(), last = begin;
    while (n < PEER_SAMPLES &&
           (last - begin < PEER_TURN || (n < PEER_RUNS && last - begin < 4 * PEER_TURN))) {
        run(what);
        double t = peer_now();
        samples[n++] = t - last;
        last = t;
    }
    qsort(samples, n, sizeof *samples, peer_ascending);
    return samples[n / 2];
}

/* Serves turns of `run`; each does `items` pieces of work, and the figure is seconds for one. */
static inline void peer_serve(const char *text, void (*run)(void *), void *what, double items) {
    char line[64];
    run(what);
    printf("ready %s\n", text);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%.9g\n", peer_turn(run, what) / items);
        fflush(stdout);
    }
}

#endif
