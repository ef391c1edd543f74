/* An out-of-tree plug-in: fold-mul-one removes multiplications by one, op by op. It includes one
 * header and links nothing. */
#include "nb_pass.h"

#include <string.h>

/* A constant of f32 whose elements are all 1. */
static int is_one(nb_pass_ctx *ctx, const nb_value *v) {
    nb_array array;
    if (!ctx->host->is_const(v) || ctx->host->is_quantized(v) || ctx->host->value_elem(v) != 1 ||
        !ctx->host->const_data(ctx, v, &array))
        return 0;
    int64_t count = 1;
    for (int32_t i = 0; i < array.rank; i++) count *= array.dims[i];
    const float *data = array.data;
    for (int64_t i = 0; i < count; i++)
        if (data[i] < 1 || data[i] > 1) return 0;
    return count > 0;
}

static nb_pass_result fold_mul_one(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    nb_pass_result result = NB_PASS_UNCHANGED;
    for (nb_op *op = h->first_op(ctx->graph), *next; op; op = next) {
        next = h->next_op(op);
        if (strcmp(h->op_name(op), "mul") != 0) continue;
        nb_value *y = h->result(op, 0);
        for (size_t i = 0; i < 2; i++) {
            nb_value *x = h->operand(op, i);
            if (!is_one(ctx, h->operand(op, 1 - i)) ||
                strcmp(h->value_type(ctx, x), h->value_type(ctx, y)) != 0)
                continue;
            if (!h->replace_uses(ctx, y, x) || !h->remove_op(ctx, op)) return NB_PASS_FAILED;
            result = NB_PASS_CHANGED;
            break;
        }
    }
    if (result == NB_PASS_CHANGED) h->sweep(ctx);
    return result;
}

static const nb_pass fold_pass = {
    .size = sizeof(nb_pass),
    .name = "fold-mul-one",
    .summary = "x * 1  ->  x",
    .run = fold_mul_one,
    .promises = NB_PASS_KEEPS_BITS,
};

static const nb_pass *const passes[] = {&fold_pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "fold",
    .passes = passes,
};
