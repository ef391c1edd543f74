/* Simulated annealing of codes behind the descent (gptq.h): as in QUBO forms of AdaRound (arXiv
 * 2510.16075) a move is one code up or down, the energy is the column's e' H e, and a worse one is
 * taken with probability exp(-difference / temperature), which falls to 0. What fits the samples
 * better need not fit others: a column keeps its moves only where they lower e' H e on the moments
 * of the samples that were held back. */
#include "ir/scalar.h"
#include "passes/gptq_stripe.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

/* The first temperature, in units of what one step of a column's codes costs on average. */
#define START 0.02f

typedef struct cooling {
    nb_lanes heat;
    uint32_t turn; /* other numbers each time */
} cooling;

/* The finalizer of MurmurHash3 (Appleby): bits that depend on all bits of x. */
static NB_INLINE uint32_t scatter(uint32_t x) {
    x = (x ^ x >> 16) * 0x85ebca6bU;
    x = (x ^ x >> 13) * 0xc2b2ae35U;
    return x ^ x >> 16;
}

/* -log of a number that is even in (0, 1). */
static NB_INLINE float exponential(uint32_t bits) {
    return -nb_logf(((float)(bits >> 8) + 0.5f) * 0x1p-24f);
}

static void move(const nb_stripe *s, int64_t input, const void *user, float *change) {
    const cooling *cool = user;
    const int64_t g = input / s->p->group;
    const float unit = s->p->hessian->h[input * s->p->rows + input];
    const uint32_t seed = scatter(scatter(cool->turn) + (uint32_t)input);
    if (nb_stripe_exact(s, input) >= 0) {
        memset(change, 0, sizeof(nb_lanes));
        return;
    }
    for (int c = 0; c < NB_LANES; c++) {
        const uint32_t bits = scatter(seed + (uint32_t)(s->first + c));
        const float step = s->steps[input][c];
        float way = bits & 1 ? 1 : -1;
        if (step + way > s->high[g][c] || step + way < s->low[g][c]) way = -way;
        const float d = way * s->scale[g][c], more = d * (d * unit - 2 * s->work[input][c]);
        const bool take = more < cool->heat[c] * exponential(bits);
        s->steps[input][c] = take ? step + way : step;
        change[c] = take ? d : 0;
    }
}

/* What one step of each column's codes costs, on average. */
static void find_units(const nb_stripe *s, float *units) {
    const int64_t n = s->p->rows;
    memset(units, 0, sizeof(nb_lanes));
    for (int64_t i = 0; i < n; i++) {
        const float *scale = s->scale[i / s->p->group], h = s->p->hessian->h[i * n + i] / (float)n;
        for (int c = 0; c < NB_LANES; c++) units[c] += h * scale[c] * scale[c];
    }
}

/* e' H e of each column on what was held back. */
static void held_losses(nb_stripe *s, nb_lanes *errors, double *losses) {
    const int n = (int)s->p->rows;
    nb_stripe_errors(s, errors);
    cblas_ssymm(CblasRowMajor, CblasLeft, CblasUpper, n, NB_LANES, 1, s->p->held->sum, n, errors[0],
                NB_LANES, 0, s->work[0], NB_LANES);
    memset(losses, 0, NB_LANES * sizeof *losses);
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < NB_LANES; c++)
            losses[c] += (double)errors[i][c] * (double)s->work[i][c];
    }
}

static void swap_steps(nb_stripe *s, nb_lanes *other) {
    for (int64_t i = 0; i < s->p->rows; i++) {
        nb_lanes kept;
        memcpy(kept, s->steps[i], sizeof kept);
        memcpy(s->steps[i], other[i], sizeof kept);
        memcpy(other[i], kept, sizeof kept);
    }
}

bool nb_stripe_anneal(nb_stripe *s, nb_lanes *room) {
    const int64_t n = s->p->rows;
    const int sweeps = s->p->anneal;
    if (!sweeps) return true;
    nb_lanes *before = malloc((size_t)n * sizeof *before), units;
    double old[NB_LANES], new[NB_LANES];
    cooling cool;
    if (!before) return false;
    memcpy(before, s->steps, (size_t)n * sizeof *before);
    find_units(s, units);
    nb_stripe_begin(s, room);
    for (int k = 0; k < sweeps; k++) {
        const float left = (float)(sweeps - 1 - k) / (float)sweeps;
        cool.turn = (uint32_t)k;
        for (int c = 0; c < NB_LANES; c++) cool.heat[c] = START * left * left * units[c];
        nb_stripe_each(s, (nb_range){0, n}, move, &cool);
    }
    held_losses(s, room, new);
    swap_steps(s, before);
    held_losses(s, room, old);
    for (int64_t i = 0; i < n; i++) {
        for (int c = 0; c < NB_LANES; c++)
            s->steps[i][c] = new[c] < old[c] ? before[i][c] : s->steps[i][c];
    }
    free(before);
    return true;
}
