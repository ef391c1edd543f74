/* How far one model's outputs are from another's: what rounding costs, in one number. */
#ifndef NB_PASSES_DIVERGENCE_H
#define NB_PASSES_DIVERGENCE_H

#include "ir/eval.h"

/* What outputs are, by what makes them; views, casts and scales behind it change nothing. */
typedef enum nb_outputs {
    NB_LOGITS,        /* a layer, or the mean of places behind it, of rank 3 at most */
    NB_PROBABILITIES, /* softmax along the last axis */
    NB_CHANCES,       /* sigmoid: each of its own event */
    NB_FEATURES,      /* anything else: maps, embeddings */
} nb_outputs;

nb_outputs nb_outputs_kind(const nb_value *output);

/* The output that counts. */
typedef struct nb_counted {
    size_t output; /* SIZE_MAX: there is none */
    nb_outputs kind;
} nb_counted;

/* Logits, or whatever f32 the model puts out first that is no state. */
nb_counted nb_output_that_counts(const nb_graph *g);

/* Mean Kullback-Leibler divergence from what was wanted, in nats. Of rows along the last axis: of
 * logits their softmax's, of probabilities their own. Of elements: of chances the event's, of
 * features that of normal distributions around them, as wide as all wanted ones are large:
 * (found - wanted)^2 / (2 mean square), half of the noise over the signal. Both are f32 of one
 * shape and of rank 1 at least; not a number where one of `found` is none. */
double nb_divergence(const nb_tensor *wanted, const nb_tensor *found, nb_outputs kind);

#endif
