/* Private to the pass choose-bits: its layers, the forms there are for them, and the ways to choose
 * among these within a budget. */
#ifndef NB_PASSES_CHOICE_H
#define NB_PASSES_CHOICE_H

#include "passes/knapsack.h"
#include "passes/layer_form.h"
#include "passes/sensitivity.h"

#define NB_CHOICE_MOST  8 /* widths, and groups */
#define NB_CHOICE_FORMS (NB_CHOICE_MOST * NB_CHOICE_MOST)

typedef struct nb_choice_layer {
    nb_op *op;
    nb_value *w;
    int64_t weights;
    double loss[NB_CHOICE_FORMS], bits[NB_CHOICE_FORMS],
        seconds[NB_CHOICE_FORMS]; /* of each form */
} nb_choice_layer;

/* A choice for all layers, and what it comes to. */
typedef struct nb_try {
    int *choices;              /* [layers] */
    double estimate, measured; /* measured: INFINITY before it is */
} nb_try;

typedef struct nb_choice {
    nb_pass_ctx *ctx;
    NB_VEC(nb_choice_layer) layers;
    nb_layer_form forms[NB_CHOICE_FORMS];
    int n_forms;
    nb_sensitivity sensitivity;
    bool asymmetric;
    size_t n_floats; /* layers that quantize-weights leaves as they are */
    double float_weights;
    bool timed;           /* seconds count, not bits */
    double rest;          /* seconds of what is no layer of these */
    nb_try fastest;       /* in seconds */
    nb_wide_choice *wide; /* of what is timed */
    uint64_t key;         /* of what is measured, for all layers */
} nb_choice;

/* ---- what there is to choose (choice_layers.c) ---------------------------------------------- */

/* The options bits and groups; false after an error. */
bool nb_choice_read_forms(nb_choice *c);
/* Codes that are as wide as they can be need no zero points. */
bool nb_choice_is_asymmetric(const nb_choice *c, int bits);
/* With the bits that each takes in each form. */
void nb_choice_find_layers(nb_choice *c);
/* What each loses in each form; false after an error. */
bool nb_choice_measure_losses(nb_choice *c);

/* ---- choosing (choice_size.c) --------------------------------------------------------------- */

/* Of all linear layers, also those that stay in float; and the bits of these. */
double nb_choice_weights(const nb_choice *c);
double nb_choice_float_bits(const nb_choice *c);
/* What counts: seconds of a layer in each form, or bits. */
const double *nb_choice_costs(const nb_choice *c, const nb_choice_layer *l);
/* Of all layers the cheapest. */
double nb_choice_least(const nb_choice *c);
void nb_choice_set(const nb_choice *c, const nb_choice_layer *l, int form);
/* The best choice within the bounds, of which one is INFINITY, as that of all layers; false: there
 * is none. */
bool nb_choice_within(const nb_choice *c, nb_knapsack_item *items, double most_cost,
                      double most_loss);
/* What single layers lose, in all. */
double nb_choice_loss(const nb_choice *c, const nb_knapsack_item *items);

/* False, with an error, when even the smallest choice is too large. */
bool nb_choice_size_possible(const nb_choice *c);
/* Within budget, or within max-kld as a sum of layers alone; false after an error. */
bool nb_choice_by_size(const nb_choice *c, nb_knapsack_item *items);

/* ---- by what is measured (choice_tries.c) --------------------------------------------------- */

/* Nothing chosen yet. */
nb_try nb_try_new(const nb_choice *c);

/* What is measured has a bound that an estimate cannot hold by itself. A larger bound on the
 * estimate, which is above 0, makes choices better. */
typedef struct nb_goal {
    double most, close; /* good enough: `close` (0 to 1) of most, up to most */
    /* The best choice of those that come to no more than `bound` by the estimate, or as close to it
     * as can be; sets it and returns the estimate. */
    double (*choose)(const nb_choice *c, nb_knapsack_item *items, double bound);
    double (*measure)(const nb_choice *c, void *user); /* as set; negative after an error */
    void *user;
} nb_goal;

/* Tries, a few times at most, until what is measured is closely below the bound or nothing else is
 * left to try. Sets the best that is not beyond it; where all are, the last, whose bound was least.
 * *best: what was measured before and is not beyond it, or a new one. False after an error. */
bool nb_choice_try(const nb_choice *c, const nb_goal *goal, nb_knapsack_item *items, nb_try *best);

/* ---- by what is lost (choice_loss.c) -------------------------------------------------------- */

/* Within max-kld; what all lose together in *measured. False after an error. */
bool nb_choice_by_loss(const nb_choice *c, nb_knapsack_item *items, double *measured);

/* ---- by time (choice_time.c) ---------------------------------------------------------------- */

/* The seconds of each layer in each form, and the rest; the fastest choice is timed. False after an
 * error, as when that takes longer than the budget. */
bool nb_choice_time_possible(nb_choice *c);
/* Within budget-ms: seconds of a run as chosen and measured, and as foretold. False after an error.
 */
bool nb_choice_by_time(const nb_choice *c, nb_knapsack_item *items, double *all, double *foretold);

#endif
