/* clip-weights: clips the weights of products, those in bodies of loops too, to a limit.
 *
 *   requires   nothing; behind calibrate it says what the products' inputs reach
 *   maintains  all types
 *
 * Weights are read and written piece by piece: one of any size never stands in memory twice. */
#include "nb_pass.h"

#include <string.h>

enum { LIMIT, SKIP };
static const nb_option clip_options[] = {
    {.name = "limit",
     .kind = NB_OPTION_FLOAT,
     .fallback = "1",
     .min = 1e-6,
     .max = 1e6,
     .summary = "largest |w|"},
    {.name = "skip", .kind = NB_OPTION_SELECTOR, .fallback = "", .summary = "nodes left alone"},
    {.name = NULL},
};

enum { PIECE = 1024 };

typedef struct source {
    nb_pass_ctx *ctx;
    const nb_value *weight;
    float limit;
} source;

static float clip(float w, float limit) { return w > limit ? limit : w < -limit ? -limit : w; }

/* How many weights are beyond the limit; -1 after a diagnostic. */
static int64_t count_beyond(const source *s, int64_t n) {
    float piece[PIECE];
    int64_t beyond = 0;
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t count = n - from < PIECE ? n - from : PIECE;
        if (!s->ctx->host->const_floats(s->ctx, s->weight, from, count, piece)) return -1;
        for (int64_t i = 0; i < count; i++) beyond += piece[i] != clip(piece[i], s->limit);
    }
    return beyond;
}

/* An nb_fill_fn: a part of the new constant. */
static int fill(void *user, int64_t offset, int64_t bytes, void *data) {
    const source *s = user;
    float *w = data;
    const int64_t count = bytes / (int64_t)sizeof *w;
    if (!s->ctx->host->const_floats(s->ctx, s->weight, offset / (int64_t)sizeof *w, count, w))
        return 0;
    for (int64_t i = 0; i < count; i++) w[i] = clip(w[i], s->limit);
    return 1;
}

/* 1: the weight of this product is another now; -1 after a diagnostic. */
static int clip_weight(nb_pass_ctx *ctx, nb_op *op) {
    const nb_pass_host *h = ctx->host;
    nb_value *x = h->operand(op, 0), *w = h->operand(op, 1);
    if (!h->is_const(w) || h->is_quantized(w) || h->value_elem(w) != 1) return 0;
    if (h->selected(ctx, "skip", op)) return 0;
    source s = {ctx, w, (float)ctx->options[LIMIT].f};
    nb_array shape = {.elem = 1, .rank = h->value_rank(w)};
    int64_t n = 1;
    for (int32_t i = 0; i < shape.rank; i++) n *= shape.dims[i] = h->value_dim(w, i);
    const int64_t beyond = count_beyond(&s, n);
    if (beyond <= 0) return (int)beyond;

    nb_stats_view seen = {.size = sizeof seen};
    h->report(ctx, NB_LEVEL_INFO, op, "%lld of %lld weights are beyond %g", (long long)beyond,
              (long long)n, (double)s.limit);
    if (h->stats(ctx, x, &seen)) h->note(ctx, "its inputs reach %g", (double)seen.clip);
    nb_value *clipped = h->make_const_by(ctx, h->value_name(w), &shape, fill, &s);
    if (!clipped || !h->set_operand(ctx, op, 1, clipped)) return -1;
    h->const_rest(ctx, w);
    return 1;
}

/* Ops in order, those of bodies behind the op that has them; how many changed, -1 on an error. */
static int walk(nb_pass_ctx *ctx, nb_op *op) {
    const nb_pass_host *h = ctx->host;
    int changed = 0;
    for (; op; op = h->next_op(op)) {
        int now = strcmp(h->op_name(op), "matmul") == 0 ? clip_weight(ctx, op) : 0;
        for (size_t b = 0; now >= 0 && b < h->body_count(op); b++) {
            const int inside = walk(ctx, h->body_first_op(op, b));
            now = inside < 0 ? -1 : now + inside;
        }
        if (now < 0) return -1;
        changed += now;
    }
    return changed;
}

static nb_pass_result clip_weights(nb_pass_ctx *ctx) {
    const int changed = walk(ctx, ctx->host->first_op(ctx->graph));
    if (changed < 0) return NB_PASS_FAILED;
    if (changed) ctx->host->sweep(ctx);
    return changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}

static const nb_pass clip_pass = {
    .size = sizeof(nb_pass),
    .name = "clip-weights",
    .summary = "clips the weights of products to a limit",
    .options = clip_options,
    .run = clip_weights,
};

static const nb_pass *const passes[] = {&clip_pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "clip-weights",
    .passes = passes,
};
