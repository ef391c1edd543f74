/* Inputs of a layer whose weights stay numbers (OWQ, Lee et al., arXiv 2306.02272): those that
 * rounding costs most. Their codes stand for 0; beside the layer x's channels are gathered and
 * multiplied by the weights, in f16, as one dense block. */
#ifndef NB_PASSES_EXACT_H
#define NB_PASSES_EXACT_H

#include "passes/gptq.h"
#include "passes/pass.h"

typedef struct nb_exact {
    int64_t n, cols;
    nb_blob *inputs, *rows; /* i64 [n], rising; f16 [n,cols] */
    nb_part parts[2];       /* their bytes */
    nb_value *constants[2];
} nb_exact;

/* Room for n inputs; false when memory is short. */
bool nb_exact_create(nb_exact *e, int64_t n, int64_t cols);
void nb_exact_release(nb_exact *e);

/* Chooses the inputs and solves for the layer: `problem` without them, of which `hessian` has its
 * order changed. False when memory is short. */
bool nb_exact_solve(nb_exact *e, nb_gptq problem, nb_hessian *hessian);

/* Takes the bytes over as constants named after w. */
void nb_exact_add_constants(nb_pass_ctx *ctx, nb_exact *e, const nb_value *w);

#endif
