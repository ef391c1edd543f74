/* remove-dropout: dropout of training, written out with masks as inputs, becomes what it is on
 * average: nothing.
 *
 *   requires   nothing; dropout of ONNX itself is gone already when a model has been imported
 *   maintains  what the model computes without dropout
 *
 *   %m: f32[B,4] = cast %mask {to=f32}
 *   %k: f32[B,4] = mul %x, %m
 *   %y: f32[B,4] = mul %k, @scale      ->   (uses of %y take %x)
 *
 * Scaled before or after the mask; the mask is an input of bools, the scale a constant above 1, the
 * 1/(1-p) that makes up for what was dropped. */
#include "nb_pass.h"

#include <string.h>

enum { SKIP };
static const nb_option options[] = {
    {.name = "skip",
     .kind = NB_OPTION_SELECTOR,
     .fallback = "",
     .summary = "ONNX nodes to leave alone"},
    {.name = NULL},
};

#define BOOL 9 /* ONNX's number */

/* NULL when the rule applies, else why not. */
static const char *is_dropout(nb_pass_ctx *ctx, const nb_match *m) {
    const nb_pass_host *h = ctx->host;
    nb_op *op = h->matched_op(m);
    nb_value *x = h->matched(m, "x"), *mask = h->matched(m, "mask"), *scale = h->matched(m, "s");
    nb_array s;
    float first;
    if (h->value_elem(mask) != BOOL) return "the factor is no mask";
    if (h->is_const(mask) || h->defining_op(mask)) return "the mask is no input of the model";
    if (strcmp(h->value_type(ctx, x), h->value_type(ctx, h->result(op, 0))) != 0)
        return "x is broadcast";
    if (!h->const_data(ctx, scale, &s) || h->value_rank(scale) != 0) return "not one scale";
    if (!h->const_floats(ctx, scale, 0, 1, &first) || !(first > 1))
        return "the scale is not above 1";
    return h->selected(ctx, "skip", op) ? "it is skipped" : NULL;
}

static const nb_rewrite_row rows[] = {
    {.size = sizeof(nb_rewrite_row),
     .name = "scaled-behind",
     .rule = "mul(mul(x, cast(mask)), @s) -> x",
     .where = is_dropout},
    {.size = sizeof(nb_rewrite_row),
     .name = "scaled-before",
     .rule = "mul(mul(x, @s), cast(mask)) -> x",
     .where = is_dropout},
    {.size = sizeof(nb_rewrite_row),
     .name = "chosen",
     .rule = "where(mask, mul(x, @s), 0) -> x",
     .where = is_dropout},
};

static nb_pass_result run(nb_pass_ctx *ctx) {
    int changed = ctx->host->rewrite(ctx, rows, sizeof rows / sizeof *rows);
    if (changed < 0) return NB_PASS_FAILED;
    return changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}

/* No promise: that the numbers change is the point. */
static const nb_pass pass = {
    .size = sizeof(nb_pass),
    .name = "remove-dropout",
    .summary = "x * mask / (1-p) -> x, where the mask is an input",
    .options = options,
    .run = run,
};
static const nb_pass *const passes[] = {&pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "remove-dropout",
    .passes = passes,
};
