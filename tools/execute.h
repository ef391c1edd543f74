/* Compiled execution in this process: plan, generate code, load, run through the runtime. */
#ifndef NBT_EXECUTE_H
#define NBT_EXECUTE_H

#include "codegen/codegen.h"
#include "ir/eval.h"
#include "ir/support/store.h"
#include "runtime/nb_runtime.h"
#include "tools/pages.h"

typedef struct nbt_program {
    nb_jit *jit;        /* NULL: the model came from a .so */
    nbt_memory weights; /* of the jit */
    nb_loaded *loaded;
    bool shared; /* weights are in pages of a file */
} nbt_program;

typedef struct nbt_how {
    nbt_pages pages;
    bool profile;           /* compiled with marks (nb_codegen_options) */
    nb_object_cache *cache; /* or NULL */
} nbt_how;

/* Compiles a planned graph in memory. `how` NULL: as usual. */
nb_status nbt_compile_graph(const nb_graph *planned, const cg_cpu *cpu, const nbt_how *how,
                            nb_arena *arena, nb_diags *diags, nbt_program *out);
/* Opens a compiled .so. */
nb_status nbt_open_shared(const char *path, nbt_pages pages, nb_diags *diags, nbt_program *out);
void nbt_close(nbt_program *program);

/* A status and message of the runtime as a diagnostic; NB_OK for NB_RT_OK. */
nb_status nbt_runtime_error(nb_diags *diags, nb_rt_status status, const char *message);

/* Runs once from empty state; inputs[i] belongs to input i (data NULL: not given). Outputs get
 * memory of `arena`. */
nb_status nbt_run_once(const nbt_program *program, int threads, const nb_tensor *inputs,
                       nb_tensor *outputs, nb_arena *arena, nb_diags *diags);

/* An nb_run_fn (`user` is an nbt_runner) that compiles the graph with its taps as outputs, and
 * keeps the result while it is called with the same graph. What differs from one before only in its
 * weights is not compiled again. Freed by nbt_runner_end. */
typedef struct nbt_runner {
    const cg_cpu *cpu;
    int threads;
    nb_arena *arena;
    const nb_store *objects; /* keeps compiled code, or NULL */
    uint64_t key;            /* of the graph in `program`, 0 = none */
    nbt_program program;
    nb_object_cache *cache; /* made when needed */
} nbt_runner;
void nbt_runner_end(nbt_runner *r);
nb_status nbt_run_compiled(void *user, const nb_graph *g, const nb_tensor *inputs,
                           nb_tensor *outputs, const nb_tap *taps, size_t n_taps, nb_arena *arena,
                           nb_diags *diags);

#endif
