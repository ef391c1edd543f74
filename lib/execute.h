/* Compiled execution in this process: plan, generate code, load, run through the runtime; as the
 * `run` of passes. */
#ifndef NBL_EXECUTE_H
#define NBL_EXECUTE_H

#include "codegen/codegen.h"
#include "lib/pages.h"
#include "passes/pass.h"
#include "runtime/nb_runtime.h"

typedef struct nbl_program {
    nb_jit *jit;        /* NULL: the model came from a .so */
    nbl_memory weights; /* of the jit */
    nb_loaded *loaded;
    bool shared; /* weights are in pages of a file */
    bool quick;  /* code that was made soon, rather than good */
} nbl_program;

typedef struct nbl_how {
    nbl_pages pages;
    bool profile;           /* compiled with marks (nb_codegen_options) */
    nb_object_cache *cache; /* or NULL */
    bool named;             /* with a cache: names are those of the graph */
    bool quick;             /* code that is made soon, rather than good (nb_codegen_options) */
} nbl_how;

/* Compiles a planned graph in memory. `how` NULL: as usual. */
nb_status nbl_compile_graph(const nb_graph *planned, const cg_cpu *cpu, const nbl_how *how,
                            nb_arena *arena, nb_diags *diags, nbl_program *out);
/* plan-memory, for a graph of any other stage with what must come before it. */
nb_status nbl_plan(nb_graph *g, nb_arena *arena, nb_diags *diags);
/* Opens a compiled .so. */
nb_status nbl_open_shared(const char *path, nbl_pages pages, nb_diags *diags, nbl_program *out);
void nbl_close(nbl_program *program);

/* A status and message of the runtime as a diagnostic; NB_OK for NB_RT_OK. */
nb_status nbl_runtime_error(nb_diags *diags, nb_rt_status status, const char *message);

/* Runs once from empty state; inputs[i] belongs to input i (data NULL: not given). Outputs get
 * memory of `arena`. */
nb_status nbl_run_once(const nbl_program *program, int threads, const nb_tensor *inputs,
                       nb_tensor *outputs, nb_arena *arena, nb_diags *diags);

/* An nb_run_fn (`user` is an nbl_runner) that compiles the graph with its taps as outputs, and
 * keeps the result while it is called with the same graph. What differs from one before only in its
 * weights is not compiled again. Code is made quickly at first, and well once it has run for longer
 * than that would take; its results are the same. Freed by nbl_runner_end. */
typedef struct nbl_runner {
    const cg_cpu *cpu;
    int threads;
    nb_arena *arena;
    const nb_store *objects; /* keeps compiled code, or NULL */
    uint64_t key;            /* of the graph in `program`, 0 = none */
    nbl_program program;
    double making, running; /* seconds that it took to make, and that it ran */
    nb_object_cache *cache; /* made when needed */
} nbl_runner;
/* What `env` runs its graphs by from now on, on this machine. */
void nbl_runner_begin(nbl_runner *r, const nb_store *objects, nb_arena *arena, nb_pass_env *env);
void nbl_runner_end(nbl_runner *r);
nb_status nbl_run_compiled(void *user, const nb_graph *g, const nb_tensor *inputs,
                           nb_tensor *outputs, const nb_tap *taps, size_t n_taps, nb_arena *arena,
                           nb_diags *diags);

/* Code is generated, loaded and dropped by one thread of the process at a time: what is forked must
 * not find LLVM's locks taken. Between these two, for callers of nb_codegen and nb_emit_files. */
void nbl_begin_code(void);
void nbl_end_code(void);

#endif
