/* A plug-in with an operation of its own that can be lowered: twice(x) = x + x. */
#include "nb_pass.h"

NB_EXPORT void nb_call_twice(const void *const *operands, void *result, const int64_t *dims,
                             const int64_t *numbers, int64_t begin, int64_t end);

void nb_call_twice(const void *const *operands, void *result, const int64_t *dims,
                   const int64_t *numbers, int64_t begin, int64_t end) {
    const float *x = operands[0];
    float *y = result;
    (void)numbers;
    for (int64_t i = begin * dims[1]; i < end * dims[1]; i++) y[i] = x[i] + x[i];
}

/* Of matrices of f32; the result has the operand's type. */
static const char *shape(nb_pass_ctx *ctx, nb_value *const *operands, const int64_t *numbers,
                         size_t n_numbers, nb_op_shape *out) {
    (void)numbers;
    (void)out;
    if (n_numbers) return "it takes no numbers";
    return ctx->host->value_elem(operands[0]) == 1 && ctx->host->value_rank(operands[0]) == 2
               ? NULL
               : "it is no matrix of f32";
}

static nb_value *lower(nb_pass_ctx *ctx, nb_op *op) {
    nb_value *x = ctx->host->operand(op, 0), *operands[2] = {x, x};
    return ctx->host->build(ctx, op, "add", operands, 2, NULL, 0);
}

static const nb_op_def twice = {.size = sizeof(nb_op_def),
                                .name = "twice",
                                .summary = "x + x",
                                .operands = 1,
                                .shape = shape,
                                .lower = lower};

static nb_value *call(nb_pass_ctx *ctx, const nb_match *m) {
    nb_value *x = ctx->host->matched(m, "x");
    return ctx->host->call(ctx, ctx->host->matched_op(m), "twice", &x, 1, NULL, 0);
}
static const nb_rewrite_row row = {
    .size = sizeof row, .name = "twice", .rule = "add(x, x) -> twice(x)", .to = call};

static nb_pass_result run(nb_pass_ctx *ctx) {
    int changed = ctx->host->rewrite(ctx, &row, 1);
    return changed < 0 ? NB_PASS_FAILED : changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}
static const nb_pass make_twice = {.size = sizeof(nb_pass),
                                   .name = "make-twice",
                                   .summary = "x + x -> twice(x)",
                                   .run = run,
                                   .promises = NB_PASS_KEEPS_BITS};

static const nb_pass *const passes[] = {&make_twice, NULL};
static const nb_op_def *const ops[] = {&twice, NULL};
NB_EXPORT const nb_plugin nb_plugin_v1 = {.size = sizeof(nb_plugin),
                                          .abi_major = NB_PASS_ABI_MAJOR,
                                          .abi_minor = NB_PASS_ABI_MINOR,
                                          .name = "twice",
                                          .passes = passes,
                                          .ops = ops};
