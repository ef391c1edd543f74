/* How far one model's outputs are from another's: what rounding costs, in one number. */
#ifndef NB_PASSES_DIVERGENCE_H
#define NB_PASSES_DIVERGENCE_H

#include "ir/eval.h"

/* The output that counts: logits, or whatever f32 the model puts out first that is no state.
 * SIZE_MAX: there is none. */
size_t nb_output_that_counts(const nb_graph *g);

/* Mean Kullback-Leibler divergence of the rows' softmax from the wanted ones, in nats. Both are
 * f32 of one shape and of rank 1 at least; not a number where one of `found` is none. */
double nb_divergence(const nb_tensor *wanted, const nb_tensor *found);

#endif
