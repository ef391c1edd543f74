/* The CPU table, and the rows the machine we run on supports. */
#include "codegen/isa.h"
#include "runtime/nb_model.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <sys/auxv.h>
#endif

const cg_cpu cg_cpus[] = {
#define CPU(name_, arch_, triple_, llvm_cpu_, llvm_features_, features_, isa_) \
    {.name = name_,                                                            \
     .arch = arch_,                                                            \
     .triple = triple_,                                                        \
     .llvm_cpu = llvm_cpu_,                                                    \
     .llvm_features = llvm_features_,                                          \
     .features = features_,                                                    \
     .isa = &isa_},
#include "codegen/cpus.def"
#undef CPU
};
const size_t cg_n_cpus = NB_COUNT(cg_cpus);

#if defined(__x86_64__)
static const cg_arch host_arch = CG_X86_64;

static uint64_t host_features(void) {
    __builtin_cpu_init();
    uint64_t f = 0;
    /* Half-float conversion is not in the builtin of every compiler. */
    unsigned a, b, c = 0, d;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
    if (f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        f |= NB_CPU_AVX2_FMA;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        f |= NB_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni")) f |= NB_CPU_AVX512_VNNI;
    return f;
}
#elif defined(__aarch64__)
static const cg_arch host_arch = CG_AARCH64;

/* Bit 20 of HWCAP is ASIMDDP. */
static uint64_t host_features(void) {
    return getauxval(AT_HWCAP) >> 20 & 1 ? NB_CPU_ARM_DOTPROD : 0;
}
#else
#error "Nibble runs on x86-64 and aarch64"
#endif

const cg_cpu *cg_cpu_find(const char *arch, const char *name) {
    static const char *const arch_names[] = {[CG_X86_64] = "x86_64", [CG_AARCH64] = "aarch64"};
    const bool native = strcmp(name, "native") == 0;
    const uint64_t host = host_features();
    const cg_cpu *found = NULL;
    for (size_t i = 0; i < cg_n_cpus; i++) {
        const cg_cpu *cpu = &cg_cpus[i];
        const char *own = arch_names[cpu->arch];
        bool same = arch ? strncmp(arch, own, strlen(own)) == 0 : cpu->arch == host_arch;
        if (!same) continue;
        if (native ? cpu->arch == host_arch && (cpu->features & ~host) == 0
                   : strcmp(cpu->name, name) == 0)
            found = cpu;
    }
    return found;
}
