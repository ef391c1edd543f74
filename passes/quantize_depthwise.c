/* quantize-depthwise: depthwise convolutions multiply codes, with one scale for all inputs.
 *
 *   requires   calibrate; behind channels-last, which makes them
 *   maintains  stage QDQ; one quantize for each distinct input. move-codes puts it in front of what
 *              pads the input
 *
 *   %y: f32[B,H,W,8] = depthwise %x, @k
 * becomes
 *   %x.q: #act[B,H',W',8] = quantize %x {to=#act}
 *   %x.d: f32[B,H',W',8] = dequantize %x.q
 *   %y: f32[B,H,W,8] = depthwise %x.d, %k.d                    (%k.d = dequantize @k.q)
 *
 * Places have no scales of their own: an output is a sum over several. Codes span what was seen of
 * the inputs, with a zero point: those that end at 0 take the whole of the range. Weights are
 * rounded to the nearest of 8 bits, a scale for each channel. */
#include "ir/build.h"
#include "passes/linear.h"
#include "passes/observe.h"
#include "passes/shift.h"

#include <math.h>

static const nb_option options[] = {
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of convolutions that stay in float ('*' any text, '|' or)"},
    {.name = NULL},
};

/* w[K...,C] as codes, dequantized; NULL: a weight is no number, or, with an error, no memory. */
static nb_value *rounded_kernel(nb_pass_ctx *ctx, nb_builder *b, nb_value *w) {
    nb_graph *g = ctx->graph;
    const int last = w->type->rank - 1;
    const int64_t C = w->type->dims[last]->value, n = w->blob->size / 4;
    const float *from = w->blob->data;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(from[i])) return NULL;
    void *scales, *codes;
    nb_blob *scale_blob = nb_blob_create(4 * C, &scales), *blob = nb_blob_create(n, &codes);
    if (!scale_blob || !blob) {
        nb_blob_release(scale_blob);
        nb_blob_release(blob);
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "no memory for '@%s' as codes", w->name);
        return NULL;
    }
    for (int64_t c = 0; c < C; c++) {
        float amax = 0;
        for (int64_t i = c; i < n; i += C) amax = fmaxf(amax, fabsf(from[i]));
        const float scale = amax / 127.0F > 0 ? amax / 127.0F : 1.0F;
        ((float *)scales)[c] = scale;
        for (int64_t i = c; i < n; i += C)
            ((int8_t *)codes)[i] = (int8_t)fmaxf(fminf(rintf(from[i] / scale), 127), -127);
    }
    const nb_loc *loc = nb_loc_via(g, NULL, "quantize-depthwise");
    nb_quant q = {.storage = NB_I8, .narrow = true, .granularity = NB_PER_AXIS, .axis = last};
    q.scales = nb_graph_add_const(g, nb_format(g->arena, "%s.scale", w->name),
                                  nb_type_intern(g, NB_F32, NULL, 1, &w->type->dims[last]),
                                  scale_blob, loc);
    const nb_quant *quant = nb_quant_intern(g, &q, "kernel_i8", nb_diags_of(ctx));
    if (!quant) {
        nb_blob_release(blob);
        return NULL;
    }
    nb_value *c = nb_graph_add_const(g, nb_format(g->arena, "%s.q", w->name),
                                     nb_type_with_quant(g, w->type, quant), blob, loc);
    return nb_unary(b, NB_OP_dequantize, c);
}

typedef struct rounding {
    nb_map inputs, kernels; /* what became of them, dequantized */
    nb_skip skip;
    bool changed;
} rounding;

/* False after an error. */
static bool round_at(nb_pass_ctx *ctx, rounding *z, nb_op *op) {
    nb_value *x = nb_in(op, 0), *w = nb_in(op, 1);
    if (op->kind != NB_OP_depthwise || !nb_is_const(w) || w->blob->size == 0 ||
        (x->def && x->def->kind == NB_OP_dequantize) || nb_skip_op(ctx, &z->skip, op))
        return true;
    const nb_stats *stats = nb_layer_stats(ctx, op);
    if (!stats) return false;
    const size_t errors = nb_diags_of(ctx)->errors;
    nb_builder b = nb_pass_builder(ctx, op, op->loc);
    b.loc = nb_loc_via(ctx->graph, NULL, "quantize-depthwise");
    nb_value *kernel = nb_map_get(&z->kernels, w), *input = nb_map_get(&z->inputs, x);
    if (!kernel) kernel = rounded_kernel(ctx, &b, w);
    if (!kernel && nb_diags_of(ctx)->errors == errors) {
        nb_refused(ctx, op, "codes", "depthwise(x, w)  ->  depthwise(dq(q(x)), dq(q(w)))",
                   "a weight of '@%s' is not finite", w->name);
        return true;
    }
    if (kernel && !input) {
        nb_quant range;
        nb_codes_of_range(stats, &range);
        const nb_quant *q = nb_quant_intern(ctx->graph, &range, "act_i8", nb_diags_of(ctx));
        nb_begin(&b, NB_OP_quantize);
        nb_arg(&b, x);
        if (q) nb_set_quant(&b, "to", q);
        input = q ? nb_unary(&b, NB_OP_dequantize, nb_end(&b)) : NULL;
    }
    if (!kernel || !input) return false;
    nb_map_set(&z->kernels, w, kernel);
    nb_map_set(&z->inputs, x, input);
    nb_set_operand(&op->operands[0], input);
    nb_set_operand(&op->operands[1], kernel);
    z->changed = true;
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    const nb_stage before = ctx->graph->stage;
    rounding z = {.inputs = {.arena = scratch},
                  .kernels = {.arena = scratch},
                  .skip = {.pattern = nb_option_of(ctx, "skip")->s}};
    /* The stage says what is legal to build. */
    if (ctx->graph->stage < NB_STAGE_QDQ) ctx->graph->stage = NB_STAGE_QDQ;
    NB_FOR_OPS(op, &ctx->graph->body) if (!round_at(ctx, &z, op)) return NB_PASS_FAILED;
    if (!nb_skip_end(ctx, &z.skip)) return NB_PASS_FAILED;
    if (z.changed)
        nb_graph_sweep(ctx->graph);
    else
        ctx->graph->stage = before;
    return nb_pass_end(ctx, z.changed);
}

const nb_pass nb_pass_quantize_depthwise = {
    .size = sizeof(nb_pass),
    .name = "quantize-depthwise",
    .options = options,
    .run = run,
    .summary = "static codes for inputs and weights of depthwise convolutions",
};
