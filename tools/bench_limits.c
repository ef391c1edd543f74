/* nibble bench --limits: what this machine reaches at most, each figure the best of several rounds,
 * on the threads that models use. */
#include "tools/bench.h"

#include "codegen/limits.h"
#include "lib/timing.h"
#include "runtime/cpu.h"
#include "runtime/pool.h"
#include "tools/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define ROUNDS 7
/* How long a round of arithmetic is: as long as those of the work that is compared with it, as a
 * busy machine gives shorter ones luckier moments. */
#define SECONDS      0.02
#define SLICE_BYTES  ((size_t)256 << 20)
#define BUFFER_BYTES ((size_t)1 << 30)
/* Larger than caches of the first level, smaller than a processor's own of the second. */
#define CACHE_BYTES ((size_t)10 * NB_LIMIT_READ_BYTES)

struct nbt_limiter {
    const cg_cpu *cpu;
    int threads;
    nb_pool *pool; /* NULL: one thread */
    unsigned char *buffer;
    nb_limits limits;
    size_t slices, next;           /* parts of a thread's bytes; the one that is read next */
    int64_t turns[NB_LIMIT_COUNT]; /* of a round; 0: not yet known */
};

/* What the pool's tasks get; they read the members behind the frame. */
typedef struct job {
    nb_frame frame;
    nb_limit_fn run;
    const unsigned char *from;
    size_t apart; /* bytes between what two threads read */
    int64_t turns, repeats;
} job;

static void task(const nb_frame *frame, int64_t begin, int64_t end) {
    const job *j = (const job *)(const void *)frame;
    _Alignas(64) unsigned char sink[64];
    for (int64_t i = begin; i < end; i++)
        for (int64_t k = 0; k < j->repeats; k++)
            j->run(j->from + (size_t)i * j->apart, j->turns, sink);
    /* The sums must be made although nobody reads them. */
    __asm__ volatile("" : : "r"(sink) : "memory");
}

static double seconds_of(const nbt_limiter *l, const job *j) {
    double start = nbl_now();
    if (l->pool)
        nb_pool_for(l->pool, l->threads, task, &j->frame);
    else
        task(&j->frame, 0, l->threads);
    return nbl_now() - start;
}

static bool is_read(nb_limit_kind kind) { return kind >= NB_LIMIT_READ; }

/* Reading goes on through the buffer, so that no round finds in a cache what it reads. */
static job next_round(nbt_limiter *l, nb_limit_kind kind) {
    const size_t bytes = (size_t)l->turns[kind] * NB_LIMIT_READ_BYTES;
    job j = {.run = l->limits.run[kind], .from = l->buffer, .turns = l->turns[kind], .repeats = 1};
    if (!is_read(kind)) return j;
    j.apart = BUFFER_BYTES / (size_t)l->threads / NB_LIMIT_READ_BYTES * NB_LIMIT_READ_BYTES;
    j.from += l->next++ % l->slices * bytes;
    return j;
}

static void choose_turns(nbt_limiter *l, nb_limit_kind kind) {
    const size_t slice = BUFFER_BYTES / (size_t)l->threads / l->slices;
    l->turns[kind] = is_read(kind) ? (int64_t)(slice / NB_LIMIT_READ_BYTES) : 1 << 12;
    for (double seconds = 0; !is_read(kind) && seconds < SECONDS / 2;) {
        l->turns[kind] *= 2;
        job j = next_round(l, kind);
        seconds = seconds_of(l, &j);
    }
}

double nbt_limiter_round(nbt_limiter *l, nb_limit_kind kind) {
    if (!l->turns[kind]) choose_turns(l, kind);
    job j = next_round(l, kind);
    const double work = (double)nb_limit_work(l->cpu, kind) * (double)j.turns * l->threads;
    return work / seconds_of(l, &j);
}

/* Other programs disturb most rounds on a busy machine, but hardly all. */
static double best(nbt_limiter *l, nb_limit_kind kind) {
    double rate = 0;
    for (size_t i = 0, n = is_read(kind) ? ROUNDS * l->slices : 10 * ROUNDS; i < n; i++)
        rate = fmax(rate, nbt_limiter_round(l, kind));
    return 1e-9 * rate;
}

/* 1e9 bytes a second that each thread reads again and again, over all threads. */
static double best_of_cache(nbt_limiter *l) {
    job j = {.run = l->limits.run[NB_LIMIT_READ], .from = l->buffer, .apart = CACHE_BYTES};
    j.turns = (int64_t)(CACHE_BYTES / NB_LIMIT_READ_BYTES);
    j.repeats = 1000;
    const double work = (double)CACHE_BYTES * (double)j.repeats * l->threads;
    double rate = 0;
    for (size_t i = 0; i < 10 * ROUNDS; i++) rate = fmax(rate, work / seconds_of(l, &j));
    return 1e-9 * rate;
}

static nb_status open_buffer(nbt_limiter *l, nb_diags *diags) {
    void *map =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return nb_error(diags, NB_LIMIT, NB_NOWHERE, "no memory to read: %zu bytes", BUFFER_BYTES);
    madvise(map, BUFFER_BYTES, MADV_HUGEPAGE);
    memset(map, 1, BUFFER_BYTES);
    l->buffer = map;
    return NB_OK;
}

nb_status nbt_limiter_open(nbt_args *args, nbt_limiter **out) {
    nbt_limiter *l = *out = NB_NEW(args->arena, nbt_limiter);
    nb_error_text err;
    NB_TRY(nbt_choose_threads(args, &l->threads));
    NB_TRY(nbt_choose_cpu(args, "native", &l->cpu));
    if (!l->threads) l->threads = nb_cpu_count();
    const size_t bytes = BUFFER_BYTES / (size_t)l->threads;
    l->slices = bytes > SLICE_BYTES ? bytes / SLICE_BYTES : 1;
    if (l->threads > 1)
        NB_TRY(nbl_runtime_error(
            args->diags, nb_pool_create(l->threads, &nb_default_memory, &l->pool, err), err));
    NB_TRY(nb_limits_compile(l->cpu, args->arena, args->diags, &l->limits));
    return open_buffer(l, args->diags);
}

void nbt_limiter_close(nbt_limiter *l) {
    if (!l) return;
    if (l->buffer) munmap(l->buffer, BUFFER_BYTES);
    nb_jit_free(l->limits.jit);
    nb_pool_destroy(l->pool);
}

static void measure(nbt_limiter *l, nbt_limits *out) {
    double rate[NB_LIMIT_COUNT], read = 0;
    for (nb_limit_kind k = 0; k < NB_LIMIT_COUNT; k++) {
        rate[k] = best(l, k);
        if (is_read(k)) read = fmax(read, rate[k]);
    }
    *out = (nbt_limits){.cpu = l->cpu->name,
                        .threads = l->threads,
                        .read = read,
                        .cache = best_of_cache(l),
                        .dot = rate[NB_LIMIT_DOT],
                        .dot_small = rate[NB_LIMIT_DOT_SMALL],
                        .fma = rate[NB_LIMIT_FMA],
                        .bf16 = rate[NB_LIMIT_BF16],
                        .clock = rate[NB_LIMIT_CLOCK] / l->threads};
}

nb_status nbt_measure_limits(nbt_args *args, nbt_limits *out) {
    nbt_limiter *l = NULL;
    nb_status status = nbt_limiter_open(args, &l);
    if (status == NB_OK) measure(l, out);
    nbt_limiter_close(l);
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
