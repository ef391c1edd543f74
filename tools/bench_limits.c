/* nibble bench --limits: what this machine reaches at most, each figure the best of several rounds,
 * on the threads that models use. */
#include "tools/bench.h"

#include "codegen/limits.h"
#include "lib/timing.h"
#include "runtime/cpu.h"
#include "runtime/pool.h"
#include "tools/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ROUNDS 7
/* One measurement is as long as those of the work that is compared with it: a busy machine gives
 * shorter ones luckier moments. */
#define SECONDS      0.02
#define SLICE_BYTES  ((size_t)256 << 20)
#define BUFFER_BYTES ((size_t)1 << 30)
/* Larger than caches of the first level, smaller than a processor's own of the second. */
#define CACHE_BYTES ((size_t)128 << 10)

/* What the pool's tasks get; they read the members behind the frame. */
typedef struct job {
    nb_frame frame;
    nb_limit_fn run;
    unsigned char *buffer;
    size_t bytes; /* of the buffer that each thread reads */
    size_t begin; /* where in it this round does */
    int64_t turns, repeats;
} job;

static void task(const nb_frame *frame, int64_t begin, int64_t end) {
    const job *j = (const job *)(const void *)frame;
    _Alignas(64) unsigned char sink[64];
    for (int64_t i = begin; i < end; i++)
        for (int64_t k = 0; k < j->repeats; k++)
            j->run(j->buffer + (size_t)i * j->bytes + j->begin, j->turns, sink);
    /* The sums must be made although nobody reads them. */
    __asm__ volatile("" : : "r"(sink) : "memory");
}

static double seconds_of(nb_pool *pool, int threads, const job *j) {
    double start = nbl_now();
    if (pool)
        nb_pool_for(pool, threads, task, &j->frame);
    else
        task(&j->frame, 0, threads);
    return nbl_now() - start;
}

/* Work per second over all threads, the best of many short rounds: other programs disturb most of
 * them on a busy machine, but hardly all. Reading goes on through the buffer, so that no round
 * finds in a cache what it reads. */
static double best(nb_pool *pool, int threads, job *j, double work, bool is_read) {
    double rate = 0;
    size_t slices = is_read && j->bytes > SLICE_BYTES ? j->bytes / SLICE_BYTES : 1;
    size_t rounds = is_read ? ROUNDS * slices : 10 * ROUNDS;
    j->repeats = 1;
    j->turns = is_read ? (int64_t)(j->bytes / slices / NB_LIMIT_READ_BYTES) : 1 << 12;
    while (!is_read && seconds_of(pool, threads, j) < SECONDS / 2 &&
           seconds_of(pool, threads, j) < SECONDS / 2)
        j->turns *= 2;
    for (size_t i = 0; i < rounds; i++) {
        j->begin = i % slices * (size_t)j->turns * NB_LIMIT_READ_BYTES;
        double t = seconds_of(pool, threads, j), r = work * (double)j->turns * threads / t;
        if (r > rate) rate = r;
    }
    return rate;
}

/* Bytes per second that each thread reads again and again, over all threads. */
static double best_of_cache(nb_pool *pool, int threads, job *j) {
    double rate = 0;
    j->bytes = CACHE_BYTES;
    j->turns = (int64_t)(CACHE_BYTES / NB_LIMIT_READ_BYTES);
    j->repeats = 1000;
    for (size_t i = 0; i < 10 * ROUNDS; i++) {
        double work = (double)CACHE_BYTES * (double)j->repeats * threads,
               r = work / seconds_of(pool, threads, j);
        if (r > rate) rate = r;
    }
    return rate;
}

static nb_status measure(nbt_args *args, const cg_cpu *cpu, int threads, nb_pool *pool,
                         unsigned char *buffer, nbt_limits *out) {
    nb_limits limits;
    double rate[NB_LIMIT_COUNT];
    NB_TRY(nb_limits_compile(cpu, args->arena, args->diags, &limits));
    for (nb_limit_kind k = 0; k < NB_LIMIT_COUNT; k++) {
        bool is_read = k >= NB_LIMIT_READ;
        job j = {.run = limits.run[k], .buffer = buffer};
        j.bytes = BUFFER_BYTES / (size_t)threads / NB_LIMIT_READ_BYTES * NB_LIMIT_READ_BYTES;
        rate[k] = 1e-9 * best(pool, threads, &j, (double)nb_limit_work(cpu, k), is_read);
    }
    job cached = {.run = limits.run[NB_LIMIT_READ], .buffer = buffer};
    const double cache = 1e-9 * best_of_cache(pool, threads, &cached);
    nb_jit_free(limits.jit);
    double read = rate[NB_LIMIT_READ];
    for (int k = NB_LIMIT_READ; k < NB_LIMIT_COUNT; k++) read = rate[k] > read ? rate[k] : read;
    *out = (nbt_limits){.cpu = cpu->name,
                        .threads = threads,
                        .read = read,
                        .cache = cache,
                        .dot = rate[NB_LIMIT_DOT],
                        .dot_small = rate[NB_LIMIT_DOT_SMALL],
                        .fma = rate[NB_LIMIT_FMA],
                        .bf16 = rate[NB_LIMIT_BF16],
                        .clock = rate[NB_LIMIT_CLOCK] / threads};
    return NB_OK;
}

nb_status nbt_measure_limits(nbt_args *args, nbt_limits *out) {
    int threads;
    const cg_cpu *cpu;
    nb_pool *pool = NULL;
    nb_error_text err;
    NB_TRY(nbt_choose_threads(args, &threads));
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    if (!threads) threads = nb_cpu_count();
    if (threads > 1)
        NB_TRY(nbl_runtime_error(args->diags,
                                 nb_pool_create(threads, &nb_default_memory, &pool, err), err));
    void *buffer =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    nb_status status;
    if (buffer == MAP_FAILED) {
        status = nb_error(args->diags, NB_LIMIT, NB_NOWHERE, "no memory to read: %zu bytes",
                          BUFFER_BYTES);
    } else {
        madvise(buffer, BUFFER_BYTES, MADV_HUGEPAGE);
        memset(buffer, 1, BUFFER_BYTES);
        status = measure(args, cpu, threads, pool, (unsigned char *)buffer, out);
        munmap(buffer, BUFFER_BYTES);
    }
    nb_pool_destroy(pool);
    return status;
}

json_t *nbt_limits_json(const nbt_limits *l) {
    return json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "cpu", l->cpu, "threads",
                     l->threads, "read_gb_s", l->read, "dot_gop_s", l->dot, "dot_small_gop_s",
                     l->dot_small, "fma_gflop_s", l->fma, "clock_ghz", l->clock, "bf16_gflop_s",
                     l->bf16, "cache_gb_s", l->cache);
}

void nbt_print_limits(const nbt_limits *l) {
    printf("%s, %d threads\n"
           "memory   %8.1f GB/s, %.1f of caches\n"
           "dot      %8.1f GOP/s by weights of 8 bits, %.1f by 4 bits\n"
           "fma      %8.1f GFLOP/s of f32, %.1f of bf16\n"
           "clock    %8.2f GHz\n",
           l->cpu, l->threads, l->read, l->cache, l->dot, l->dot_small, l->fma, l->bf16, l->clock);
}

nb_status nbt_bench_limits(nbt_args *args) {
    nbt_limits l;
    NB_TRY(nbt_measure_limits(args, &l));
    if (nbt_has(args, "json"))
        nbt_print_json(nbt_limits_json(&l));
    else
        nbt_print_limits(&l);
    return NB_OK;
}
