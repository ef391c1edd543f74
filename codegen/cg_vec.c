/* Vectors: lanes, shuffles, and the fixed tree that reduces 16 of them. */
#include "codegen/cg_private.h"

#include <assert.h>

cg_val cg_splat(cg *g, cg_val scalar, int lanes) {
    LLVMTypeRef type = LLVMVectorType(LLVMTypeOf(scalar), (unsigned)lanes);
    LLVMTypeRef mask = LLVMVectorType(g->m->kinds[CG_I32], (unsigned)lanes);
    LLVMValueRef one = LLVMBuildInsertElement(g->b, LLVMGetPoison(type), scalar, cg_i32(g, 0), "");
    return LLVMBuildShuffleVector(g->b, one, LLVMGetPoison(type), LLVMConstNull(mask), "");
}

cg_val cg_lane(cg *g, cg_val v, int lane) {
    return LLVMBuildExtractElement(g->b, v, cg_i32(g, lane), "");
}

cg_val cg_with_lane(cg *g, cg_val v, int lane, cg_val scalar) {
    return LLVMBuildInsertElement(g->b, v, scalar, cg_i32(g, lane), "");
}

cg_val cg_shuffle(cg *g, cg_val a, cg_val b, int lanes, const int *picks) {
    LLVMValueRef mask[128];
    assert(lanes <= 128);
    for (int i = 0; i < lanes; i++)
        mask[i] = picks[i] < 0 ? LLVMGetPoison(g->m->kinds[CG_I32]) : cg_i32(g, picks[i]);
    if (!b) b = LLVMGetPoison(LLVMTypeOf(a));
    return LLVMBuildShuffleVector(g->b, a, b, LLVMConstVector(mask, (unsigned)lanes), "");
}

cg_val cg_slice(cg *g, cg_val v, int from, int n) {
    int picks[128];
    assert(n <= 128);
    for (int i = 0; i < n; i++) picks[i] = from + i;
    return cg_shuffle(g, v, NULL, n, picks);
}

cg_val cg_join(cg *g, cg_val low, cg_val high) {
    int picks[128], n = cg_lanes(low) + cg_lanes(high);
    assert(n <= 128 && cg_lanes(low) == cg_lanes(high));
    for (int i = 0; i < n; i++) picks[i] = i;
    return cg_shuffle(g, low, high, n, picks);
}

cg_val cg_join_all(cg *g, const cg_val *parts, int n) {
    if (n == 1) return parts[0];
    return cg_join(g, cg_join_all(g, parts, n / 2), cg_join_all(g, parts + n / 2, n / 2));
}

cg_val cg_lane_mask(cg *g, cg_val n) {
    return cg_cmp(g, CG_LT, cg_iota(g, CG_I32), cg_narrow(g, n, CG_I32));
}

cg_val cg_any(cg *g, cg_val lanes) {
    const cg_type type = cg_type_of(lanes);
    return cg_intrinsic(g, "llvm.vector.reduce.or", 1, &type, 1, &lanes);
}

cg_val cg_fold16(cg *g, cg_val v, cg_val (*f)(cg *g, cg_val a, cg_val b)) {
    assert(cg_lanes(v) == CG_LANES);
    for (int half = CG_LANES / 2; half > 1; half /= 2)
        v = f(g, cg_slice(g, v, 0, half), cg_slice(g, v, half, half));
    return f(g, cg_lane(g, v, 0), cg_lane(g, v, 1));
}

cg_val cg_sum16(cg *g, cg_val v) { return cg_fold16(g, v, cg_add); }
