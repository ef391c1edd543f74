/* quantize-codebook: weights of linear layers by a codebook of one's own.
 *
 *   requires   simplify, raise
 *   maintains  every output, up to the rounding of weights
 *
 *   %y: f32[B,2] = matmul %x, @w
 *   ->
 *   %d: f32[4,2] = dequantize @w.codes
 *   %y: f32[B,2] = matmul %x, %d
 *
 * A codebook is a list of integers from -127 to 127. Each run of `group` inputs of a column shares
 * a scale; a weight becomes the entry that, times the scale, comes nearest. The scale is the best
 * of some, by the squared error. Codes are kept as i8, which Nibble multiplies by activations of 8
 * or 16 bits: behind this pass, `insert-qdq, fuse-dequant` do the rest as for any other weights.
 * The default entries are those of NF4, the quantiles of a normal distribution, to 7 bits. */
#include "nb_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES, GROUP, SKIP };
static const nb_option options[] = {
    {.name = "entries",
     .kind = NB_OPTION_STRING,
     .fallback = "-127 -88 -67 -50 -36 -23 -12 0 10 20 31 43 56 71 92 127",
     .summary = "what a weight may be, as integers from -127 to 127 in increasing order"},
    {.name = "group",
     .kind = NB_OPTION_INT,
     .fallback = "32",
     .min = 1,
     .max = 65536,
     .summary = "inputs of a column that share a scale"},
    {.name = "skip",
     .kind = NB_OPTION_SELECTOR,
     .fallback = "",
     .summary = "ONNX nodes to leave alone"},
    {.name = NULL},
};

#define F32 1
#define I8  3

/* Scales that are tried for a run of weights: the one that takes the largest weight to the largest
 * entry, times 1, 0.975, ... */
#define TRIES 17
#define STEP  0.025f

typedef struct codebook {
    int8_t entries[256];
    int count;
} codebook;

/* 0 after an error. */
static int read_codebook(nb_pass_ctx *ctx, codebook *book) {
    const char *text = ctx->options[ENTRIES].s;
    char *end;
    long last = -128;
    int ok = 1;
    book->count = 0;
    for (; ok && text[strspn(text, " ")]; text = end) {
        long v = strtol(text, &end, 10);
        ok = end != text && v > last && v <= 127;
        if (ok) book->entries[book->count++] = (int8_t)v;
        last = v;
    }
    if (ok && book->count >= 2) return 1;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "entries are at least two integers from -127 to 127 in increasing order");
    return 0;
}

static int8_t nearest(const codebook *book, float x) {
    int8_t best = book->entries[0];
    for (int i = 1; i < book->count; i++)
        if (fabsf(x - (float)book->entries[i]) < fabsf(x - (float)best)) best = book->entries[i];
    return best;
}

/* Rounds n weights, `stride` apart; returns the scale. */
static float round_run(const codebook *book, const float *w, int64_t n, int64_t stride,
                       int8_t *codes) {
    float amax = 0, most = 0, best_scale = 1;
    double best = -1;
    for (int64_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(w[i * stride]));
    for (int i = 0; i < book->count; i++) most = fmaxf(most, fabsf((float)book->entries[i]));
    for (int t = 0; amax > 0 && t < TRIES; t++) {
        const float scale = amax / most * (1 - STEP * (float)t);
        double error = 0;
        for (int64_t i = 0; i < n; i++) {
            double e =
                (double)(w[i * stride] - scale * (float)nearest(book, w[i * stride] / scale));
            error += e * e;
        }
        if (best >= 0 && error >= best) continue;
        best = error;
        best_scale = scale;
    }
    for (int64_t i = 0; i < n; i++) codes[i * stride] = nearest(book, w[i * stride] / best_scale);
    return best_scale;
}

/* A weight [k,n] as dequantize of codes, placed before `op`; NULL after an error. */
static nb_value *rounded(nb_pass_ctx *ctx, nb_op *op, const codebook *book, const nb_value *w) {
    const nb_pass_host *h = ctx->host;
    const int64_t k = h->value_dim(w, 0), n = h->value_dim(w, 1), group = ctx->options[GROUP].i;
    const int64_t runs = (k + group - 1) / group;
    float *weights = h->scratch(ctx, (size_t)(k * n) * sizeof *weights);
    float *scales = h->scratch(ctx, (size_t)(runs * n) * sizeof *scales);
    int8_t *codes = h->scratch(ctx, (size_t)(k * n));
    if (!weights || !scales || !codes || !h->const_floats(ctx, w, 0, k * n, weights)) return NULL;
    h->const_rest(ctx, w);
    for (int64_t i = 0; i < k * n; i++) {
        if (isfinite(weights[i])) continue;
        h->report_value(ctx, NB_LEVEL_ERROR, w, "column %lld holds a number that is not finite",
                        (long long)(i % n));
        return NULL;
    }
    for (int64_t r = 0; r < runs; r++) {
        const int64_t from = r * group, rows = from + group < k ? group : k - from;
        for (int64_t c = 0; c < n; c++)
            scales[r * n + c] =
                round_run(book, weights + from * n + c, rows, n, codes + from * n + c);
    }
    const nb_value *scale_const = h->make_const(
        ctx, "scale", &(nb_array){.elem = F32, .rank = 2, .dims = {runs, n}, .data = scales});
    if (!scale_const) return NULL;
    const char *quant = h->make_quant(ctx, &(nb_quant_arg){.size = sizeof(nb_quant_arg),
                                                           .name = h->value_name(w),
                                                           .storage = "i8",
                                                           .axis = 0,
                                                           .group = group,
                                                           .scales = scale_const,
                                                           .narrow = 1});
    if (!quant) return NULL;
    nb_value *made =
        h->make_codes(ctx, h->value_name(w),
                      &(nb_array){.elem = I8, .rank = 2, .dims = {k, n}, .data = codes}, quant);
    return made ? h->build(ctx, op, "dequantize", &made, 1, NULL, 0) : NULL;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    nb_pass_result result = NB_PASS_UNCHANGED;
    codebook book;
    if (!read_codebook(ctx, &book)) return NB_PASS_FAILED;
    for (nb_op *op = h->first_op(ctx->graph); op; op = h->next_op(op)) {
        if (strcmp(h->op_name(op), "matmul") != 0) continue;
        const nb_value *w = h->operand(op, 1);
        if (!h->is_const(w) || h->is_quantized(w) || h->value_elem(w) != F32 ||
            h->value_rank(w) != 2 || h->selected(ctx, "skip", op))
            continue;
        nb_value *d = rounded(ctx, op, &book, w);
        if (!d || !h->set_operand(ctx, op, 1, d)) return NB_PASS_FAILED;
        result = NB_PASS_CHANGED;
    }
    if (result == NB_PASS_CHANGED) h->sweep(ctx);
    return result;
}

static const nb_pass pass = {
    .size = sizeof(nb_pass),
    .name = "quantize-codebook",
    .summary = "round the weights of linear layers to a codebook of one's own",
    .options = options,
    .run = run,
};
static const nb_pass *const passes[] = {&pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "codebook",
    .passes = passes,
};
