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

static const char *const acts[] = {"i8", "i16", NULL};
static const char *const modes[] = {"dynamic", "static", NULL};

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

static const nb_quant *activation_quant(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x) {
    bool wide = nb_option_of(ctx, "act")->i == 1;
    nb_quant q = {.storage = wide ? NB_I16 : NB_I8,
                  .narrow = true,
                  .granularity = NB_PER_TOKEN,
                  .amax_code = wide ? 32639 : 127};
    bool fixed = nb_option_of(ctx, "mode")->i == 1;
    if (fixed && !static_scale(ctx, op, x, &q)) return NULL;
    return nb_quant_intern(ctx->graph, &q, wide ? "act_i16" : "act_i8", nb_diags_of(ctx));
}

/* dequantize(quantize(x)), placed once behind x and shared. */
static nb_value *qdq(nb_pass_ctx *ctx, nb_map *done, nb_op *op, nb_value *x) {
    nb_value *known = nb_map_get(done, x);
    if (known) return known;
    const nb_quant *q = activation_quant(ctx, op, x);
    if (!q) return NULL;
    /* Before the first user in list order, which is this op: later ones see it defined. */
    nb_builder b = nb_pass_builder(ctx, op, x->def ? x->def->loc : op->loc);
    nb_begin(&b, NB_OP_quantize);
    nb_arg(&b, x);
    nb_set_quant(&b, "to", q);
    nb_value *codes = nb_end(&b);
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
    bool changed = false;
    NB_FOR_OPS(op, &ctx->graph->body) {
        const nb_value *w = nb_linear_weight(op);
        if (!w || op->kind != NB_OP_matmul || !w->type->quant || is_quantized(nb_in(op, 0)))
            continue;
        if (nb_skip_op(ctx, &skip, op)) continue;
        nb_value *x = qdq(ctx, &done, op, nb_in(op, 0));
        if (!x) return NB_PASS_FAILED;
        nb_set_operand(&op->operands[0], x);
        changed = true;
    }
    if (!nb_skip_end(ctx, &skip)) return NB_PASS_FAILED;
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
