/* An out-of-tree pass, in one file against one header: make-outliers.
 *
 * Multiplies a few channels of every norm's gain by a power of two and divides the matching rows of
 * the weights behind it by the same: the function of the model stays, to the bit, but its
 * activations get outlier channels as large language models have them. The opposite of smooth-fold,
 * and good for trying what quantization makes of such models.
 *
 *   cc -shared -fPIC -I passes tests/plugin/outliers.c -o outliers.so
 *   nibble opt model.onnx --load ./outliers.so --passes "simplify, raise, make-outliers" -o out.nir
 */
#include "nb_pass.h"

#include <string.h>

static const nb_option options[] = {
    {.name = "channels",
     .kind = NB_OPTION_INT,
     .fallback = "4",
     .min = 1,
     .max = 1024,
     .summary = "channels that become outliers"},
    {.name = "factor",
     .kind = NB_OPTION_INT,
     .fallback = "64",
     .min = 2,
     .max = 4096,
     .summary = "how many times larger they get (a power of two keeps every bit)"},
    {.name = NULL},
};

/* Channel number i of the outliers: spread over the width, the same in every layer. */
static int64_t channel(int64_t i, int64_t width) { return (i * 37 + 11) % width; }

/* A copy of a constant f32 whose rows (or elements) at outlier channels are multiplied by `factor`.
 */
static nb_value *scaled(nb_pass_ctx *ctx, const nb_value *v, float factor) {
    nb_array a;
    if (!ctx->host->const_data(ctx, v, &a)) return NULL;
    int64_t rows = a.dims[0], columns = a.rank == 2 ? a.dims[1] : 1;
    float *data = ctx->host->scratch(ctx, (size_t)(rows * columns) * sizeof *data);
    memcpy(data, a.data, (size_t)(rows * columns) * sizeof *data);
    for (int64_t i = 0; i < ctx->options[0].i && i < rows; i++) {
        float *row = data + channel(i, rows) * columns;
        for (int64_t k = 0; k < columns; k++) row[k] *= factor;
    }
    a.data = data;
    return ctx->host->make_const(ctx, ctx->host->value_name(v), &a);
}

/* All users are matmuls by a constant matrix of f32. */
static int feeds_linear_only(const nb_pass_host *h, const nb_value *v) {
    for (size_t i = 0; i < h->use_count(v); i++) {
        const nb_op *user = h->user(v, i);
        const nb_value *w = h->operand(user, 1);
        if (strcmp(h->op_name(user), "matmul") != 0 || h->operand(user, 0) != v ||
            !h->is_const(w) || h->value_elem(w) != 1 || h->value_rank(w) != 2)
            return 0;
    }
    return h->use_count(v) > 0;
}

static int change(nb_pass_ctx *ctx, nb_op *norm) {
    const nb_pass_host *h = ctx->host;
    float factor = (float)ctx->options[1].i;
    nb_value *gain = scaled(ctx, h->operand(norm, 1), factor), *y = h->result(norm, 0);
    if (!gain || !h->set_operand(ctx, norm, 1, gain)) return 0;
    for (size_t i = 0; i < h->use_count(y); i++) {
        nb_op *user = h->user(y, i);
        nb_value *w = scaled(ctx, h->operand(user, 1), 1 / factor);
        if (!w || !h->set_operand(ctx, user, 1, w)) return 0;
    }
    return 1;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    nb_pass_result result = NB_PASS_UNCHANGED;
    for (nb_op *op = h->first_op(ctx->graph); op; op = h->next_op(op)) {
        if (strcmp(h->op_name(op), "rms_norm") != 0 || !h->is_const(h->operand(op, 1)) ||
            !feeds_linear_only(h, h->result(op, 0)))
            continue;
        if (!change(ctx, op)) return NB_PASS_FAILED;
        result = NB_PASS_CHANGED;
    }
    h->sweep(ctx);
    return result;
}

static const nb_pass make_outliers = {
    .size = sizeof(nb_pass),
    .name = "make-outliers",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS,
    .summary = "give norms outlier channels without changing the function",
};
static const nb_pass *const passes[] = {&make_outliers, NULL};
NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "outliers",
    .passes = passes,
};
