/* A stripe of columns side by side: what the parts of the solver (gptq.h) share. */
#ifndef NB_PASSES_GPTQ_STRIPE_H
#define NB_PASSES_GPTQ_STRIPE_H

#include "passes/gptq.h"
#include "passes/grid.h"

#define NB_LANES NB_GPTQ_STRIPE
#define NB_BLOCK 128 /* inputs whose corrections reach the rest as one product */

typedef float nb_lanes[NB_LANES];

/* Columns beyond the matrix hold zeros. */
typedef struct nb_stripe {
    const nb_gptq *p;
    int64_t first; /* of its columns */
    int64_t groups;
    const int32_t *exact_of;      /* [rows] which exact input it is, or -1; NULL: there are none */
    nb_lanes *target;             /* [rows] the weights */
    nb_lanes *steps;              /* [rows] code - zero, as float; of exact inputs: 0 */
    nb_lanes *exact;              /* [n_exact] their weights */
    nb_lanes *scale, *low, *high; /* [groups] what steps can be */
    nb_lanes *work;               /* [rows] of the sweep: weights to come; of the descent: H E */
    nb_lanes *change;             /* [NB_BLOCK] */
    nb_lanes *before;             /* [NB_BLOCK] what the descent found in a block */
} nb_stripe;

/* to[i] -= sum over k of m[k * ld + i] * change[k], for i < n. */
void nb_stripe_take_off(int64_t n, int64_t k, const float *m, int64_t ld, const nb_lanes *change,
                        nb_lanes *to);
/* The same for one k and one i. */
void nb_stripe_take_off_one(float factor, const float *change, float *to);

/* Which exact input an input is, or -1. */
static inline int32_t nb_stripe_exact(const nb_stripe *s, int64_t input) {
    return s->exact_of ? s->exact_of[input] : -1;
}

/* errors = target - value; `begin`: work = H errors as well. */
void nb_stripe_errors(const nb_stripe *s, nb_lanes *errors);
void nb_stripe_begin(nb_stripe *s, nb_lanes *errors);

typedef struct nb_range {
    int64_t first, count;
} nb_range;

/* Changes the weights of an input; `change`: by how much. */
typedef void (*nb_step_fn)(const nb_stripe *s, int64_t input, const void *user, float *change);

/* Each of the inputs in turn; work follows, that of the others block by block. */
void nb_stripe_each(nb_stripe *s, nb_range inputs, nb_step_fn step, const void *user);

/* Coordinate descent, p->refinements times (descent.c); `room` for as many rows as `target`. */
void nb_stripe_descend(nb_stripe *s, nb_lanes *room);

/* Simulated annealing, p->anneal sweeps (anneal.c); false when memory is short. */
bool nb_stripe_anneal(nb_stripe *s, nb_lanes *room);

#endif
