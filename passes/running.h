/* Activation scales that follow the data: a state per tensor, re-estimated every so many tokens, as
 * moving observers do (Krishnamoorthi, arXiv 1806.08342) and online calibration for each prompt.
 *
 * The state %x.running, f32[B,1,3] beside x: f32[B,S,K], holds for each sequence the bound in use,
 * the largest |x| since it changed, and how many tokens that was:
 *
 *   used    = bound > 0 ? bound : start         start: calibrate's bound, else max|x| of this run
 *   largest = max(largest, max|x|)              tokens = tokens + S
 *   due     = tokens >= every
 *   bound   = due ? max(used * decay, largest) : used,   largest, tokens = due ? 0 : themselves
 *
 * Codes of a run are made with `used`: a change holds from the next run on, and nothing that was
 * stored is scaled again. So, unlike with any other scales, results depend on how a prompt is cut
 * into runs. */
#ifndef NB_PASSES_RUNNING_H
#define NB_PASSES_RUNNING_H

#include "ir/build.h"

typedef struct nb_running {
    double every, decay, start; /* start 0: max|x| of the run */
} nb_running;

/* Adds the state and what changes it; returns `used`, which x is divided by and the layers' results
 * are multiplied with. NULL after an error. */
nb_value *nb_running_bound(nb_builder *b, nb_value *x, const nb_running *how);

#endif
