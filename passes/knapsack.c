/* Choosing within a bound (knapsack.h). */
#include "passes/knapsack.h"

#include <math.h>
#include <string.h>

#define SIZES 32768 /* steps from nothing to the largest choice of all items */

typedef struct table {
    double step;     /* cost of a step */
    double *least;   /* [SIZES+1] of the items so far: the least loss in so many steps */
    uint8_t *choice; /* [items,SIZES+1] */
} table;

static int64_t steps_of(const table *t, double cost) { return (int64_t)ceil(cost / t->step); }

/* Such that the largest choices, each rounded up, fit as well. */
static double step_for(const nb_knapsack_item *items, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double largest = 0;
        for (int k = 0; k < items[i].n; k++) largest = fmax(largest, items[i].cost[k]);
        most += largest;
    }
    const double steps = (double)SIZES - (double)nb_min_i64((int64_t)n, SIZES / 2);
    return most > 0 ? most / steps : 1;
}

static void fill(table *t, const nb_knapsack_item *items, size_t n, nb_arena *scratch) {
    t->step = step_for(items, n);
    t->least = NB_NEW_ARRAY(scratch, double, SIZES + 1);
    t->choice = NB_NEW_ARRAY(scratch, uint8_t, n * (SIZES + 1));
    double *next = NB_NEW_ARRAY(scratch, double, SIZES + 1);
    for (size_t i = 0; i < n; i++) {
        for (int64_t size = 0; size <= SIZES; size++) {
            next[size] = INFINITY;
            for (int k = 0; k < items[i].n; k++) {
                const int64_t rest = size - steps_of(t, items[i].cost[k]);
                if (rest < 0 || t->least[rest] + items[i].loss[k] >= next[size]) continue;
                next[size] = t->least[rest] + items[i].loss[k];
                t->choice[i * (SIZES + 1) + (size_t)size] = (uint8_t)k;
            }
        }
        memcpy(t->least, next, (SIZES + 1) * sizeof *next);
    }
}

bool nb_knapsack(nb_knapsack_item *items, size_t n, double most_cost, double most_loss,
                 nb_arena *scratch) {
    table t;
    fill(&t, items, n, scratch);
    int64_t size = SIZES;
    if (most_cost < INFINITY)
        size = (int64_t)fmin((double)SIZES, floor(most_cost / t.step));
    else
        while (size > 0 && isfinite(t.least[size - 1]) && t.least[size - 1] <= most_loss) size--;
    if (size < 0 || !isfinite(t.least[size]) || t.least[size] > most_loss) return false;
    for (size_t i = n; i-- > 0;) {
        items[i].choice = t.choice[i * (SIZES + 1) + (size_t)size];
        size -= steps_of(&t, items[i].cost[items[i].choice]);
    }
    return true;
}
