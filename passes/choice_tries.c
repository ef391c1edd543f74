/* Choosing by what is measured (choice.h). */
#include "passes/aim.h"
#include "passes/choice.h"

#include <math.h>

#define TRIES 5

nb_try nb_try_new(const nb_choice *c) {
    nb_arena *scratch = nb_state_of(c->ctx)->scratch;
    return (nb_try){NB_NEW_ARRAY(scratch, int, c->layers.count + 1), -1, INFINITY};
}

/* The best is the one of the largest estimate: a larger bound takes nothing away. */
static bool try_bounds(const nb_choice *c, const nb_goal *goal, nb_knapsack_item *items,
                       nb_try *best) {
    nb_aim aim = nb_aim_begin(goal->most, goal->close);
    if (isfinite(best->measured)) {
        nb_aim_step(&aim, best->estimate, best->measured);
        aim.next = fmax(aim.next, goal->most); /* which the estimate may tell truly */
    }
    nb_try now = nb_try_new(c);
    for (int i = 0; i <= TRIES; i++) {
        if (i == TRIES && isfinite(best->measured)) return true;
        const double estimate = goal->choose(c, items, i < TRIES ? aim.next : 0);
        if (estimate == now.estimate || estimate == best->estimate) break; /* known already */
        now.estimate = estimate;
        now.measured = goal->measure(c, goal->user);
        for (size_t l = 0; l < c->layers.count; l++) now.choices[l] = items[l].choice;
        if (now.measured < 0) return false;
        if (now.measured <= goal->most && estimate > best->estimate) {
            const nb_try other = *best;
            *best = now;
            now.choices = other.choices;
        }
        if (!nb_aim_step(&aim, estimate, now.measured)) return true;
    }
    if (!isfinite(best->measured)) *best = now;
    return true;
}

bool nb_choice_try(const nb_choice *c, const nb_goal *goal, nb_knapsack_item *items, nb_try *best) {
    if (!try_bounds(c, goal, items, best)) return false;
    for (size_t l = 0; l < c->layers.count; l++) {
        items[l].choice = best->choices[l];
        nb_choice_set(c, &c->layers.items[l], best->choices[l]);
    }
    return true;
}
