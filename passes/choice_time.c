/* Choosing by the time of a run (choice.h). */
#include "passes/choice.h"
#include "passes/draft.h"

#include <math.h>
#include <stdlib.h>

/* Seconds of a run with layers as they are set, and of each of them. */
static bool time_layers(const nb_choice *c, double *seconds, double *all) {
    nb_arena *scratch = nb_state_of(c->ctx)->scratch;
    nb_op **ops = (nb_op **)nb_alloc_array(scratch, c->layers.count + 1, sizeof *ops);
    for (size_t l = 0; l < c->layers.count; l++) ops[l] = c->layers.items[l].op;
    return nb_draft_seconds(c->ctx, ops, c->layers.count, seconds, all);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* All layers in one form after the other. Everything else is the same work in all of these, so that
 * the median of its times counts. */
static bool time_forms(nb_choice *c) {
    const nb_pass_env *env = nb_state_of(c->ctx)->env;
    const size_t n = c->layers.count;
    double rests[NB_CHOICE_FORMS],
        *seconds = NB_NEW_ARRAY(nb_state_of(c->ctx)->scratch, double, n + 1);
    for (int i = 0; i < c->n_forms; i++) {
        for (size_t l = 0; l < n; l++) nb_choice_set(c, &c->layers.items[l], i);
        if (!time_layers(c, seconds, &rests[i])) return false;
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

bool nb_choice_time_possible(nb_choice *c) {
    if (!time_forms(c)) return false;
    const double most = nb_option_of(c->ctx, "budget-ms")->f, least = nb_choice_least(c),
                 least_ms = 1e3 * (least + c->rest);
    if (least_ms <= most) return true;
    c->ctx->host->report(c->ctx, NB_LEVEL_ERROR, NULL,
                         "budget-ms=%g: with bits=\"%s\" and groups=\"%s\" a run takes at least "
                         "%.4g ms: %zu layers %.4g, everything else %.4g",
                         most, nb_option_of(c->ctx, "bits")->s, nb_option_of(c->ctx, "groups")->s,
                         least_ms, c->layers.count, 1e3 * least, 1e3 * c->rest);
    return false;
}

#define TRIES 5
#define LESS  0.995 /* a bit more than what the last try was beyond */

bool nb_choice_by_time(const nb_choice *c, nb_knapsack_item *items, double *all, double *foretold) {
    const double budget = nb_option_of(c->ctx, "budget-ms")->f;
    double *seconds = NB_NEW_ARRAY(nb_state_of(c->ctx)->scratch, double, c->layers.count + 1),
           aim = 1e-3 * budget;
    *all = INFINITY;
    for (int i = 0; i < TRIES && nb_choice_within(c, items, aim - c->rest, INFINITY); i++) {
        if (!time_layers(c, seconds, all)) return false;
        *foretold = c->rest;
        for (size_t l = 0; l < c->layers.count; l++)
            *foretold += c->layers.items[l].seconds[items[l].choice];
        if (1e3 * *all <= budget) return true;
        aim *= LESS * 1e-3 * budget / *all;
    }
    if (isfinite(*all))
        c->ctx->host->report(
            c->ctx, NB_LEVEL_ERROR, NULL,
            "budget-ms=%g: a run took %.4g ms in the fastest choice that was tried", budget,
            1e3 * *all);
    else
        c->ctx->host->report(c->ctx, NB_LEVEL_ERROR, NULL,
                             "no choice for %zu layers is within budget-ms=%g", c->layers.count,
                             budget);
    return false;
}
