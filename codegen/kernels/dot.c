/* Dot products of bytes on each kind of CPU (dot.h). */
#include "codegen/kernels/dot.h"

/* Any CPU: 32-bit lanes, one byte of each at a time. */
static cg_val dot4_generic(cg *g, cg_val acc, cg_val u, cg_val s) {
    cg_val words = cg_bitcast(g, u, CG_V(CG_I32));
    for (int j = 0; j < 4; j++) {
        cg_val w = j == 3 ? cg_lshri(g, words, 24) : cg_andi(g, cg_lshri(g, words, 8 * j), 255);
        cg_val a = cg_ashri(g, cg_shli(g, s, 24 - 8 * j), 24);
        acc = cg_add(g, acc, cg_mul(g, w, cg_splat(g, a, CG_LANES)));
    }
    return acc;
}

cg_val nb_dot4(cg *g, bool small, cg_val acc, cg_val u, cg_val s) {
    const cg_isa *isa = cg_isa_of(g);
    if (small && isa->dot4_small) return isa->dot4_small(g, acc, u, s);
    return isa->dot4 ? isa->dot4(g, acc, u, s) : dot4_generic(g, acc, u, s);
}

/* AVX-512 VNNI: one instruction, unsigned by signed. */
cg_val nb_dot4_vnni(cg *g, cg_val acc, cg_val u, cg_val s) {
    cg_val args[3] = {acc, cg_bitcast(g, u, CG_V(CG_I32)), cg_splat(g, s, CG_LANES)};
    return cg_bitcast(g, cg_intrinsic(g, "llvm.x86.avx512.vpdpbusd.512", 0, NULL, 3, args),
                      CG_V(CG_I32));
}

/* Half of the work, in a register of 32 bytes. */
static cg_val half(cg *g, cg_val v, int h) { return cg_slice(g, v, 8 * h, 8); }

static cg_val madd16(cg *g, cg_val a, cg_val b) {
    cg_val args[2] = {cg_bitcast(g, a, (cg_type){CG_I16, 16}),
                      cg_bitcast(g, b, (cg_type){CG_I16, 16})};
    return cg_bitcast(g, cg_intrinsic(g, "llvm.x86.avx2.pmadd.wd", 0, NULL, 2, args),
                      (cg_type){CG_I32, 8});
}

/* Sums of neighbouring products of half h, <16 x i16>. */
static cg_val pairs(cg *g, cg_val u, cg_val s, int h) {
    cg_val words = cg_bitcast(g, u, CG_V(CG_I32));
    cg_val args[2] = {cg_bitcast(g, half(g, words, h), (cg_type){CG_I8, 32}),
                      cg_bitcast(g, cg_splat(g, s, 8), (cg_type){CG_I8, 32})};
    return cg_intrinsic(g, "llvm.x86.avx2.pmadd.ub.sw", 0, NULL, 2, args);
}

static cg_val ones(cg *g) { return cg_splat(g, cg_const(g, CG_S(CG_I16), 1), 16); }

/* Bytes up to 127: pmaddubsw cannot saturate (127 * 128 * 2 < 2^15), then pairs are added in 32
 * bits. */
cg_val nb_dot4_small_avx2(cg *g, cg_val acc, cg_val u, cg_val s) {
    cg_val out[2];
    for (int h = 0; h < 2; h++)
        out[h] = cg_add(g, half(g, acc, h), madd16(g, pairs(g, u, s, h), ones(g)));
    return cg_join(g, out[0], out[1]);
}

cg_val nb_narrow_step_avx2(cg *g, cg_val sums, cg_val u, cg_val s) {
    return cg_add(g, sums, cg_join(g, pairs(g, u, s, 0), pairs(g, u, s, 1)));
}

cg_val nb_narrow_end_avx2(cg *g, cg_val acc, cg_val sums) {
    cg_val out[2];
    for (int h = 0; h < 2; h++)
        out[h] = cg_add(g, half(g, acc, h), madd16(g, cg_slice(g, sums, 16 * h, 16), ones(g)));
    return cg_join(g, out[0], out[1]);
}

/* All bytes: even and odd ones are widened to 16 bits, where pmaddwd is exact. */
cg_val nb_dot4_avx2(cg *g, cg_val acc, cg_val u, cg_val s) {
    cg_type words16 = {CG_I16, 16};
    cg_val words = cg_bitcast(g, u, CG_V(CG_I32)), out[2],
           a = cg_bitcast(g, cg_splat(g, s, 8), words16);
    cg_val even_a = cg_ashri(g, cg_shli(g, a, 8), 8), odd_a = cg_ashri(g, a, 8);
    for (int h = 0; h < 2; h++) {
        cg_val w = cg_bitcast(g, half(g, words, h), words16);
        cg_val sum =
            cg_add(g, madd16(g, cg_andi(g, w, 255), even_a), madd16(g, cg_lshri(g, w, 8), odd_a));
        out[h] = cg_add(g, half(g, acc, h), sum);
    }
    return cg_join(g, out[0], out[1]);
}
