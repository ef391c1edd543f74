/* Codes that are made floats again before anything is computed with them (inspect.h). */
#include "ir/text.h"
#include "tools/inspect.h"
#include "tools/near_misses.h"

#include <string.h>

/* What makes integer products of quantized models. */
static const char pipeline[] = "simplify, raise, simplify, fuse-dequant, simplify";

/* Why the reader of a dequantized value did not take the codes. */
static const char *reason(const nbt_near_misses *misses, const nb_op *reader) {
    for (size_t i = 0; i < misses->all.count; i++) {
        const nbt_near_miss *m = &misses->all.items[i];
        if (m->op == reader->id && strcmp(m->pass, "fuse-dequant") == 0)
            return nb_format(misses->arena, "%s: %s", m->rule, m->why);
    }
    if (reader->kind == NB_OP_return) return "it is an output";
    return nb_format(misses->arena, "%s computes with floats: no rule gives it codes",
                     nb_info(reader)->name);
}

static const char *shown(const nbt_near_misses *misses, const char *text) {
    return nb_escape(misses->arena, text, strlen(text));
}

static void add_value(const nbt_near_misses *misses, json_t *list, const nb_op *dq) {
    const nb_value *codes = nb_in(dq, 0);
    const char *what = nb_is_const(codes)                                 ? "constant"
                       : codes->def && codes->def->kind == NB_OP_quantize ? "pair"
                                                                          : "value";
    for (const nb_use *u = nb_out(dq)->uses; u; u = u->next)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "node",
                                              shown(misses, nb_loc_name(dq->loc)), "value",
                                              shown(misses, codes->name), "what", what, "reader",
                                              shown(misses, nb_loc_name(u->user->loc)), "why",
                                              shown(misses, reason(misses, u->user))));
}

static bool has_dequantize(const nb_graph *g) {
    NB_FOR_OPS(op, &g->body) {
        if (op->kind == NB_OP_dequantize) return true;
    }
    return false;
}

nb_status nbt_unfused_json(nbt_args *args, const nb_graph *g, json_t **out) {
    nbt_near_misses misses = {.arena = args->arena, .known = {.arena = args->arena}};
    const nbt_watch watch = nbt_watch_misses(&misses);
    *out = json_array();
    if (g->stage == NB_STAGE_PLANNED || !has_dequantize(g)) return NB_OK;
    nb_graph *fused = nb_graph_clone(g);
    const nb_status status = nbt_run_watched(args, fused, pipeline, &watch);
    NB_FOR_OPS(op, &fused->body) {
        if (status == NB_OK && op->kind == NB_OP_dequantize) add_value(&misses, *out, op);
    }
    nb_graph_destroy(fused);
    return status;
}
