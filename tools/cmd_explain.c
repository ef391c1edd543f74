/* nibble explain: why rewrites did not fire. Runs a pipeline and lists, for each rule that found
 * its operations, or nearly all of them, and was refused: the pass, the equation, the node, and the
 * condition that refused. Passes tell it at the place that refuses (nb_refused, passes/pass.h). */
#include "ir/text.h"
#include "passes/linear.h"
#include "tools/json.h"
#include "tools/model.h"

#include <stdio.h>
#include <string.h>

typedef struct miss {
    const char *pass, *rule, *equation, *why;
    const char *node, *text; /* of the op: its ONNX node and its line of .nir; "" of none */
    uint32_t op;             /* its id; UINT32_MAX: there is none */
} miss;

typedef struct explained {
    nbt_args *args;
    nb_arena *arena;
    const char *selector; /* --node, or NULL */
    NB_VEC(miss) now;     /* of the pass that runs */
    NB_VEC(miss) all;
    nb_map known; /* of `all`: text of op, pass, rule and reason -> itself */
} explained;

static bool is_selected(const explained *e, const nb_op *op) {
    if (!e->selector) return true;
    for (uint32_t i = 0; op && op->loc && i < op->loc->n_at; i++)
        if (nb_match_name(e->selector, op->loc->at[i])) return true;
    return false;
}

static void hear(void *user, const nb_near_miss *m) {
    explained *e = user;
    if (!is_selected(e, m->op)) return;
    nb_arena *arena = e->arena;
    const miss found = {.pass = m->pass,
                        .rule = nb_strdup(arena, m->rule),
                        .equation = nb_strdup(arena, m->equation),
                        .why = nb_strdup(arena, m->why),
                        .node = m->op ? nb_strdup(arena, nb_loc_name(m->op->loc)) : "",
                        .text = m->op ? nb_print_op(arena, m->op) : "",
                        .op = m->op ? m->op->id : UINT32_MAX};
    nb_vec_push(arena, &e->now, found);
}

/* A pass that goes over the graph several times may have done later what it could not do first. */
static void keep(void *user, const nb_pass_event *event) {
    explained *e = user;
    if (!e->now.count) return;
    bool *there = NB_NEW_ARRAY(e->arena, bool, (size_t)event->graph->n_ops + 1);
    NB_FOR_OPS(op, &event->graph->body) there[op->id] = true;
    for (size_t i = 0; i < e->now.count; i++) {
        const miss *m = &e->now.items[i];
        const char *key = nb_format(e->arena, "%u %s %s %s", m->op, m->pass, m->rule, m->why);
        if (m->op != UINT32_MAX && !there[m->op]) continue;
        if (nb_map_get_str(&e->known, key, strlen(key))) continue;
        nb_map_set_str(&e->known, key, strlen(key), (void *)(uintptr_t)key);
        nb_vec_push(e->arena, &e->all, *m);
    }
    e->now.count = 0;
}

/* ---- the node ------------------------------------------------------------------------------- */

/* What became of it: ops that stand for it. */
static void print_rest(const explained *e, const nb_graph *g) {
    NB_FOR_OPS(op, &g->body) {
        if (is_selected(e, op)) printf("it is now: %s\n", nb_print_op(e->arena, op));
    }
}

static nb_status check_selector(const explained *e, const nb_graph *g) {
    const char *list = "";
    size_t n = 0;
    if (!e->selector) return NB_OK;
    NB_FOR_OPS(op, &g->body) {
        if (is_selected(e, op)) return NB_OK;
        if (*nb_loc_name(op->loc) && n++ < 4)
            list = nb_format(e->arena, "%s%s\"%s\"", list, *list ? ", " : "", nb_loc_name(op->loc));
    }
    nb_error(e->args->diags, NB_USAGE, NB_NOWHERE, "--node \"%s\" matches none of %zu nodes",
             e->selector, n);
    nb_help(e->args->diags, "nodes are named like %s; '*' is any text", list);
    return NB_USAGE;
}

/* ---- output --------------------------------------------------------------------------------- */

static const char *shown(const explained *e, const char *text) {
    return nb_escape(e->arena, text, strlen(text));
}

static void print(const explained *e) {
    for (size_t i = 0; i < e->all.count; i++) {
        const miss *m = &e->all.items[i];
        printf("%s: %s%s%s\n", m->pass, m->rule, *m->node ? " at " : "", shown(e, m->node));
        if (*m->equation) printf("  %s\n", m->equation);
        printf("  refused: %s\n", shown(e, m->why));
        if (*m->text) printf("  %s\n", m->text);
    }
    printf("near misses: %zu\n", e->all.count);
}

static void print_json(const explained *e) {
    json_t *list = json_array();
    for (size_t i = 0; i < e->all.count; i++) {
        const miss *m = &e->all.items[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "pass", m->pass, "rule",
                                        m->rule, "equation", m->equation, "node", shown(e, m->node),
                                        "why", shown(e, m->why), "op", shown(e, m->text)));
    }
    nbt_print_json(json_pack("{s:o}", "near_misses", list));
}

nb_status nbt_explain(nbt_args *args) {
    const char *in, *text;
    nb_graph *g;
    NB_TRY(nbt_one_input(args, &in));
    NB_TRY(nbt_pipeline_text(args, NULL, &text));
    NB_TRY(nbt_read_graph(args, in, &g));
    explained e = {.args = args, .arena = args->arena, .selector = nbt_get(args, "node")};
    e.known.arena = args->arena;
    const nbt_watch watch = {.near_miss = hear, .after = keep, .user = &e};
    nb_status status = check_selector(&e, g);
    if (status == NB_OK) status = nbt_run_watched(args, g, text, &watch);
    if (status == NB_OK && nbt_has(args, "json")) {
        print_json(&e);
    } else if (status == NB_OK) {
        print(&e);
        if (e.selector) print_rest(&e, g);
    }
    nb_graph_destroy(g);
    return status;
}
