/* What the inputs of linear layers look like on the samples, layer after layer: the second moments
 * that methods like GPTQ round weights by. One layer's moments are in memory at a time. */
#ifndef NB_PASSES_LAYER_INPUTS_H
#define NB_PASSES_LAYER_INPUTS_H

#include "passes/hessian.h"
#include "passes/walk.h"

#define NB_HELD_BACK      8
#define NB_ROWS_PER_INPUT 3

typedef struct nb_layer_inputs {
    nb_walk walk;         /* of the graph as the pass has changed it so far */
    nb_walk original;     /* of the graph as it was, when `correct` is not 0 */
    nb_graph *copy;       /* the graph as it was */
    nb_value **originals; /* its values by id */
    double damp, correct; /* see nb_hessian_create, nb_hessian_retarget */
    double shrink;        /* see nb_shrink_share; 0 unless the pass sets it */
    bool sorted;
    NB_VEC(const nb_value *) ahead; /* inputs that were passed by and not yet walked to */
    const nb_value *x;              /* what the rest is about, or NULL */
    nb_hessian hessian;
    bool hold; /* keep every NB_HELD_BACK-th sample out of it, for `held` */
    nb_moments held;
    nb_moments cross; /* with the inputs that the original graph has; empty when correct is 0 */
    /* Layers whose inputs have fewer than NB_ROWS_PER_INPUT rows each on the samples, of all that
     * were asked for, and the one of them that has fewest. */
    size_t layers, few_layers;
    int64_t rows, fewest_rows, fewest_inputs;
} nb_layer_inputs;

/* Needs samples: false, with an error that says how to give some, when there are none. */
bool nb_layer_inputs_begin(nb_layer_inputs *in, nb_pass_ctx *ctx, double damp, bool sorted,
                           double correct);
/* Brings hessian and cross to the inputs `x` of layer `op`. False after an error. */
bool nb_layer_inputs_to(nb_layer_inputs *in, const nb_op *op);
/* For a layer whose moments nobody needs, in its turn: it is walked past when another one's are. */
void nb_layer_inputs_pass(nb_layer_inputs *in, const nb_op *op);
void nb_layer_inputs_end(nb_layer_inputs *in);

#endif
