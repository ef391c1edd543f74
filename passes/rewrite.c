/* The greedy rewrite driver (rewrite.h).
 *
 * Invariant: a rule's replacement stands before its root, so the list stays in topological order.
 * Patterns are a few levels deep, which bounds the recursion of the matcher. */
#include "passes/rewrite.h"

#include "ir/ir.h"

#include <stdlib.h>
#include <string.h>

/* A rule set that keeps rewriting its own output is a bug; this many rewrites per op end it. */
#define MAX_REWRITES_PER_OP 64

bool nb_const_number(const nb_value *v, double *out) {
    if (!nb_is_const(v) || v->type->quant) return false;
    int64_t count;
    if (!nb_type_static_count(v->type, &count) || count < 1) return false;
    nb_tensor t = nb_tensor_of_const(v);
    double first = nb_tensor_get(&t, 0);
    for (int64_t i = 1; i < count; i++) {
        if (nb_tensor_get(&t, i) != first) return false;
    }
    *out = first;
    return true;
}

nb_value *nb_got(const nb_match *m, const char *name) {
    for (size_t i = 0; i < m->n_captures; i++) {
        if (strcmp(m->captures[i].name, name) == 0) return m->captures[i].value;
    }
    abort();
}

nb_op *nb_got_op(const nb_match *m, const char *name) { return nb_got(m, name)->def; }

static bool capture(nb_match *m, const char *name, nb_value *v) {
    if (!name || !*name) return true;
    for (size_t i = 0; i < m->n_captures; i++) {
        if (strcmp(m->captures[i].name, name) == 0) return m->captures[i].value == v;
    }
    if (m->n_captures == NB_MAX_CAPTURES) abort();
    m->captures[m->n_captures].name = name;
    m->captures[m->n_captures++].value = v;
    return true;
}

static bool match_value(const nb_pat *p, nb_value *v, nb_match *m);

static bool match_args(const nb_pat *p, nb_op *op, bool swapped, nb_match *m) {
    for (size_t i = 0; i < NB_PAT_ARGS && p->args[i]; i++) {
        size_t slot = swapped && i < 2 ? 1 - i : i;
        if (slot >= op->n_operands || !nb_in(op, slot)) return false;
        if (!match_value(p->args[i], nb_in(op, slot), m)) return false;
    }
    return true;
}

static bool match_op(const nb_pat *p, nb_op *op, nb_match *m) {
    size_t saved = m->n_captures;
    const nb_loc *loc = m->loc;
    for (int swapped = 0; swapped < 2; swapped++) {
        m->n_captures = saved;
        m->loc = loc;
        if (capture(m, p->name, nb_out(op)) && match_args(p, op, swapped != 0, m)) {
            m->loc = nb_loc_merge(m->graph, m->loc, op->loc);
            return true;
        }
        if (!nb_has_trait(op, NB_TRAIT_COMMUTES) || !p->args[0] || !p->args[1]) break;
    }
    m->n_captures = saved;
    m->loc = loc;
    return false;
}

static bool match_value(const nb_pat *p, nb_value *v, nb_match *m) {
    double number;
    switch (p->kind) {
    case NB_PAT_ANY:
        return capture(m, p->name, v);
    case NB_PAT_CONST:
        return nb_is_const(v) && capture(m, p->name, v);
    case NB_PAT_NUMBER:
        return nb_const_number(v, &number) && number == p->number;
    case NB_PAT_OP:
        return v->def && strcmp(nb_info(v->def)->name, p->op) == 0 &&
               (!p->single || nb_has_one_use(v)) && match_op(p, v->def, m);
    case NB_PAT_END:
        break;
    }
    return false;
}

bool nb_pattern_match(const nb_pat *pattern, nb_op *root, nb_match *m) {
    m->root = root;
    m->n_captures = 0;
    m->loc = NULL;
    return strcmp(nb_info(root)->name, pattern->op) == 0 && match_op(pattern, root, m);
}

/* 1: rewritten, 0: no rule fired, -1: an error was recorded. */
static int rewrite_op(nb_pass_ctx *ctx, const nb_rule *rules, size_t n_rules, nb_op *op) {
    for (size_t r = 0; r < n_rules; r++) {
        nb_match m = {.ctx = ctx, .graph = ctx->graph};
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
