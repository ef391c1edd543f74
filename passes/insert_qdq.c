/* insert-qdq: quantizes the activations of linear layers whose weights are quantized.
 *
 *   requires   quantize-weights; calibrate, for mode=static
 *   maintains  stage QDQ; one quantize for each distinct input, shared by its layers
 *
 * A scale for each token, at run time, is that of ZeroQuant (Yao et al., arXiv 2206.01861); one for
 * each block of a token that of VS-Quant (Dai et al., arXiv 2102.04503).
 *
 *   %y: f32[B,2] = matmul %n, %w.d           (%w.d = dequantize @w.q)
 * becomes
 *   %n.q: #act_i8[B,4] = quantize %n {to=#act_i8}
 *   %n.d: f32[B,4] = dequantize %n.q
 *   %y: f32[B,2] = matmul %n.d, %w.d
 *
 * With mode=running %n is divided by a bound that is a state, and %y multiplied with it
 * (running.h). With `asymmetric` codes of a range that is not symmetric have a zero point, or its
 * middle is taken off %n first (shift.h). With act=f16 or bf16 it is rounded to that instead:
 *   %n.f16: f16[B,4] = cast %n {to=f16}
 *   %n.d: f32[B,4] = cast %n.f16 {to=f32} */
#include "ir/build.h"
#include "passes/linear.h"
#include "passes/observe.h"
#include "passes/running.h"
#include "passes/shift.h"

#include <math.h>
#include <string.h>

enum { I8, I16, F16, BF16 };
static const char *const acts[] = {"i8", "i16", "f16", "bf16", NULL};
enum { DYNAMIC, STATIC, RUNNING };
static const char *const modes[] = {"dynamic", "static", "running", NULL};

enum { BLOCKS_NONE, BLOCKS_GATED, BLOCKS_ALL };
static const char *const blocks[] = {"none", "gated", "all", NULL};

static const nb_option options[] = {
    {.name = "act",
     .kind = NB_OPTION_ENUM,
     .fallback = "i8",
     .choices = acts,
     .summary = "codes of activations: i8 (a8 schemes) or i16 (a16: two 8-bit planes); or floats, "
                "whose products are those of f32: f16 (magnitudes end at 65504) or bf16"},
    {.name = "mode",
     .kind = NB_OPTION_ENUM,
     .fallback = "dynamic",
     .choices = modes,
     .summary = "dynamic: a scale per token, at run time; static: one per tensor, from calibrate; "
                "running: one per tensor and sequence, which follows the data"},
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
    {.name = "asymmetric",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "static codes of the range that was seen, with a zero point, where that is finer"},
    {.name = "every",
     .kind = NB_OPTION_INT,
     .fallback = "128",
     .min = 1,
     .max = 65536,
     .summary = "for mode=running: tokens after which scales are estimated again"},
    {.name = "decay",
     .kind = NB_OPTION_FLOAT,
     .fallback = "0.9",
     .min = 0,
     .max = 1,
     .summary = "for mode=running: what remains of a scale then, unless its tokens were larger"},
    {.name = NULL},
};

/* Static scale: the bound that calibrate chose, or the range within it, spread over the codes. */
static bool static_scale(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x, nb_quant *q,
                         float *shift) {
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
    if (!nb_option_of(ctx, "asymmetric")->b || !nb_shift_of(stats, q->amax_code, shift, &q->scale))
        return true;
    /* Products of the two planes of 16-bit codes know no zero point, and one beyond the codes would
     * not make 0 one of them. */
    if (q->storage == NB_I8 && fabsf(*shift) <= (float)q->amax_code * q->scale) {
        nb_codes_of_range(stats, q);
        *shift = 0;
    }
    return true;
}

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
    int64_t n = 0;
    const float *range = channel_ranges(ctx, x, &n);
    if (!range) return;
    const nb_outliers o = nb_outliers_of(range, n, nb_state_of(ctx)->scratch);
    if (!o.count || o.count > n / FEW) return;
    const float ratio = o.largest / o.median;
    w->layers++;
    if (ratio > w->ratio) *w = (worst){op, x, ratio, o.count, n, w->layers};
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
                    "smooth-fold moves such channels into the weights, rotate spreads them; or use "
                    "16-bit activations");
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

static const nb_quant *activation_quant(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x,
                                        float *shift) {
    bool wide = nb_option_of(ctx, "act")->i == I16;
    nb_quant q = {.storage = wide ? NB_I16 : NB_I8,
                  .narrow = true,
                  .granularity = NB_PER_TOKEN,
                  .amax_code = wide ? 32639 : 127};
    int64_t mode = nb_option_of(ctx, "mode")->i, where = nb_option_of(ctx, "blocks")->i;
    if (mode == STATIC) {
        if (!static_scale(ctx, op, x, &q, shift)) return NULL;
    } else if (mode == RUNNING) {
        q.granularity = NB_PER_TENSOR;
        q.scale = 1 / (float)q.amax_code;
    } else if (where == BLOCKS_ALL || (where == BLOCKS_GATED && nb_is_gated(x))) {
        q.group = common_group(x);
        if (q.group) q.granularity = NB_PER_BLOCK;
    }
    return nb_quant_intern(ctx->graph, &q, wide ? "act_i16" : "act_i8", nb_diags_of(ctx));
}

/* What takes x's place in its layers. */
typedef struct rounded {
    nb_value *value; /* dequantize(quantize(x - shift)), or of x / bound */
    float shift;
    nb_value *bound; /* mode=running */
} rounded;

/* What is quantized for x; NULL after an error. */
static nb_value *moved(nb_pass_ctx *ctx, nb_builder *b, nb_value *x, rounded *r) {
    nb_graph *g = ctx->graph;
    if (r->shift != 0) {
        const char *name = nb_format(g->arena, "%s.middle", x->name);
        return nb_binary(b, NB_OP_sub, x, nb_const_f32(g, name, 0, NULL, &r->shift));
    }
    if (nb_option_of(ctx, "mode")->i != RUNNING) return x;
    const nb_stats *stats = nb_map_get(&nb_state_of(ctx)->env->stats, x);
    nb_running how = {.every = (double)nb_option_of(ctx, "every")->i,
                      .decay = nb_option_of(ctx, "decay")->f,
                      .start = stats ? (double)stats->clip : 0};
    r->bound = nb_running_bound(b, x, &how);
    return r->bound ? nb_binary(b, NB_OP_div, x, r->bound) : NULL;
}

/* The layer's result, times the bound of its input. */
static bool restore(nb_pass_ctx *ctx, nb_op *op, nb_value *bound) {
    nb_builder b = nb_pass_builder(ctx, op->next, op->loc);
    nb_value *y = nb_binary(&b, NB_OP_mul, nb_out(op), bound);
    if (!y) return false;
    nb_replace_uses(nb_out(op), y);
    nb_set_operand(&y->def->operands[0], nb_out(op));
    return true;
}

/* The float type that takes the place of codes; false: there are codes. */
static bool narrow_float(nb_pass_ctx *ctx, nb_elem *out) {
    const int64_t act = nb_option_of(ctx, "act")->i;
    *out = act == F16 ? NB_F16 : NB_BF16;
    return act == F16 || act == BF16;
}

/* The way back from what x became, which is called x.`suffix`; NULL after an error. It stands for
 * no node: a layer that fuses it keeps its own name. */
static nb_value *back(nb_pass_ctx *ctx, nb_builder *b, nb_value *x, nb_value *narrow,
                      const char *suffix) {
    nb_graph *g = ctx->graph;
    b->loc = nb_loc_via(g, NULL, "insert-qdq");
    nb_value *y = !narrow               ? NULL
                  : narrow->type->quant ? nb_unary(b, NB_OP_dequantize, narrow)
                                        : nb_cast(b, narrow, NB_F32);
    if (!y) return NULL;
    nb_set_name(g, narrow, nb_format(g->arena, "%s.%s", x->name, suffix));
    nb_set_name(g, y, nb_format(g->arena, "%s.d", x->name));
    return y;
}

/* Placed once behind x and shared; value is NULL after an error. */
static rounded *qdq(nb_pass_ctx *ctx, nb_map *done, nb_op *op, nb_value *x, worst *w) {
    rounded *r = nb_map_get(done, x);
    if (r && !nb_is_const(x)) return r; /* constants are seen in bodies, what is made of them not */
    r = NB_NEW(nb_state_of(ctx)->scratch, rounded);
    /* Before the first user in list order, which is this op: later ones see it defined. */
    nb_builder b = nb_pass_builder(ctx, op, x->def ? x->def->loc : op->loc);
    nb_elem narrow;
    if (narrow_float(ctx, &narrow)) {
        r->value = back(ctx, &b, x, nb_cast(&b, x, narrow), nb_option_of(ctx, "act")->s);
        if (r->value) nb_map_set(done, x, r);
        return r;
    }
    const nb_quant *q = activation_quant(ctx, op, x, &r->shift);
    if (!q) return r;
    if (q->storage == NB_I8) look_for_outliers(ctx, op, x, w);
    nb_value *from = moved(ctx, &b, x, r);
    nb_begin(&b, NB_OP_quantize);
    nb_arg(&b, from);
    nb_set_quant(&b, "to", q);
    r->value = back(ctx, &b, x, nb_end(&b), "q");
    if (!r->value) return r;
    nb_map_set(done, x, r);
    return r;
}

static bool is_quantized(nb_pass_ctx *ctx, const nb_value *v) {
    nb_elem narrow;
    if (narrow_float(ctx, &narrow) && v->def && v->def->kind == NB_OP_cast &&
        nb_in(v->def, 0)->type->elem == narrow)
        return true;
    return v->type->quant || (v->def && v->def->kind == NB_OP_dequantize);
}

typedef struct inserting {
    nb_map done; /* values -> rounded */
    nb_skip skip;
    worst outliers;
    bool changed;
} inserting;

/* False after an error. */
static bool insert_at(nb_pass_ctx *ctx, inserting *z, nb_op *op) {
    const nb_value *w = nb_linear_weight(op);
    if (!w || op->kind != NB_OP_matmul || !w->type->quant || is_quantized(ctx, nb_in(op, 0)))
        return true;
    /* Its products are those of floats. */
    if (!nb_elem_is_integer(w->type->elem) || nb_quant_has_minima(w->type->quant)) {
        nb_refused(ctx, op, "activations", "matmul(x, w)  ->  matmul(dq(q(x)), w)",
                   "codes of '@%s' are small floats or have minima: products are those of "
                   "floats",
                   w->name);
        return true;
    }
    if (nb_skip_op(ctx, &z->skip, op)) return true;
    const rounded *x = qdq(ctx, &z->done, op, nb_in(op, 0), &z->outliers);
    if (!x->value) return false;
    nb_set_operand(&op->operands[0], x->value);
    z->changed = true;
    return (x->shift == 0 || nb_shift_layer(ctx, op, x->shift)) &&
           (!x->bound || restore(ctx, op, x->bound));
}

/* Bodies have no statistics: their layers get scales where a run finds them. */
static bool insert_in(nb_pass_ctx *ctx, inserting *z, nb_region *region) {
    const bool bodies = nb_option_of(ctx, "mode")->i == DYNAMIC;
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; bodies && i < op->n_regions; i++)
            if (!insert_in(ctx, z, op->regions[i])) return false;
        if (!insert_at(ctx, z, op)) return false;
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    inserting z = {.done = {.arena = nb_state_of(ctx)->scratch},
                   .skip = {.pattern = nb_option_of(ctx, "skip")->s}};
    if (nb_option_of(ctx, "asymmetric")->b && nb_option_of(ctx, "mode")->i != STATIC) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "asymmetric codes need mode=static");
        return NB_PASS_FAILED;
    }
    nb_elem narrow;
    if (narrow_float(ctx, &narrow) && nb_option_of(ctx, "mode")->i != DYNAMIC) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "act=%s has no scales: found mode=%s",
                          nb_option_of(ctx, "act")->s, nb_option_of(ctx, "mode")->s);
        return NB_PASS_FAILED;
    }
    if (!insert_in(ctx, &z, &ctx->graph->body) || !nb_skip_end(ctx, &z.skip)) return NB_PASS_FAILED;
    warn_outliers(ctx, &z.outliers);
    /* Samples are inputs of the graph as it was. */
    if (z.changed && nb_option_of(ctx, "mode")->i == RUNNING) nb_state_of(ctx)->env->n_samples = 0;
    if (z.changed && ctx->graph->stage < NB_STAGE_QDQ) ctx->graph->stage = NB_STAGE_QDQ;
    return nb_pass_end(ctx, z.changed);
}

const nb_pass nb_pass_insert_qdq = {
    .size = sizeof(nb_pass),
    .name = "insert-qdq",
    .options = options,
    .run = run,
    .summary = "quantize the activations of layers with quantized weights",
};
