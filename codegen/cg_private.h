/* What cg*.c share: the LLVM side of a module and of a function under construction. */
#ifndef NB_CG_PRIVATE_H
#define NB_CG_PRIVATE_H

#include "codegen/cg.h"
#include "codegen/llvm_compat.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

#define CG_MAX_PARAMS 24
#define CG_MAX_LANES  64

struct cg_module {
    nb_arena *arena;
    const cg_cpu *cpu;
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMTargetMachineRef machine;
    LLVMAttributeRef cpu_attr, features_attr, nounwind_attr, uwtable_attr;
    LLVMTypeRef kinds[CG_PTR + 1];
    LLVMValueRef rare_fma[CG_MAX_LANES + 1]; /* by lanes (cg_arith.c) */
    nb_map tables; /* contents -> global, so that a lookup table appears once */
};

struct cg {
    cg_module *m;
    LLVMBuilderRef b;
    LLVMValueRef function;
    LLVMBasicBlockRef entry, body;
    LLVMBasicBlockRef saved; /* block to return to after cg_entry_end */
    cg_type result;
    struct {
        LLVMValueRef branch;
        LLVMBasicBlockRef merge;
        bool taken; /* without a merge: the condition was known */
    } last_if;      /* the CG_IF that has just ended, for CG_ELSE */
};

LLVMTypeRef cg_llvm_type(const cg_module *m, cg_type type);
/* Brings a scalar beside a vector to the vector's lanes. */
void cg_match(cg *g, LLVMValueRef *a, LLVMValueRef *b);
bool cg_is_vector(LLVMValueRef v);
/* The number of lanes, 0 for a scalar. */
int cg_lanes(LLVMValueRef v);
cg_kind cg_kind_of(LLVMValueRef v);
static inline bool cg_is_float(LLVMValueRef v) { return cg_kind_is_float(cg_kind_of(v)); }
/* A one-operand overloaded intrinsic such as llvm.sqrt. */
cg_val cg_unary_intrinsic(cg *g, const char *name, cg_val a);

#endif
