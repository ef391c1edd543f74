/* nibble inspect: one screen about a model: what goes in and out, where weights and work are, what
 * each scheme would cost. */
#include "frontend/frontend.h"
#include "passes/linear.h"
#include "tools/model.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_ports(nbt_args *args, const nb_graph *g) {
    for (uint32_t i = 0; i < g->body.n_params; i++)
        printf("input   %-32s %s\n", g->body.params[i]->name,
               nb_type_text(args->arena, g->body.params[i]->type));
    for (size_t i = 0; i < g->outputs.count; i++)
        printf("output  %-32s %s\n", g->outputs.items[i],
               nb_type_text(args->arena, nb_in(g->body.last, i)->type));
    printf("states  %zu\n", g->states.count);
}

static void print_ops(const nb_graph *g) {
    size_t counts[NB_OP_COUNT] = {0};
    for (const nb_op *op = g->body.first; op; op = op->next) counts[op->kind]++;
    printf("ops    ");
    for (int k = 0; k < NB_OP_COUNT; k++) {
        if (counts[k] && k != NB_OP_return) printf(" %s %zu", nb_ops[k].name, counts[k]);
    }
    printf("\n");
}

/* Multiply-adds of all linear layers for one token (one row). */
static int64_t macs_per_row(const nb_graph *g) {
    int64_t macs = 0;
    for (const nb_op *op = g->body.first; op; op = op->next) {
        const nb_value *w = nb_linear_weight(op);
        int64_t n;
        if (w && nb_type_static_count(w->type, &n)) macs += n;
    }
    return macs;
}

static nb_status scheme_size(nbt_args *args, const char *path, const char *scheme, nbt_size *out) {
    nb_graph *g;
    const char *text;
    NB_TRY(nbt_pipeline_text(args, scheme, &text));
    NB_TRY(nbt_read_graph(args, path, &g));
    nb_status status = nbt_run_pipeline(args, g, text);
    if (status == NB_OK) *out = nbt_measure_size(g);
    nb_graph_destroy(g);
    return status;
}

static nb_status inspect(nbt_args *args, const char *path, nb_graph *g) {
    static const char *const schemes[] = {"f32", "w8a16", "w8a8", "w4a16", "w4a8"};
    bool json = nbt_has(args, "json");
    json_t *all = json_object();
    NB_TRY(nbt_run_pipeline(args, g, "simplify, raise, simplify"));
    if (!json) {
        print_ports(args, g);
        print_ops(g);
        printf("linear  %lld multiply-adds for each row\n", (long long)macs_per_row(g));
    }
    for (size_t i = 0; i < NB_COUNT(schemes); i++) {
        nbt_size s;
        NB_TRY(scheme_size(args, path, schemes[i], &s));
        if (json)
            json_object_set_new(all, schemes[i],
                                json_pack("{s:I, s:f}", "bytes",
                                          (json_int_t)(s.bytes + s.other_bytes), "bpw",
                                          s.bits_per_weight));
        else
            printf("%-7s %10lld bytes  %5.2f bits per weight\n", schemes[i],
                   (long long)(s.bytes + s.other_bytes), s.bits_per_weight);
    }
    if (json) {
        char *text = json_dumps(all, JSON_REAL_PRECISION(6));
        puts(text);
        free(text);
    }
    json_decref(all);
    return NB_OK;
}

nb_status nbt_inspect(nbt_args *args) {
    if (nbt_has(args, "operators")) {
        for (const char *const *name = nb_import_operators(); *name; name++) printf("%s\n", *name);
        return NB_OK;
    }
    const char *in;
    nb_graph *g;
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(nbt_read_graph(args, in, &g));
    nb_status status = inspect(args, in, g);
    nb_graph_destroy(g);
    return status;
}
