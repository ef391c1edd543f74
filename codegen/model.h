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
    cg_val frame, dispatch, cancel, mark; /* mark may be NULL */
    nb_dims *dims;
    const char *scratch; /* what the scratch memory holds; NULL: nothing known */
    uint32_t number;     /* of the op of the graph's body that is running, for errors */
    const char *path;    /* in front of the numbers of ops inside it */
} nb_runner;

/* The ops of a body, in order. */
void nb_run_region(nb_runner *r, const nb_region *region);
/* An op with bodies (control.c). */
void nb_run_control(nb_runner *r, const nb_op *op);
/* Leaves the run when it was cancelled. */
void nb_run_look(nb_runner *r);
/* Leaves the run with NB_RUN_INDEX where `bad`. */
void nb_run_fails(nb_runner *r, cg_val bad);

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
