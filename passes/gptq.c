/* GPTQ and coordinate descent (gptq.h), for stripes of columns side by side. */
#include "passes/gptq_stripe.h"

#include "ir/support/parallel.h"

#include <cblas.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(NB_LANES % NB_RTN_RUNS == 0, "a stripe is whole blocks of runs");

void nb_stripe_take_off(int64_t n, int64_t k, const float *m, int64_t ld, const nb_lanes *change,
                        nb_lanes *to) {
    if (n > 0)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, NB_LANES, (int)k, -1, m,
                    (int)ld, change[0], NB_LANES, 1, to[0], NB_LANES);
}

NB_VECTORS void nb_stripe_take_off_one(float factor, const float *change, float *to) {
    for (int c = 0; c < NB_LANES; c++) to[c] -= factor * change[c];
}

/* ---- scales --------------------------------------------------------------------------------- */

static void fit_group(const nb_stripe *s, int64_t g, float *room) {
    const nb_gptq *p = s->p;
    const int64_t first = g * p->group, n = nb_min_i64(p->group, p->rows - first);
    nb_rtn rtn = p->rtn;
    float *importance = room + n * NB_RTN_RUNS;
    for (int64_t i = 0; i < n; i++)
        importance[i] = p->hessian->h[(first + i) * p->rows + first + i];
    rtn.importance = importance;
    for (int c = 0; c < NB_LANES; c += NB_RTN_RUNS) {
        int64_t zeros[NB_RTN_RUNS];
        for (int64_t i = 0; i < n; i++) {
            if (nb_stripe_exact(s, first + i) < 0)
                memcpy(room + i * NB_RTN_RUNS, s->target[first + i] + c,
                       NB_RTN_RUNS * sizeof *room);
            else
                memset(room + i * NB_RTN_RUNS, 0, NB_RTN_RUNS * sizeof *room);
        }
        nb_rtn_fit(&rtn, room, n, s->scale[g] + c, zeros);
        for (int k = 0; k < NB_RTN_RUNS; k++) {
            s->low[g][c + k] = (float)(nb_rtn_bottom(&rtn) - zeros[k]);
            s->high[g][c + k] = (float)(nb_rtn_top(&rtn) - zeros[k]);
        }
    }
}

/* ---- the sweep ------------------------------------------------------------------------------ */

/* Quantizes the i-th input; `error` is what it leaves, in units of the factor's diagonal. */
NB_VECTORS static void quantize_input(const float *w, const float *scale, const float *low,
                                      const float *high, float unit, float *steps, float *error) {
    for (int c = 0; c < NB_LANES; c++) {
        steps[c] = nb_nearest_step(w[c] / scale[c], low[c], high[c]);
        error[c] = (w[c] - steps[c] * scale[c]) / unit;
    }
}

static void sweep(nb_stripe *s) {
    const nb_hessian *h = s->p->hessian;
    const int64_t n = h->n, rounded = n - s->p->n_exact;
    for (int64_t i = 0; i < n; i++) memcpy(s->work[i], s->target[h->order[i]], sizeof(nb_lanes));
    for (int64_t first = 0; first < rounded; first += NB_BLOCK) {
        const int64_t count = nb_min_i64(NB_BLOCK, rounded - first), rest = first + count;
        for (int64_t i = first; i < rest; i++) {
            const int64_t input = h->order[i], g = input / s->p->group;
            const float *factor = h->factor + i * n;
            float *error = s->change[i - first];
            quantize_input(s->work[i], s->scale[g], s->low[g], s->high[g], factor[i],
                           s->steps[input], error);
            for (int64_t j = i + 1; j < rest; j++)
                nb_stripe_take_off_one(factor[j], error, s->work[j]);
        }
        nb_stripe_take_off(n - rest, count, h->factor + first * n + rest, n,
                           (const nb_lanes *)s->change, s->work + rest);
    }
    if (s->p->n_exact)
        memcpy(s->exact[0], s->work[rounded], (size_t)s->p->n_exact * sizeof(nb_lanes));
}

/* ---- stripes -------------------------------------------------------------------------------- */

typedef struct work {
    const nb_gptq *p;
    int32_t *exact_of; /* see nb_stripe */
    double *costs;     /* [stripes, rows], when that is what is asked for */
    atomic_bool no_memory;
} work;

static void load(const nb_stripe *s, int64_t first, int64_t count) {
    for (int64_t i = 0; i < s->p->rows; i++)
        memcpy(s->target[i], s->p->weights + i * s->p->cols + first, (size_t)count * sizeof(float));
}

/* Brings the target to what the layer's inputs are now; false when memory is short. */
static bool correct(const nb_stripe *s) {
    const nb_gptq *p = s->p;
    return !p->cross || nb_hessian_retarget(p->hessian, p->cross, p->correct, s->target[0],
                                            NB_LANES, s->target[0]);
}

static void store(const nb_stripe *s, int64_t first, int64_t count) {
    const nb_gptq *p = s->p;
    const float bottom = (float)nb_rtn_bottom(&p->rtn);
    for (int64_t g = 0; g < s->groups; g++) {
        for (int64_t c = 0; c < count; c++) {
            p->scales[g * p->cols + first + c] = s->scale[g][c];
            if (p->zeros) p->zeros[g * p->cols + first + c] = (uint8_t)(bottom - s->low[g][c]);
        }
    }
    for (int64_t i = 0; i < p->rows; i++) {
        const float *low = s->low[i / p->group];
        for (int64_t c = 0; c < count; c++)
            p->codes[i * p->cols + first + c] = (uint8_t)(int)(s->steps[i][c] + bottom - low[c]);
    }
    for (int64_t e = 0; e < p->n_exact; e++)
        memcpy(p->exact + e * p->cols + first, s->exact[e], (size_t)count * sizeof(float));
}

/* H_ii times the squared errors of rounding to nearest, for each input. */
static void add_costs(const nb_stripe *s, double *costs) {
    for (int64_t i = 0; i < s->p->rows; i++) {
        const int64_t g = i / s->p->group;
        nb_lanes steps, error;
        quantize_input(s->target[i], s->scale[g], s->low[g], s->high[g], 1, steps, error);
        for (int c = 0; c < NB_LANES; c++) costs[i] += (double)error[c] * (double)error[c];
        costs[i] *= (double)s->p->hessian->h[i * s->p->rows + i];
    }
}

static void solve_stripe(void *user, int64_t turn) {
    work *all = user;
    const nb_gptq *p = all->p;
    const int64_t first = turn * NB_LANES, count = nb_min_i64(NB_LANES, p->cols - first),
                  groups = nb_ceildiv(p->rows, p->group);
    /* target, steps, work, and room of as many rows; scale, low, high; change, before; exact */
    nb_lanes *rows =
        calloc((size_t)(4 * p->rows + 3 * groups + 2 * NB_BLOCK + p->n_exact), sizeof *rows);
    bool ok = rows != NULL;
    if (ok) {
        nb_lanes *room = rows + 3 * p->rows, *per_group = room + p->rows,
                 *per_block = per_group + 3 * groups;
        nb_stripe s = {.p = p,
                       .first = first,
                       .groups = groups,
                       .exact_of = all->exact_of,
                       .target = rows,
                       .steps = rows + p->rows,
                       .work = rows + 2 * p->rows,
                       .scale = per_group,
                       .low = per_group + groups,
                       .high = per_group + 2 * groups,
                       .change = per_block,
                       .before = per_block + NB_BLOCK,
                       .exact = per_block + 2 * NB_BLOCK};
        load(&s, first, count);
        if (!all->costs) ok = correct(&s);
        for (int64_t g = 0; ok && g < groups; g++) fit_group(&s, g, room[0]);
        if (ok && all->costs) {
            add_costs(&s, all->costs + turn * p->rows);
        } else if (ok) {
            sweep(&s);
            nb_stripe_descend(&s, room);
            ok = nb_stripe_anneal(&s, room);
            if (ok) store(&s, first, count);
        }
    }
    if (!ok) atomic_store(&all->no_memory, true);
    free(rows);
}

static bool solve_all(work *all) {
    openblas_set_num_threads(1);
    nb_parallel(nb_ceildiv(all->p->cols, NB_LANES), solve_stripe, all);
    return !atomic_load(&all->no_memory);
}

bool nb_gptq_solve(const nb_gptq *problem) {
    const int64_t n = problem->rows, rounded = n - problem->n_exact;
    work all = {.p = problem};
    if (problem->n_exact) {
        all.exact_of = malloc((size_t)n * sizeof *all.exact_of);
        if (!all.exact_of) return false;
        for (int64_t i = 0; i < n; i++)
            all.exact_of[problem->hessian->order[i]] = i < rounded ? -1 : (int32_t)(i - rounded);
    }
    const bool ok = solve_all(&all);
    free(all.exact_of);
    return ok;
}

bool nb_gptq_sensitivities(const nb_gptq *problem, double *out) {
    const int64_t n = problem->rows, stripes = nb_ceildiv(problem->cols, NB_LANES);
    work all = {.p = problem, .costs = calloc((size_t)(n * stripes) + 1, sizeof(double))};
    const bool ok = all.costs && solve_all(&all);
    for (int64_t i = 0; ok && i < n; i++) {
        out[i] = 0;
        for (int64_t k = 0; k < stripes; k++) out[i] += all.costs[k * n + i];
    }
    free(all.costs);
    return ok;
}
