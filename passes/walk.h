/* A walk through a model with all samples at once: values are computed in the order of the ops, as
 * far as asked, and only what later ops still need is kept. A pass that quantizes a layer while it
 * walks sees behind it what the quantized layers make of the samples, and each op runs once. */
#ifndef NB_PASSES_WALK_H
#define NB_PASSES_WALK_H

#include "passes/pass.h"

typedef struct nb_walk {
    nb_pass_ctx *ctx;
    nb_graph *graph; /* may be changed behind the place that the walk has reached */
    nb_op *next;     /* ops before this one are done */
    nb_map done;     /* op -> itself */
    nb_map held;     /* value -> held */
} nb_walk;

/* False, with an error that says how to give some, when there are no samples. */
bool nb_walk_samples(nb_pass_ctx *ctx);
/* An error: x, which `op` reads, is not finite on the samples. */
void nb_walk_not_finite(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x);

/* At the first op of `graph`: the pass' own, or a copy of it. */
nb_walk nb_walk_begin(nb_pass_ctx *ctx, nb_graph *graph);
void nb_walk_end(nb_walk *walk);

/* Computes all samples' values up to `x`, which comes behind those asked for before. False after an
 * error. */
bool nb_walk_to(nb_walk *walk, const nb_value *x);
/* What x is for sample i, until the next nb_walk_to: x is what the walk was last asked for. */
const nb_tensor *nb_walk_sample(const nb_walk *walk, const nb_value *x, size_t i);
/* The same, to be written to: when a pass changes what x is, what is held must follow. NULL for an
 * input of the graph. */
float *nb_walk_data(const nb_walk *walk, const nb_value *x, size_t i);

#endif
