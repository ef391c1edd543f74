/* libnibble in a program: reads a graph, rounds its weights to 8 bits, looks at it, adds a pass of
 * its own, runs it by the reference evaluator and as compiled code, which give the same bits, and
 * compiles it to a file, which is opened and run too.
 *
 *   main GRAPH OUT.so */
#include "nibble.h"

#include <stdio.h>
#include <string.h>

/* A pass: x * 1 is x. */
static nb_pass_result fold_ones(nb_pass_ctx *ctx) {
    static const nb_rewrite_row rows[] = {
        {.size = sizeof(nb_rewrite_row), .name = "mul-one", .rule = "mul(x, 1) -> x"}};
    int changed = ctx->host->rewrite(ctx, rows, 1);
    return changed < 0 ? NB_PASS_FAILED : changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}

static const nb_pass fold = {.size = sizeof(nb_pass),
                             .name = "fold-ones",
                             .summary = "x * 1 becomes x",
                             .run = fold_ones,
                             .promises = NB_PASS_KEEPS_BITS};
static const nb_pass *const passes[] = {&fold, NULL};
static const nb_plugin plugin = {.size = sizeof(nb_plugin),
                                 .abi_major = NB_PASS_ABI_MAJOR,
                                 .abi_minor = NB_PASS_ABI_MINOR,
                                 .name = "example",
                                 .passes = passes};

static void list_ops(nibble_graph *graph) {
    const nb_pass_host *host = nibble_host();
    for (nb_op *op = host->first_op(nibble_graph_view(graph)); op; op = host->next_op(op))
        printf("%-10s %s\n", host->op_name(op), host->op_node(op));
}

static void print_row(const char *what, const nibble_result *result) {
    nb_array y;
    if (!nibble_result_get(result, 0, &y)) return;
    printf("%s:", what);
    for (int64_t i = 0; i < y.dims[1]; i++) printf(" %.9g", (double)((const float *)y.data)[i]);
    printf("\n");
}

static nibble_status run(nibble_graph *graph, const char *path, nibble_diags *diags) {
    static const float data[8] = {1, -2, 3, -4, 5, -6, 7, -8};
    const nb_array x = {.elem = 1, .rank = 2, .dims = {1, 8}, .data = data};
    nibble_model *model = NULL, *opened = NULL;
    nibble_result *results[3] = {NULL};
    nibble_status status = nibble_evaluate(graph, &x, 1, diags, &results[0]);
    if (!status) status = nibble_compile(graph, NULL, diags, &model);
    if (!status) status = nibble_model_run(model, &x, 1, diags, &results[1]);
    if (!status) status = nibble_compile_file(graph, path, NULL, diags);
    if (!status) status = nibble_model_open(path, NULL, diags, &opened);
    if (!status) status = nibble_model_run(opened, &x, 1, diags, &results[2]);
    print_row("evaluated", results[0]);
    print_row("compiled", results[1]);
    print_row("from the file", results[2]);
    for (int i = 0; i < 3; i++) nibble_result_free(results[i]);
    nibble_model_free(opened);
    nibble_model_free(model);
    return status;
}

int main(int argc, char **argv) {
    static const nb_plugin *const plugins[] = {&plugin, NULL};
    const nibble_pass_options options = {
        .size = sizeof options, .in_memory = plugins, .check_each = 1};
    if (argc != 3) return 2;
    nibble_diags *diags = nibble_diags_create();
    nibble_graph *graph = NULL;
    nibble_status status = nibble_graph_load(argv[1], diags, &graph);
    if (!status)
        status = nibble_run_passes(graph, "fold-ones, quantize-weights{bits=8}", &options, diags);
    if (!status) list_ops(graph);
    if (!status) status = run(graph, argv[2], diags);
    for (size_t i = 0; i < nibble_diags_count(diags); i++)
        fputs(nibble_diags_text(diags, i), stderr);
    nibble_graph_free(graph);
    nibble_diags_free(diags);
    return (int)status;
}
