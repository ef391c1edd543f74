/* Private to the evaluator: inner loops of products are inlined twice, into a function with the
 * CPU's fma where it has one (the same bits as the library's, many times faster), and into one
 * without. */
#ifndef NB_EVAL_FAST_H
#define NB_EVAL_FAST_H

#include <stdbool.h>

#define NB_INNER static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define NB_FAST __attribute__((target("avx2,fma")))
static inline bool nb_have_fast(void) {
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
}
#else
#define NB_FAST
static inline bool nb_have_fast(void) { return false; }
#endif

#endif
