/* lower-calls: operations of plug-ins become operations of Nibble, where the plug-in says how.
 *
 *   requires   the plug-ins that brought the operations (--load)
 *   maintains  all results, to the bit; a call without a `lower` of its plug-in stays, and a model
 *              with it is linked with the C function
 *
 *   %y: f32[B] = call %x {function="twice", to=f32, shape=[B]}  ->  %y: f32[B] = add %x, %x */
#include "passes/host.h"

static bool lower(nb_pass_ctx *ctx, nb_op *op, const nb_op_def *def) {
    nb_pass_state *s = nb_state_of(ctx);
    nb_value *v = def->lower(ctx, op);
    if (!v && !s->failed)
        ctx->host->report(ctx, NB_LEVEL_ERROR, op, "'%s' was not lowered, without a reason",
                          def->name);
    if (!v || s->failed) return false;
    if (!nb_is_in_graph(op) || v == nb_out(op) || v->type != nb_out(op)->type) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "what '%s' was lowered to is %s, expected another value of type %s",
                          def->name, nb_type_text(s->scratch, v->type),
                          nb_type_text(s->scratch, nb_out(op)->type));
        return false;
    }
    nb_replace_uses(nb_out(op), v);
    nb_op_remove(op);
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const nb_registry *registry = nb_state_of(ctx)->env->registry;
    bool changed = false;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (op->kind != NB_OP_call) continue;
        const nb_op_def *def = nb_registry_find_op(registry, nb_attr_of(op, "function")->str);
        if (!def || !def->lower) continue;
        if (!lower(ctx, op, def)) return NB_PASS_FAILED;
        changed = true;
    }
    if (changed) nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_lower_calls = {
    .size = sizeof(nb_pass),
    .name = "lower-calls",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "turn operations of plug-ins into Nibble's own, where the plug-in says how",
};
