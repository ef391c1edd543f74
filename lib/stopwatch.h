/* How long compiled models take: rounds of runs, with the times of single ops, and the time of one
 * run for passes that have a budget of it. */
#ifndef NBL_STOPWATCH_H
#define NBL_STOPWATCH_H

#include "lib/execute.h"
#include "lib/timing.h"

/* ---- times of ops (recorder.c) --------------------------------------------------------------- */

/* Takes the time of each op of models that were compiled with marks, run after run. */
typedef struct nbl_recorder {
    size_t n_ops, n_runs, max_runs; /* runs beyond the last are not kept */
    double *samples;                /* [n_ops][max_runs] */
    double last;
} nbl_recorder;
nbl_recorder nbl_recorder_of(nb_arena *arena, const nb_model *m, size_t runs);
/* The session's runs go to r, NULL: to nobody; nbl_recorded says that one is complete. */
void nbl_record(nb_session *session, nbl_recorder *r);
void nbl_recorded(nbl_recorder *r);
/* Of each op, by its index; zeros without runs. */
double *nbl_recorder_medians(nb_arena *arena, nbl_recorder *r);

/* ---- runs ------------------------------------------------------------------------------------ */

/* How many runs of so many seconds to time in a row: of short ones many, or the clock would be
 * measured. */
int64_t nbl_group(double each);

/* Rounds of runs in a row: those with marks take turns with those without, which give the time of
 * the whole. */
typedef struct nbl_rounds {
    nb_session *session;
    const nb_model *model;
    size_t runs;                                   /* of a round */
    nb_status (*begin)(void *user, bool marked);   /* before a round; NULL: nothing is to be done */
    nb_status (*run)(void *user, double *seconds); /* once, and what it took */
    void *user;
} nbl_rounds;
/* *seconds: of each run of a round its median over the rounds, so that a program that takes the
 * processor now and then does not count, and of these the mean. of_ops[i]: median of op i. */
nb_status nbl_time_rounds(const nbl_rounds *r, nb_arena *arena, double *seconds, double *of_ops);

/* ---- one run at the shapes of a sample ---------------------------------------------------------
 */

/* Arrays for a graph's inputs, and the inputs' names, which outlive what passes make of the graph.
 */
typedef struct nbl_sample {
    const nb_pass_env *env; /* its samples, which passes may have drawn; NULL: none */
    const char *const *names;
    size_t n;
} nbl_sample;
/* The first of env's samples, those there are when it is looked at, for g as it is now. */
nbl_sample nbl_first_sample(const nb_graph *g, const nb_pass_env *env, nb_arena *arena);
/* [given->n]; NULL: there is none. */
const nb_tensor *nbl_sample_inputs(const nbl_sample *given);

/* Times runs of a program that was compiled with marks. States begin as the sample has them, where
 * passes left them their type and shape, and else empty: a step of a decoder is a sample of one
 * token with the caches of those before it. */
nb_status nbl_time_program(const nbl_program *program, int threads, const nbl_sample *given,
                           nb_arena *arena, nb_diags *diags, double *seconds, double *of_ops);

/* nb_pass_env.run_seconds, where nothing is known of decoders; `user` is one of these. */
typedef struct nbl_stopwatch {
    nbl_sample given;
    nb_arena *arena;
    nb_diags *diags;
} nbl_stopwatch;
double nbl_run_seconds(void *user, const nb_graph *planned, double *of_ops);

#endif
