/* Constant data in a module. */
#include "codegen/cg_data.h"
#include "codegen/cg_private.h"

#include <string.h>

cg_val cg_data_int(cg_module *m, cg_kind kind, int64_t value) {
    return LLVMConstInt(m->kinds[kind],
                        (uint64_t)value & (kind == CG_I32 ? UINT32_MAX : UINT64_MAX), 0);
}

cg_val cg_data_null(cg_module *m) { return LLVMConstNull(m->kinds[CG_PTR]); }

cg_val cg_data_global(cg_module *m, const char *name, cg_val value) {
    LLVMValueRef global = LLVMAddGlobal(m->module, LLVMTypeOf(value), name);
    LLVMSetInitializer(global, value);
    LLVMSetGlobalConstant(global, 1);
    LLVMSetLinkage(global, LLVMInternalLinkage);
    return global;
}

cg_val cg_data_string(cg_module *m, const char *text) {
    LLVMValueRef data = LLVMConstStringInContext2(m->context, text, strlen(text), 0);
    LLVMValueRef global = cg_data_global(m, "text", data);
    LLVMSetLinkage(global, LLVMPrivateLinkage);
    LLVMSetUnnamedAddress(global, LLVMGlobalUnnamedAddr);
    return global;
}

cg_val cg_data_struct(cg_module *m, int n, const cg_val *members) {
    LLVMValueRef *list = NB_NEW_ARRAY(m->arena, LLVMValueRef, (size_t)n);
    for (int i = 0; i < n; i++) list[i] = members[i];
    return LLVMConstStructInContext(m->context, list, (unsigned)n, 0);
}

cg_val cg_data_array(cg_module *m, const char *name, size_t n, const cg_val *items) {
    if (!n) return cg_data_null(m);
    LLVMValueRef *list = NB_NEW_ARRAY(m->arena, LLVMValueRef, n);
    for (size_t i = 0; i < n; i++) list[i] = items[i];
    return cg_data_global(m, name, LLVMConstArray2(LLVMTypeOf(items[0]), list, n));
}

/* The assembler reads the file, so that the bytes never become a constant in LLVM's memory. */
cg_val cg_data_file(cg_module *m, const char *symbol, const char *path) {
    char *escaped = nb_alloc(m->arena, 2 * strlen(path) + 1), *to = escaped;
    for (const char *c = path; *c; c++) {
        if (*c == '"' || *c == '\\') *to++ = '\\';
        *to++ = *c;
    }
    char *text = nb_format(m->arena,
                           ".section .rodata.nb_weights,\"a\",%%progbits\n.balign 64\n"
                           ".globl %s\n.hidden %s\n%s:\n.incbin \"%s\"\n.previous\n",
                           symbol, symbol, symbol, escaped);
    LLVMAppendModuleInlineAsm(m->module, text, strlen(text));
    LLVMValueRef global = LLVMAddGlobal(m->module, m->kinds[CG_I8], symbol);
    LLVMSetVisibility(global, LLVMHiddenVisibility);
    LLVMSetGlobalConstant(global, 1);
    LLVMSetAlignment(global, 64);
    return global;
}
