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

/* ---- near misses ---------------------------------------------------------------------------- */

/* Operations that a pattern consists of. */
static size_t count_nodes(const nb_pat *p) {
    size_t n = p->kind == NB_PAT_OP || p->kind == NB_PAT_PRODUCT;
    for (size_t i = 0; i < NB_PAT_ARGS && p->args[i]; i++) n += count_nodes(p->args[i]);
    return n;
}

static const char *pattern_text(const nb_pat *p, nb_arena *scratch) {
    if (p->kind == NB_PAT_OP) return p->op;
    if (p->kind == NB_PAT_NUMBER) return nb_format(scratch, "%g", p->number);
    return p->kind == NB_PAT_PRODUCT ? "a product" : p->name && *p->name ? p->name : "a value";
}

/* Of two operations both are there, of more all but one: who sees an add does not wonder about a
 * norm, nor at a reshape that there is a rule for some of them. */
static bool is_near(size_t found, size_t wanted) { return found >= 2 && found + 1 >= wanted; }

static void explain(nb_pass_ctx *ctx, const nb_rule *rule, nb_op *op) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    nb_closest c = {0};
    nb_match m = {.ctx = ctx, .graph = ctx->graph, .closest = &c};
    const size_t wanted = count_nodes(rule->pattern);
    if (nb_pattern_match(rule->pattern, op, &m)) {
        const char *why = rule->where && is_near(wanted, wanted) ? rule->where(&m) : NULL;
        if (why) nb_refused(ctx, op, rule->name, rule->equation, "%s", why);
    } else if (c.why && is_near(c.n_nodes, wanted)) {
        nb_refused(ctx, op, rule->name, rule->equation, "'%c%s' (%s) %s",
                   nb_is_const(c.value) ? '@' : '%', c.value->name,
                   pattern_text(c.pattern, scratch), c.why);
    }
}

/* Once no rule fires any more, what is left of them. */
static void explain_all(nb_pass_ctx *ctx, const nb_region *region, const nb_rule *rules,
                        size_t n_rules) {
    NB_FOR_OPS(op, region) {
        for (size_t r = 0; r < n_rules && op->n_results == 1; r++) explain(ctx, &rules[r], op);
        for (uint32_t r = 0; r < op->n_regions; r++)
            explain_all(ctx, op->regions[r], rules, n_rules);
    }
}

typedef struct rewriting {
    nb_pass_ctx *ctx;
    const nb_rule *rules;
    size_t n_rules;
    uint64_t budget;
} rewriting;

/* One round over a region and the bodies in it. */
static bool rewrite_region(rewriting *w, const nb_region *region, bool *again) {
    NB_FOR_OPS(op, region) {
        for (uint32_t r = 0; r < op->n_regions; r++)
            if (!rewrite_region(w, op->regions[r], again)) return false;
        if (op->n_results != 1 || op->n_regions) continue;
        int did = rewrite_op(w->ctx, w->rules, w->n_rules, op);
        if (did < 0) return false;
        if (did && w->budget-- == 0) {
            nb_error(nb_diags_of(w->ctx), NB_INTERNAL, NB_NOWHERE,
                     "rewrite rules do not come to an end");
            return false;
        }
        *again = *again || did;
    }
    return true;
}

bool nb_rewrite_run(nb_pass_ctx *ctx, const nb_rule *rules, size_t n_rules, bool *changed) {
    rewriting w = {.ctx = ctx,
                   .rules = rules,
                   .n_rules = n_rules,
                   .budget = (uint64_t)ctx->graph->n_ops * MAX_REWRITES_PER_OP + 1024};
    for (bool again = true; again;) {
        again = false;
        if (!rewrite_region(&w, &ctx->graph->body, &again)) return false;
        *changed = *changed || again;
        if (again) nb_graph_sweep(ctx->graph);
    }
    if (nb_is_heard(ctx)) explain_all(ctx, &ctx->graph->body, rules, n_rules);
    return true;
}
