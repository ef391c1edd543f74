/* nibble explain: why rewrites did not fire. Runs a pipeline and lists, for each rule that found
 * its operations, or nearly all of them, and was refused: the pass, the equation, the node, and the
 * condition that refused. Passes tell it at the place that refuses (nb_refused, passes/pass.h). */
#include "ir/text.h"
#include "tools/json.h"
#include "tools/near_misses.h"

#include <stdio.h>
#include <string.h>

typedef struct explained {
    nbt_args *args;
    nb_arena *arena;
    nbt_near_misses misses; /* of the nodes that --node selects */
} explained;

/* ---- the node ------------------------------------------------------------------------------- */

/* What became of it: ops that stand for it. */
static void print_rest(const explained *e, const nb_graph *g) {
    NB_FOR_OPS(op, &g->body) {
        if (nbt_is_asked(&e->misses, op)) printf("it is now: %s\n", nb_print_op(e->arena, op));
    }
}

static nb_status check_selector(const explained *e, const nb_graph *g) {
    const char *list = "";
    size_t n = 0;
    if (!e->misses.selector) return NB_OK;
    NB_FOR_OPS(op, &g->body) {
        if (nbt_is_asked(&e->misses, op)) return NB_OK;
        if (*nb_loc_name(op->loc) && n++ < 4)
            list = nb_format(e->arena, "%s%s\"%s\"", list, *list ? ", " : "", nb_loc_name(op->loc));
    }
    nb_error(e->args->diags, NB_USAGE, NB_NOWHERE, "--node \"%s\" matches none of %zu nodes",
             e->misses.selector, n);
    nb_help(e->args->diags, "nodes are named like %s; '*' is any text", list);
    return NB_USAGE;
}

/* ---- output --------------------------------------------------------------------------------- */

static const char *shown(const explained *e, const char *text) {
    return nb_escape(e->arena, text, strlen(text));
}

static void print(const explained *e) {
    for (size_t i = 0; i < e->misses.all.count; i++) {
        const nbt_near_miss *m = &e->misses.all.items[i];
        printf("%s: %s%s%s\n", m->pass, m->rule, *m->node ? " at " : "", shown(e, m->node));
        if (*m->equation) printf("  %s\n", m->equation);
        printf("  refused: %s\n", shown(e, m->why));
        if (*m->text) printf("  %s\n", m->text);
    }
    printf("near misses: %zu\n", e->misses.all.count);
}

static void print_json(const explained *e) {
    json_t *list = json_array();
    for (size_t i = 0; i < e->misses.all.count; i++) {
        const nbt_near_miss *m = &e->misses.all.items[i];
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
    explained e = {.args = args,
                   .arena = args->arena,
                   .misses = {.arena = args->arena,
                              .selector = nbt_get(args, "node"),
                              .known = {.arena = args->arena}}};
    const nbt_watch watch = nbt_watch_misses(&e.misses);
    nb_status status = check_selector(&e, g);
    if (status == NB_OK) status = nbt_run_watched(args, g, text, &watch);
    if (status == NB_OK && nbt_has(args, "json")) {
        print_json(&e);
    } else if (status == NB_OK) {
        print(&e);
        if (e.misses.selector) print_rest(&e, g);
    }
    nb_graph_destroy(g);
    return status;
}
