/* Choosing by what weights lose together (choice.h). */
#include "passes/choice.h"
#include "passes/draft.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define CLOSE 0.8 /* of max-kld: more tries would save few bits */

/* Within the bound, or as close to it as can be. */
static double choose_estimate(const nb_choice *c, nb_knapsack_item *items, double bound) {
    if (!nb_choice_within(c, items, INFINITY, bound)) nb_choice_within(c, items, DBL_MAX, INFINITY);
    return nb_choice_loss(c, items);
}

/* What samples are for. */
typedef struct parts {
    nb_output_loss whole; /* of those held back */
    nb_sample *rounding;  /* [n] of all others */
    size_t n;
} parts;

/* Weights that are rounded by what they do on samples lose less on these than elsewhere: every
 * fourth sample, of four or more, measures and does not round. */
#define HELD_BACK 4

static bool split_samples(const nb_choice *c, parts *p) {
    nb_arena *scratch = nb_state_of(c->ctx)->scratch;
    const nb_pass_env *env = nb_state_of(c->ctx)->env;
    const int64_t most = nb_option_of(c->ctx, "whole-samples")->i;
    if (!nb_output_loss_begin(&p->whole, c->ctx, most)) return false;
    p->rounding = NB_NEW_ARRAY(scratch, nb_sample, env->n_samples);
    if (env->n_samples < HELD_BACK) {
        p->n = env->n_samples;
        memcpy(p->rounding, env->samples, p->n * sizeof *p->rounding);
        return true;
    }
    nb_sample *held = NB_NEW_ARRAY(scratch, nb_sample, p->whole.n_samples);
    size_t n = 0;
    for (size_t i = 0; i < env->n_samples; i++) {
        if (i % HELD_BACK == HELD_BACK - 1 && n < p->whole.n_samples)
            held[n++] = env->samples[i];
        else
            p->rounding[p->n++] = env->samples[i];
    }
    p->whole.samples = held;
    p->whole.n_samples = n;
    return true;
}

static double measure(const nb_choice *c, void *user) {
    const parts *p = user;
    return nb_draft_loss(c->ctx, p->rounding, p->n, &p->whole);
}

bool nb_choice_by_loss(const nb_choice *c, nb_knapsack_item *items, double *measured) {
    const double most = nb_option_of(c->ctx, "max-kld")->f;
    parts p = {0};
    const nb_goal goal = {most, CLOSE, choose_estimate, measure, &p};
    nb_try best = nb_try_new(c);
    const bool done = split_samples(c, &p) && nb_output_loss_float(&p.whole) &&
                      nb_choice_try(c, &goal, items, &best);
    nb_output_loss_end(&p.whole);
    if (!done) return false;
    *measured = best.measured;
    if (best.measured <= most) return true;
    c->ctx->host->report(c->ctx, NB_LEVEL_ERROR, NULL,
                         "max-kld=%g: with bits=\"%s\" and groups=\"%s\" the outputs diverge by "
                         "%.3g, measured with %zu layers that lose least",
                         most, nb_option_of(c->ctx, "bits")->s, nb_option_of(c->ctx, "groups")->s,
                         best.measured, c->layers.count);
    return false;
}
