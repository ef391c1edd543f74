/* Choosing by the time of a run (choice.h). */
#include "passes/choice.h"
#include "passes/draft.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* ---- what takes how long -------------------------------------------------------------------- */

/* Seconds of a run with layers as they are set, and of each of them. */
static bool time_layers(const nb_choice *c, double *seconds, double *all) {
    nb_arena *scratch = nb_state_of(c->ctx)->scratch;
    nb_op **ops = (nb_op **)nb_alloc_array(scratch, c->layers.count + 1, sizeof *ops);
    for (size_t l = 0; l < c->layers.count; l++) ops[l] = c->layers.items[l].op;
    return nb_draft_seconds(c->ctx, ops, c->layers.count, c->wide, seconds, all);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* All layers in one form after the other. Everything else is the same work in all of these, so that
 * the median of its times counts. *best: the form in which all together were fastest. */
static bool time_forms(nb_choice *c, double *seconds, double *least, int *best) {
    const nb_pass_env *env = nb_state_of(c->ctx)->env;
    const size_t n = c->layers.count;
    double rests[NB_CHOICE_FORMS];
    *least = INFINITY;
    for (int i = 0; i < c->n_forms; i++) {
        for (size_t l = 0; l < n; l++) nb_choice_set(c, &c->layers.items[l], i);
        if (!time_layers(c, seconds, &rests[i])) return false;
        if (rests[i] < *least) *best = i;
        *least = fmin(*least, rests[i]);
        for (size_t l = 0; l < n; l++) {
            c->layers.items[l].seconds[i] = seconds[l];
            rests[i] -= seconds[l];
        }
        if (env->progress)
            env->progress(env->progress_user, "choose-bits: time", (size_t)i + 1,
                          (size_t)c->n_forms);
    }
    qsort(rests, (size_t)c->n_forms, sizeof *rests, ascending);
    c->rest = rests[c->n_forms / 2];
    return true;
}

static double foretold(const nb_choice *c, const int *choices) {
    double sum = c->rest;
    for (size_t l = 0; l < c->layers.count; l++) sum += c->layers.items[l].seconds[choices[l]];
    return sum;
}

static int fastest_form(const nb_choice *c, const nb_choice_layer *l) {
    int best = 0;
    for (int i = 1; i < c->n_forms; i++) best = l->seconds[i] < l->seconds[best] ? i : best;
    return best;
}

/* Other programs only ever make runs longer: what is beyond the budget gets another chance. */
#define CHANCES 2

/* Seconds of a run with layers as they are set; negative after an error. */
static double measure(const nb_choice *c, void *seconds) {
    const double most = 1e-3 * nb_option_of(c->ctx, "budget-ms")->f;
    double least = INFINITY, all;
    for (int i = 0; i < CHANCES && least > most; i++) {
        if (!time_layers(c, seconds, &all)) return -1;
        least = fmin(least, all);
    }
    return least;
}

/* Each layer in the form that is fastest for it. */
static bool time_fastest(nb_choice *c, double *seconds) {
    c->fastest = nb_try_new(c);
    for (size_t l = 0; l < c->layers.count; l++) {
        c->fastest.choices[l] = fastest_form(c, &c->layers.items[l]);
        nb_choice_set(c, &c->layers.items[l], c->fastest.choices[l]);
    }
    c->fastest.estimate = foretold(c, c->fastest.choices);
    c->fastest.measured = measure(c, seconds);
    return c->fastest.measured >= 0;
}

bool nb_choice_time_possible(nb_choice *c) {
    const double most = nb_option_of(c->ctx, "budget-ms")->f;
    double *seconds = NB_NEW_ARRAY(nb_state_of(c->ctx)->scratch, double, c->layers.count + 1),
           least;
    int form = 0;
    if (!time_forms(c, seconds, &least, &form) || !time_fastest(c, seconds)) return false;
    if (least < c->fastest.measured) { /* what the sum of single layers does not tell */
        c->fastest.measured = least;
        for (size_t l = 0; l < c->layers.count; l++) c->fastest.choices[l] = form;
        c->fastest.estimate = foretold(c, c->fastest.choices);
    }
    if (1e3 * c->fastest.measured <= most) return true;
    const double layers = c->fastest.estimate - c->rest;
    c->ctx->host->report(c->ctx, NB_LEVEL_ERROR, NULL,
                         "budget-ms=%g: with bits=\"%s\" and groups=\"%s\" a run takes at least "
                         "%.4g ms: %zu layers %.4g, everything else %.4g",
                         most, nb_option_of(c->ctx, "bits")->s, nb_option_of(c->ctx, "groups")->s,
                         1e3 * c->fastest.measured, c->layers.count, 1e3 * layers,
                         1e3 * (c->fastest.measured - layers));
    return false;
}

/* ---- within the budget ---------------------------------------------------------------------- */

#define CLOSE 0.97 /* of the budget: times of one program differ by as much */

static double choose(const nb_choice *c, nb_knapsack_item *items, double bound) {
    double sum = c->rest;
    if (!nb_choice_within(c, items, bound - c->rest, INFINITY))
        nb_choice_within(c, items, INFINITY, DBL_MAX);
    for (size_t l = 0; l < c->layers.count; l++) sum += items[l].cost[items[l].choice];
    return sum;
}

bool nb_choice_by_time(const nb_choice *c, nb_knapsack_item *items, double *all, double *expected) {
    double *seconds = NB_NEW_ARRAY(nb_state_of(c->ctx)->scratch, double, c->layers.count + 1);
    const nb_goal goal = {1e-3 * nb_option_of(c->ctx, "budget-ms")->f, CLOSE, choose, measure,
                          seconds};
    nb_try best = c->fastest;
    if (!nb_choice_try(c, &goal, items, &best)) return false;
    *all = best.measured;
    *expected = best.estimate;
    return true;
}
