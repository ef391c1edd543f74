/* From a finished module to bytes: verify, a short list of passes, object code or text. */
#include "codegen/cg_private.h"
#include "codegen/model.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/BitWriter.h>
#include <llvm-c/Core.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <string.h>

/* Variables become registers, address arithmetic is simplified and hoisted, kernels that are used
 * once move into their task. No vectorizers (kernels are written in vectors), no idiom recognition
 * (it makes calls), no unrolling (kernels unroll where it pays). */
static const char passes[] =
    "function(sroa,early-cse),cgscc(inline),globaldce,"
    "function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,"
    "loop-mssa(loop-rotate,licm),early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,"
    "adce)";

static nb_status internal(nb_diags *diags, const char *what, const char *message) {
    return nb_error(diags, NB_INTERNAL, NB_NOWHERE, "codegen: %s: %.2000s", what, message);
}

static nb_status verify(cg_module *m, const char *when, nb_diags *diags) {
    char *message = NULL;
    nb_status status = NB_OK;
    if (LLVMVerifyModule(m->module, LLVMReturnStatusAction, &message))
        status = internal(diags, when, message);
    LLVMDisposeMessage(message);
    return status;
}

static nb_status optimize(cg_module *m, nb_diags *diags) {
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMErrorRef error = LLVMRunPasses(m->module, passes, m->machine, options);
    LLVMDisposePassBuilderOptions(options);
    if (!error) return NB_OK;
    char *message = LLVMGetErrorMessage(error);
    nb_status status = internal(diags, "passes", message);
    LLVMDisposeErrorMessage(message);
    return status;
}

static void keep(nb_arena *arena, const void *data, size_t size, nb_object *out) {
    char *copy = nb_alloc(arena, size + 1);
    memcpy(copy, data, size);
    out->data = copy;
    out->size = size;
}

uint64_t nb_module_hash(const cg_module *m) {
    LLVMMemoryBufferRef bits = LLVMWriteBitcodeToMemoryBuffer(m->module);
    uint64_t hash = nb_hash(LLVMGetBufferStart(bits), LLVMGetBufferSize(bits));
    LLVMDisposeMemoryBuffer(bits);
    char *cpu = LLVMGetTargetMachineCPU(m->machine),
         *features = LLVMGetTargetMachineFeatureString(m->machine);
    unsigned version[3];
    LLVMGetVersion(&version[0], &version[1], &version[2]);
    hash = nb_hash_mix(hash, nb_hash(cpu, strlen(cpu)));
    hash = nb_hash_mix(hash, nb_hash(features, strlen(features)));
    hash = nb_hash_mix(hash, nb_hash(version, sizeof version));
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
    return nb_hash_mix(hash, nb_hash(passes, sizeof passes));
}

nb_status nb_module_emit(cg_module *m, nb_object_format format, nb_arena *arena, nb_diags *diags,
                         nb_object *out) {
    NB_TRY(verify(m, "the module is not valid", diags));
    NB_TRY(optimize(m, diags));
    NB_TRY(verify(m, "the optimized module is not valid", diags));
    if (format == NB_FORMAT_LLVM) {
        char *text = LLVMPrintModuleToString(m->module);
        keep(arena, text, strlen(text), out);
        LLVMDisposeMessage(text);
        return NB_OK;
    }
    LLVMCodeGenFileType type = format == NB_FORMAT_OBJECT ? LLVMObjectFile : LLVMAssemblyFile;
    LLVMMemoryBufferRef buffer;
    char *message = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(m->machine, m->module, type, &message, &buffer)) {
        nb_status status = internal(diags, "no machine code", message);
        LLVMDisposeMessage(message);
        return status;
    }
    keep(arena, LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer), out);
    LLVMDisposeMemoryBuffer(buffer);
    return NB_OK;
}
