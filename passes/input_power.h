/* The mean square of each input of linear layers on the samples, layer after layer: the diagonal of
 * the moments that GPTQ rounds by (hessian.h), which says how much an error of a weight counts, at
 * the price of one number for each input. */
#ifndef NB_PASSES_INPUT_POWER_H
#define NB_PASSES_INPUT_POWER_H

#include "passes/walk.h"

typedef struct nb_input_power {
    nb_walk walk;      /* of the graph as the pass has changed it so far */
    const nb_value *x; /* what `mean` is about, or NULL */
    float *mean;       /* scratch memory of the pass */
} nb_input_power;

/* Needs samples: false, with an error that says how to give some, when there are none. */
bool nb_input_power_begin(nb_input_power *p, nb_pass_ctx *ctx);
/* Brings `mean` to the inputs of layer `op`. False after an error. */
bool nb_input_power_to(nb_input_power *p, const nb_op *op);
void nb_input_power_end(nb_input_power *p);

#endif
