/* Weights rounded so that the layer's outputs stay, not each weight by itself.
 *
 * The sweep is GPTQ (Frantar et al., arXiv 2210.17323): inputs are quantized one after the other,
 * and what each leaves undone is made up for by those still in float. The scales are chosen before
 * it (static groups), so that the order of the inputs costs nothing at run time. What follows is
 * coordinate descent on the same objective, tr(E' H E): in turn each group's scale is set to the
 * best for its codes, and each code to the best for all others (as in QuantEase, arXiv 2309.01885,
 * and COMQ, arXiv 2403.07134). Neither can make the objective worse but by rounding of scales.
 *
 * With exact inputs it is OWQ (Lee et al., arXiv 2306.02272): weights of the most sensitive inputs
 * stay numbers, are the last of the sweep, and take their turn in the descent unrounded. */
#ifndef NB_PASSES_GPTQ_H
#define NB_PASSES_GPTQ_H

#include "passes/hessian.h"
#include "passes/rtn.h"

typedef struct nb_gptq {
    nb_rtn rtn;                /* its `importance` is ignored: the diagonal of H takes its place */
    int64_t rows, cols, group; /* a matrix [rows,cols]; `group` inputs share a scale */
    const float *weights;      /* finite */
    const nb_hessian *hessian;
    const nb_moments *cross; /* NULL, or what the weights are first brought to by `correct` */
    double correct;          /* (nb_hessian_retarget) */
    int refinements;         /* passes of coordinate descent */
    /* Inputs whose weights stay numbers: the last in hessian->order, or none. They make up for what
     * the codes of all others leave undone. */
    int64_t n_exact;
    float *exact;           /* out: [n_exact,cols], in that order */
    int anneal;             /* sweeps of simulated annealing behind all that, or 0 */
    const nb_moments *held; /* for them: those of samples that the Hessian has not seen */
    uint8_t *codes;         /* out: [rows,cols], one a byte */
    float *scales;          /* out: [groups,cols] */
    uint8_t *zeros;         /* out: [groups,cols], or NULL when symmetric */
} nb_gptq;

/* Columns that are solved side by side. BLAS may sum in another order in another place among them,
 * but a stripe depends neither on the others nor on the number of threads. */
#define NB_GPTQ_STRIPE 128

/* False when memory is short. */
bool nb_gptq_solve(const nb_gptq *problem);

/* For each input, what rounding its weights to nearest costs: H_ii |W_i - codes|^2 (OWQ's
 * sensitivity). False when memory is short. */
bool nb_gptq_sensitivities(const nb_gptq *problem, double *out);

#endif
