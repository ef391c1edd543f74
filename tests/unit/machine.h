/* A machine that runs samples, stops at one if it is told to, and keeps what passes want kept. */
#ifndef NB_TEST_MACHINE_H
#define NB_TEST_MACHINE_H

#include "passes/pass.h"

#define MACHINE_FILES 16
#define MACHINE_SHOWN 64

typedef struct machine {
    nb_arena *arena;
    size_t stop; /* it stops before it runs a sample for the stop-th time; SIZE_MAX: never */
    size_t runs, saves;
    const char *names[MACHINE_FILES]; /* of what is kept */
    nb_part kept[MACHINE_FILES];
    size_t files;
    const char *pass;                               /* that shows progress, among others */
    size_t shown[MACHINE_SHOWN], n_shown, of_shown; /* how far it said it was, of how many */
    nb_store store;
} machine;

/* `n` samples of f32 [rows,columns]. */
nb_sample *machine_samples(nb_arena *arena, size_t n, int64_t rows, int64_t columns);

/* Runs the pass of that name with those options (or ""), or passes of which these are the last
 * one's, on the graph. What it counts is of this run; what it keeps is of all. *g: the graph
 * afterwards, the caller's; *env: what it found. */
nb_status machine_run(machine *m, const char *pass, const char *options, const char *graph,
                      const nb_sample *samples, size_t n_samples, nb_graph **g, nb_pass_env *env);

#endif
