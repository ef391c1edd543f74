/* Loops on several threads, which live as long as the loop (parallel.h). */
#include "ir/support/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define MAX_THREADS 64

typedef struct loop {
    int64_t n;
    void (*turn)(void *user, int64_t i);
    void *user;
    atomic_llong next;
} loop;

static void *work(void *argument) {
    loop *l = argument;
    for (int64_t i; (i = atomic_fetch_add(&l->next, 1)) < l->n;) l->turn(l->user, i);
    return NULL;
}

static int64_t processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void nb_parallel(int64_t n, void (*turn)(void *user, int64_t i), void *user) {
    loop l = {.n = n, .turn = turn, .user = user};
    pthread_t threads[MAX_THREADS];
    int64_t want = nb_min_i64(nb_min_i64(n, processors()), MAX_THREADS) - 1;
    int made = 0;
    while (made < want && pthread_create(&threads[made], NULL, work, &l) == 0) made++;
    work(&l);
    while (made > 0) pthread_join(threads[--made], NULL);
}
