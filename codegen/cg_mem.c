/* Memory: addresses, vector loads and stores, tails of fewer than 16 lanes, tables. */
#include "codegen/cg_private.h"

#include <assert.h>
#include <string.h>

cg_val cg_offset(cg *g, cg_val pointer, cg_val bytes) {
    if (cg_is(bytes, 0)) return pointer;
    return LLVMBuildGEP2(g->b, g->m->kinds[CG_I8], pointer, &bytes, 1, "");
}

cg_val cg_index(cg *g, cg_val pointer, cg_kind kind, cg_val index) {
    if (cg_is(index, 0)) return pointer;
    if (kind == CG_I1) kind = CG_I8;
    return LLVMBuildGEP2(g->b, g->m->kinds[kind], pointer, &index, 1, "");
}

cg_val cg_load(cg *g, cg_type type, cg_val pointer, int align) {
    LLVMValueRef v = LLVMBuildLoad2(g->b, cg_llvm_type(g->m, type), pointer, "");
    LLVMSetAlignment(v, (unsigned)(align ? align : cg_kind_bytes(type.kind)));
    return v;
}

cg_val cg_load_volatile(cg *g, cg_type type, cg_val pointer) {
    cg_val v = cg_load(g, type, pointer, 0);
    LLVMSetVolatile(v, 1);
    return v;
}

void cg_store(cg *g, cg_val v, cg_val pointer, int align) {
    LLVMValueRef store = LLVMBuildStore(g->b, v, pointer);
    LLVMSetAlignment(store, (unsigned)(align ? align : cg_kind_bytes(cg_kind_of(v))));
}

void cg_stream(cg *g, cg_val v, cg_val pointer) {
    static const char kind[] = "nontemporal";
    LLVMContextRef context = g->m->context;
    LLVMMetadataRef one = LLVMValueAsMetadata(cg_i32(g, 1));
    LLVMValueRef store = LLVMBuildStore(g->b, v, pointer);
    LLVMSetAlignment(store, (unsigned)(cg_lanes(v) * cg_kind_bytes(cg_kind_of(v))));
    LLVMSetMetadata(store, LLVMGetMDKindIDInContext(context, kind, sizeof kind - 1),
                    LLVMMetadataAsValue(context, LLVMMDNodeInContext2(context, &one, 1)));
}

/* On x86 these stores keep no order with others. */
void cg_stream_end(cg *g) {
    if (cg_cpu_of(g)->arch == CG_X86_64) cg_intrinsic(g, "llvm.x86.sse.sfence", 0, NULL, 0, NULL);
}

/* ---- tails --------------------------------------------------------------------------------- */

static bool has_masks(cg *g, cg_kind kind) {
    int bits = cg_isa_of(g)->mask_bits;
    return bits && 8 * cg_kind_bytes(kind) >= bits;
}

/* Copies the first n lanes: 8, 4, 2 and 1 at a time, by the bits of n. */
static void copy_lanes(cg *g, cg_kind kind, int lanes, cg_val to, cg_val from, cg_val n) {
    cg_var done = cg_var_new(g, cg_i64(g, 0));
    for (int chunk = lanes; chunk >= 1; chunk /= 2) {
        CG_IF(g, cg_cmpi(g, CG_NE, cg_andi(g, n, chunk), 0)) {
            cg_val at = cg_get(g, done);
            cg_val v = cg_load(g, (cg_type){kind, chunk}, cg_index(g, from, kind, at), 0);
            cg_store(g, v, cg_index(g, to, kind, at), 0);
            cg_set(g, done, cg_addi(g, at, chunk));
        }
    }
}

cg_val cg_load_part(cg *g, cg_type type, cg_val pointer, cg_val n) {
    if (has_masks(g, type.kind)) {
        int align = cg_kind_bytes(type.kind);
        cg_val mask = cg_lane_mask(g, n), zero = cg_zero(g, type);
        cg_type overload[2] = {type, CG_S(CG_PTR)};
#if NB_LLVM_MASKED_ALIGN_ARGUMENT
        cg_val args[4] = {pointer, cg_i32(g, align), mask, zero};
        return cg_intrinsic(g, "llvm.masked.load", 2, overload, 4, args);
#else
        cg_val args[3] = {pointer, mask, zero};
        cg_val call = cg_intrinsic(g, "llvm.masked.load", 2, overload, 3, args);
        LLVMSetInstrParamAlignment(call, 1, (unsigned)align);
        return call;
#endif
    }
    int bytes = type.lanes * cg_kind_bytes(type.kind);
    cg_val room = cg_stack(g, bytes, bytes > 64 ? 64 : bytes);
    cg_store(g, cg_zero(g, type), room, bytes > 64 ? 64 : bytes);
    copy_lanes(g, type.kind, type.lanes, room, pointer, n);
    return cg_load(g, type, room, bytes > 64 ? 64 : bytes);
}

void cg_store_part(cg *g, cg_val v, cg_val pointer, cg_val n) {
    cg_type type = cg_type_of(v);
    if (has_masks(g, type.kind)) {
        int align = cg_kind_bytes(type.kind);
        cg_val mask = cg_lane_mask(g, n);
        cg_type overload[2] = {type, CG_S(CG_PTR)};
#if NB_LLVM_MASKED_ALIGN_ARGUMENT
        cg_val args[4] = {v, pointer, cg_i32(g, align), mask};
        cg_intrinsic(g, "llvm.masked.store", 2, overload, 4, args);
#else
        cg_val args[3] = {v, pointer, mask};
        cg_val call = cg_intrinsic(g, "llvm.masked.store", 2, overload, 3, args);
        LLVMSetInstrParamAlignment(call, 2, (unsigned)align);
#endif
        return;
    }
    int bytes = type.lanes * cg_kind_bytes(type.kind);
    cg_val room = cg_stack(g, bytes, bytes > 64 ? 64 : bytes);
    cg_store(g, v, room, bytes > 64 ? 64 : bytes);
    copy_lanes(g, type.kind, type.lanes, pointer, room, n);
}

/* ---- blocks -------------------------------------------------------------------------------- */

void cg_prefetch(cg *g, cg_val pointer, int locality) {
    cg_type type = CG_S(CG_PTR);
    cg_val args[4] = {pointer, cg_i32(g, 0), cg_i32(g, locality), cg_i32(g, 1)};
    cg_intrinsic(g, "llvm.prefetch", 1, &type, 4, args);
}

void cg_fence(cg *g) { LLVMBuildFence(g->b, LLVMAtomicOrderingAcquireRelease, true, ""); }

/* Empty assembly that takes a register and gives it back. */
static cg_val pass_through(cg *g, cg_val v, const char *constraint) {
    LLVMTypeRef type = LLVMTypeOf(v), function = LLVMFunctionType(type, &type, 1, false);
    LLVMValueRef nothing = LLVMGetInlineAsm(function, "", 0, constraint, strlen(constraint), true,
                                            false, LLVMInlineAsmDialectATT, false);
    return LLVMBuildCall2(g->b, function, nothing, &v, 1, "");
}

static cg_val pin_register(cg *g, cg_val v) {
    return pass_through(g, v,
                        cg_cpu_of(g)->arch != CG_X86_64    ? "=w,0"
                        : cg_isa_of(g)->vector_bytes == 64 ? "=v,0"
                                                           : "=x,0");
}

cg_val cg_unknown(cg *g, cg_val v) { return pass_through(g, v, "=r,0"); }

cg_val cg_pin(cg *g, cg_val v) {
    const cg_type type = cg_type_of(v);
    return type.lanes * cg_kind_bytes(type.kind) <= cg_isa_of(g)->vector_bytes ? v
                                                                               : cg_settle(g, v);
}

cg_val cg_settle(cg *g, cg_val v) {
    const cg_type type = cg_type_of(v);
    const int bytes = type.lanes * cg_kind_bytes(type.kind),
              n = (bytes + cg_isa_of(g)->vector_bytes - 1) / cg_isa_of(g)->vector_bytes;
    cg_val pieces[8];
    assert(n <= 8);
    for (int i = 0; i < n; i++)
        pieces[i] = pin_register(g, cg_slice(g, v, type.lanes / n * i, type.lanes / n));
    return cg_join_all(g, pieces, n);
}

void cg_memcpy(cg *g, cg_val to, cg_val from, cg_val bytes) {
    LLVMBuildMemCpy(g->b, to, 1, from, 1, bytes);
}

void cg_memset(cg *g, cg_val to, int byte, cg_val bytes) {
    LLVMBuildMemSet(g->b, to, cg_const(g, CG_S(CG_I8), byte), bytes, 1);
}

cg_val cg_table(cg *g, const void *bytes, size_t size, int align) {
    char *key = nb_alloc(g->m->arena, size + 1);
    for (size_t i = 0; i < size; i++) key[i] = ((const char *)bytes)[i];
    LLVMValueRef global = nb_map_get_str(&g->m->tables, key, size);
    if (!global) {
        LLVMValueRef data = LLVMConstStringInContext2(g->m->context, (const char *)bytes, size, 1);
        global = LLVMAddGlobal(g->m->module, LLVMTypeOf(data), "table");
        LLVMSetInitializer(global, data);
        LLVMSetGlobalConstant(global, 1);
        LLVMSetLinkage(global, LLVMPrivateLinkage);
        nb_map_set_str(&g->m->tables, key, size, global);
    }
    if ((unsigned)align > LLVMGetAlignment(global)) LLVMSetAlignment(global, (unsigned)align);
    return global;
}
