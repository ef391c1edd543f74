/* What errors of one linear layer's weights cost the model, for each unit of their squared error:
 * what other widths and groups cost follows, since losses grow with the square of small errors.
 *
 *   outputs  that layer alone is rounded; the Kullback-Leibler divergence of the outputs' softmax
 *            from the float model's
 *   noise    the same with noise in place of the rounding errors: uniform, as large in each run of
 *            weights that share a scale as the errors are there. A mean over draws of it owes
 *            nothing to how one grid happens to fall (UNIQ, Baskin et al., arXiv 1804.10969)
 *   layer    the squared error of the layer's own outputs, of their square: tr(E' H E) / tr(W' H W)
 *            with the moments H of its inputs (GPTQ's objective, arXiv 2210.17323, made relative).
 *            One run of the model says it of all layers; what outputs make of it is left out */
#ifndef NB_PASSES_SENSITIVITY_H
#define NB_PASSES_SENSITIVITY_H

#include "passes/hessian.h"
#include "passes/output_loss.h"
#include "passes/walk.h"

typedef enum nb_measure { NB_MEASURE_OUTPUTS, NB_MEASURE_NOISE, NB_MEASURE_LAYER } nb_measure;

typedef struct nb_sensitivity {
    nb_pass_ctx *ctx;
    nb_measure how;
    nb_output_loss model; /* not of NB_MEASURE_LAYER, which has the rest */
    bool ran;             /* the float model */
    nb_walk walk;
    const nb_value *x; /* what the moments are of, or NULL */
    nb_moments moments;
} nb_sensitivity;

/* There must be samples; the first `most_samples` count, for NB_MEASURE_LAYER all. False after an
 * error. */
bool nb_sensitivity_begin(nb_sensitivity *s, nb_pass_ctx *ctx, nb_measure how,
                          int64_t most_samples);
/* Of layer `op`, behind those asked for before, with the weight [rows,cols] w. `rounded` is its
 * blob rounded with a scale for `group` rows of a column (0: all). Negative after an error. */
double nb_sensitivity_of(nb_sensitivity *s, const nb_op *op, nb_value *w, nb_blob *rounded,
                         int64_t group);
void nb_sensitivity_end(nb_sensitivity *s); /* also after errors, and of one that is all zeros */

/* sum of (a - b)^2 over n floats */
double nb_squared_error(const nb_blob *a, const nb_blob *b, int64_t n);

#endif
