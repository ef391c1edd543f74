/* The CPUs that cases run for: the generic row, the best this machine has, and, where a case asks,
 * the tiles of the row in the middle and the tiles of the widest row of the architecture. Of that
 * row everything is kept that decides the shape of the code (tile heights, widths of masks); its
 * dot products are written out instead, and LLVM cuts the 64-byte vectors for the machine. */
#include "codegen/isa.h"
#include "tests/diff/diff.h"

#include <string.h>

#if defined(__x86_64__)
static const cg_cpu *wide(void) {
    static cg_isa isa;
    static cg_cpu cpu;
    const cg_cpu *native = cg_cpu_find(NULL, "native");
    if (!native->isa->fma) return NULL;
    isa = cg_isa_avx512vnni;
    memset(isa.dots, 0, sizeof isa.dots);
    isa.pairs = isa.fours = NULL;
    cpu = *native;
    cpu.name = "tiles of avx512vnni";
    cpu.isa = &isa;
    return &cpu;
}
#else
static const cg_cpu *wide(void) { return NULL; }
#endif

const cg_cpu *diff_cpu(const diff *d, size_t i, const char **name) {
    static const char *const names[] = {"generic", "native", "wide tiles", "x86-64-v3"};
    if (i >= (d->wide && wide() ? NB_COUNT(names) : 2)) return NULL;
    *name = names[i];
    return i == 2 ? wide() : cg_cpu_find(NULL, names[i]);
}
