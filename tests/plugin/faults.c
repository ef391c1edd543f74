/* Faults to find: what a pass of the pipeline could do wrong, one pass each. They stand where the
 * pass stands that they play, and harm the layer of one node.
 *
 *   fault-outliers  float weights: some channels of an attention's values large, and their readers'
 *                   rows as much smaller; the function stays. What models have by themselves
 *   fault-bug       a rewrite that promises to keep the numbers and does not
 *   fault-clip      behind calibrate: the bound of a layer's input is too low
 *   fault-axis      behind quantize-weights: the scales of groups are read along the wrong axis
 *   fault-nan       behind quantize-weights: one scale is not a number */
#include "ir/ir.h"
#include "passes/pass.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const nb_option options[] = {
    {.name = "layer",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "the ONNX node of the layer"},
    {.name = NULL},
};

static nb_op *layer_named(nb_pass_ctx *ctx, const char *node) {
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (strcmp(ctx->host->op_node(op), node) == 0) return op;
    }
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there is no layer %s", node);
    return NULL;
}

/* ---- in float ------------------------------------------------------------------------------- */

#define OUTLIERS 3
#define FACTOR   64.0f

/* Writes to a copy of the constant's data. */
static float *own_data(nb_value *v) {
    void *data;
    nb_blob *blob = nb_blob_create(v->blob->size, &data);
    memcpy(data, v->blob->data, (size_t)v->blob->size);
    nb_blob_release(v->blob);
    v->blob = blob;
    return data;
}

/* v_proj and o_proj of the block; a key/value head of v serves `share` heads of o. */
static nb_pass_result outliers(nb_pass_ctx *ctx) {
    const char *block = ctx->options[0].s;
    char node[2][256];
    nb_op *op[2];
    for (int i = 0; i < 2; i++) {
        snprintf(node[i], sizeof node[i], "%s/%c_proj/MatMul", block, "vo"[i]);
        op[i] = layer_named(ctx, node[i]);
        if (!op[i]) return NB_PASS_FAILED;
    }
    enum { HEAD = 32 };
    const int64_t n = nb_in(op[0], 1)->type->dims[1]->value,
                  width = nb_in(op[0], 1)->type->dims[0]->value,
                  share = nb_in(op[1], 1)->type->dims[0]->value / n;
    float *v = own_data(nb_in(op[0], 1)), *o = own_data(nb_in(op[1], 1));
    for (int64_t i = 0; i < OUTLIERS; i++) {
        const int64_t column = (i * 23 + 5) % n, head = column / HEAD;
        for (int64_t k = 0; k < width; k++) v[k * n + column] *= FACTOR;
        for (int64_t h = head * share; h < (head + 1) * share; h++) {
            float *row = o + (h * HEAD + column % HEAD) * width;
            for (int64_t k = 0; k < width; k++) row[k] /= FACTOR;
        }
    }
    return NB_PASS_CHANGED;
}

/* silu becomes relu: "nearly the same". */
static nb_pass_result bug(nb_pass_ctx *ctx) {
    nb_op *op = layer_named(ctx, ctx->options[0].s);
    if (!op) return NB_PASS_FAILED;
    nb_value *x = nb_in(op, 0), *y = ctx->host->build(ctx, op, "relu", &x, 1, NULL, 0);
    if (!y || !ctx->host->replace_uses(ctx, nb_out(op), y)) return NB_PASS_FAILED;
    ctx->host->sweep(ctx);
    return NB_PASS_CHANGED;
}

/* ---- of what rounds ------------------------------------------------------------------------- */

static nb_pass_result clip(nb_pass_ctx *ctx) {
    const nb_op *op = layer_named(ctx, ctx->options[0].s);
    nb_stats *stats = op ? nb_map_get(&nb_state_of(ctx)->env->stats, nb_in(op, 0)) : NULL;
    if (!stats) return NB_PASS_FAILED;
    stats->clip /= 16;
    return NB_PASS_UNCHANGED;
}

/* The scales [groups,n] of the layer's weight; NULL when it is in float. */
static nb_value *scales_of(nb_pass_ctx *ctx) {
    const nb_op *op = layer_named(ctx, ctx->options[0].s);
    const nb_op *made = op ? nb_in(op, 1)->def : NULL;
    const nb_quant *q = made && made->kind == NB_OP_dequantize ? nb_in(made, 0)->type->quant : NULL;
    return q ? q->scales : NULL;
}

static nb_pass_result axis(nb_pass_ctx *ctx) {
    nb_value *scales = scales_of(ctx);
    if (!scales) return NB_PASS_UNCHANGED;
    const int64_t rows = scales->type->dims[0]->value, columns = scales->type->dims[1]->value;
    const size_t size = (size_t)(scales->blob->size / (rows * columns));
    char *from = ctx->host->scratch(ctx, (size_t)scales->blob->size);
    memcpy(from, scales->blob->data, (size_t)scales->blob->size);
    char *to = (char *)own_data(scales);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < columns; c++)
            memcpy(to + (size_t)(r * columns + c) * size, from + (size_t)(c * rows + r) * size,
                   size);
    }
    return NB_PASS_CHANGED;
}

static nb_pass_result nan_scale(nb_pass_ctx *ctx) {
    nb_value *scales = scales_of(ctx);
    if (!scales) return NB_PASS_UNCHANGED;
    const bool half = scales->type->elem == NB_F16;
    char *data = (char *)own_data(scales);
    const uint16_t half_nan = 0x7e00;
    const float nan = NAN;
    memcpy(data + (half ? 2 : 4) * 7, half ? (const void *)&half_nan : &nan, half ? 2 : 4);
    return NB_PASS_CHANGED;
}

/* ---- the plug-in ---------------------------------------------------------------------------- */

#define FAULT(id, text, fn, keeps)       \
    static const nb_pass id = {          \
        .size = sizeof(nb_pass),         \
        .name = text,                    \
        .options = options,              \
        .run = fn,                       \
        .promises = keeps,               \
        .summary = "a fault, for tests", \
    }
FAULT(fault_outliers, "fault-outliers", outliers, NB_PASS_KEEPS_NUMBERS);
FAULT(fault_bug, "fault-bug", bug, NB_PASS_KEEPS_NUMBERS);
FAULT(fault_clip, "fault-clip", clip, 0);
FAULT(fault_axis, "fault-axis", axis, 0);
FAULT(fault_nan, "fault-nan", nan_scale, 0);

static const nb_pass *const passes[] = {&fault_outliers, &fault_bug, &fault_clip,
                                        &fault_axis,     &fault_nan, NULL};
NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "faults",
    .passes = passes,
};
