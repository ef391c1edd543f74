/* count-ops: reports how often each operation stands in the graph, as a table, most frequent first.
 *
 *   requires   nothing
 *   maintains  the graph, untouched
 */
#include "nb_pass.h"

#include <stdlib.h>
#include <string.h>

/* Values come in this order, as ctx->options[i]. */
enum { ONLY, AT_LEAST };
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

static int more(const void *a, const void *b) {
    const row *x = a, *y = b;
    if (x->count != y->count) return x->count > y->count ? -1 : 1;
    return strcmp(x->name, y->name);
}

static nb_pass_result count_ops(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    const char *only = ctx->options[ONLY].s;
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
    qsort(rows, n, sizeof *rows, more);
    for (size_t i = 0; i < n; i++)
        if (rows[i].count >= ctx->options[AT_LEAST].i)
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

static const nb_pass *const passes[] = {&count_pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "count-ops",
    .passes = passes,
};
