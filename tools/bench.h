/* The parts of `nibble bench` beside whole models. */
#ifndef NBT_BENCH_H
#define NBT_BENCH_H

#include "tools/model.h"
#include "tools/timing.h"

/* --matmul M,K,N: one linear layer. */
nb_status nbt_bench_matmul(nbt_args *args);
/* --attention B,H,G,S,T,D: one attention. */
nb_status nbt_bench_attention(nbt_args *args);
/* --limits: what this machine can do at most. */
nb_status nbt_bench_limits(nbt_args *args);

/* ---- shared by them (bench_runs.c) ------------------------------------------------------------
 */

/* Numbers that are the same in every run of the program; `state` is any number but 0. */
uint64_t nbt_random(uint64_t *state);
void nbt_random_floats(float *out, int64_t n, float low, float high, uint64_t *state);
/* How many copies of `bytes` bytes make each of them cold in every cache when its turn comes. */
int nbt_cold_copies(int64_t bytes);
/* Runs the session many times; the times are of one of `copies` equal parts of a run. */
nb_status nbt_time_runs(nbt_args *args, nb_session *session, int copies, nbt_times *out);

#endif
