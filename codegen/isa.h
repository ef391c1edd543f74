/* The instruction sets of cpus.def: what isa_*.c fill in. */
#ifndef NB_CODEGEN_ISA_H
#define NB_CODEGEN_ISA_H

#include "codegen/cg.h"

extern const cg_isa cg_isa_sse2, cg_isa_avx2, cg_isa_avx512vnni; /* isa_x86.c */
extern const cg_isa cg_isa_neon, cg_isa_neon_dotprod;            /* isa_arm.c */

#endif
