/* What a change of a model does to its outputs: their divergence (divergence.h) from those of the
 * model as it was, on the first samples. */
#ifndef NB_PASSES_OUTPUT_LOSS_H
#define NB_PASSES_OUTPUT_LOSS_H

#include "passes/divergence.h"
#include "passes/pass.h"

typedef struct nb_output_loss {
    nb_pass_ctx *ctx;
    nb_counted counted;
    const nb_sample *samples; /* [n_samples] the first there are; others may take their place */
    size_t n_samples;
    nb_tensor *wanted; /* [n_samples] the output as it was */
} nb_output_loss;

/* Finds the output that counts: logits, or whatever the model puts out first that is no state.
 * False, with an error, when none is of f32. */
bool nb_output_loss_begin(nb_output_loss *l, nb_pass_ctx *ctx, int64_t most_samples);
/* Runs the model as it was; false after an error. */
bool nb_output_loss_float(nb_output_loss *l);
/* The mean divergence of all rows, with the graph as it stands; negative after an error. */
double nb_output_loss_now(const nb_output_loss *l);
/* The same of another graph that takes the same inputs; an error when its output has another shape.
 */
double nb_output_loss_of(const nb_output_loss *l, const nb_graph *g);
void nb_output_loss_end(nb_output_loss *l); /* also after errors, and of one that is all zeros */

#endif
