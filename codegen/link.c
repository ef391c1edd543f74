/* Writes compiled models to files: object, shared library, assembly, LLVM IR, weights, C header.
 *
 * Nothing of where or when it was made gets into a file. */
#include "codegen/codegen.h"
#include "ir/support/output.h"
#include "runtime/nb_model.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct emitter {
    nb_arena *arena;
    nb_diags *diags;
    const char *path;        /* the main output */
    const char *stem;        /* path without its ending */
    const char *name;        /* of the model */
    const char *const *link; /* more for the linker */
} emitter;

/* ---- weights and header -------------------------------------------------------------------- */

static nb_status write_weights(const emitter *e, nb_pack *pack) {
    nb_output f;
    NB_TRY(nb_output_open(nb_format(e->arena, "%s.nbw", e->stem), e->diags, &f));
    nb_weights_header header = {.magic = NB_WEIGHTS_MAGIC,
                                .abi = NB_MODEL_ABI,
                                .size = (uint64_t)nb_pack_size(pack),
                                .hash = nb_pack_hash(pack)};
    unsigned char front[NB_WEIGHTS_OFFSET] = {0};
    memcpy(front, &header, sizeof header);
    fwrite(front, 1, sizeof front, f.stream);
    return nb_output_close(&f, nb_pack_write(pack, f.stream, e->diags));
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
    return nb_write_file(nb_format(e->arena, "%s.h", e->stem), text, strlen(text), e->diags);
}

/* ---- linking ------------------------------------------------------------------------------- */

/* What the child writes, as much of it as anybody reads, until it ends. */
static const char *listen_to(const emitter *e, int fd) {
    enum { MOST = 4096 };
    char *text = nb_alloc(e->arena, MOST + 1), rest[512];
    size_t size = 0;
    for (;;) {
        bool room = size < MOST;
        ssize_t n = read(fd, room ? text + size : rest, room ? MOST - size : sizeof rest);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        if (room) size += (size_t)n;
    }
    close(fd);
    while (size && text[size - 1] == '\n') text[--size] = '\0';
    return text;
}

/* Runs a program whose output is a note below the error, and lost when it succeeds. */
static nb_status run(const emitter *e, char *const *argv) {
    int ends[2];
    if (pipe(ends) != 0) return nb_io_error(e->diags, argv[0], "start");
    pid_t pid = fork();
    if (pid < 0) {
        close(ends[0]);
        close(ends[1]);
        return nb_io_error(e->diags, argv[0], "start");
    }
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    const char *said = listen_to(e, ends[0]);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return NB_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return nb_error(e->diags, NB_IO, NB_NOWHERE, "cannot run '%s', which links the result",
                        argv[0]);
    nb_error(e->diags, NB_IO, NB_NOWHERE, "'%s' could not link the result", argv[0]);
    for (const char *line = said; *line;) {
        size_t length = strcspn(line, "\n");
        nb_note(e->diags, "%.*s", (int)length, line);
        line += length + (line[length] != '\0');
    }
    return NB_IO;
}

/* The compiler driver of the machine, or of the target's cross toolchain. */
static const char *linker_for(const cg_cpu *cpu) {
    const cg_cpu *host = cg_cpu_find(NULL, "generic");
    if (host && host->arch == cpu->arch) return "cc";
    return cpu->arch == CG_AARCH64 ? "aarch64-linux-gnu-gcc" : "x86_64-linux-gnu-gcc";
}

static size_t count_strings(const char *const *list) {
    size_t n = 0;
    while (list && list[n]) n++;
    return n;
}

/* The linker writes the temporary file that stands open; closing it makes it visible. */
static nb_status link_shared(const emitter *e, const cg_cpu *cpu, const nb_object *object) {
    const char *input = nb_format(e->arena, "%s.%ld.o", e->path, (long)getpid());
    nb_output out;
    NB_TRY(nb_write_file(input, object->data, object->size, e->diags));
    nb_status status = nb_output_open(e->path, e->diags, &out);
    if (status == NB_OK) {
        const char *const fixed[] = {
            linker_for(cpu),
            "-shared",
            "-nostartfiles",
            "-Wl,-z,relro,-z,now,-z,noexecstack",
            "-Wl,--build-id=none",
            nb_format(e->arena, "-Wl,-soname,%s.so", e->name),
            "-o",
            out.temporary,
            input,
        };
        NB_VEC(char *) argv = {0};
        for (size_t i = 0; i < NB_COUNT(fixed); i++)
            nb_vec_push(e->arena, &argv, nb_strdup(e->arena, fixed[i]));
        /* Functions of the model's own, whatever else the process has under their names. */
        const size_t n = count_strings(e->link);
        if (n) nb_vec_push(e->arena, &argv, nb_strdup(e->arena, "-Wl,-Bsymbolic"));
        for (size_t i = 0; i < n; i++)
            nb_vec_push(e->arena, &argv, nb_strdup(e->arena, e->link[i]));
        nb_vec_push(e->arena, &argv, (char *)NULL);
        status = nb_output_close(&out, run(e, argv.items));
    }
    unlink(input);
    return status;
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
    return nb_write_file(e->path, object->data, object->size, e->diags);
}

/* A shared object without the functions that it calls could not be loaded. */
static nb_status check_calls(const nb_graph *g, const nb_emit_options *options, nb_diags *diags) {
    if (options->emit != NB_EMIT_SHARED || count_strings(options->link)) return NB_OK;
    for (const nb_op *op = g->body.first; op; op = op->next) {
        if (op->kind != NB_OP_call) continue;
        const nb_where where = {.offset = -1, .node = nb_loc_name(op->loc)};
        nb_error(diags, NB_USAGE, where, "the model calls nb_call_%s, which nothing defines",
                 nb_attr_of(op, "function")->str);
        nb_help(diags, "give the object file or library that has it with --link, or run "
                       "lower-calls if its plug-in can lower it");
        return NB_USAGE;
    }
    return NB_OK;
}

nb_status nb_emit_files(const nb_graph *planned, const nb_codegen_options *codegen,
                        const nb_emit_options *options, nb_arena *arena, nb_diags *diags) {
    emitter e = {.arena = arena,
                 .diags = diags,
                 .path = options->path,
                 .name = codegen->name,
                 .link = options->link};
    e.stem = stem_of(arena, options->path);
    NB_TRY(check_calls(planned, options, diags));
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
    nb_output packed = {0};
    if (embed) {
        /* The bytes go through a file that the assembler reads; it is gone afterwards. */
        NB_TRY(nb_output_open(nb_format(arena, "%s.weights", options->path), diags, &packed));
        nb_status written = nb_pack_write(pack, packed.stream, diags);
        NB_TRY(nb_output_close(&packed, written));
        o.embed = packed.path;
    }
    nb_object object = {0};
    nb_status status = nb_codegen(planned, &o, arena, diags, &object);
    if (embed) unlink(packed.path);
    if (status == NB_OK && !embed && nb_pack_size(pack) > 0) status = write_weights(&e, pack);
    if (status == NB_OK && options->header) status = write_header(&e);
    if (status == NB_OK) status = write_output(&e, codegen, options->emit, &object);
    return status;
}
