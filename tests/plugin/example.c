/* An out-of-tree plug-in with two passes: count-ops reports how often each operation stands in the
 * graph, fold-mul-one removes multiplications by one. It includes one header and links nothing. */
#include "nb_pass.h"

#include <string.h>

/* ---- count-ops ------------------------------------------------------------------------------ */

static const nb_option count_options[] = {
    {.name = "only",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "count this operation, not all"},
    {.name = "at-least",
     .kind = NB_OPTION_INT,
     .fallback = "1",
     .min = 1,
     .max = 1000,
     .summary = "leave out what is rarer"},
    {.name = NULL},
};

typedef struct row {
    const char *name;
    int64_t count;
} row;

static nb_pass_result count_ops(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    const char *only = ctx->options[0].s;
    size_t n_ops = 0, n = 0;
    for (nb_op *op = h->first_op(ctx->graph); op; op = h->next_op(op)) n_ops++;
    row *rows = h->scratch(ctx, n_ops * sizeof *rows);
    for (nb_op *op = h->first_op(ctx->graph); op; op = h->next_op(op)) {
        const char *name = h->op_name(op);
        if (*only && strcmp(only, name) != 0) continue;
        size_t i = 0;
        while (i < n && strcmp(rows[i].name, name) != 0) i++;
        if (i == n) rows[n++].name = name;
        rows[i].count++;
    }
    for (size_t i = 0; i < n; i++)
        if (rows[i].count >= ctx->options[1].i)
            h->report(ctx, NB_LEVEL_INFO, NULL, "%-12s %lld", rows[i].name,
                      (long long)rows[i].count);
    return NB_PASS_UNCHANGED;
}

static const nb_pass count_pass = {
    .size = sizeof(nb_pass),
    .name = "count-ops",
    .summary = "report how often each operation stands in the graph",
    .options = count_options,
    .run = count_ops,
    .promises = NB_PASS_KEEPS_BITS,
};

/* ---- fold-mul-one --------------------------------------------------------------------------- */

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

static const nb_pass *const passes[] = {&count_pass, &fold_pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v0 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "example",
    .passes = passes,
};
