/* Searches for factors (smooth.h) by what the layers make of the samples.
 *
 * AWQ (Lin et al., arXiv 2306.00978): channels that are large on average matter most to 4-bit
 * weights, so their weights are multiplied, by mean|x|^alpha. Its objective, the mean squared error
 * of a block's output, is taken at the layers that read x: for weights alone it is tr(D' H D) with
 * the errors D of the weights and the moments H of the rows seen, so that no forward pass is
 * needed. Its search for clipped ranges is quantize-weights{search, importance=inputs}.
 *
 * OmniQuant (Shao et al., arXiv 2308.13137) learns a factor for each channel by gradients. Here
 * factors change without them, from AWQ's best on: channels of similar size make a cluster, each
 * cluster's factors are raised or lowered in turn, and what does not lower the loss is undone. */
#include "passes/smooth.h"

#include <stdlib.h>
#include <string.h>

#define ALPHAS     10 /* of SmoothQuant: 0.1, 0.2 ... 1 */
#define ALPHAS_AWQ 20 /* 0.05, 0.1 ... 0.95 */
#define CLUSTERS   16 /* so that the work does not grow with the number of channels */

typedef struct search {
    const nb_site *site;
    const nb_rows_seen *seen;
    const nb_smooth_aim *aim;
    double loss;              /* of what is best */
    float *best, *tried;      /* [factors] */
    double alpha, best_alpha; /* that was tried, and that is best */
    bool moves;
} search;

/* Takes over what was tried where it is better. */
static bool judge(search *t) {
    const double loss = nb_smooth_loss(t->site, t->seen, t->aim, t->tried);
    if (!(loss >= 0 && loss < t->loss)) return false; /* nor where it is NaN */
    t->loss = loss;
    t->best_alpha = t->alpha;
    memcpy(t->best, t->tried, (size_t)t->site->factors * sizeof *t->best);
    return t->moves = true;
}

typedef struct ranked {
    float size;
    int64_t factor;
} ranked;

static int rising(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return x->factor < y->factor ? -1 : 1;
}

/* Times `by` for the factors of list[from..to). */
static bool try_cluster(search *t, const ranked *list, int64_t from, int64_t to, float by) {
    memcpy(t->tried, t->best, (size_t)t->site->factors * sizeof *t->best);
    for (int64_t i = from; i < to; i++) t->tried[list[i].factor] *= by;
    return judge(t);
}

static void descend(search *t, nb_arena *scratch) {
    static const float steps[] = {1.4F, 1.2F};
    const int64_t n = t->site->factors, clusters = nb_min_i64(CLUSTERS, n);
    ranked *list = NB_NEW_ARRAY(scratch, ranked, (size_t)n);
    for (int64_t f = 0; f < n; f++) list[f] = (ranked){t->seen->mean[f], f};
    qsort(list, (size_t)n, sizeof *list, rising);
    for (size_t i = 0; i < NB_COUNT(steps); i++) {
        for (int64_t k = 0; k < clusters; k++) {
            const int64_t from = k * n / clusters, to = (k + 1) * n / clusters;
            if (!try_cluster(t, list, from, to, steps[i]))
                try_cluster(t, list, from, to, 1 / steps[i]);
        }
    }
}

bool nb_smooth_search(const nb_site *site, const nb_rows_seen *seen, const nb_smooth_aim *aim,
                      nb_smooth_method method, nb_arena *scratch, float *s, double *alpha) {
    search t = {.site = site, .seen = seen, .aim = aim, .best = s};
    t.tried = NB_NEW_ARRAY(scratch, float, (size_t)site->factors);
    for (int64_t f = 0; f < site->factors; f++) s[f] = 1;
    t.loss = nb_smooth_loss(site, seen, aim, s);
    for (int i = 1; i <= ALPHAS && method == NB_SMOOTHQUANT; i++) {
        t.alpha = (double)i / ALPHAS;
        nb_smooth_factors(site, seen->amax, (float)t.alpha, t.tried);
        judge(&t);
    }
    for (int i = 1; i < ALPHAS_AWQ && method != NB_SMOOTHQUANT; i++) {
        t.alpha = (double)i / ALPHAS_AWQ;
        nb_awq_factors(site, seen->mean, (float)t.alpha, t.tried);
        judge(&t);
    }
    t.alpha = t.best_alpha;
    if (method == NB_OMNIQUANT) descend(&t, scratch);
    *alpha = t.best_alpha;
    return t.moves;
}
