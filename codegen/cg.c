/* Modules, functions, constants, variables and control flow of the kernel vocabulary. */
#include "codegen/cg_private.h"

#include <assert.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <stdatomic.h>
#include <string.h>

/* ---- modules ------------------------------------------------------------------------------- */

static LLVMAttributeRef string_attr(LLVMContextRef c, const char *name, const char *value) {
    return LLVMCreateStringAttribute(c, name, (unsigned)strlen(name), value,
                                     (unsigned)strlen(value));
}

static LLVMAttributeRef enum_attr(LLVMContextRef c, const char *name, uint64_t value) {
    return LLVMCreateEnumAttribute(c, LLVMGetEnumAttributeKindForName(name, strlen(name)), value);
}

/* LLVM's machine combiner turns (sum + p) + q into sum + (p + q) to shorten chains, at one more
 * register for each sum of a tile: tall tiles spill. It is an option of the whole process, which
 * LLVM takes once. */
static void disable_combiner(void) {
    static atomic_flag done = ATOMIC_FLAG_INIT;
    static const char *const args[] = {"nibble", "-x86-machine-combiner=false"};
    if (!atomic_flag_test_and_set(&done)) LLVMParseCommandLineOptions(2, args, NULL);
}

static void initialize_target(cg_arch arch) {
    if (arch == CG_X86_64) {
        LLVMInitializeX86TargetInfo();
        LLVMInitializeX86Target();
        LLVMInitializeX86TargetMC();
        LLVMInitializeX86AsmPrinter();
        LLVMInitializeX86AsmParser();
        disable_combiner();
    } else {
        LLVMInitializeAArch64TargetInfo();
        LLVMInitializeAArch64Target();
        LLVMInitializeAArch64TargetMC();
        LLVMInitializeAArch64AsmPrinter();
        LLVMInitializeAArch64AsmParser();
    }
}

cg_module *cg_module_create(nb_arena *arena, const cg_cpu *cpu, const char *name, bool quick,
                            const char **error) {
    initialize_target(cpu->arch);
    LLVMTargetRef target;
    char *message = NULL;
    if (LLVMGetTargetFromTriple(cpu->triple, &target, &message)) {
        *error = nb_strdup(arena, message ? message : "unknown target");
        LLVMDisposeMessage(message);
        return NULL;
    }
    cg_module *m = NB_NEW(arena, cg_module);
    m->arena = arena;
    m->cpu = cpu;
    m->context = LLVMContextCreate();
    m->module = LLVMModuleCreateWithNameInContext(name, m->context);
    /* On Arm another instruction selector would be taken, which knows fewer vectors. */
    quick = quick && cpu->arch == CG_X86_64;
    m->machine = LLVMCreateTargetMachine(target, cpu->triple, cpu->llvm_cpu, cpu->llvm_features,
                                         quick ? LLVMCodeGenLevelNone : LLVMCodeGenLevelDefault,
                                         LLVMRelocPIC, LLVMCodeModelDefault);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(m->machine);
    LLVMSetModuleDataLayout(m->module, layout);
    LLVMDisposeTargetData(layout);
    LLVMSetTarget(m->module, cpu->triple);
    m->cpu_attr = string_attr(m->context, "target-cpu", cpu->llvm_cpu);
    m->features_attr = string_attr(m->context, "target-features", cpu->llvm_features);
    m->nounwind_attr = enum_attr(m->context, "nounwind", 0);
    m->tables.arena = arena;

    LLVMContextRef c = m->context;
    m->kinds[CG_VOID] = LLVMVoidTypeInContext(c);
    m->kinds[CG_I1] = LLVMInt1TypeInContext(c);
    m->kinds[CG_I8] = LLVMInt8TypeInContext(c);
    m->kinds[CG_I16] = LLVMInt16TypeInContext(c);
    m->kinds[CG_I32] = LLVMInt32TypeInContext(c);
    m->kinds[CG_I64] = LLVMInt64TypeInContext(c);
    m->kinds[CG_F32] = LLVMFloatTypeInContext(c);
    m->kinds[CG_F64] = LLVMDoubleTypeInContext(c);
    m->kinds[CG_PTR] = LLVMPointerTypeInContext(c, 0);
    return m;
}

void cg_module_destroy(cg_module *m) {
    LLVMDisposeModule(m->module);
    LLVMDisposeTargetMachine(m->machine);
    LLVMContextDispose(m->context);
}

/* ---- types --------------------------------------------------------------------------------- */

LLVMTypeRef cg_llvm_type(const cg_module *m, cg_type type) {
    LLVMTypeRef kind = m->kinds[type.kind];
    return type.lanes ? LLVMVectorType(kind, (unsigned)type.lanes) : kind;
}

bool cg_is_vector(LLVMValueRef v) { return LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind; }

int cg_lanes(LLVMValueRef v) { return cg_is_vector(v) ? (int)LLVMGetVectorSize(LLVMTypeOf(v)) : 0; }

cg_kind cg_kind_of(LLVMValueRef v) {
    LLVMTypeRef t = LLVMTypeOf(v);
    if (LLVMGetTypeKind(t) == LLVMVectorTypeKind) t = LLVMGetElementType(t);
    switch (LLVMGetTypeKind(t)) {
    case LLVMFloatTypeKind:
        return CG_F32;
    case LLVMDoubleTypeKind:
        return CG_F64;
    case LLVMPointerTypeKind:
        return CG_PTR;
    case LLVMIntegerTypeKind:
        switch (LLVMGetIntTypeWidth(t)) {
        case 1:
            return CG_I1;
        case 8:
            return CG_I8;
        case 16:
            return CG_I16;
        case 32:
            return CG_I32;
        case 64:
            return CG_I64;
        default:
            break;
        }
        break;
    default:
        break;
    }
    return CG_VOID;
}

cg_type cg_type_of(cg_val v) { return (cg_type){cg_kind_of(v), cg_lanes(v)}; }

int cg_kind_bytes(cg_kind kind) {
    static const int bytes[] = {
        [CG_VOID] = 0, [CG_I1] = 1,  [CG_I8] = 1,  [CG_I16] = 2, [CG_I32] = 4,
        [CG_I64] = 8,  [CG_F32] = 4, [CG_F64] = 8, [CG_PTR] = 8,
    };
    return bytes[kind];
}

/* ---- functions ----------------------------------------------------------------------------- */

cg *cg_function(cg_module *m, const char *name, cg_type result, int n_params, const cg_type *params,
                unsigned flags) {
    assert(n_params <= CG_MAX_PARAMS);
    LLVMTypeRef types[CG_MAX_PARAMS];
    for (int i = 0; i < n_params; i++) types[i] = cg_llvm_type(m, params[i]);
    LLVMTypeRef type = LLVMFunctionType(cg_llvm_type(m, result), types, (unsigned)n_params, 0);

    cg *g = NB_NEW(m->arena, cg);
    g->m = m;
    g->result = result;
    g->function = LLVMAddFunction(m->module, name, type);
    if (!(flags & CG_EXPORTED)) LLVMSetLinkage(g->function, LLVMInternalLinkage);
    const LLVMAttributeIndex whole = (LLVMAttributeIndex)LLVMAttributeFunctionIndex;
    LLVMAddAttributeAtIndex(g->function, whole, m->cpu_attr);
    LLVMAddAttributeAtIndex(g->function, whole, m->features_attr);
    LLVMAddAttributeAtIndex(g->function, whole, m->nounwind_attr);
    if (flags & CG_NOINLINE)
        LLVMAddAttributeAtIndex(g->function, whole, enum_attr(m->context, "noinline", 0));
    if (flags & CG_ALWAYS_INLINE)
        LLVMAddAttributeAtIndex(g->function, whole, enum_attr(m->context, "alwaysinline", 0));

    g->b = LLVMCreateBuilderInContext(m->context);
    g->entry = LLVMAppendBasicBlockInContext(m->context, g->function, "entry");
    g->body = LLVMAppendBasicBlockInContext(m->context, g->function, "body");
    LLVMPositionBuilderAtEnd(g->b, g->body);
    return g;
}

cg_val cg_find(const cg_module *m, const char *name) {
    return LLVMGetNamedFunction(m->module, name);
}

cg_val cg_extern(cg_module *m, const char *name, cg_type result, int n_params,
                 const cg_type *params) {
    assert(n_params <= CG_MAX_PARAMS);
    cg_val known = cg_find(m, name);
    if (known) return known;
    LLVMTypeRef types[CG_MAX_PARAMS];
    for (int i = 0; i < n_params; i++) types[i] = cg_llvm_type(m, params[i]);
    LLVMTypeRef type = LLVMFunctionType(cg_llvm_type(m, result), types, (unsigned)n_params, 0);
    return LLVMAddFunction(m->module, name, type);
}

cg_val cg_param(const cg *g, int i) { return LLVMGetParam(g->function, (unsigned)i); }

static LLVMBasicBlockRef new_block(cg *g, const char *name) {
    return LLVMAppendBasicBlockInContext(g->m->context, g->function, name);
}

void cg_return(cg *g, cg_val v) {
    if (v)
        LLVMBuildRet(g->b, v);
    else
        LLVMBuildRetVoid(g->b);
    LLVMPositionBuilderAtEnd(g->b, new_block(g, "after.return"));
}

cg_val cg_finish(cg *g) {
    if (g->result.kind == CG_VOID)
        LLVMBuildRetVoid(g->b);
    else
        LLVMBuildRet(g->b, LLVMConstNull(cg_llvm_type(g->m, g->result)));
    LLVMPositionBuilderAtEnd(g->b, g->entry);
    LLVMBuildBr(g->b, g->body);
    LLVMDisposeBuilder(g->b);
    g->b = NULL;
    return g->function;
}

cg_val cg_call(cg *g, cg_val function, int n, const cg_val *args) {
    assert(n <= CG_MAX_PARAMS);
    LLVMValueRef list[CG_MAX_PARAMS];
    for (int i = 0; i < n; i++) list[i] = args[i];
    return LLVMBuildCall2(g->b, LLVMGlobalGetValueType(function), function, list, (unsigned)n, "");
}

cg_val cg_call_ptr(cg *g, cg_val pointer, cg_type result, int n, const cg_val *args) {
    assert(n <= CG_MAX_PARAMS);
    LLVMValueRef list[CG_MAX_PARAMS];
    LLVMTypeRef types[CG_MAX_PARAMS];
    for (int i = 0; i < n; i++) {
        list[i] = args[i];
        types[i] = LLVMTypeOf(args[i]);
    }
    LLVMTypeRef type = LLVMFunctionType(cg_llvm_type(g->m, result), types, (unsigned)n, 0);
    return LLVMBuildCall2(g->b, type, pointer, list, (unsigned)n, "");
}

cg_val cg_intrinsic(cg *g, const char *name, int n_overload, const cg_type *overload, int n,
                    const cg_val *args) {
    assert(n_overload <= 4 && n <= 8);
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    assert(id != 0 && "this LLVM has no such intrinsic");
    LLVMTypeRef types[4];
    for (int i = 0; i < n_overload; i++) types[i] = cg_llvm_type(g->m, overload[i]);
    LLVMValueRef f = LLVMGetIntrinsicDeclaration(g->m->module, id, types, (size_t)n_overload);
    LLVMTypeRef type = LLVMGlobalGetValueType(f), params[8];
    assert((int)LLVMCountParamTypes(type) == n);
    LLVMGetParamTypes(type, params);
    LLVMValueRef list[8];
    for (int i = 0; i < n; i++)
        list[i] = LLVMTypeOf(args[i]) == params[i] ? args[i]
                                                   : LLVMBuildBitCast(g->b, args[i], params[i], "");
    return LLVMBuildCall2(g->b, type, f, list, (unsigned)n, "");
}

cg_val cg_unary_intrinsic(cg *g, const char *name, cg_val a) {
    cg_type type = cg_type_of(a);
    return cg_intrinsic(g, name, 1, &type, 1, &a);
}

cg_module *cg_module_of(const cg *g) { return g->m; }
const cg_cpu *cg_cpu_of(const cg *g) { return g->m->cpu; }
nb_arena *cg_arena(const cg *g) { return g->m->arena; }

/* ---- constants ----------------------------------------------------------------------------- */

cg_val cg_i64(cg *g, int64_t value) { return cg_const(g, CG_S(CG_I64), value); }
cg_val cg_i32(cg *g, int32_t value) { return cg_const(g, CG_S(CG_I32), value); }
cg_val cg_i1(cg *g, bool value) { return LLVMConstInt(g->m->kinds[CG_I1], value, 0); }

/* Through the bits: LLVMConstReal takes a double and would lose the payload of a NaN. */
cg_val cg_f32(cg *g, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return LLVMConstBitCast(LLVMConstInt(g->m->kinds[CG_I32], bits, 0), g->m->kinds[CG_F32]);
}

cg_val cg_f64(cg *g, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return LLVMConstBitCast(LLVMConstInt(g->m->kinds[CG_I64], bits, 0), g->m->kinds[CG_F64]);
}

static cg_val const_splat(cg_val scalar, int lanes) {
    LLVMValueRef list[64];
    assert(lanes <= 64);
    for (int i = 0; i < lanes; i++) list[i] = scalar;
    return LLVMConstVector(list, (unsigned)lanes);
}

static cg_val const_float(cg *g, cg_type type, double value) {
    cg_val v = type.kind == CG_F32 ? cg_f32(g, (float)value) : cg_f64(g, value);
    return type.lanes ? const_splat(v, type.lanes) : v;
}

cg_val cg_const(cg *g, cg_type type, int64_t value) {
    if (cg_kind_is_float(type.kind)) return const_float(g, type, (double)value);
    int bits = type.kind == CG_I1 ? 1 : 8 * cg_kind_bytes(type.kind);
    uint64_t mask = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    cg_val v = LLVMConstInt(g->m->kinds[type.kind], (uint64_t)value & mask, 0);
    return type.lanes ? const_splat(v, type.lanes) : v;
}

cg_val cg_zero(cg *g, cg_type type) { return LLVMConstNull(cg_llvm_type(g->m, type)); }

cg_val cg_const_lanes(cg *g, cg_kind kind, int lanes, const int64_t *values) {
    LLVMValueRef list[64];
    assert(lanes <= 64);
    for (int i = 0; i < lanes; i++) list[i] = cg_const(g, CG_S(kind), values[i]);
    return LLVMConstVector(list, (unsigned)lanes);
}

cg_val cg_like(cg *g, cg_val like, int64_t value) { return cg_const(g, cg_type_of(like), value); }
cg_val cg_likef(cg *g, cg_val like, double value) {
    return const_float(g, cg_type_of(like), value);
}

cg_val cg_iota(cg *g, cg_kind kind) {
    static const int64_t lanes[CG_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return cg_const_lanes(g, kind, CG_LANES, lanes);
}

bool cg_known(cg_val v, int64_t *value) {
    if (!LLVMIsAConstantInt(v)) return false;
    *value = LLVMConstIntGetSExtValue(v);
    return true;
}

bool cg_is(cg_val v, int64_t value) {
    int64_t known;
    return cg_known(v, &known) && known == value;
}

/* ---- variables ----------------------------------------------------------------------------- */

void cg_entry_begin(cg *g) {
    assert(!g->saved);
    g->saved = LLVMGetInsertBlock(g->b);
    LLVMPositionBuilderAtEnd(g->b, g->entry);
}

void cg_entry_end(cg *g) {
    LLVMPositionBuilderAtEnd(g->b, g->saved);
    g->saved = NULL;
}

cg_var cg_var_new(cg *g, cg_val initial) {
    cg_var var = {.type = cg_type_of(initial)};
    LLVMBasicBlockRef here = LLVMGetInsertBlock(g->b);
    LLVMPositionBuilderAtEnd(g->b, g->entry);
    var.slot = LLVMBuildAlloca(g->b, cg_llvm_type(g->m, var.type), "");
    LLVMPositionBuilderAtEnd(g->b, here);
    cg_set(g, var, initial);
    return var;
}

cg_val cg_get(cg *g, cg_var var) {
    return LLVMBuildLoad2(g->b, cg_llvm_type(g->m, var.type), var.slot, "");
}

void cg_set(cg *g, cg_var var, cg_val v) {
    if (var.type.lanes && !cg_is_vector(v)) v = cg_splat(g, v, var.type.lanes);
    LLVMBuildStore(g->b, v, var.slot);
}

cg_val cg_stack(cg *g, int64_t bytes, int align) {
    LLVMBasicBlockRef here = LLVMGetInsertBlock(g->b);
    LLVMPositionBuilderAtEnd(g->b, g->entry);
    LLVMValueRef slot =
        LLVMBuildAlloca(g->b, LLVMArrayType2(g->m->kinds[CG_I8], (uint64_t)bytes), "");
    LLVMSetAlignment(slot, (unsigned)align);
    LLVMPositionBuilderAtEnd(g->b, here);
    return slot;
}

/* ---- control flow -------------------------------------------------------------------------- */

cg_loop cg_loop_begin(cg *g, cg_val begin, cg_val end, cg_val step, const char *name) {
    cg_loop l = {.open = true, .step = step, .end = end};
    LLVMBasicBlockRef before = LLVMGetInsertBlock(g->b);
    l.head = new_block(g, name);
    LLVMBasicBlockRef body = new_block(g, "do");
    l.exit = new_block(g, "done");
    LLVMBuildBr(g->b, l.head);
    LLVMPositionBuilderAtEnd(g->b, l.head);
    l.index = LLVMBuildPhi(g->b, LLVMTypeOf(begin), name);
    LLVMAddIncoming(l.index, &begin, &before, 1);
    LLVMBuildCondBr(g->b, cg_cmp(g, CG_LT, l.index, end), body, l.exit);
    LLVMPositionBuilderAtEnd(g->b, body);
    return l;
}

void cg_loop_end(cg *g, cg_loop *l) {
    LLVMValueRef next = LLVMBuildNSWAdd(g->b, l->index, l->step, "");
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(g->b);
    LLVMAddIncoming(l->index, &next, &latch, 1);
    LLVMBuildBr(g->b, l->head);
    LLVMMoveBasicBlockAfter(l->exit, latch);
    LLVMPositionBuilderAtEnd(g->b, l->exit);
    l->open = false;
}

cg_loop cg_while_begin(cg *g) {
    cg_loop l = {.open = true};
    l.head = new_block(g, "while");
    LLVMBuildBr(g->b, l.head);
    LLVMPositionBuilderAtEnd(g->b, l.head);
    return l;
}

bool cg_while_test(cg *g, cg_loop *l, cg_val cond) {
    LLVMBasicBlockRef body = new_block(g, "do");
    l->exit = new_block(g, "done");
    LLVMBuildCondBr(g->b, cond, body, l->exit);
    LLVMPositionBuilderAtEnd(g->b, body);
    return true;
}

void cg_while_end(cg *g, cg_loop *l) {
    LLVMBuildBr(g->b, l->head);
    LLVMPositionBuilderAtEnd(g->b, l->exit);
    l->open = false;
}

static cg_branch open_branch(cg *g, LLVMValueRef branch, LLVMBasicBlockRef body,
                             LLVMBasicBlockRef merge) {
    LLVMPositionBuilderAtEnd(g->b, body);
    return (cg_branch){.open = true, .branch = branch, .merge = merge};
}

cg_branch cg_if_begin(cg *g, cg_val cond) {
    int64_t known;
    if (cg_known(cond, &known)) {
        g->last_if.merge = NULL;
        g->last_if.taken = known;
        return (cg_branch){.open = known};
    }
    LLVMBasicBlockRef body = new_block(g, "then"), merge = new_block(g, "endif");
    LLVMValueRef branch = LLVMBuildCondBr(g->b, cond, body, merge);
    return open_branch(g, branch, body, merge);
}

cg_branch cg_else_begin(cg *g) {
    if (!g->last_if.merge) return (cg_branch){.open = !g->last_if.taken};
    assert(g->last_if.branch && LLVMGetInsertBlock(g->b) == g->last_if.merge);
    LLVMBasicBlockRef body = new_block(g, "else");
    LLVMSetSuccessor(g->last_if.branch, 1, body);
    return open_branch(g, NULL, body, g->last_if.merge);
}

void cg_if_end(cg *g, cg_branch *branch) {
    if (branch->merge) {
        LLVMBuildBr(g->b, branch->merge);
        LLVMMoveBasicBlockAfter(branch->merge, LLVMGetInsertBlock(g->b));
        LLVMPositionBuilderAtEnd(g->b, branch->merge);
    }
    branch->open = false;
    g->last_if.branch = branch->branch;
    g->last_if.merge = branch->merge;
    g->last_if.taken = true;
}
