/* Choosing within a bound: the size, or the sum of what single layers lose (choice.h). */
#include "passes/choice.h"

#include <math.h>

#define FLOAT_BITS 32.0

double nb_choice_float_bits(const nb_choice *c) { return FLOAT_BITS * c->float_weights; }

double nb_choice_weights(const nb_choice *c) {
    double n = c->float_weights;
    for (size_t l = 0; l < c->layers.count; l++) n += (double)c->layers.items[l].weights;
    return n;
}

const double *nb_choice_costs(const nb_choice *c, const nb_choice_layer *l) {
    return c->timed ? l->seconds : l->bits;
}

double nb_choice_least(const nb_choice *c) {
    double least = 0;
    for (size_t l = 0; l < c->layers.count; l++) {
        double smallest = INFINITY;
        for (int i = 0; i < c->n_forms; i++)
            smallest = fmin(smallest, nb_choice_costs(c, &c->layers.items[l])[i]);
        least += smallest;
    }
    return least;
}

double nb_choice_loss(const nb_choice *c, const nb_knapsack_item *items) {
    double sum = 0;
    for (size_t l = 0; l < c->layers.count; l++) sum += items[l].loss[items[l].choice];
    return sum;
}

void nb_choice_set(const nb_choice *c, const nb_choice_layer *l, int form) {
    nb_layer_form_set(nb_state_of(c->ctx)->env, l->w, nb_loc_name(l->op->loc), c->forms[form]);
}

bool nb_choice_within(const nb_choice *c, nb_knapsack_item *items, double most_cost,
                      double most_loss) {
    const size_t n = c->layers.count;
    nb_arena *scratch = nb_arena_create_like(nb_state_of(c->ctx)->scratch);
    const bool found = nb_knapsack(items, n, most_cost, most_loss, scratch);
    nb_arena_destroy(scratch);
    for (size_t l = 0; found && l < n; l++) nb_choice_set(c, &c->layers.items[l], items[l].choice);
    return found;
}

bool nb_choice_size_possible(const nb_choice *c) {
    const double budget = nb_option_of(c->ctx, "budget")->f, weights = nb_choice_weights(c),
                 least = nb_choice_float_bits(c) + nb_choice_least(c);
    if (!(budget > 0) || least <= budget * weights) return true;
    const char *floats = c->n_floats ? nb_format(nb_state_of(c->ctx)->scratch,
                                                 " (%zu of them in float)", c->n_floats)
                                     : "";
    c->ctx->host->report(c->ctx, NB_LEVEL_ERROR, NULL,
                         "budget=%g: with bits=\"%s\" and groups=\"%s\" %zu layers%s have at "
                         "least %.3f bits per weight",
                         budget, nb_option_of(c->ctx, "bits")->s, nb_option_of(c->ctx, "groups")->s,
                         c->layers.count + c->n_floats, floats, least / weights);
    return false;
}

bool nb_choice_by_size(const nb_choice *c, nb_knapsack_item *items) {
    const double budget = nb_option_of(c->ctx, "budget")->f,
                 kld = nb_option_of(c->ctx, "max-kld")->f;
    const double most =
        budget > 0 ? budget * nb_choice_weights(c) - nb_choice_float_bits(c) : INFINITY;
    if (nb_choice_within(c, items, most, budget > 0 ? INFINITY : kld)) return true;
    c->ctx->host->report(c->ctx, NB_LEVEL_ERROR, NULL, "no choice for %zu layers is within %s=%g",
                         c->layers.count, budget > 0 ? "budget" : "max-kld",
                         budget > 0 ? budget : kld);
    return false;
}
