/* Loops that reach what a CPU can do at most: arithmetic from registers, reading from memory.
 * Figures of kernels are given as fractions of what these reach in the same run. */
#ifndef NB_CODEGEN_LIMITS_H
#define NB_CODEGEN_LIMITS_H

#include "codegen/codegen.h"

/* n: turns of the loop, for NB_LIMIT_READ* multiples of NB_LIMIT_READ_BYTES in `buffer`, which is
 * 64-byte aligned; arithmetic reads its first 1024 bytes. `sink` gets 64 bytes that depend on all
 * results. */
typedef void (*nb_limit_fn)(const void *buffer, int64_t n, void *sink);

#define NB_LIMIT_READ_BYTES 12288

typedef enum nb_limit_kind {
    NB_LIMIT_CLOCK,        /* dependent additions and exclusive ors, one cycle each */
    NB_LIMIT_DOT,          /* i8 by weights of 8 bits, unpacked */
    NB_LIMIT_DOT_SMALL,    /* i8 by weights of 4 bits, unpacked */
    NB_LIMIT_FMA,          /* f32 */
    NB_LIMIT_BF16,         /* bf16 pairs, widened, by fma of f32 */
    NB_LIMIT_READ,         /* front to back */
    NB_LIMIT_READ_AHEAD,   /* the same with prefetches */
    NB_LIMIT_READ_STREAMS, /* four streams side by side */
    NB_LIMIT_READ_MANY,    /* six with prefetches */
    NB_LIMIT_COUNT
} nb_limit_kind;

/* Operations (2 for each multiply-add; for NB_LIMIT_CLOCK cycles) or bytes of one turn. */
int64_t nb_limit_work(const cg_cpu *cpu, nb_limit_kind kind);

typedef struct nb_limits {
    nb_jit *jit;
    nb_limit_fn run[NB_LIMIT_COUNT];
} nb_limits;

/* Compiles all of them for a CPU that this machine is. Free `jit`. */
nb_status nb_limits_compile(const cg_cpu *cpu, nb_arena *arena, nb_diags *diags, nb_limits *out);

#endif
