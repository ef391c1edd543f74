/* Threads that wait for parallel loops of one session.
 *
 * The calling thread takes part, so a pool of n has n - 1 threads of its own. Each loop is cut into
 * contiguous chunks of equal size, and whoever is free takes the next one. Between loops the
 * threads look busily for new work for some microseconds, then sleep. */
#ifndef NB_RUNTIME_POOL_H
#define NB_RUNTIME_POOL_H

#include "runtime/support.h"

#define NB_POOL_MAX_THREADS 1024
/* Chunks for each thread: the last to finish is late by at most a part of that. */
#define NB_POOL_CHUNKS 4

typedef struct nb_pool nb_pool;

/* `threads` is 2 .. NB_POOL_MAX_THREADS. The threads block all signals. */
nb_rt_status nb_pool_create(int threads, const nb_memory *memory, nb_pool **out, char *err);
void nb_pool_destroy(nb_pool *pool); /* NULL is fine */

/* nb_frame.parallel_for. One loop at a time, and not from inside a task. */
void nb_pool_for(void *pool, int64_t count, nb_task_fn task, const nb_frame *frame);

#endif
