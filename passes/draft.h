/* What the passes behind the one that runs would make of the graph, with its layers in the forms
 * that layer_form.h was told: how long that takes, and what it loses. For time the whole model is
 * compiled, and each op is timed where it stands, with the caches, inputs and neighbours that it
 * will have. */
#ifndef NB_PASSES_DRAFT_H
#define NB_PASSES_DRAFT_H

#include "passes/output_loss.h"

/* Seconds of one run (nb_pass_env.run_seconds) in *all, and in seconds[i] what the products with
 * the weight of ops[i], linear layers of the graph, take of it. The weights are rounded to nearest,
 * whatever method the pipeline has: codes take the same time whichever they are. Which inputs are
 * wide is found out once for all drafts that have `wide` in common: searching takes far longer than
 * a draft, and forms of weights hardly matter to it. False after an error. */
bool nb_draft_seconds(nb_pass_ctx *ctx, nb_op *const *ops, size_t n, nb_wide_choice *wide,
                      double *seconds, double *all);

/* Does a pass behind round weights? */
bool nb_draft_rounds(const nb_pass_ctx *ctx);
/* How far the outputs are from the wanted ones of `model` when the passes behind have rounded as
 * they will, with these samples: weights by their method, activations too; not caches, which take
 * other inputs. Negative after an error. */
double nb_draft_loss(nb_pass_ctx *ctx, const nb_sample *samples, size_t n,
                     const nb_output_loss *model);

#endif
