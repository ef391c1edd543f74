/* Writes compiled models to files: object, shared library, assembly, LLVM IR, weights, C header.
 *
 * Each file is written under a temporary name beside its target, synced and renamed, so that what
 * stands there is always whole. Nothing of where or when it was made gets into a file. */
#include "codegen/codegen.h"
#include "runtime/nb_model.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct emitter {
    nb_arena *arena;
    nb_diags *diags;
    const char *path; /* the main output */
    const char *stem; /* path without its ending */
    const char *name; /* of the model */
} emitter;

static nb_status io_error(const emitter *e, const char *path, const char *what) {
    nb_where where = NB_NOWHERE;
    where.file = path;
    return nb_error(e->diags, NB_IO, where, "cannot %s: %s", what, strerror(errno));
}

/* ---- whole files --------------------------------------------------------------------------- */

typedef struct output {
    const char *path, *temporary;
    FILE *file;
} output;

static nb_status output_open(const emitter *e, const char *path, output *o) {
    o->path = path;
    o->temporary = nb_format(e->arena, "%s.%ld.tmp", path, (long)getpid());
    o->file = fopen(o->temporary, "wb");
    return o->file ? NB_OK : io_error(e, path, "write");
}

/* Makes what was written visible, or removes it when `status` is an error. */
static nb_status output_close(const emitter *e, output *o, nb_status status) {
    bool ok = fflush(o->file) == 0 && !ferror(o->file) && fsync(fileno(o->file)) == 0;
    if (status == NB_OK && !ok) status = io_error(e, o->path, "write");
    if (fclose(o->file) != 0 && status == NB_OK) status = io_error(e, o->path, "write");
    if (status == NB_OK && rename(o->temporary, o->path) != 0)
        status = io_error(e, o->path, "rename to");
    if (status != NB_OK) unlink(o->temporary);
    return status;
}

static nb_status write_file(const emitter *e, const char *path, const void *data, size_t size) {
    output o;
    NB_TRY(output_open(e, path, &o));
    nb_status status = NB_OK;
    if (fwrite(data, 1, size, o.file) != size) status = io_error(e, path, "write");
    return output_close(e, &o, status);
}

/* ---- weights and header -------------------------------------------------------------------- */

static nb_status write_weights(const emitter *e, nb_pack *pack) {
    output o;
    NB_TRY(output_open(e, nb_format(e->arena, "%s.nbw", e->stem), &o));
    nb_weights_header header = {.magic = NB_WEIGHTS_MAGIC,
                                .abi = NB_MODEL_ABI,
                                .size = (uint64_t)nb_pack_size(pack),
                                .hash = nb_pack_hash(pack)};
    unsigned char front[NB_WEIGHTS_OFFSET] = {0};
    memcpy(front, &header, sizeof header);
    nb_status status = NB_OK;
    if (fwrite(front, 1, sizeof front, o.file) != sizeof front)
        status = io_error(e, o.path, "write");
    else
        status = nb_pack_write(pack, o.file, e->diags);
    return output_close(e, &o, status);
}

static nb_status write_header(const emitter *e) {
    char *guard = nb_format(e->arena, "NIBBLE_MODEL_%s_H", e->name);
    const char *text =
        nb_format(e->arena,
                  "/* The compiled model '%s'. nb_model.h describes what the function returns. */\n"
                  "#ifndef %s\n#define %s\n\n#include \"nb_model.h\"\n\n"
                  "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
                  "/* NULL when the model was made for another ABI than NB_MODEL_ABI. */\n"
                  "const nb_model *%s_model(uint32_t abi);\n\n"
                  "#ifdef __cplusplus\n}\n#endif\n#endif\n",
                  e->name, guard, guard, e->name);
    return write_file(e, nb_format(e->arena, "%s.h", e->stem), text, strlen(text));
}

/* ---- linking ------------------------------------------------------------------------------- */

static nb_status run(const emitter *e, char *const *argv) {
    pid_t pid = fork();
    if (pid < 0) return io_error(e, argv[0], "start");
    if (pid == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return NB_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return nb_error(e->diags, NB_IO, NB_NOWHERE, "cannot run '%s', which links the result",
                        argv[0]);
    return nb_error(e->diags, NB_IO, NB_NOWHERE, "'%s' could not link the result", argv[0]);
}

/* The compiler driver of the machine, or of the target's cross toolchain. */
static const char *linker_for(const cg_cpu *cpu) {
    const cg_cpu *host = cg_cpu_find(NULL, "generic");
    if (host && host->arch == cpu->arch) return "cc";
    return cpu->arch == CG_AARCH64 ? "aarch64-linux-gnu-gcc" : "x86_64-linux-gnu-gcc";
}

static nb_status link_shared(const emitter *e, const cg_cpu *cpu, const nb_object *object) {
    const char *input = nb_format(e->arena, "%s.%ld.o", e->path, (long)getpid());
    output o = {.path = e->path,
                .temporary = nb_format(e->arena, "%s.%ld.tmp", e->path, (long)getpid())};
    FILE *f = fopen(input, "wb");
    if (!f) return io_error(e, e->path, "write");
    bool written = fwrite(object->data, 1, object->size, f) == object->size;
    written = fclose(f) == 0 && written;
    nb_status status = written ? NB_OK : io_error(e, e->path, "write");
    if (status == NB_OK) {
        char *argv[] = {nb_strdup(e->arena, linker_for(cpu)),
                        nb_strdup(e->arena, "-shared"),
                        nb_strdup(e->arena, "-nostartfiles"),
                        nb_strdup(e->arena, "-Wl,-z,relro,-z,now,-z,noexecstack"),
                        nb_strdup(e->arena, "-Wl,--build-id=none"),
                        nb_format(e->arena, "-Wl,-soname,%s.so", e->name),
                        nb_strdup(e->arena, "-o"),
                        nb_strdup(e->arena, o.temporary),
                        nb_strdup(e->arena, input),
                        NULL};
        status = run(e, argv);
    }
    unlink(input);
    if (status != NB_OK) {
        unlink(o.temporary);
        return status;
    }
    o.file = fopen(o.temporary, "r+b");
    return o.file ? output_close(e, &o, NB_OK) : io_error(e, e->path, "write");
}

/* ---- the whole ----------------------------------------------------------------------------- */

static const char *stem_of(nb_arena *arena, const char *path) {
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    bool ending = dot && dot != path && (!slash || dot > slash + 1);
    return ending ? nb_strndup(arena, path, (size_t)(dot - path)) : path;
}

static nb_status write_output(const emitter *e, const nb_codegen_options *codegen, nb_emit emit,
                              const nb_object *object) {
    if (emit == NB_EMIT_SHARED) return link_shared(e, codegen->cpu, object);
    return write_file(e, e->path, object->data, object->size);
}

nb_status nb_emit_files(const nb_graph *planned, const nb_codegen_options *codegen,
                        const nb_emit_options *options, nb_arena *arena, nb_diags *diags) {
    emitter e = {.arena = arena, .diags = diags, .path = options->path, .name = codegen->name};
    e.stem = stem_of(arena, options->path);
    nb_codegen_options o = *codegen;
    const bool text = options->emit == NB_EMIT_ASSEMBLY || options->emit == NB_EMIT_LLVM;
    o.format = options->emit == NB_EMIT_ASSEMBLY ? NB_FORMAT_ASSEMBLY
               : options->emit == NB_EMIT_LLVM   ? NB_FORMAT_LLVM
                                                 : NB_FORMAT_OBJECT;
    nb_pack *pack;
    NB_TRY(nb_pack_create(planned, o.cpu, arena, diags, &pack));
    o.pack = pack;
    o.embed = NULL;
    const bool embed = options->embed_weights && !text && nb_pack_size(pack) > 0;
    output packed = {0};
    if (embed) {
        /* The bytes go through a file that the assembler reads; it is gone afterwards. */
        NB_TRY(output_open(&e, nb_format(arena, "%s.weights", options->path), &packed));
        nb_status status = nb_pack_write(pack, packed.file, diags);
        if (fclose(packed.file) != 0 && status == NB_OK)
            status = io_error(&e, packed.path, "write");
        if (status != NB_OK) {
            unlink(packed.temporary);
            return status;
        }
        o.embed = packed.temporary;
    }
    nb_object object = {0};
    nb_status status = nb_codegen(planned, &o, arena, diags, &object);
    if (embed) unlink(packed.temporary);
    if (status == NB_OK && !embed && nb_pack_size(pack) > 0) status = write_weights(&e, pack);
    if (status == NB_OK && options->header) status = write_header(&e);
    if (status == NB_OK) status = write_output(&e, codegen, options->emit, &object);
    return status;
}
