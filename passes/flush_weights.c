/* flush-weights: weights and biases too small to matter become 0.
 *
 *   requires   before quantize-weights and plan-memory
 *   maintains  the function, but for what is below 2^-100 of an input
 *
 * Training with weight decay leaves channels that nothing uses at magnitudes down to the smallest
 * denormal. Many x86-64 cores multiply a denormal a hundred times slower than other numbers
 * (Intel 64 and IA-32 Architectures Optimization Reference Manual, "Floating-point Exceptions"),
 * and scales of such weights would be denormal as well.
 *
 *   const @w: f32[2] = {1e-39, 0.5}          ->  const @w: f32[2] = {0, 0.5}
 */
#include "passes/pass.h"

#include <math.h>
#include <string.h>

#define ONNX_F32 1
/* Their products with scales and inputs of usual sizes are far from denormal. */
#define LEAST 0x1p-100F
/* Elements that are looked at at once. */
#define PIECE 4096

typedef struct weights {
    nb_pass_ctx *ctx;
    const nb_value *value;
    int64_t count;
} weights;

/* Not NaN, which stays what it is. */
static int is_small(float x) { return x != 0 && fabsf(x) < LEAST; }

static int is_layer(const nb_pass_host *h, const nb_op *op) {
    static const char *const layers[] = {"matmul", "conv", "depthwise"};
    int found = 0;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        found |= strcmp(h->op_name(op), layers[i]) == 0;
    return found;
}

/* The f32 constant that is operand `i`; 0: it is none. */
static int find_weights(nb_pass_ctx *ctx, const nb_op *op, size_t i, weights *out) {
    const nb_pass_host *h = ctx->host;
    const nb_value *v = h->operand(op, i);
    *out = (weights){.ctx = ctx, .value = v, .count = 1};
    if (!v || !h->is_const(v) || h->is_quantized(v) || h->value_elem(v) != ONNX_F32) return 0;
    for (int32_t d = 0; d < h->value_rank(v); d++) out->count *= h->value_dim(v, d);
    return 1;
}

/* 1 there are small ones, 0 there are none, -1 error. */
static int has_small(const weights *w) {
    const nb_pass_host *h = w->ctx->host;
    float piece[PIECE];
    int found = 0;
    for (int64_t at = 0; at < w->count && !found; at += PIECE) {
        const int64_t n = w->count - at < PIECE ? w->count - at : PIECE;
        if (!h->const_floats(w->ctx, w->value, at, n, piece)) return -1;
        for (int64_t i = 0; i < n; i++) found |= is_small(piece[i]);
    }
    return h->const_rest(w->ctx, w->value) ? found : -1;
}

static int fill(void *user, int64_t offset, int64_t bytes, void *data) {
    const weights *w = user;
    const int64_t n = bytes / (int64_t)sizeof(float);
    float *x = data;
    if (!w->ctx->host->const_floats(w->ctx, w->value, offset / (int64_t)sizeof *x, n, x)) return 0;
    for (int64_t i = 0; i < n; i++) x[i] = is_small(x[i]) ? 0 : x[i];
    return 1;
}

/* 1 flushed, 0 left alone, -1 error. */
static int flush(nb_pass_ctx *ctx, nb_op *op, size_t i) {
    const nb_pass_host *h = ctx->host;
    weights w;
    const int found = find_weights(ctx, op, i, &w) ? has_small(&w) : 0;
    if (found <= 0) return found;
    nb_array shape = {.elem = ONNX_F32, .rank = h->value_rank(w.value)};
    for (int32_t d = 0; d < shape.rank; d++) shape.dims[d] = h->value_dim(w.value, d);
    nb_value *flushed = h->make_const_by(ctx, h->value_name(w.value), &shape, fill, &w);
    return flushed && h->replace_uses(ctx, h->operand(op, i), flushed) ? 1 : -1;
}

/* From `op` to the end of its body, and in bodies. */
static int flush_from(nb_pass_ctx *ctx, nb_op *op) {
    const nb_pass_host *h = ctx->host;
    int flushed = 0, now = 0;
    for (; op && now >= 0; op = h->next_op(op)) {
        for (size_t i = 1; i < h->operand_count(op) && now >= 0 && is_layer(h, op); i++) {
            now = flush(ctx, op, i);
            flushed |= now;
        }
        for (size_t b = 0; b < h->body_count(op) && now >= 0; b++) {
            now = flush_from(ctx, h->body_first_op(op, b));
            flushed |= now;
        }
    }
    return now < 0 ? -1 : flushed;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    if (nb_state_of(ctx)->env->estimating) return NB_PASS_UNCHANGED; /* nobody sees numbers */
    const int flushed = flush_from(ctx, ctx->host->first_op(ctx->graph));
    if (flushed > 0) ctx->host->sweep(ctx);
    return flushed < 0 ? NB_PASS_FAILED : flushed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}

const nb_pass nb_pass_flush_weights = {
    .size = sizeof(nb_pass),
    .name = "flush-weights",
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS,
    .summary = "make 0 of weights below 2^-100, which cores are slow with and results do not show",
};
