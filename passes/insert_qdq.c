/* insert-qdq: quantizes the activations of linear layers whose weights are quantized.
 *
 *   requires   quantize-weights; calibrate, for mode=static
 *   maintains  stage QDQ; one quantize for each distinct input, shared by its layers
 *
 *   %y: f32[B,2] = matmul %n, %w.d           (%w.d = dequantize @w.q)
 * becomes
 *   %n.q: #act_i8[B,4] = quantize %n {to=#act_i8}
 *   %n.d: f32[B,4] = dequantize %n.q
 *   %y: f32[B,2] = matmul %n.d, %w.d */
#include "ir/build.h"
#include "passes/linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const acts[] = {"i8", "i16", NULL};
static const char *const modes[] = {"dynamic", "static", NULL};

enum { BLOCKS_NONE, BLOCKS_GATED, BLOCKS_ALL };
static const char *const blocks[] = {"none", "gated", "all", NULL};

static const nb_option options[] = {
    {.name = "act",
     .kind = NB_OPTION_ENUM,
     .fallback = "i8",
     .choices = acts,
     .summary = "codes of activations: i8 (a8 schemes) or i16 (a16: two 8-bit planes)"},
    {.name = "mode",
     .kind = NB_OPTION_ENUM,
     .fallback = "dynamic",
     .choices = modes,
     .summary = "dynamic: a scale per token, at run time; static: one per tensor, from calibrate"},
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of layers that stay in float ('*' any text, '|' or)"},
    {.name = "blocks",
     .kind = NB_OPTION_ENUM,
     .fallback = "none",
     .choices = blocks,
     .summary = "dynamic scales for each block of a token, as long as the weights' groups: for no "
                "input, for products of two activations (gated layers), for all"},
    {.name = NULL},
};

/* Static scale: the bound that calibrate chose, spread over the codes. */
static bool static_scale(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x, nb_quant *q) {
    const nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, x);
    if (!stats) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, op,
                          "static scales need statistics of '%%%s', and there are none", x->name);
        ctx->host->help(
            ctx,
            "give calibration data with --calib and run calibrate before, or use mode=dynamic");
        return false;
    }
    q->granularity = NB_PER_TENSOR;
    q->scale = stats->clip > 0 ? stats->clip / (float)q->amax_code : 1.0f;
    return true;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Channels this many times the median take bits from all others of their token. */
#define OUTLIER 16.0f

/* Ranges of x's channels: what calibrate saw, or, without data, the gain of the norm that made it.
 */
static const float *channel_ranges(nb_pass_ctx *ctx, const nb_value *x, int64_t *n) {
    const nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, x);
    if (stats) {
        *n = stats->channels;
        return stats->amax;
    }
    bool norm = x->def && (x->def->kind == NB_OP_rms_norm || x->def->kind == NB_OP_layer_norm);
    const nb_value *gain = norm ? nb_in(x->def, 1) : NULL;
    if (!gain || !nb_is_const(gain) || gain->type->elem != NB_F32) return NULL;
    *n = gain->type->dims[0]->value;
    return gain->blob->data;
}

/* Outliers are few; a layer most of whose channels rest has none. */
#define FEW 20

/* The layer whose input has the worst outlier channels, and how many layers have some. */
typedef struct worst {
    const nb_op *op;
    const nb_value *x;
    float ratio; /* of the largest channel to the median */
    int64_t outliers, channels;
    size_t layers;
} worst;

static void look_for_outliers(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x, worst *w) {
    int64_t n = 0, outliers = 0;
    const float *range = channel_ranges(ctx, x, &n);
    if (!range || n < FEW) return;
    float *sorted = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n);
    for (int64_t i = 0; i < n; i++) sorted[i] = fabsf(range[i]);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    float median = sorted[n / 2], ratio = sorted[n - 1] / median;
    for (int64_t i = 0; i < n; i++) outliers += sorted[i] > OUTLIER * median;
    if (!outliers || outliers > n / FEW || !(median > 0)) return;
    w->layers++;
    if (ratio > w->ratio) *w = (worst){op, x, ratio, outliers, n, w->layers};
}

/* Says when 8 bits will not do: the loss is visible here, long before anyone measures it. */
static void warn_outliers(nb_pass_ctx *ctx, const worst *w) {
    if (!w->layers) return;
    ctx->host->report(
        ctx, NB_LEVEL_WARNING, w->op,
        "%zu layers take inputs with outlier channels; here, the worst, %lld of %lld "
        "channels of '%%%s' reach %.0f times the median: 8-bit codes leave the others "
        "about %.1f bits",
        w->layers, (long long)w->outliers, (long long)w->channels, w->x->name, (double)w->ratio,
        fmax(0, 8 - log2((double)w->ratio)));
    ctx->host->help(ctx,
                    "smooth-fold moves such channels into the weights: give --calib FILE.npy, or "
                    "use 16-bit activations");
}

/* The group length of the weights of all layers that take x; 0 when they have none in common. */
static int64_t common_group(const nb_value *x) {
    int64_t group = 0;
    for (const nb_use *u = x->uses; u; u = u->next) {
        const nb_value *w = u->index == 0 ? nb_linear_weight(u->user) : NULL;
        const nb_quant *q = w ? w->type->quant : NULL;
        if (!q) continue; /* sees floats */
        if (q->granularity != NB_PER_GROUP || (group && q->group != group)) return 0;
        group = q->group;
    }
    return group;
}

/* A gate times a signal: large where both are, so that a token's largest value says little about
 * the others. */
static bool is_gated(const nb_value *x) {
    return x->def && x->def->kind == NB_OP_mul && nb_in(x->def, 0)->def && nb_in(x->def, 1)->def;
}

static const nb_quant *activation_quant(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x) {
    bool wide = nb_option_of(ctx, "act")->i == 1;
    nb_quant q = {.storage = wide ? NB_I16 : NB_I8,
                  .narrow = true,
                  .granularity = NB_PER_TOKEN,
                  .amax_code = wide ? 32639 : 127};
    bool fixed = nb_option_of(ctx, "mode")->i == 1;
    int64_t where = nb_option_of(ctx, "blocks")->i;
    if (fixed) {
        if (!static_scale(ctx, op, x, &q)) return NULL;
    } else if (where == BLOCKS_ALL || (where == BLOCKS_GATED && is_gated(x))) {
        q.group = common_group(x);
        if (q.group) q.granularity = NB_PER_BLOCK;
    }
    return nb_quant_intern(ctx->graph, &q, wide ? "act_i16" : "act_i8", nb_diags_of(ctx));
}

/* dequantize(quantize(x)), placed once behind x and shared. */
static nb_value *qdq(nb_pass_ctx *ctx, nb_map *done, nb_op *op, nb_value *x, worst *w) {
    nb_value *known = nb_map_get(done, x);
    if (known) return known;
    const nb_quant *q = activation_quant(ctx, op, x);
    if (!q) return NULL;
    if (q->storage == NB_I8) look_for_outliers(ctx, op, x, w);
    /* Before the first user in list order, which is this op: later ones see it defined. */
    nb_builder b = nb_pass_builder(ctx, op, x->def ? x->def->loc : op->loc);
    nb_begin(&b, NB_OP_quantize);
    nb_arg(&b, x);
    nb_set_quant(&b, "to", q);
    nb_value *codes = nb_end(&b);
    /* The way back stands for no node: a layer that fuses it keeps its own name. */
    b.loc = nb_loc_via(ctx->graph, NULL, "insert-qdq");
    nb_value *back = codes ? nb_unary(&b, NB_OP_dequantize, codes) : NULL;
    if (!back) return NULL;
    nb_set_name(ctx->graph, codes, nb_format(ctx->graph->arena, "%s.q", x->name));
    nb_set_name(ctx->graph, back, nb_format(ctx->graph->arena, "%s.d", x->name));
    nb_map_set(done, x, back);
    return back;
}

static bool is_quantized(const nb_value *v) {
    return v->type->quant || (v->def && v->def->kind == NB_OP_dequantize);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_map done = {.arena = nb_state_of(ctx)->scratch};
    nb_skip skip = {.pattern = nb_option_of(ctx, "skip")->s};
    worst outliers = {0};
    bool changed = false;
    NB_FOR_OPS(op, &ctx->graph->body) {
        const nb_value *w = nb_linear_weight(op);
        if (!w || op->kind != NB_OP_matmul || !w->type->quant || is_quantized(nb_in(op, 0)))
            continue;
        if (nb_skip_op(ctx, &skip, op)) continue;
        nb_value *x = qdq(ctx, &done, op, nb_in(op, 0), &outliers);
        if (!x) return NB_PASS_FAILED;
        nb_set_operand(&op->operands[0], x);
        changed = true;
    }
    if (!nb_skip_end(ctx, &skip)) return NB_PASS_FAILED;
    warn_outliers(ctx, &outliers);
    if (changed && ctx->graph->stage < NB_STAGE_QDQ) ctx->graph->stage = NB_STAGE_QDQ;
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_insert_qdq = {
    .size = sizeof(nb_pass),
    .name = "insert-qdq",
    .options = options,
    .run = run,
    .summary = "quantize the activations of layers with quantized weights",
};
