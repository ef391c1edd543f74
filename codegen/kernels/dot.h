/* Dot products of bytes: acc[c] += sum over j < 4 of u[4c+j] * s[j], 16 columns at once, exact. */
#ifndef NB_KERNELS_DOT_H
#define NB_KERNELS_DOT_H

#include "codegen/cg.h"

/* acc <16 x i32>, u <64 x i8> unsigned, s an i32 of four signed bytes. `small`: u is at most 127.
 */
cg_val nb_dot4(cg *g, bool small, cg_val acc, cg_val u, cg_val s);

/* What isa_*.c put into their tables. */
cg_val nb_dot4_avx2(cg *g, cg_val acc, cg_val u, cg_val s);
cg_val nb_dot4_small_avx2(cg *g, cg_val acc, cg_val u, cg_val s);
/* A step adds at most 2 * 15 * 128 to a lane. */
#define NB_NARROW_STEPS_AVX2 8
cg_val nb_narrow_step_avx2(cg *g, cg_val sums, cg_val u, cg_val s);
cg_val nb_narrow_end_avx2(cg *g, cg_val acc, cg_val sums);
cg_val nb_dot4_vnni(cg *g, cg_val acc, cg_val u, cg_val s);

#endif
