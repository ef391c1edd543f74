/* merge-scales: two numbers that are multiplied, or added, in a row become one.
 *
 *   requires   nothing
 *   maintains  the function, up to rounding
 *
 *   %a: f32[B,4] = mul %x, @c
 *   %b: f32[B,4] = mul %a, @d                ->  %b: f32[B,4] = mul %x, @c.d
 *
 * It uses the host table only, so that the same file can also be built as a plug-in. */
#include "passes/nb_pass.h"

#include <math.h>
#include <string.h>

#define ONNX_F32 1

/* `op` as x * number or x + number, either way round, with the shape of x. */
typedef struct scaled {
    nb_value *x;
    const nb_value *constant;
    float number;
} scaled;

static int read_number(nb_pass_ctx *ctx, const nb_value *v, float *out) {
    const nb_pass_host *h = ctx->host;
    nb_array array;
    if (!h->is_const(v) || h->is_quantized(v) || h->value_elem(v) != ONNX_F32) return 0;
    for (int32_t i = 0; i < h->value_rank(v); i++)
        if (h->value_dim(v, i) != 1) return 0;
    if (!h->const_data(ctx, v, &array)) return 0;
    memcpy(out, array.data, sizeof *out);
    return 1;
}

static int read_scaled(nb_pass_ctx *ctx, const nb_op *op, scaled *out) {
    const nb_pass_host *h = ctx->host;
    const char *name = h->op_name(op);
    if (strcmp(name, "mul") != 0 && strcmp(name, "add") != 0) return 0;
    for (size_t i = 0; i < 2; i++) {
        out->x = h->operand(op, i);
        out->constant = h->operand(op, 1 - i);
        if (h->is_const(out->x) || !read_number(ctx, out->constant, &out->number)) continue;
        const char *type = h->value_type(ctx, h->result(op, 0));
        return strcmp(h->value_type(ctx, out->x), type) == 0;
    }
    return 0;
}

/* The number that does what both do; 0 when rounding would do more than move the last bits. */
static int combine(int adds, float a, float b, float *out) {
    *out = adds ? a + b : a * b;
    if (adds) return isfinite(*out) && fabsf(*out) >= 0.5f * fmaxf(fabsf(a), fabsf(b));
    return isnormal(*out) && isnormal(a) && isnormal(b);
}

/* 1 merged, 0 left alone, -1 error. */
static int merge(nb_pass_ctx *ctx, nb_op *outer) {
    const nb_pass_host *h = ctx->host;
    scaled second, first;
    if (!read_scaled(ctx, outer, &second)) return 0;
    nb_op *inner = h->defining_op(second.x);
    if (!inner || strcmp(h->op_name(inner), h->op_name(outer)) != 0 || h->use_count(second.x) != 1)
        return 0;
    if (!read_scaled(ctx, inner, &first)) return 0;
    float number;
    if (!combine(strcmp(h->op_name(outer), "add") == 0, first.number, second.number, &number))
        return 0;
    nb_array array = {.elem = ONNX_F32, .rank = 0, .data = &number};
    nb_value *constant = h->make_const(ctx, h->value_name(second.constant), &array);
    nb_value *operands[2] = {first.x, constant};
    nb_value *y = constant ? h->build(ctx, outer, h->op_name(outer), operands, 2, NULL, 0) : NULL;
    if (!y || !h->replace_uses(ctx, h->result(outer, 0), y)) return -1;
    return h->remove_op(ctx, outer) && h->remove_op(ctx, inner) ? 1 : -1;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_pass_result result = NB_PASS_UNCHANGED;
    for (nb_op *op = ctx->host->first_op(ctx->graph), *next; op; op = next) {
        next = ctx->host->next_op(op);
        int merged = merge(ctx, op);
        if (merged < 0) return NB_PASS_FAILED;
        if (merged) result = NB_PASS_CHANGED;
    }
    if (result == NB_PASS_CHANGED) ctx->host->sweep(ctx);
    return result;
}

const nb_pass nb_pass_merge_scales = {
    .size = sizeof(nb_pass),
    .name = "merge-scales",
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS,
    .summary = "multiply by one number instead of two, add one instead of two",
};
