/* CPU features and the number of CPUs (cpu.h).
 *
 * A feature counts only when the operating system saves its registers too; the compiler's builtin
 * and the kernel's hwcaps both take care of that. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/cpu.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const struct {
    uint64_t bit;
    const char *name;
} features[] = {
    {NB_CPU_AVX2_FMA, "AVX2+FMA+F16C"},
    {NB_CPU_AVX512, "AVX-512"},
    {NB_CPU_AVX512_VNNI, "AVX-512 VNNI"},
    {NB_CPU_ARM_DOTPROD, "Arm dot product"},
};

uint64_t nb_cpu_features(void) {
    uint64_t found = 0;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    /* Half-float conversion is not in the builtin of every compiler. */
    unsigned a, b, c = 0, d;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
    if (f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        found |= NB_CPU_AVX2_FMA;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found |= NB_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni")) found |= NB_CPU_AVX512_VNNI;
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) >> 20 & 1) /* HWCAP_ASIMDDP */
        found |= NB_CPU_ARM_DOTPROD;
#endif
    return found;
}

nb_rt_status nb_cpu_check(uint64_t needed, char *err) {
    uint64_t missing = needed & ~nb_cpu_features();
    if (missing == 0) return NB_RT_OK;
    char names[128] = "";
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        if (!(missing & features[i].bit)) continue;
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", at > 0 ? ", " : "", features[i].name);
        missing &= ~features[i].bit;
    }
    if (missing != 0) {
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%sunknown features 0x%" PRIx64, at > 0 ? ", " : "",
                 missing);
    }
    return nb_rt_fail(err, NB_RT_CPU, "the model needs what this CPU lacks: %s", names);
}

int nb_cpu_count(void) {
    cpu_set_t set;
    int count = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
    if (count < 1) /* more CPUs than the set has room for */
        count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count;
}

int nb_cpu_here(void) { return sched_getcpu(); }

void nb_cpu_go(int from, int steps) {
    cpu_set_t all, one;
    if (from < 0 || sched_getaffinity(0, sizeof all, &all) != 0) return;
    if (steps >= CPU_COUNT(&all)) return;
    size_t cpu = (size_t)from;
    while (steps > 0) {
        cpu = (cpu + 1) % CPU_SETSIZE;
        if (CPU_ISSET(cpu, &all)) steps--;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) sched_setaffinity(0, sizeof all, &all);
}
