/* Coordinate descent over scales and codes (gptq.h). */
#include "passes/gptq_stripe.h"

#include <cblas.h>

/* What an input's codes stand for, or its exact weights. */
static void value_of(const nb_stripe *s, int64_t input, float *out) {
    const int32_t e = nb_stripe_exact(s, input);
    const float *scale = s->scale[input / s->p->group];
    for (int c = 0; c < NB_LANES; c++)
        out[c] = e < 0 ? s->steps[input][c] * scale[c] : s->exact[e][c];
}

void nb_stripe_errors(const nb_stripe *s, nb_lanes *errors) {
    for (int64_t i = 0; i < s->p->rows; i++) {
        value_of(s, i, errors[i]);
        for (int c = 0; c < NB_LANES; c++) errors[i][c] = s->target[i][c] - errors[i][c];
    }
}

void nb_stripe_begin(nb_stripe *s, nb_lanes *errors) {
    const int n = (int)s->p->rows;
    nb_stripe_errors(s, errors);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, NB_LANES, n, 1, s->p->hessian->h, n,
                errors[0], NB_LANES, 0, s->work[0], NB_LANES);
}

/* work -= H change, for the inputs of `to`; `change` is of the inputs of `from`. */
static void spread(nb_stripe *s, nb_range from, const nb_lanes *change, nb_range to) {
    const int64_t n = s->p->rows;
    nb_stripe_take_off(to.count, from.count, s->p->hessian->h + from.first * n + to.first, n,
                       change, s->work + to.first);
}

/* The same for all inputs but those of `from`. */
static void spread_outside(nb_stripe *s, nb_range from, const nb_lanes *change) {
    const int64_t end = from.first + from.count;
    spread(s, from, change, (nb_range){0, from.first});
    spread(s, from, change, (nb_range){end, s->p->rows - end});
}

/* The scale that is best for a group's codes: it changes by (c' H E) / (c' H c). `room`: what that
 * makes of the group's weights. */
static void refit_scale(nb_stripe *s, int64_t g, nb_range group, nb_lanes *room) {
    const int64_t n = s->p->rows, first = group.first, count = group.count;
    nb_lanes gain = {0}, cost = {0}, more;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)count, NB_LANES, (int)count, 1,
                s->p->hessian->h + first * n + first, (int)n, s->steps[first], NB_LANES, 0, room[0],
                NB_LANES);
    for (int64_t i = 0; i < count; i++) {
        for (int c = 0; c < NB_LANES; c++) {
            gain[c] += s->steps[first + i][c] * s->work[first + i][c];
            cost[c] += s->steps[first + i][c] * room[i][c];
        }
    }
    for (int c = 0; c < NB_LANES; c++) {
        const float old = s->scale[g][c], wanted = cost[c] > 0 ? old + gain[c] / cost[c] : old,
                    scale = wanted * old > 0 ? nb_stored_scale(s->p->rtn.half, wanted) : old;
        more[c] = scale - old;
        s->scale[g][c] = scale;
    }
    for (int64_t i = 0; i < count; i++) {
        for (int c = 0; c < NB_LANES; c++) room[i][c] = s->steps[first + i][c] * more[c];
    }
}

/* The best step for all others as they are; `change` is what that makes of the weight. */
NB_VECTORS static void best_step(const float *now, const float *scale, const float *low,
                                 const float *high, float unit, float *steps, float *change) {
    for (int c = 0; c < NB_LANES; c++) {
        const float best = nb_nearest_step(steps[c] + now[c] / (unit * scale[c]), low[c], high[c]);
        change[c] = (best - steps[c]) * scale[c];
        steps[c] = best;
    }
}

/* The best weight for all others as they are. */
NB_VECTORS static void best_weight(const float *now, float unit, float *weight, float *change) {
    for (int c = 0; c < NB_LANES; c++) {
        const float best = weight[c] + now[c] / unit;
        change[c] = best - weight[c];
        weight[c] = best;
    }
}

static void descend(const nb_stripe *s, int64_t input, const void *user, float *change) {
    (void)user;
    const int64_t g = input / s->p->group;
    const int32_t e = nb_stripe_exact(s, input);
    const float unit = s->p->hessian->h[input * s->p->rows + input];
    if (e < 0)
        best_step(s->work[input], s->scale[g], s->low[g], s->high[g], unit, s->steps[input],
                  change);
    else
        best_weight(s->work[input], unit, s->exact[e], change);
}

/* ---- turns ---------------------------------------------------------------------------------- */

/* Each of some inputs in turn; work of these inputs follows, and s->change is left. */
static void each_of_few(nb_stripe *s, nb_range inputs, nb_step_fn step, const void *user) {
    for (int64_t i = 0; i < inputs.count; i++) {
        const float *h = s->p->hessian->h + (inputs.first + i) * s->p->rows + inputs.first;
        step(s, inputs.first + i, user, s->change[i]);
        for (int64_t j = 0; j < inputs.count; j++)
            nb_stripe_take_off_one(h[j], s->change[i], s->work[inputs.first + j]);
    }
}

static nb_range part_of(int64_t first, int64_t count, int64_t end) {
    return (nb_range){first, nb_min_i64(count, end - first)};
}

void nb_stripe_each(nb_stripe *s, nb_range inputs, nb_step_fn step, const void *user) {
    const int64_t end = inputs.first + inputs.count;
    for (int64_t first = inputs.first; first < end; first += NB_BLOCK) {
        const nb_range block = part_of(first, NB_BLOCK, end);
        each_of_few(s, block, step, user);
        spread_outside(s, block, (const nb_lanes *)s->change);
    }
}

/* A group larger than a block: all inputs hear of its scale, and of each block of codes. */
static void refine_large(nb_stripe *s, int64_t g, nb_range group, nb_lanes *room) {
    refit_scale(s, g, group, room);
    spread(s, group, (const nb_lanes *)room, (nb_range){0, s->p->rows});
    nb_stripe_each(s, group, descend, NULL);
}

/* Whole groups: the block's inputs hear of each at once, the others of all. */
static void refine_small(nb_stripe *s, nb_range block, nb_lanes *room) {
    const int64_t size = s->p->group, end = block.first + block.count;
    for (int64_t i = 0; i < block.count; i++) value_of(s, block.first + i, s->before[i]);
    for (int64_t first = block.first; first < end; first += size) {
        const int64_t g = first / size;
        const nb_range group = part_of(first, size, end);
        refit_scale(s, g, group, room);
        spread(s, group, (const nb_lanes *)room, block);
        each_of_few(s, group, descend, NULL);
        spread(s, group, (const nb_lanes *)s->change, (nb_range){block.first, first - block.first});
        spread(s, group, (const nb_lanes *)s->change,
               (nb_range){first + group.count, end - first - group.count});
    }
    for (int64_t i = 0; i < block.count; i++) {
        value_of(s, block.first + i, s->change[i]);
        for (int c = 0; c < NB_LANES; c++) s->change[i][c] -= s->before[i][c];
    }
    spread_outside(s, block, (const nb_lanes *)s->change);
}

void nb_stripe_descend(nb_stripe *s, nb_lanes *room) {
    const int64_t n = s->p->rows, group = s->p->group,
                  step = group > NB_BLOCK ? group : NB_BLOCK / group * group;
    if (s->p->refinements) nb_stripe_begin(s, room);
    for (int pass = 0; pass < s->p->refinements; pass++) {
        for (int64_t first = 0; first < n; first += step) {
            const nb_range inputs = part_of(first, step, n);
            if (group > NB_BLOCK)
                refine_large(s, first / group, inputs, room);
            else
                refine_small(s, inputs, room);
        }
    }
}
