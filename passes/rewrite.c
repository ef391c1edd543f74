/* The greedy rewrite driver (rewrite.h).
 *
 * Invariant: a rule's replacement stands before its root, so the list stays in topological order.
 */
#include "passes/rewrite.h"

/* A rule set that keeps rewriting its own output is a bug; this many rewrites per op end it. */
#define MAX_REWRITES_PER_OP 64

/* 1: rewritten, 0: no rule fired, -1: an error was recorded. */
static int rewrite_op(nb_pass_ctx *ctx, const nb_rule *rules, size_t n_rules, nb_op *op) {
    for (size_t r = 0; r < n_rules; r++) {
        nb_match m = {.rule = &rules[r], .ctx = ctx, .graph = ctx->graph};
        if (!nb_pattern_match(rules[r].pattern, op, &m)) continue;
        if (rules[r].where && rules[r].where(&m)) continue;
        nb_builder b = nb_pass_builder(ctx, op, m.loc);
        size_t errors = b.diags->errors;
        nb_value *to = rules[r].to(&m, &b);
        if (b.diags->errors != errors) return -1;
        if (!to || to == nb_out(op)) continue;
        nb_replace_uses(nb_out(op), to);
        nb_op_remove(op);
        return 1;
    }
    return 0;
}

bool nb_rewrite_run(nb_pass_ctx *ctx, const nb_rule *rules, size_t n_rules, bool *changed) {
    uint64_t budget = (uint64_t)ctx->graph->n_ops * MAX_REWRITES_PER_OP + 1024;
    for (bool again = true; again;) {
        again = false;
        NB_FOR_OPS(op, &ctx->graph->body) {
            if (op->n_results != 1) continue;
            int did = rewrite_op(ctx, rules, n_rules, op);
            if (did < 0) return false;
            if (did && budget-- == 0) {
                nb_error(nb_diags_of(ctx), NB_INTERNAL, NB_NOWHERE,
                         "rewrite rules do not come to an end");
                return false;
            }
            again = again || did;
        }
        *changed = *changed || again;
        if (again) nb_graph_sweep(ctx->graph);
    }
    return true;
}
