/* What the parts of model generation share: model.c (tasks, kernels, run), control.c (bodies),
 * plan.c (bind, shape, input_shape, plan), descriptor.c, emit.c (passes, bytes), lower.c. */
#ifndef NB_CODEGEN_MODEL_H
#define NB_CODEGEN_MODEL_H

#include "codegen/codegen.h"
#include "codegen/refs.h"

/* Indices into frame->symbols behind the symbols themselves. */
#define NB_SYMBOL_CAPACITY(graph) ((graph)->symbols.count)
#define NB_SYMBOL_THREADS(graph)  ((graph)->symbols.count + 1)

typedef struct nb_model_build {
    const nb_graph *graph;
    const nb_codegen_options *options;
    const nb_pack *pack;
    uint64_t weights_hash;
    nb_arena *arena;
    cg_module *m;
    uint32_t n_slots; /* slots of the plan; one more buffer is scratch memory */
    nb_map kernels;   /* key -> nb_kernel */
    uint32_t n_kernels;
    cg_val dispatch, mark;                      /* functions; mark may be NULL */
    cg_val run, bind, shape, input_shape, plan; /* functions, for the descriptor */
} nb_model_build;

/* ---- dims (lower.c) ------------------------------------------------------------------------ */

struct nb_dims {
    cg *g;
    cg_val symbols; /* pointer to i64[n_symbols + 2] */
    nb_map known;   /* nb_dim -> cg_val */
    bool checked;   /* overflow sets `overflow`; values are computed where they are asked for */
    bool lenient;   /* a length below zero counts as zero */
    cg_var overflow;
};

/* Unchecked dims are computed in the entry block and so are usable everywhere; checked ones must be
 * asked for in straight-line code. */
nb_dims *nb_dims_create(cg *g, cg_val symbols, bool checked);
cg_val nb_dims_value(nb_dims *d, const nb_dim *dim);
cg_val nb_dims_symbol(nb_dims *d, size_t index);
cg_val nb_dims_add(nb_dims *d, cg_val a, cg_val b);
cg_val nb_dims_mul(nb_dims *d, cg_val a, cg_val b);
/* Bytes of `count` packed elements. */
cg_val nb_dims_bytes(nb_dims *d, nb_elem elem, cg_val count);
/* Bytes a value takes in a slot, 64-byte aligned: elements, then scales of dynamic quantization. */
cg_val nb_dims_value_bytes(nb_dims *d, const nb_type *type);

/* Fills in shapes and strides of operands and results; `refs_pointer` points at one address for
 * each of nb_refs_of, NULL when only shapes are needed. */
void nb_lower_open(nb_lower *l, const nb_model_build *b, cg *g, const nb_op *op, nb_dims *dims,
                   cg_val refs_pointer);

/* ---- parts --------------------------------------------------------------------------------- */

/* Reads a member of nb_frame (offsetof) as that kind. */
cg_val nb_frame_member(cg *g, cg_val frame, cg_kind kind, size_t offset);
/* Where a value lies that is no constant. */
cg_val nb_frame_address(const nb_model_build *b, cg *g, cg_val frame, const nb_value *v);

/* What is being written into `run`. */
typedef struct nb_runner {
    nb_model_build *build;
    cg *g;
    cg_val frame, cancel;
    nb_dims *dims;
    bool *bound;         /* by index: counted symbols that have their value here */
    const char *scratch; /* what the scratch memory holds; NULL: nothing known */
    uint32_t number;     /* of the op of the graph's body that is running, for errors */
    const char *path;    /* in front of the numbers of ops inside it */
} nb_runner;

/* The beginning of a function run(frame): what is needed to run ops in it. */
nb_runner nb_runner_open(nb_model_build *b, cg *g);
/* The ops of a body, in order. */
void nb_run_region(nb_runner *r, const nb_region *region);
/* Those of its body from `op` on, which is number `number` in it. */
void nb_run_ops(nb_runner *r, const nb_op *op, uint32_t number);
/* Leaves a run whose caller does not know counted symbols, if the graph has some. */
void nb_run_check_frame(nb_runner *r);
/* A `bind` (counted.c). True: it says its symbol, and what follows in its body has been run. */
bool nb_run_bind(nb_runner *r, const nb_op *op, const char *name, uint32_t number);
/* Leaves the run where one of the sizes in the ops from `op` on is below zero; without `symbol` all
 * that are known there, else those that it is in. */
void nb_run_check_signs(nb_runner *r, const nb_op *op, const nb_symbol *symbol);
/* An op with bodies (control.c). */
void nb_run_control(nb_runner *r, const nb_op *op);
/* Leaves the run when it was cancelled. */
void nb_run_look(nb_runner *r);
/* Leaves the run with NB_RUN_INDEX where `bad`. */
void nb_run_fails(nb_runner *r, cg_val bad);
/* The same with another result. */
void nb_run_leaves(nb_runner *r, cg_val when, int32_t result);

/* For each of the graph's symbols: the first `bind` that says it, in order of execution, or NULL.
 */
const nb_op **nb_binds_of(const nb_graph *g, nb_arena *arena);

void nb_model_run(nb_model_build *b);        /* model.c */
void nb_model_shapes(nb_model_build *b);     /* plan.c */
void nb_model_descriptor(nb_model_build *b); /* descriptor.c */

/* ---- emit.c -------------------------------------------------------------------------------- */

/* Of all that the module says. */
uint64_t nb_module_hash(const cg_module *m);
/* Verifies, runs the passes, and writes the module's bytes into the arena. */
nb_status nb_module_emit(cg_module *m, nb_object_format format, nb_arena *arena, nb_diags *diags,
                         nb_object *out);

/* ---- worker.c ------------------------------------------------------------------------------ */

typedef nb_status (*nb_worker_fn)(void *user, nb_arena *arena, nb_diags *diags, nb_object *out);
/* Runs `fn` in a child with limits and brings its object or its diagnostics back. */
nb_status nb_worker_run(nb_worker_fn fn, void *user, int seconds, nb_arena *arena, nb_diags *diags,
                        nb_object *out);

#endif
