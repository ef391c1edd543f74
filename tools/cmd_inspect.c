/* nibble inspect: one screen about a model: what goes in and out, where weights and work are, what
 * each scheme would cost. What is found is one JSON object, printed as such or as text. */
#include "frontend/frontend.h"
#include "passes/linear.h"
#include "passes/presets.h"
#include "tools/json.h"
#include "tools/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *port(nbt_args *args, const char *name, const nb_type *type) {
    /* Escaped: a name may hold what JSON and terminals must not get. */
    return json_pack("{s:s, s:s}", "name", nb_escape(args->arena, name, strlen(name)), "type",
                     nb_type_text(args->arena, type));
}

static json_t *inputs_of(nbt_args *args, const nb_graph *g) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < g->body.n_params; i++)
        json_array_append_new(list, port(args, g->body.params[i]->name, g->body.params[i]->type));
    return list;
}

static json_t *outputs_of(nbt_args *args, const nb_graph *g) {
    json_t *list = json_array();
    for (size_t i = 0; i < g->outputs.count; i++)
        json_array_append_new(list, port(args, g->outputs.items[i], nb_in(g->body.last, i)->type));
    return list;
}

static json_t *ops_of(const nb_graph *g) {
    json_int_t counts[NB_OP_COUNT] = {0};
    NB_FOR_OPS(op, &g->body) counts[op->kind]++;
    json_t *ops = json_object();
    for (int k = 0; k < NB_OP_COUNT; k++) {
        if (counts[k] && k != NB_OP_return)
            json_object_set_new(ops, nb_ops[k].name, json_integer(counts[k]));
    }
    return ops;
}

/* Multiply-adds of all linear layers for one token (one row). */
static int64_t macs_per_row(const nb_graph *g) {
    int64_t macs = 0;
    NB_FOR_OPS(op, &g->body) {
        const nb_value *w = nb_linear_weight(op);
        int64_t n;
        if (w && nb_type_static_count(w->type, &n)) macs += n;
    }
    return macs;
}

/* Multiply-adds of all convolutions for one entry of a batch; those of unknown sizes do not count.
 */
static int64_t conv_macs(const nb_graph *g) {
    int64_t all = 0;
    NB_FOR_OPS(op, &g->body) {
        if (op->kind != NB_OP_conv) continue;
        const nb_type *w = nb_in(op, 1)->type, *y = nb_out(op)->type;
        int64_t macs = 1;
        for (int d = 1; d < y->rank; d++) {
            bool known = nb_dim_is_const(y->dims[d]) && nb_mul_i64(macs, y->dims[d]->value, &macs);
            if (!known || !nb_mul_i64(macs, w->dims[d]->value, &macs)) macs = 0;
        }
        all += macs;
    }
    return all;
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

static nb_status describe(nbt_args *args, const char *path, nb_graph *g, json_t *all) {
    NB_TRY(nbt_run_pipeline(args, g, "simplify, raise, simplify"));
    json_object_set_new(all, "inputs", inputs_of(args, g));
    json_object_set_new(all, "outputs", outputs_of(args, g));
    json_object_set_new(all, "states", json_integer((json_int_t)g->states.count));
    json_object_set_new(all, "ops", ops_of(g));
    json_object_set_new(all, "macs_per_row", json_integer(macs_per_row(g)));
    json_object_set_new(all, "conv_macs", json_integer(conv_macs(g)));
    json_t *schemes = json_object();
    json_object_set_new(all, "schemes", schemes);
    const char *scheme;
    for (size_t i = 0; (scheme = nb_preset_name(i)); i++) {
        nbt_size s;
        NB_TRY(scheme_size(args, path, scheme, &s));
        json_object_set_new(schemes, scheme,
                            json_pack("{s:I, s:f}", "bytes", (json_int_t)(s.bytes + s.other_bytes),
                                      "bpw", s.bits_per_weight));
    }
    return NB_OK;
}

static void print_text(json_t *all) {
    size_t i;
    json_t *item;
    const char *name;
    json_array_foreach(json_object_get(all, "inputs"), i, item)
        printf("input   %-32s %s\n", json_string_value(json_object_get(item, "name")),
               json_string_value(json_object_get(item, "type")));
    json_array_foreach(json_object_get(all, "outputs"), i, item)
        printf("output  %-32s %s\n", json_string_value(json_object_get(item, "name")),
               json_string_value(json_object_get(item, "type")));
    printf("states  %lld\nops    ", json_integer_value(json_object_get(all, "states")));
    json_object_foreach(json_object_get(all, "ops"), name, item)
        printf(" %s %lld", name, json_integer_value(item));
    printf("\nlinear  %lld multiply-adds for each row\n",
           json_integer_value(json_object_get(all, "macs_per_row")));
    if (json_object_get(json_object_get(all, "ops"), "conv"))
        printf("conv    %lld multiply-adds for each entry of a batch, where sizes are known\n",
               json_integer_value(json_object_get(all, "conv_macs")));
    json_object_foreach(json_object_get(all, "schemes"), name, item)
        printf("%-7s %10lld bytes  %5.2f bits per weight\n", name,
               json_integer_value(json_object_get(item, "bytes")),
               json_real_value(json_object_get(item, "bpw")));
}

static nb_status inspect(nbt_args *args, const char *path, nb_graph *g) {
    json_t *all = json_object();
    nb_status status = describe(args, path, g, all);
    if (status == NB_OK && nbt_has(args, "json")) {
        nbt_print_json(all);
        return NB_OK;
    }
    if (status == NB_OK) print_text(all);
    json_decref(all);
    return status;
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
