/* Matches patterns (rewrite.h) by search: a list of goals "this value has this pattern", and every
 * choice (the order of operands, which factor is which) is tried until all goals hold.
 *
 * Patterns have a dozen nodes, which bounds the recursion. */
#include "passes/product.h"
#include "passes/rewrite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct goal {
    const nb_pat *pattern;
    nb_value *value;
    int depth; /* in the pattern */
    const struct goal *next;
} goal;

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

static void record(nb_match *m, const nb_op *op, int depth) {
    if (m->n_ops == NB_MAX_MATCHED) return; /* of a very long product a location is lost */
    m->ops[m->n_ops].op = op;
    m->ops[m->n_ops++].depth = depth;
}

/* Numbers that f32 cannot hold were rounded by the exporter, to f16 perhaps. */
static bool is_close(double found, double wanted) {
    if ((double)(float)wanted == wanted) return found == wanted;
    return fabs(found - wanted) <= 5e-4 * fabs(wanted);
}

/* The value at the goal is not what the pattern says; returns false. */
static bool missed(nb_match *m, const goal *at, const char *why) {
    nb_closest *c = m->closest;
    if (c && (!c->why || m->n_nodes > c->n_nodes))
        *c = (nb_closest){m->n_nodes, at->pattern, at->value, why};
    return false;
}

static bool solve(nb_match *m, const goal *goals);

/* Goals for n values and patterns, in that order, in front of `rest`. */
static bool solve_args(nb_match *m, size_t n, const nb_pat *const *patterns,
                       nb_value *const *values, int depth, const goal *rest) {
    goal list[NB_PAT_ARGS];
    for (size_t i = 0; i < n; i++)
        list[i] = (goal){patterns[i], values[i], depth, i + 1 < n ? &list[i + 1] : rest};
    return solve(m, n ? list : rest);
}

static size_t count_args(const nb_pat *p) {
    size_t n = 0;
    while (n < NB_PAT_ARGS && p->args[n]) n++;
    return n;
}

/* What a choice changes. */
typedef struct saved {
    size_t n_captures, n_ops, n_nodes;
} saved;

static saved save(const nb_match *m) { return (saved){m->n_captures, m->n_ops, m->n_nodes}; }

/* Undoes what a choice that failed has captured. */
static bool undo(nb_match *m, saved s) {
    m->n_captures = s.n_captures;
    m->n_ops = s.n_ops;
    m->n_nodes = s.n_nodes;
    return false;
}

static bool solve_op(nb_match *m, const goal *at) {
    const nb_pat *p = at->pattern;
    nb_op *op = at->value->def;
    if (!op || strcmp(nb_info(op)->name, p->op) != 0) return missed(m, at, "is not made by it");
    const saved before = save(m);
    size_t n = count_args(p);
    m->n_nodes++;
    if (p->single && !nb_has_one_use(at->value)) {
        missed(m, at, "has other readers, too");
        return undo(m, before);
    }
    if (n > op->n_operands) return undo(m, before);
    bool commutes = n >= 2 && nb_has_trait(op, NB_TRAIT_COMMUTES);
    for (size_t swapped = 0; swapped <= commutes; swapped++) {
        nb_value *values[NB_PAT_ARGS];
        bool given = true;
        for (size_t i = 0; i < n; i++) {
            values[i] = nb_in(op, i < 2 ? i ^ swapped : i);
            given = given && values[i];
        }
        if (!given || !capture(m, p->name, at->value)) return undo(m, before);
        m->n_nodes = before.n_nodes + 1;
        record(m, op, at->depth);
        if (solve_args(m, n, p->args, values, at->depth + 1, at->next)) return true;
        undo(m, before);
    }
    return false;
}

/* Gives the factors from `i` on to patterns in every way; values[0..i-1] are chosen. */
static bool solve_factors(nb_match *m, const goal *at, const nb_product *product, size_t i,
                          unsigned used, nb_value **values) {
    const nb_pat *patterns[NB_PAT_ARGS], *arg = NULL;
    size_t n = product->n_factors;
    for (size_t k = 0; k < n; k++) {
        arg = at->pattern->args[k];
        patterns[k] = arg->kind == NB_PAT_POWER ? arg->args[0] : arg;
    }
    if (i == n)
        return solve_args(m, n, patterns, values, at->depth + (int)product->n_ops, at->next);
    arg = at->pattern->args[i];
    for (size_t k = 0; k < n; k++) {
        double power = arg->kind == NB_PAT_POWER ? arg->number : 1;
        if (used >> k & 1 || product->factors[k].power != power) continue;
        values[i] = product->factors[k].value;
        if (solve_factors(m, at, product, i + 1, used | 1u << k, values)) return true;
    }
    return false;
}

static bool solve_product(nb_match *m, const goal *at) {
    const saved before = save(m);
    /* First without looking into values that others use: such a value is likely to be the x. */
    for (int shared = 0; shared < 2; shared++) {
        nb_product product;
        nb_value *values[NB_PAT_ARGS];
        if (!nb_product_of(at->value, shared != 0, &product) || product.n_ops == 0)
            return missed(m, at, "is no product");
        if (product.n_factors != count_args(at->pattern)) continue;
        if (!is_close(product.number, at->pattern->number)) continue;
        m->n_nodes++;
        for (size_t i = 0; i < product.n_ops; i++) record(m, product.ops[i], at->depth + (int)i);
        if (solve_factors(m, at, &product, 0, 0, values)) return true;
        undo(m, before);
    }
    return missed(m, at, "is another product");
}

static bool solve(nb_match *m, const goal *goals) {
    if (!goals) return true;
    double number;
    const saved before = save(m);
    switch (goals->pattern->kind) {
    case NB_PAT_OP:
        return solve_op(m, goals);
    case NB_PAT_PRODUCT:
        return solve_product(m, goals);
    case NB_PAT_NUMBER:
        if (!nb_const_number(goals->value, &number) || !is_close(number, goals->pattern->number))
            return missed(m, goals, "is not that number");
        break;
    case NB_PAT_CONST:
        if (!nb_is_const(goals->value)) return missed(m, goals, "is not a constant");
        break;
    case NB_PAT_ANY:
        break;
    case NB_PAT_POWER:
    case NB_PAT_END:
        return false;
    }
    if (!capture(m, goals->pattern->name, goals->value))
        return missed(m, goals, "is another value than the first of that name");
    return solve(m, goals->next) || undo(m, before);
}

/* Merges the locations of the matched ops that are, or are not, a dequantize, operands before
 * users. */
static void merge_of(nb_match *m, bool dequantize) {
    size_t stack[NB_MAX_MATCHED], top = 0;
    for (size_t i = 0; i <= m->n_ops; i++) {
        while (top && (i == m->n_ops || m->ops[stack[top - 1]].depth >= m->ops[i].depth)) {
            const nb_op *op = m->ops[stack[--top]].op;
            if ((op->kind == NB_OP_dequantize) == dequantize)
                m->loc = nb_loc_merge(m->graph, m->loc, op->loc);
        }
        if (i < m->n_ops) stack[top++] = i;
    }
}

/* The first name is that of the result: a layer's own, not that of what dequantizes its input,
 * which other layers may take too. */
static void merge_locations(nb_match *m) {
    merge_of(m, false);
    merge_of(m, true);
}

bool nb_pattern_match(const nb_pat *pattern, nb_op *root, nb_match *m) {
    m->root = root;
    m->n_captures = m->n_ops = m->n_nodes = 0;
    m->loc = NULL;
    goal all = {.pattern = pattern, .value = nb_out(root)};
    if (!solve(m, &all)) return false;
    merge_locations(m);
    return true;
}
