/* What depends on the CPU: its features for messages, its count, its floating-point mode. */
#ifndef NB_RUNTIME_CPU_H
#define NB_RUNTIME_CPU_H

#include "runtime/support.h"

/* NB_RT_CPU with the missing features' names when this CPU lacks some of `needed`. */
nb_rt_status nb_cpu_check(uint64_t needed, char *err);

/* CPUs this process may use, at least 1. */
int nb_cpu_count(void);

/* The CPU that the calling thread is on now; below 0: not known. */
int nb_cpu_here(void);
/* Moves the calling thread to the CPU that is `steps` behind `from`, of those that it may use, in a
 * circle; it may leave again. Nothing happens where there are not as many. */
void nb_cpu_go(int from, int steps);

/* Compiled models promise the same bits everywhere, so they run with the default mode: round to
 * nearest even, denormals kept, no traps, whatever the program around them has chosen. Enter
 * returns the mode to give back to leave. */
#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
#define NB_FP_DEFAULT 0x1f80u
static inline uint64_t nb_fp_enter(void) {
    unsigned mode = __builtin_ia32_stmxcsr();
    if ((mode & ~0x3fu) != NB_FP_DEFAULT) __builtin_ia32_ldmxcsr(NB_FP_DEFAULT);
    return mode;
}
static inline void nb_fp_leave(uint64_t mode) {
    if ((mode & ~(uint64_t)0x3f) != NB_FP_DEFAULT) __builtin_ia32_ldmxcsr((unsigned)mode);
}
#elif defined(__aarch64__)
static inline uint64_t nb_fp_enter(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    if (mode != 0) __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return mode;
}
static inline void nb_fp_leave(uint64_t mode) {
    if (mode != 0) __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
}
#else
static inline uint64_t nb_fp_enter(void) { return 0; }
static inline void nb_fp_leave(uint64_t mode) { (void)mode; }
#endif

/* The CPU may do something else for a moment: inside waiting loops. */
static inline void nb_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" : : : "memory");
#else
    __asm__ volatile("" : : : "memory");
#endif
}

#endif
