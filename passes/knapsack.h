/* The multiple-choice knapsack: of each item one of its choices, with the least loss of all within
 * a cost, or the least cost within a loss. By dynamic programming over the cost, in steps: a
 * choice's cost is rounded up, so that a bound on the cost always holds. */
#ifndef NB_PASSES_KNAPSACK_H
#define NB_PASSES_KNAPSACK_H

#include "ir/support/arena.h"

typedef struct nb_knapsack_item {
    const double *cost, *loss; /* [n], not negative */
    int n;                     /* 1 to 255 */
    int choice;                /* found */
} nb_knapsack_item;

/* One of the bounds is INFINITY. False: no choice is within it. */
bool nb_knapsack(nb_knapsack_item *items, size_t n, double most_cost, double most_loss,
                 nb_arena *scratch);

#endif
