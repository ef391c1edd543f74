/* Graphs from files and memory, .onnx or .nir; and what becomes of them in files. */
#ifndef NBL_FILES_H
#define NBL_FILES_H

#include "codegen/codegen.h"
#include "frontend/frontend.h"

/* By the name's ending, or else by content. `options` as for nb_import_with. For `oom` see arena.h.
 */
nb_status nbl_read_graph(const char *path, const nb_import_options *options, nb_oom_fn oom,
                         void *user, nb_diags *diags, nb_graph **out);
/* The same of bytes, by content; those of a model must outlive the graph. Files are looked for in
 * `directory`, NULL: refused. */
nb_status nbl_read_bytes(const void *bytes, size_t size, const char *name, const char *directory,
                         nb_oom_fn oom, void *user, nb_diags *diags, nb_graph **out);
/* Writes a whole .nir file, constants included. */
nb_status nbl_write_nir(const nb_graph *g, const char *path, nb_diags *diags);

/* What to write: by a name ("so", "obj", "asm", "ll", "nir", "onnx", "gguf"), or, when that is
 * NULL, by the path's ending; an error lists them. */
typedef struct nbl_writing nbl_writing;
typedef struct nbl_kind {
    const char *name, *ending;
    nb_emit emit; /* of code */
    /* Of a graph of any stage, as it stands; NULL: code of a planned one. */
    nb_status (*write)(nb_graph *g, const nbl_writing *w, nb_diags *diags);
} nbl_kind;
nb_status nbl_find_kind(const char *name, const char *path, nb_diags *diags, const nbl_kind **out);

struct nbl_writing {
    const char *path;
    const nbl_kind *kind;
    const cg_cpu *cpu;
    const char *name;   /* of the model, made an identifier; NULL: from the path */
    const char *scheme; /* for the descriptor, or NULL */
    bool embed_weights; /* else in a .nbw file beside it */
    nb_export_options onnx;
    const char *const *link; /* as nb_emit_options has it, or NULL */
};
/* Writes a graph, planned for kinds of code; with a header beside a .so or .o. */
nb_status nbl_write(nb_graph *g, const nbl_writing *w, nb_arena *arena, nb_diags *diags);

bool nbl_ends_with(const char *path, const char *ending);
/* The folder that a path is in; NULL: the working one. */
const char *nbl_folder_of(nb_arena *arena, const char *path);
/* The path's last part without its ending. */
const char *nbl_stem_of(nb_arena *arena, const char *path);

#endif
