/* How far one model's outputs are from another's: what rounding costs, in one number. */
#ifndef NB_PASSES_DIVERGENCE_H
#define NB_PASSES_DIVERGENCE_H

#include "ir/eval.h"

/* The output that counts. */
typedef struct nb_counted {
    size_t output;      /* SIZE_MAX: there is none */
    bool probabilities; /* a softmax made it */
} nb_counted;

/* Logits, or whatever f32 the model puts out first that is no state. */
nb_counted nb_output_that_counts(const nb_graph *g);

/* Mean Kullback-Leibler divergence of the rows' softmax from the wanted ones, in nats; of the rows
 * themselves where they are probabilities. Both are f32 of one shape and of rank 1 at least; not a
 * number where one of `found` is none. */
double nb_divergence(const nb_tensor *wanted, const nb_tensor *found, bool probabilities);

#endif
