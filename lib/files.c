/* Reading graphs, and what kinds of files there are to write (files.h). */
#include "lib/files.h"

#include "ir/support/file.h"
#include "ir/support/output.h"
#include "ir/text.h"
#include "lib/execute.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What .nir text begins with, behind comments that nobody writes there. */
static const char magic[] = "nir ";

static nb_status write_nir(nb_graph *g, const nbl_writing *w, nb_diags *diags) {
    return nbl_write_nir(g, w->path, diags);
}
static nb_status write_onnx(nb_graph *g, const nbl_writing *w, nb_diags *diags) {
    return nb_export(g, &w->onnx, w->path, diags);
}
static nb_status write_gguf(nb_graph *g, const nbl_writing *w, nb_diags *diags) {
    return nb_export_gguf(g, w->path, diags);
}

static const nbl_kind kinds[] = {
    {"so", ".so", NB_EMIT_SHARED, NULL},          {"obj", ".o", NB_EMIT_OBJECT, NULL},
    {"asm", ".s", NB_EMIT_ASSEMBLY, NULL},        {"ll", ".ll", NB_EMIT_LLVM, NULL},
    {"nir", ".nir", NB_EMIT_OBJECT, write_nir},   {"onnx", ".onnx", NB_EMIT_OBJECT, write_onnx},
    {"gguf", ".gguf", NB_EMIT_OBJECT, write_gguf}};

bool nbl_ends_with(const char *path, const char *ending) {
    size_t n = strlen(path), e = strlen(ending);
    return n >= e && strcmp(path + n - e, ending) == 0;
}

const char *nbl_folder_of(nb_arena *arena, const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? nb_strndup(arena, path, (size_t)(slash - path) + (slash == path)) : NULL;
}

const char *nbl_stem_of(nb_arena *arena, const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path,
               *dot = strrchr(base, '.');
    return nb_strndup(arena, base, dot && dot != base ? (size_t)(dot - base) : strlen(base));
}

nb_status nbl_find_kind(const char *name, const char *path, nb_diags *diags, const nbl_kind **out) {
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        *out = &kinds[i];
        if (name ? strcmp(name, kinds[i].name) == 0 : nbl_ends_with(path, kinds[i].ending))
            return NB_OK;
    }
    return nb_error(diags, NB_USAGE, NB_NOWHERE,
                    "what to write is one of so, obj, asm, ll, nir, onnx, gguf; found '%s'",
                    name ? name : path);
}

static bool begins_with_magic(const char *path) {
    char head[sizeof magic - 1];
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    bool begins =
        fread(head, 1, sizeof head, f) == sizeof head && memcmp(head, magic, sizeof head) == 0;
    fclose(f);
    return begins;
}

nb_status nbl_read_graph(const char *path, const nb_import_options *options, nb_oom_fn oom,
                         void *user, nb_diags *diags, nb_graph **out) {
    struct stat st;
    diags->file = nb_strdup(diags->arena, path);
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
        !(nbl_ends_with(path, ".nir") || begins_with_magic(path)))
        return nb_import_with(path, options, oom, user, diags, out);
    if (options && options->n_pins)
        return nb_error(diags, NB_USAGE, NB_NOWHERE, "--pin is about ONNX models");
    nb_file file;
    NB_TRY(nb_file_open(path, diags, &file));
    const char *folder = nbl_folder_of(diags->arena, path);
    nb_status status = nb_parse((const char *)file.bytes, file.size, path, folder ? folder : ".",
                                oom, user, diags, out);
    nb_file_close(&file);
    return status;
}

nb_status nbl_read_bytes(const void *bytes, size_t size, const char *name, const char *directory,
                         nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out) {
    diags->file = nb_strdup(diags->arena, name);
    if (size >= sizeof magic - 1 && memcmp(bytes, magic, sizeof magic - 1) == 0)
        return nb_parse(bytes, size, name, directory, oom, user, diags, out);
    return nb_import_bytes(bytes, size, name, directory, oom, user, diags, out);
}

nb_status nbl_write_nir(const nb_graph *g, const char *path, nb_diags *diags) {
    nb_output f;
    NB_TRY(nb_output_open(path, diags, &f));
    nb_print(g, &(nb_print_options){0}, f.stream);
    return nb_output_close(&f, NB_OK);
}

nb_status nbl_write(nb_graph *g, const nbl_writing *w, nb_arena *arena, nb_diags *diags) {
    if (w->kind->write) return w->kind->write(g, w, diags);
    const nb_emit emit = w->kind->emit;
    const nb_codegen_options code = {
        .cpu = w->cpu,
        .name = nb_identifier(arena, w->name ? w->name : nbl_stem_of(arena, w->path)),
        .scheme = w->scheme};
    const nb_emit_options files = {.emit = emit,
                                   .link = w->link,
                                   .path = w->path,
                                   .embed_weights = w->embed_weights,
                                   .header = emit == NB_EMIT_OBJECT || emit == NB_EMIT_SHARED};
    nbl_begin_code();
    nb_status status = nb_emit_files(g, &code, &files, arena, diags);
    nbl_end_code();
    return status;
}
