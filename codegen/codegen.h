/* Compiling a planned graph to native code.
 *
 * The graph must be in stage PLANNED (every value has storage). Code generation runs in a child
 * process with limits, so that LLVM giving up is a diagnostic and not the end of this process. */
#ifndef NB_CODEGEN_H
#define NB_CODEGEN_H

#include "codegen/cg.h"
#include "codegen/pack.h"

struct nb_model;
typedef struct nb_object_cache nb_object_cache; /* reuse.h */

typedef enum nb_object_format {
    NB_FORMAT_OBJECT,
    NB_FORMAT_ASSEMBLY,
    NB_FORMAT_LLVM
} nb_object_format;

typedef struct nb_codegen_options {
    const cg_cpu *cpu;
    const char *name;   /* of the model: a C identifier; the object exports NAME_model */
    const char *scheme; /* for the descriptor, e.g. "w4a16"; NULL = "" */
    nb_object_format format;
    nb_pack *pack;     /* from nb_pack_create for this graph and CPU; NULL: made here */
    const char *embed; /* file with exactly the packed bytes, to be part of the object; NULL: the
                          weights are a file of their own */
    int seconds;       /* limit of CPU time; 0 = 600 */
    bool profile;      /* `run` calls frame->mark after each op */
    /* Where the object is looked for and kept; NULL: it is made. With a cache the object does not
     * tell the weights' hash, nor, unless `named`, names but those of ops that can fail. */
    nb_object_cache *cache;
    bool named;
    /* Made in a third of the time, by LLVM's quick instruction selection and register allocation;
     * slower code, the same bits. With a cache, what is there of the better code is taken. */
    bool quick;
} nb_codegen_options;

typedef struct nb_object {
    const void *data; /* in the arena given to nb_codegen */
    size_t size;
    uint64_t module; /* with a cache: hash of what it was made of; odd: quick code */
    nb_pack *pack;
} nb_object;

/* NB_UNSUPPORTED with all ops that cannot be compiled, NB_LIMIT when time ran out, NB_INTERNAL when
 * LLVM refused or died. */
nb_status nb_codegen(const nb_graph *planned, const nb_codegen_options *options, nb_arena *arena,
                     nb_diags *diags, nb_object *out);

/* Bytes of the integer weights [k,n] of a linear layer as compiled code reads them, scales (in f16
 * if `group` is not 0 and less than k, else f32) and zero points included. */
int64_t nb_linear_bytes(int64_t k, int64_t n, int bits, int64_t group, bool zeros);

/* `text` as a C identifier: other characters become '_', a leading digit gets one in front. */
const char *nb_identifier(nb_arena *arena, const char *text);

/* ---- in memory (load.c) -------------------------------------------------------------------- */

typedef struct nb_jit nb_jit;
/* Loads an object for this machine; its code is readable and executable, never writable. */
nb_status nb_jit_open(const nb_object *object, nb_diags *diags, nb_jit **out);
/* The address of an exported function. */
nb_status nb_jit_symbol(const nb_jit *loaded, const char *name, nb_diags *diags, void **out);
/* The same for a model: nb_jit_model is what NAME_model returned. */
nb_status nb_load_object(const nb_object *object, const char *name, nb_diags *diags, nb_jit **out);
const struct nb_model *nb_jit_model(const nb_jit *loaded);
void nb_jit_free(nb_jit *loaded);

/* ---- files (link.c) ------------------------------------------------------------------------ */

typedef enum nb_emit { NB_EMIT_OBJECT, NB_EMIT_SHARED, NB_EMIT_ASSEMBLY, NB_EMIT_LLVM } nb_emit;

typedef struct nb_emit_options {
    nb_emit emit;
    const char *path;   /* the output; NAME.nbw and NAME.h stand beside it */
    bool embed_weights; /* into the object (not for text) instead of a sidecar file */
    bool header;        /* write NAME.h */
    /* What the linker gets besides the object: files with the functions that calls of the graph
     * name, -lNAME; NULL-terminated, or NULL. For NB_EMIT_SHARED. */
    const char *const *link;
} nb_emit_options;

/* Compiles and writes files, each to a temporary name first. `codegen.format`, `.pack` and `.embed`
 * are set here. */
nb_status nb_emit_files(const nb_graph *planned, const nb_codegen_options *codegen,
                        const nb_emit_options *options, nb_arena *arena, nb_diags *diags);

#endif
