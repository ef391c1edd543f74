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

typedef struct nb_choice {
    nb_pass_ctx *ctx;
    NB_VEC(nb_choice_layer) layers;
    nb_layer_form forms[NB_CHOICE_FORMS];
    int n_forms;
    nb_sensitivity sensitivity;
    bool asymmetric;
    size_t n_floats; /* layers that quantize-weights leaves as they are */
    double float_weights;
    bool timed;   /* seconds count, not bits */
    double rest;  /* seconds of what is no layer of these */
    uint64_t key; /* of what is measured, for all layers */
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

/* ---- by what is lost (choice_loss.c) -------------------------------------------------------- */

/* Within max-kld; what all lose together in *measured. False after an error. */
bool nb_choice_by_loss(const nb_choice *c, nb_knapsack_item *items, double *measured);

/* ---- by time (choice_time.c) ---------------------------------------------------------------- */

/* The seconds of each layer in each form, and the rest. False after an error, as when even the
 * fastest choice is too slow. */
bool nb_choice_time_possible(nb_choice *c);
/* Within budget-ms: seconds of a run as chosen, and as foretold. False after an error. */
bool nb_choice_by_time(const nb_choice *c, nb_knapsack_item *items, double *all, double *foretold);

#endif
