/* The parts of `nibble bench` beside whole models. */
#ifndef NBT_BENCH_H
#define NBT_BENCH_H

#include "tools/model.h"

/* --matmul M,K,N: one linear layer. */
nb_status nbt_bench_matmul(nbt_args *args);
/* --limits: what this machine can do at most. */
nb_status nbt_bench_limits(nbt_args *args);

#endif
