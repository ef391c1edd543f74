/* Round to nearest (rtn.h). */
#include "passes/rtn.h"

#include "ir/support/parallel.h"
#include "passes/grid.h"
#include "passes/hqq.h"

#include <stdatomic.h>
#include <stdlib.h>

#define RUNS NB_RTN_RUNS

/* The range is tried at 1 + STRETCHES*STEP, ... 1, 1-STEP, ... STEPS times. Wider ones pay where an
 * end is clipped: by the code that is not there, or by the rounding of a zero point. Below 0.6
 * clipping always loses at 4 bits and more, below 0.2 at fewer. */
#define STRETCHES 4
#define STEPS     20
#define STEPS_LOW 40
#define STEP      0.02f
#define ROUNDS    2 /* of both ends */
#define REFITS    4

/* What turns weights into codes, for each run: code - zero = clip(rint(w / scale), low, high). */
typedef struct grid {
    float scale[RUNS], low[RUNS], high[RUNS];
    int64_t zero[RUNS];
} grid;

static NB_INLINE void set_run(const nb_rtn *rtn, grid *g, int c, float lo, float hi) {
    const int64_t top = nb_rtn_top(rtn), bottom = nb_rtn_bottom(rtn);
    const float amax = hi > -lo ? hi : -lo;
    g->zero[c] = 0;
    if (rtn->asymmetric) {
        g->scale[c] = nb_stored_scale(rtn->half, (hi - lo) / (float)top);
        float z = -lo / g->scale[c];
        g->zero[c] = z < 0 ? 0 : z > (float)top ? top : (int64_t)nb_round_small(z);
    } else if (rtn->range == NB_RTN_FULL) {
        g->scale[c] = nb_stored_scale(rtn->half, (hi > -lo ? hi : lo) / (float)bottom);
    } else if (rtn->range == NB_RTN_EVEN) {
        g->scale[c] = nb_stored_scale(rtn->half, 2 * amax / (float)(top - bottom));
    } else {
        g->scale[c] = nb_stored_scale(rtn->half, amax / (float)top);
    }
    g->low[c] = (float)(bottom - g->zero[c]);
    g->high[c] = (float)(top - g->zero[c]);
}

static NB_INLINE float step_of(const grid *g, int c, float w) {
    return nb_nearest_step(w / g->scale[c], g->low[c], g->high[c]);
}

static NB_INLINE void squared_errors(const nb_rtn *rtn, const grid *g, const float *w, int64_t n,
                                     double *sums) {
    double total[RUNS] = {0};
    for (int64_t i = 0; i < n; i++, w += RUNS) {
        const double importance = rtn->importance ? (double)rtn->importance[i] : 1;
        for (int c = 0; c < RUNS; c++) {
            double d = (double)(step_of(g, c, w[c]) * g->scale[c]) - (double)w[c];
            total[c] += d * d * importance;
        }
    }
    memcpy(sums, total, sizeof total);
}

static NB_INLINE void ranges(const float *w, int64_t n, float *lo, float *hi) {
    for (int c = 0; c < RUNS; c++) lo[c] = hi[c] = 0;
    for (int64_t i = 0; i < n; i++, w += RUNS) {
        for (int c = 0; c < RUNS; c++) {
            lo[c] = w[c] < lo[c] ? w[c] : lo[c];
            hi[c] = w[c] > hi[c] ? w[c] : hi[c];
        }
    }
}

/* What is best so far, of 16 runs. */
typedef struct fitting {
    const nb_rtn *rtn;
    const float *w;
    int64_t n;
    float lo[RUNS], hi[RUNS];                  /* the ranges of the weights */
    float low_factor[RUNS], high_factor[RUNS]; /* of what is best */
    double error[RUNS];
    float *scales;
    int64_t *zeros;
} fitting;

enum { LOW_END = 1, HIGH_END = 2 };

static NB_INLINE void set_grid(const nb_rtn *rtn, grid *g, const float *scales,
                               const int64_t *zeros) {
    for (int c = 0; c < RUNS; c++) {
        g->scale[c] = scales[c];
        g->zero[c] = zeros[c];
        g->low[c] = (float)(nb_rtn_bottom(rtn) - zeros[c]);
        g->high[c] = (float)(nb_rtn_top(rtn) - zeros[c]);
    }
}

/* Takes over what is better; which runs those are. */
static NB_INLINE void keep_better(fitting *f, const grid *g, bool *better) {
    double errors[RUNS];
    squared_errors(f->rtn, g, f->w, f->n, errors);
    for (int c = 0; c < RUNS; c++) {
        better[c] = errors[c] < f->error[c];
        if (!better[c]) continue;
        f->error[c] = errors[c];
        f->scales[c] = g->scale[c];
        f->zeros[c] = g->zero[c];
    }
}

/* Tries the factors of the grid for the ends; what is not one of them keeps its factor. */
static NB_INLINE void try_factors(fitting *f, int ends) {
    const int steps = f->rtn->bits < 4 ? STEPS_LOW : STEPS;
    for (int i = -STRETCHES; i <= steps; i++) {
        const float factor = 1.0f - STEP * (float)i;
        grid g;
        bool better[RUNS];
        for (int c = 0; c < RUNS; c++)
            set_run(f->rtn, &g, c, f->lo[c] * (ends & LOW_END ? factor : f->low_factor[c]),
                    f->hi[c] * (ends & HIGH_END ? factor : f->high_factor[c]));
        keep_better(f, &g, better);
        for (int c = 0; c < RUNS; c++) {
            if (better[c] && ends & LOW_END) f->low_factor[c] = factor;
            if (better[c] && ends & HIGH_END) f->high_factor[c] = factor;
        }
    }
}

static NB_INLINE void refit_scales(fitting *f) {
    grid g;
    bool better[RUNS];
    double products[RUNS] = {0}, squares[RUNS] = {0};
    set_grid(f->rtn, &g, f->scales, f->zeros);
    for (int64_t i = 0; i < f->n; i++) {
        const double importance = f->rtn->importance ? (double)f->rtn->importance[i] : 1;
        for (int c = 0; c < RUNS; c++) {
            const float w = f->w[i * RUNS + c];
            const double step = (double)step_of(&g, c, w);
            products[c] += importance * step * (double)w;
            squares[c] += importance * step * step;
        }
    }
    for (int c = 0; c < RUNS; c++) {
        const float scale = squares[c] > 0 ? (float)(products[c] / squares[c]) : 0;
        if (scale * g.scale[c] > 0) g.scale[c] = nb_stored_scale(f->rtn->half, scale);
    }
    keep_better(f, &g, better);
}

NB_VECTORS void nb_rtn_fit(const nb_rtn *rtn, const float *w, int64_t n, float *scales,
                           int64_t *zeros) {
    fitting f = {.rtn = rtn, .w = w, .n = n, .scales = scales, .zeros = zeros};
    grid g;
    ranges(w, n, f.lo, f.hi);
    for (int c = 0; c < RUNS; c++) {
        set_run(rtn, &g, c, f.lo[c], f.hi[c]);
        scales[c] = g.scale[c];
        zeros[c] = g.zero[c];
        f.low_factor[c] = f.high_factor[c] = 1;
    }
    if (rtn->search) {
        squared_errors(rtn, &g, w, n, f.error);
        try_factors(&f, LOW_END | HIGH_END);
        for (int i = 0; i < ROUNDS && rtn->search == NB_RTN_ENDS && rtn->asymmetric; i++) {
            try_factors(&f, LOW_END);
            try_factors(&f, HIGH_END);
        }
        for (int i = 0; i < REFITS; i++) refit_scales(&f);
    }
    if (rtn->hqq) nb_hqq_fit(rtn, w, n, scales, zeros);
}

NB_VECTORS void nb_rtn_codes(const nb_rtn *rtn, const float *w, int64_t n, const float *scales,
                             const int64_t *zeros, uint8_t *codes) {
    grid g;
    set_grid(rtn, &g, scales, zeros);
    for (int64_t i = 0; i < n; i++, w += RUNS, codes += RUNS) {
        for (int c = 0; c < RUNS; c++)
            codes[c] = (uint8_t)((int)step_of(&g, c, w[c]) + (int)g.zero[c]);
    }
}

/* ---- whole matrices ------------------------------------------------------------------------- */

typedef struct matrix {
    const nb_rtn *rtn;
    const float *w;
    int64_t rows, cols, group;
    float *to;
    atomic_bool no_memory;
} matrix;

/* One group of 16 columns. */
static void round_group(const matrix *m, int64_t first, int64_t column, float *room) {
    const int64_t n = nb_min_i64(m->group, m->rows - first),
                  count = nb_min_i64(RUNS, m->cols - column);
    float scales[RUNS];
    int64_t zeros[RUNS];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < RUNS; c++)
            room[i * RUNS + c] = c < count ? m->w[(first + i) * m->cols + column + c] : 0;
    }
    nb_rtn_fit(m->rtn, room, n, scales, zeros);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < count; c++) {
            const float low = (float)(nb_rtn_bottom(m->rtn) - zeros[c]),
                        high = (float)(nb_rtn_top(m->rtn) - zeros[c]);
            m->to[(first + i) * m->cols + column + c] =
                scales[c] * nb_nearest_step(room[i * RUNS + c] / scales[c], low, high);
        }
    }
}

static void round_columns(void *user, int64_t turn) {
    matrix *m = user;
    float *room = malloc((size_t)(m->group * RUNS + 1) * sizeof *room);
    if (!room) atomic_store(&m->no_memory, true);
    for (int64_t first = 0; room && first < m->rows; first += m->group)
        round_group(m, first, turn * RUNS, room);
    free(room);
}

bool nb_rtn_round(const nb_rtn *rtn, const float *w, int64_t rows, int64_t cols, int64_t group,
                  float *to) {
    matrix m = {.rtn = rtn,
                .w = w,
                .rows = rows,
                .cols = cols,
                .group = group > 0 && group < rows ? group : rows,
                .to = to};
    nb_parallel(nb_ceildiv(cols, RUNS), round_columns, &m);
    return !atomic_load(&m.no_memory);
}
