/* What the passes behind the one that runs would make of the graph, and how long that takes: the
 * whole model is compiled with its layers in the forms that layer_form.h was told, and each op is
 * timed where it stands, with the caches, inputs and neighbours that it will have. */
#ifndef NB_PASSES_DRAFT_H
#define NB_PASSES_DRAFT_H

#include "passes/pass.h"

/* Seconds of one run (nb_pass_env.run_seconds) in *all, and in seconds[i] what the products with
 * the weight of ops[i], linear layers of the graph, take of it. The weights are rounded to nearest,
 * whatever method the pipeline has: codes take the same time whichever they are. False after an
 * error. */
bool nb_draft_seconds(nb_pass_ctx *ctx, nb_op *const *ops, size_t n, double *seconds, double *all);

#endif
