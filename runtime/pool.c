/* The thread pool (pool.h).
 *
 * A loop is cut into more chunks than there are threads, and whoever is free takes the next: a
 * thread that shares its CPU with another program does less, and nobody waits for one that has not
 * woken up. `work` holds the number of the loop and of chunks that are left; a chunk is taken by
 * counting it down, which fails when the loop is another by then. Who has a chunk may read the job,
 * because the caller waits for all chunks; who has none touches nothing else.
 *
 * Sleep and wake-up cannot miss each other: a sleeper first says that it sleeps, then looks at the
 * condition again; the other side first changes the condition, then looks for sleepers. All four
 * steps are sequentially consistent, and the last two of the sleeper are under the mutex. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/pool.h"
#include "runtime/cpu.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* work: the loop's number above, chunks that are left below. */
#define LEFT_BITS 32
#define LEFT_MASK ((UINT64_C(1) << LEFT_BITS) - 1)
#define QUIT      LEFT_MASK /* as number of chunks */

/* Nanoseconds of busy waiting before a thread sleeps. The most is longer than what one thread does
 * between the loops of a small model's runs. Who waited in vain waits half as long the next time,
 * who did not, twice as long: where other programs want the CPUs, or there are fewer CPUs than
 * threads, busy waiting only takes time from those who are waited for. The least is longer than it
 * takes to wake a thread; else two threads that wake each other in turn would never stop. */
#define PATIENCE_MOST  200000
#define PATIENCE_LEAST 25000
/* A look takes 15 to 45 ns, depending on the CPU; as many later the clock is read. */
#define LOOKS 32

typedef struct worker {
    nb_pool *pool;
    int cpu, number; /* where the pool was made, and how far from there the thread begins */
    pthread_t thread;
} worker;

struct nb_pool {
    nb_memory memory;
    int threads, started;
    int64_t patience; /* of the caller; the others have their own */

    /* The job; constant while chunks are taken. */
    int64_t count, chunks;
    nb_task_fn task;
    const nb_frame *frame;

    /* On lines of their own: everyone looks at the first, the second changes often. */
    _Alignas(64) _Atomic uint64_t work;
    _Alignas(64) _Atomic int64_t pending; /* chunks that are not done */
    _Alignas(64) atomic_int sleepers;
    atomic_int caller_sleeps;

    pthread_mutex_t mutex;
    pthread_cond_t new_work, done;
    worker workers[];
};

/* Takes chunks of loop `loop` and runs them until none is left. */
static void run_chunks(nb_pool *pool, uint64_t loop) {
    uint64_t now = atomic_load_explicit(&pool->work, memory_order_relaxed);
    while (now >> LEFT_BITS == loop && (now & LEFT_MASK) > 0) {
        if (!atomic_compare_exchange_weak_explicit(&pool->work, &now, now - 1, memory_order_acquire,
                                                   memory_order_relaxed))
            continue;
        int64_t index = pool->chunks - (int64_t)(now & LEFT_MASK);
        int64_t each = pool->count / pool->chunks, rest = pool->count % pool->chunks;
        int64_t begin = index * each + (index < rest ? index : rest);
        pool->task(pool->frame, begin, begin + each + (index < rest));
        if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
        now = atomic_load_explicit(&pool->work, memory_order_relaxed);
    }
}

static int64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Waits busily until `there` says yes; false when patience ends before. */
static bool comes(int64_t *patience, bool (*there)(nb_pool *pool, uint64_t seen), nb_pool *pool,
                  uint64_t seen) {
    int64_t end = 0;
    for (int looks = 1; !there(pool, seen); looks++) {
        nb_cpu_relax();
        if (looks % LOOKS) continue;
        const int64_t now = nanoseconds();
        if (end == 0) end = now + *patience;
        if (now < end) continue;
        *patience = *patience / 2 < PATIENCE_LEAST ? PATIENCE_LEAST : *patience / 2;
        return false;
    }
    *patience = *patience * 2 > PATIENCE_MOST ? PATIENCE_MOST : *patience * 2;
    return true;
}

static bool has_work(nb_pool *pool, uint64_t seen) {
    return atomic_load_explicit(&pool->work, memory_order_relaxed) >> LEFT_BITS != seen;
}

static bool is_done(nb_pool *pool, uint64_t loop) {
    (void)loop;
    return atomic_load_explicit(&pool->pending, memory_order_acquire) == 0;
}

/* The work of the first loop that is not `seen`. */
static uint64_t next_work(nb_pool *pool, uint64_t seen, int64_t *patience) {
    uint64_t now;
    if (comes(patience, has_work, pool, seen)) return atomic_load(&pool->work);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while ((now = atomic_load(&pool->work)) >> LEFT_BITS == seen)
        pthread_cond_wait(&pool->new_work, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
    return now;
}

/* Returns the number of the loop. */
static uint64_t announce(nb_pool *pool, uint64_t chunks) {
    uint64_t loop = (atomic_load_explicit(&pool->work, memory_order_relaxed) >> LEFT_BITS) + 1;
    loop &= UINT64_MAX >> LEFT_BITS;
    atomic_store(&pool->work, loop << LEFT_BITS | chunks);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->new_work);
        pthread_mutex_unlock(&pool->mutex);
    }
    return loop;
}

static void *work(void *argument) {
    worker *self = argument;
    nb_pool *pool = self->pool;
    nb_fp_enter();
    /* Systems may leave new threads for some milliseconds where they were made. */
    nb_cpu_go(self->cpu, self->number);
    /* A new pool has done loop 0; one announced before this thread looked is still due. */
    int64_t patience = PATIENCE_MOST;
    for (uint64_t seen = 0;;) {
        uint64_t now = next_work(pool, seen, &patience);
        if ((now & LEFT_MASK) == QUIT) return NULL;
        seen = now >> LEFT_BITS;
        run_chunks(pool, seen);
    }
}

static void wait_for_others(nb_pool *pool, uint64_t loop) {
    if (comes(&pool->patience, is_done, pool, loop)) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeps, 1);
    while (atomic_load(&pool->pending) > 0) pthread_cond_wait(&pool->done, &pool->mutex);
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->mutex);
}

void nb_pool_for(void *pool_, int64_t count, nb_task_fn task, const nb_frame *frame) {
    nb_pool *pool = pool_;
    if (count <= 1) {
        if (count == 1) task(frame, 0, 1);
        return;
    }
    int64_t most = (int64_t)NB_POOL_CHUNKS * pool->threads;
    pool->count = count;
    pool->chunks = count < most ? count : most;
    pool->task = task;
    pool->frame = frame;
    atomic_store_explicit(&pool->pending, pool->chunks, memory_order_relaxed);
    const uint64_t loop = announce(pool, (uint64_t)pool->chunks);
    run_chunks(pool, loop);
    wait_for_others(pool, loop);
}

/* Starts all threads; false when one could not be. */
static bool start(nb_pool *pool) {
    /* Signals belong to the program's own threads. */
    const int cpu = nb_cpu_here();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->started < pool->threads - 1) {
        worker *w = &pool->workers[pool->started];
        *w = (worker){.pool = pool, .cpu = cpu, .number = pool->started + 1};
        if (pthread_create(&w->thread, NULL, work, w) != 0) break;
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool->started == pool->threads - 1;
}

nb_rt_status nb_pool_create(int threads, const nb_memory *memory, nb_pool **out, char *err) {
    size_t size = sizeof(nb_pool) + (size_t)threads * sizeof(worker);
    nb_pool *pool = nb_allocate_zeroed(memory, size, "threads", err);
    if (!pool) return NB_RT_NO_MEMORY;
    pool->memory = *memory;
    pool->threads = threads;
    pool->patience = PATIENCE_MOST;
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) goto no_mutex;
    if (pthread_cond_init(&pool->new_work, NULL) != 0) goto no_work;
    if (pthread_cond_init(&pool->done, NULL) != 0) goto no_done;
    *out = pool;
    if (start(pool)) return NB_RT_OK;
    *out = NULL;
    int started = pool->started;
    nb_pool_destroy(pool);
    return nb_rt_fail(err, NB_RT_NO_MEMORY, "only %d of %d threads could be started", started + 1,
                      threads);

no_done:
    pthread_cond_destroy(&pool->new_work);
no_work:
    pthread_mutex_destroy(&pool->mutex);
no_mutex:
    nb_release(memory, pool);
    return nb_rt_fail(err, NB_RT_NO_MEMORY, "no memory for threads");
}

void nb_pool_destroy(nb_pool *pool) {
    if (!pool) return;
    announce(pool, QUIT);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->new_work);
    pthread_mutex_destroy(&pool->mutex);
    nb_memory memory = pool->memory;
    nb_release(&memory, pool);
}
