/* nibble inspect: one screen about a model: what goes in and out, where weights and work are, what
 * each scheme would cost. What is found is one JSON object, printed as such or as text. */
#include "frontend/frontend.h"
#include "passes/linear.h"
#include "passes/presets.h"
#include "tools/custom_ops.h"
#include "tools/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *port(nbt_args *args, const char *name, const nb_type *type, bool state) {
    /* Escaped: a name may hold what JSON and terminals must not get. */
    return json_pack("{s:s, s:s, s:b}", "name", nb_escape(args->arena, name, strlen(name)), "type",
                     nb_type_text(args->arena, type), "state", (int)state);
}

static bool is_state(const nb_graph *g, size_t i, bool input) {
    for (size_t k = 0; k < g->states.count; k++) {
        const nb_state *s = &g->states.items[k];
        if ((input ? s->input : s->output) == i) return true;
    }
    return false;
}

static json_t *inputs_of(nbt_args *args, const nb_graph *g) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < g->body.n_params; i++)
        json_array_append_new(list, port(args, g->body.params[i]->name, g->body.params[i]->type,
                                         is_state(g, i, true)));
    return list;
}

static json_t *outputs_of(nbt_args *args, const nb_graph *g) {
    json_t *list = json_array();
    for (size_t i = 0; i < g->outputs.count; i++)
        json_array_append_new(list, port(args, g->outputs.items[i], nb_in(g->body.last, i)->type,
                                         is_state(g, i, false)));
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

static nb_status scheme_graph(nbt_args *args, const char *path, const char *scheme,
                              nb_graph **out) {
    const char *text;
    NB_TRY(nbt_pipeline_text(args, scheme, &text));
    NB_TRY(nbt_read_graph(args, path, out));
    const nb_status status = nbt_run_watched(args, *out, text, &(nbt_watch){.estimating = true});
    if (status != NB_OK) nb_graph_destroy(*out);
    return status;
}

/* Bytes of a scheme's model, and the seconds of a run; `limits` NULL: they are not asked. What
 * passes remark would be the same for all schemes. */
static nb_status scheme_cost(nbt_args *args, const char *path, const char *scheme,
                             const nbt_limits *limits, nbt_size *out, double *seconds) {
    nbt_args own = *args;
    nb_graph *g;
    own.diags = nb_diags_create(args->arena, path);
    const nb_status status = scheme_graph(&own, path, scheme, &g);
    if (status != NB_OK)
        return nb_error(args->diags, status, (nb_where){.file = path, .offset = -1},
                        "scheme %s: %s", scheme,
                        own.diags->list.count ? own.diags->list.items[0]->message : "it fails");
    *out = nbt_measure_size(g);
    if (limits) *seconds = nbt_predict_seconds(args, g, limits);
    nb_graph_destroy(g);
    return NB_OK;
}

static nb_status describe_schemes(nbt_args *args, const char *path, json_t *all) {
    json_t *schemes = json_object();
    const char *scheme, *source;
    nbt_limits limits;
    json_object_set_new(all, "schemes", schemes);
    NB_TRY(nbt_find_limits(args, &limits, &source));
    for (size_t i = 0; (scheme = nb_preset_name(i)); i++) {
        nbt_size s;
        double seconds = 0;
        NB_TRY(scheme_cost(args, path, scheme, source ? &limits : NULL, &s, &seconds));
        json_t *cost = json_pack("{s:I, s:f}", "bytes", (json_int_t)(s.bytes + s.other_bytes),
                                 "bpw", s.bits_per_weight);
        if (source) json_object_set_new(cost, "predicted_ms", json_real(1e3 * seconds));
        json_object_set_new(schemes, scheme, cost);
    }
    if (!source) return NB_OK;
    json_object_set_new(all, "limits", nbt_limits_json(&limits));
    json_object_set_new(all, "limits_from", json_string(source));
    return NB_OK;
}

static nb_status describe(nbt_args *args, const char *path, nb_graph *g, json_t *all) {
    int64_t *symbols;
    json_t *unfused;
    NB_TRY(nbt_unfused_json(args, g, &unfused));
    json_object_set_new(all, "unfused", unfused);
    NB_TRY(nbt_run_pipeline(args, g, "simplify, raise, simplify"));
    NB_TRY(nbt_run_sizes(args, g, &symbols));
    json_object_set_new(all, "inputs", inputs_of(args, g));
    json_object_set_new(all, "outputs", outputs_of(args, g));
    json_object_set_new(all, "states", json_integer((json_int_t)g->states.count));
    json_object_set_new(all, "ops", ops_of(g));
    json_object_set_new(all, "macs_per_row", json_integer(macs_per_row(g)));
    json_object_set_new(all, "conv_macs", json_integer(conv_macs(g)));
    json_object_set_new(all, "run", nbt_sizes_json(args, g, symbols));
    json_object_set_new(all, "parts", nbt_parts_json(args, g, symbols));
    return describe_schemes(args, path, all);
}

static nb_status inspect(nbt_args *args, const char *path, nb_graph *g) {
    json_t *all = json_object();
    nb_status status = describe(args, path, g, all);
    if (status == NB_OK && nbt_has(args, "json")) {
        nbt_print_json(all);
        return NB_OK;
    }
    if (status == NB_OK) nbt_print_inspection(all, nbt_has(args, "verbose"));
    json_decref(all);
    return status;
}

/* ---- what cannot be imported ---------------------------------------------------------------- */

/* Every operator that is not supported; the error has been told. */
static void show_unsupported(nbt_args *args, const char *path) {
    nbt_args quiet = *args;
    const nb_operator_use *uses;
    const nb_custom_op *custom;
    nb_registry *registry;
    size_t n;
    quiet.diags = nb_diags_create(args->arena, path);
    if (nbt_make_registry(&quiet, &registry) != NB_OK) return;
    const size_t n_custom = nbt_custom_ops(registry, &custom);
    if (nb_import_survey(path, custom, n_custom, quiet.diags, &uses, &n) != NB_OK) return;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *name = nb_escape(args->arena, uses[i].name, strlen(uses[i].name)),
                   *node = nb_escape(args->arena, uses[i].node, strlen(uses[i].node));
        if (uses[i].supported) continue;
        json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "operator", name, "nodes",
                                              (json_int_t)uses[i].nodes, "first", node));
        if (!nbt_has(args, "json"))
            printf("not supported: %-24s %6zu nodes, the first is \"%s\"\n", name, uses[i].nodes,
                   node);
    }
    if (!nbt_has(args, "json"))
        json_decref(list);
    else
        nbt_print_json(json_pack("{s:o}", "unsupported", list));
}

nb_status nbt_inspect(nbt_args *args) {
    if (nbt_has(args, "operators")) {
        for (const char *const *name = nb_import_operators(); *name; name++) printf("%s\n", *name);
        return NB_OK;
    }
    const char *in;
    nb_graph *g;
    NB_TRY(nbt_one_input(args, &in));
    nb_status status = nbt_read_graph(args, in, &g);
    if (status == NB_UNSUPPORTED) show_unsupported(args, in);
    if (status != NB_OK) return status;
    status = inspect(args, in, g);
    nb_graph_destroy(g);
    return status;
}
