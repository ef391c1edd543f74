/* fuse-bias-relu2: a bias, a ReLU and a square become one operation with a kernel of its own.
 *
 *   requires   nothing
 *   maintains  every bit of every output
 *
 *   %a: f32[B,4] = add %x, @b
 *   %r: f32[B,4] = relu %a
 *   %y: f32[B,4] = mul %r, %r
 *   ->
 *   %y: f32[B,4] = call %x, @b {function="bias_relu2", to=f32, shape=[B,4]}
 *
 * kernel.c has the C function. The evaluator and models in memory call it in this plug-in; a
 * compiled file is linked with its object:
 *
 *   nibble compile model.onnx -o model.so --load ./bias-relu2.so --link kernel.o \
 *       --passes "simplify, fuse-bias-relu2, plan-memory" */
#include "nb_pass.h"

#include <string.h>

#define F32 1

/* ---- the operation -------------------------------------------------------------------------- */

static const char *shape(nb_pass_ctx *ctx, nb_value *const *operands, const int64_t *numbers,
                         size_t n_numbers, nb_op_shape *out) {
    const nb_pass_host *h = ctx->host;
    const nb_value *x = operands[0], *b = operands[1];
    (void)numbers;
    (void)out; /* as x has it */
    if (n_numbers) return "it takes no numbers";
    if (h->value_elem(x) != F32 || h->value_elem(b) != F32) return "both operands are of f32";
    if (h->value_rank(x) != 2 || h->value_rank(b) != 1) return "x has two axes, the bias one";
    if (strcmp(h->value_dim_text(ctx, x, 1), h->value_dim_text(ctx, b, 0)) != 0)
        return "the bias is not as long as a row of x";
    return NULL;
}

static const nb_op_def bias_relu2 = {
    .size = sizeof(nb_op_def),
    .name = "bias_relu2",
    .summary = "max(x + b, 0)^2 of x[rows,n] and b[n]",
    .operands = 2,
    .shape = shape,
};

/* ---- the pass ------------------------------------------------------------------------------- */

static const char *fits(nb_pass_ctx *ctx, const nb_match *m) {
    nb_op_shape unused = {.size = sizeof unused};
    nb_value *operands[2] = {ctx->host->matched(m, "x"), ctx->host->matched(m, "b")};
    return shape(ctx, operands, NULL, 0, &unused);
}

static nb_value *fused(nb_pass_ctx *ctx, const nb_match *m) {
    const nb_pass_host *h = ctx->host;
    nb_value *operands[2] = {h->matched(m, "x"), h->matched(m, "b")};
    return h->call(ctx, h->matched_op(m), "bias_relu2", operands, 2, NULL, 0);
}

static const nb_rewrite_row rows[] = {
    {.size = sizeof(nb_rewrite_row),
     .name = "bias-relu2",
     .rule = "mul(r = relu(add(x, @b)), r) -> bias_relu2(x, b)",
     .where = fits,
     .to = fused},
};

static nb_pass_result run(nb_pass_ctx *ctx) {
    int changed = ctx->host->rewrite(ctx, rows, sizeof rows / sizeof *rows);
    if (changed < 0) return NB_PASS_FAILED;
    return changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}

static const nb_pass pass = {
    .size = sizeof(nb_pass),
    .name = "fuse-bias-relu2",
    .summary = "relu(x + b)^2 as one operation with its own kernel",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
};
static const nb_pass *const passes[] = {&pass, NULL};
static const nb_op_def *const ops[] = {&bias_relu2, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "bias-relu2",
    .passes = passes,
    .ops = ops,
};
