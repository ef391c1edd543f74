/* Runs an object in this process, through LLVM's just-in-time linker: memory is written first and
 * made executable afterwards, never both. */
#include "codegen/codegen.h"
#include "runtime/nb_model.h"

#include <llvm-c/Core.h>
#include <llvm-c/Error.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>
#include <llvm-c/Target.h>
#include <stdlib.h>

struct nb_jit {
    LLVMOrcLLJITRef jit;
    const nb_model *model;
};

static nb_status failed(nb_diags *diags, LLVMErrorRef error) {
    char *message = LLVMGetErrorMessage(error);
    nb_status status =
        nb_error(diags, NB_INTERNAL, NB_NOWHERE, "cannot load code: %.500s", message);
    LLVMDisposeErrorMessage(message);
    return status;
}

/* memcpy, memmove and memset come from this process. */
static LLVMErrorRef add_process_symbols(LLVMOrcLLJITRef jit) {
    LLVMOrcDefinitionGeneratorRef generator;
    LLVMErrorRef error = LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(
        &generator, LLVMOrcLLJITGetGlobalPrefix(jit), NULL, NULL);
    if (!error) LLVMOrcJITDylibAddGenerator(LLVMOrcLLJITGetMainJITDylib(jit), generator);
    return error;
}

static LLVMErrorRef add_object(LLVMOrcLLJITRef jit, const nb_object *object) {
    LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(
        (const char *)object->data, object->size, "model.o");
    return LLVMOrcLLJITAddObjectFile(jit, LLVMOrcLLJITGetMainJITDylib(jit), buffer);
}

nb_status nb_jit_open(const nb_object *object, nb_diags *diags, nb_jit **out) {
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
    nb_jit *loaded = (nb_jit *)calloc(1, sizeof *loaded);
    if (!loaded) return nb_error(diags, NB_LIMIT, NB_NOWHERE, "out of memory");
    LLVMErrorRef error = LLVMOrcCreateLLJIT(&loaded->jit, LLVMOrcCreateLLJITBuilder());
    if (!error) error = add_process_symbols(loaded->jit);
    if (!error) error = add_object(loaded->jit, object);
    if (error) {
        nb_status status = failed(diags, error);
        nb_jit_free(loaded);
        return status;
    }
    *out = loaded;
    return NB_OK;
}

nb_status nb_jit_symbol(const nb_jit *loaded, const char *name, nb_diags *diags, void **out) {
    LLVMOrcExecutorAddress address = 0;
    LLVMErrorRef error = LLVMOrcLLJITLookup(loaded->jit, &address, name);
    *out = (void *)(uintptr_t)address;
    return error ? failed(diags, error) : NB_OK;
}

nb_status nb_load_object(const nb_object *object, const char *name, nb_diags *diags, nb_jit **out) {
    void *entry;
    NB_TRY(nb_jit_open(object, diags, out));
    nb_status status =
        nb_jit_symbol(*out, nb_format(diags->arena, "%s_model", name), diags, &entry);
    if (status != NB_OK) {
        nb_jit_free(*out);
        *out = NULL;
        return status;
    }
    (*out)->model = ((nb_model_fn)(uintptr_t)entry)(NB_MODEL_ABI);
    return NB_OK;
}

const nb_model *nb_jit_model(const nb_jit *loaded) { return loaded->model; }

void nb_jit_free(nb_jit *loaded) {
    if (loaded && loaded->jit) {
        LLVMErrorRef error = LLVMOrcDisposeLLJIT(loaded->jit);
        if (error) LLVMConsumeError(error);
    }
    free(loaded);
}
