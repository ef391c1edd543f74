/* What data count: bind, and the suppression of boxes that overlap better ones (NUMBERS.md). */
#include "ir/eval_private.h"

/* A counted symbol has no value before its first `bind` in a run of a region. */
nb_status nb_eval_counted(const nb_evaluating *e) {
    const int64_t n = nb_tensor_get_int(&e->in[0], 0);
    const nb_attr *most = nb_attr_of(e->op, "most");
    const nb_symbol *s = nb_bound_by(e->op);
    int64_t bound;
    nb_tensor_set_int(e->out, 0, n);
    if (most->set) {
        NB_TRY(nb_dim_value(e, most->dims.items[0], &bound));
        if (n > bound)
            return nb_eval_error(e, "%lld are more than %lld", (long long)n, (long long)bound);
    }
    if (s && e->symbols[s->index] == NB_UNBOUND) {
        if (n < s->min || n > s->max)
            return nb_eval_error(e, "%s is %lld, outside %lld..%lld", s->name, (long long)n,
                                 (long long)s->min, (long long)s->max);
        e->symbols[s->index] = n;
        return NB_OK;
    }
    const nb_dim *size = nb_attr_of(e->op, "size")->dims.items[0];
    NB_TRY(nb_dim_value(e, size, &bound));
    if (n == bound) return NB_OK;
    return nb_eval_error(e, "%s is %lld, expected %lld", nb_dim_text(e->arena, size), (long long)n,
                         (long long)bound);
}

/* ---- nms ----------------------------------------------------------------------------------- */

typedef struct box {
    float low[2], high[2], area;
} box;

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }

static box box_of(const float *v, bool center) {
    box b;
    for (int d = 0; d < 2; d++) {
        const float p = v[d], q = v[d + 2], half = q * 0.5F;
        b.low[d] = center ? p - half : smaller(p, q);
        b.high[d] = center ? p + half : larger(p, q);
    }
    b.area = (b.high[0] - b.low[0]) * (b.high[1] - b.low[1]);
    return b;
}

/* Is intersection / union above `most`? Boxes without an area overlap none. */
static bool overlaps(const box *a, const box *b, float most) {
    float side[2];
    for (int d = 0; d < 2; d++)
        side[d] = smaller(a->high[d], b->high[d]) - larger(a->low[d], b->low[d]);
    const float both = side[0] * side[1], any = a->area + b->area - both;
    return side[0] > 0 && side[1] > 0 && a->area > 0 && b->area > 0 && any > 0 && both / any > most;
}

/* The boxes of one class; `alive`: those that may still be taken. */
static void suppress(const nb_evaluating *e, const float *boxes, const float *scores, int64_t n,
                     bool *alive, int64_t *places) {
    const int64_t limit = nb_tensor_get_int(&e->in[2], 0);
    const float most = (float)nb_tensor_get(&e->in[3], 0),
                least = (float)nb_tensor_get(&e->in[4], 0);
    const bool center = nb_attr_bool(e->op, "center");
    int64_t taken = 0;
    for (int64_t i = 0; i < n; i++) {
        alive[i] = scores[i] > least;
        places[i] = -1;
    }
    while (taken < limit) {
        int64_t best = -1;
        for (int64_t i = 0; i < n; i++)
            if (alive[i] && (best < 0 || scores[i] > scores[best])) best = i;
        if (best < 0) return;
        const box winner = box_of(boxes + 4 * best, center);
        places[taken++] = best;
        alive[best] = false;
        for (int64_t i = 0; i < n; i++) {
            const box b = box_of(boxes + 4 * i, center);
            if (alive[i] && overlaps(&winner, &b, most)) alive[i] = false;
        }
    }
}

nb_status nb_eval_nms(const nb_evaluating *e) {
    const nb_tensor *scores = &e->in[1];
    const float *boxes = e->in[0].data, *all = scores->data;
    const int64_t classes = scores->dims[1], n = scores->dims[2];
    int64_t *places = e->out->data;
    bool *alive = NB_NEW_ARRAY(e->arena, bool, (size_t)n + 1);
    for (int64_t i = 0; n && i < scores->dims[0] * classes; i++)
        suppress(e, boxes + i / classes * n * 4, all + i * n, n, alive, places + i * n);
    return NB_OK;
}
