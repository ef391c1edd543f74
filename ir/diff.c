/* What differs between pairs that diff_match.c found, and between the graphs' headers (diff.h). */
#include "ir/diff.h"

#include "ir/reals.h"
#include "ir/support/parallel.h"
#include "ir/text.h"
#include "ir/text_writer.h"

#include <math.h>

typedef struct differ {
    const nb_graph *a, *b;
    const nb_pairs *pairs;
    nb_arena *arena;
    nb_writer text; /* of one name, over and over */
    nb_diff *out;
} differ;

static void differs(differ *d, nb_differences *list, const char *what, const char *name,
                    const char *a, const char *b) {
    nb_difference x = {.what = what, .name = name, .a = a, .b = b};
    nb_vec_push(d->arena, list, x);
}

static const char *name_text(differ *d, const char *sigil, const char *name) {
    d->text.count = 0;
    nb_put_name(&d->text, sigil, name);
    return nb_strndup(d->arena, d->text.bytes, d->text.count);
}

static const char *value_text(differ *d, const nb_value *v) {
    return v ? name_text(d, nb_is_const(v) ? "@" : "%", v->name) : "";
}

/* ---- ops ----------------------------------------------------------------------------------- */

static bool corresponds(const differ *d, const nb_value *a, const nb_value *b) {
    if (!a || !b) return a == b;
    if (d->pairs->value_b[a->id] == b) return true;
    return nb_is_const(a) && nb_is_const(b) && nb_sign_const(a) == nb_sign_const(b);
}

/* The operand's name in the table; those of a list are numbered. */
static const char *operand_name(differ *d, const nb_op *op, uint32_t i) {
    const nb_op_info *info = nb_info(op);
    uint32_t spec = 0;
    while (spec < i && info->operands[spec].mode != NB_OPERAND_VAR) spec++;
    const char *name = info->operands[spec].name;
    if (info->operands[spec].mode != NB_OPERAND_VAR) return name;
    return nb_format(d->arena, "%s[%u]", name, i - spec);
}

static void diff_operands(differ *d, const nb_op *a, const nb_op *b, nb_differences *out) {
    uint32_t i = 0, n = a->n_operands > b->n_operands ? a->n_operands : b->n_operands;
    if (nb_has_trait(a, NB_TRAIT_COMMUTES) && corresponds(d, nb_in(a, 0), nb_in(b, 1)) &&
        corresponds(d, nb_in(a, 1), nb_in(b, 0)))
        i = 2;
    for (; i < n; i++) {
        const nb_value *x = i < a->n_operands ? nb_in(a, i) : NULL,
                       *y = i < b->n_operands ? nb_in(b, i) : NULL;
        if (!corresponds(d, x, y))
            differs(d, out, "operand", operand_name(d, a, i), value_text(d, x), value_text(d, y));
    }
}

static void diff_attrs(differ *d, const nb_op *a, const nb_op *b, nb_differences *out) {
    const nb_op_info *info = nb_info(a);
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        const nb_attr_kind kind = info->attrs[i].kind;
        /* The type of the result tells a descriptor. */
        if (kind != NB_ATTR_QUANT && nb_sign_attr(&a->attrs[i], kind, d->pairs->symbols_a) !=
                                         nb_sign_attr(&b->attrs[i], kind, d->pairs->symbols_b))
            differs(d, out, "attribute", info->attrs[i].name, nb_attr_text(d->arena, a, i),
                    nb_attr_text(d->arena, b, i));
    }
}

static bool same_dims(const differ *d, const nb_type *a, const nb_type *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++)
        same = nb_sign_dim(a->dims[i], d->pairs->symbols_a) ==
               nb_sign_dim(b->dims[i], d->pairs->symbols_b);
    return same;
}

static void diff_types(differ *d, const char *name, const nb_type *a, const nb_type *b,
                       nb_differences *out) {
    if (nb_sign_type(a, d->pairs->symbols_a) == nb_sign_type(b, d->pairs->symbols_b)) return;
    const bool codes = a->quant && b->quant;
    if (!codes || !same_dims(d, a, b))
        differs(d, out, "type", name, nb_type_text(d->arena, a), nb_type_text(d->arena, b));
    if (codes && nb_sign_quant(a->quant) != nb_sign_quant(b->quant))
        differs(d, out, "codes", name, nb_quant_text(d->arena, a->quant),
                nb_quant_text(d->arena, b->quant));
}

/* What `return` returns is compared by the outputs' names. */
static void diff_op(differ *d, nb_op_pair *p) {
    if (p->a->kind == NB_OP_return) return;
    if (p->a->kind != p->b->kind) {
        differs(d, &p->differences, "kind", "", nb_info(p->a)->name, nb_info(p->b)->name);
    } else {
        diff_operands(d, p->a, p->b, &p->differences);
        diff_attrs(d, p->a, p->b, &p->differences);
    }
    for (uint32_t i = 0; i < p->a->n_results; i++) {
        const char *name = i ? nb_format(d->arena, "%u", i) : "";
        diff_types(d, name, p->a->results[i]->type, p->b->results[i]->type, &p->differences);
    }
}

static void add_op(differ *d, const nb_op *a, const nb_op *b) {
    nb_op_pair p = {.a = a, .b = b};
    if (a && b) diff_op(d, &p);
    size_t *count = !a                    ? &d->out->added
                    : !b                  ? &d->out->removed
                    : p.differences.count ? &d->out->changed
                                          : &d->out->same;
    ++*count;
    nb_vec_push(d->arena, &d->out->ops, p);
}

/* Ops of the first graph from `op` on that the second does not have. */
static void add_removed(differ *d, const nb_op *op) {
    for (; op && !d->pairs->to_b[op->id]; op = op->next) {
        add_op(d, op, NULL);
        for (uint32_t r = 0; r < op->n_regions; r++) add_removed(d, op->regions[r]->first);
    }
}

static void add_region(differ *d, const nb_region *a, const nb_region *b) {
    if (a) add_removed(d, a->first);
    for (const nb_op *op = b->first; op; op = op->next) {
        const nb_op *was = d->pairs->to_a[op->id];
        add_op(d, was, op);
        for (uint32_t r = 0; r < op->n_regions; r++)
            add_region(d, was ? was->regions[r] : NULL, op->regions[r]);
        if (was) add_removed(d, was->next);
    }
}

/* ---- constants ----------------------------------------------------------------------------- */

static double distance(double a, double b) {
    if (a == b || (isnan(a) && isnan(b))) return 0;
    return isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
}

static bool same_shape(const nb_type *a, const nb_type *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++) same = nb_dim_is(a->dims[i], b->dims[i]->value);
    return same;
}

/* One constant is one turn, on memory of its own. */
static void measure_error(void *user, int64_t i) {
    const differ *d = user;
    nb_const_pair *p = &d->out->constants.items[i];
    if (!p->differ || !same_shape(p->a->type, p->b->type)) return;
    nb_arena *arena = nb_arena_create_like(d->arena);
    nb_reals a, b;
    nb_reals_open(&a, p->a, arena);
    nb_reals_open(&b, p->b, arena);
    nb_const_error e = {.measured = true, .count = a.count};
    double signal = 0, noise = 0;
    for (int64_t k = 0; k < a.count; k++) {
        const double x = nb_real(&a, k), far = distance(x, nb_real(&b, k));
        if (isfinite(x)) signal += x * x;
        noise += far * far;
        e.differ += far != 0;
        if (far > e.largest) e.largest = far;
    }
    e.sqnr = noise > 0 ? 10 * log10(signal / noise) : INFINITY;
    p->error = e;
    nb_blob_rest(p->a->blob);
    nb_blob_rest(p->b->blob);
    nb_arena_destroy(arena);
}

static void add_const(differ *d, const nb_value *a, const nb_value *b) {
    nb_const_pair p = {.a = a, .b = b, .alike = a && b && d->pairs->value_b[a->id] != b};
    p.differ = a && b && nb_sign_const(a) != nb_sign_const(b);
    size_t *count = !a         ? &d->out->consts_added
                    : !b       ? &d->out->consts_removed
                    : p.differ ? &d->out->consts_changed
                               : &d->out->consts_same;
    ++*count;
    nb_vec_push(d->arena, &d->out->constants, p);
}

static void *as_key(uint64_t signature) { return (void *)(uintptr_t)(signature | 1); }

static nb_map contents_of(const nb_graph *g, nb_arena *scratch) {
    nb_map map = {.arena = scratch};
    for (size_t i = 0; i < g->constants.count; i++)
        nb_map_set(&map, as_key(nb_sign_const(g->constants.items[i])), g->constants.items[i]);
    return map;
}

/* One that has no partner and whose content the other graph has all the same was merged with
 * another, or split from it. */
static void diff_constants(differ *d) {
    nb_arena *scratch = nb_arena_create_like(d->arena);
    const nb_map in_a = contents_of(d->a, scratch), in_b = contents_of(d->b, scratch);
    for (size_t i = 0; i < d->b->constants.count; i++) {
        const nb_value *v = d->b->constants.items[i], *was = d->pairs->value_a[v->id];
        add_const(d, was ? was : nb_map_get(&in_a, as_key(nb_sign_const(v))), v);
    }
    for (size_t i = 0; i < d->a->constants.count; i++) {
        const nb_value *v = d->a->constants.items[i];
        if (!d->pairs->value_b[v->id]) add_const(d, v, nb_map_get(&in_b, as_key(nb_sign_const(v))));
    }
    nb_arena_destroy(scratch);
}

/* ---- headers ------------------------------------------------------------------------------- */

static const char *param_type(differ *d, const nb_value *v) {
    return v ? nb_type_text(d->arena, v->type) : "";
}

static void diff_inputs(differ *d) {
    nb_differences *out = &d->out->graph;
    for (uint32_t i = 0; i < d->a->body.n_params; i++) {
        const nb_value *a = d->a->body.params[i], *b = d->pairs->value_b[a->id];
        if (!b)
            differs(d, out, "input", name_text(d, "", a->name), param_type(d, a), "");
        else if (nb_sign_type(a->type, d->pairs->symbols_a) !=
                 nb_sign_type(b->type, d->pairs->symbols_b))
            differs(d, out, "input", name_text(d, "", a->name), param_type(d, a), param_type(d, b));
    }
    for (uint32_t i = 0; i < d->b->body.n_params; i++) {
        const nb_value *b = d->b->body.params[i];
        if (!d->pairs->value_a[b->id])
            differs(d, out, "input", name_text(d, "", b->name), "", param_type(d, b));
    }
}

static const nb_value *output_of(const nb_graph *g, const char *name) {
    for (size_t i = 0; i < g->outputs.count; i++) {
        if (strcmp(g->outputs.items[i], name) == 0) return nb_in(g->body.last, i);
    }
    return NULL;
}

static void diff_outputs(differ *d) {
    nb_differences *out = &d->out->graph;
    for (size_t i = 0; i < d->a->outputs.count; i++) {
        const char *name = d->a->outputs.items[i];
        const nb_value *a = nb_in(d->a->body.last, i), *b = output_of(d->b, name);
        if (!corresponds(d, a, b))
            differs(d, out, "output", name_text(d, "", name), value_text(d, a), value_text(d, b));
    }
    for (size_t i = 0; i < d->b->outputs.count; i++) {
        const char *name = d->b->outputs.items[i];
        if (!output_of(d->a, name))
            differs(d, out, "output", name_text(d, "", name), "",
                    value_text(d, nb_in(d->b->body.last, i)));
    }
}

/* The state whose input has that name. */
static const nb_state *state_of(const nb_graph *g, const char *input) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (strcmp(g->body.params[g->states.items[i].input]->name, input) == 0)
            return &g->states.items[i];
    }
    return NULL;
}

static const char *state_text(differ *d, const nb_graph *g, const nb_state *s) {
    if (!s) return "";
    const char *to = name_text(d, "to ", g->outputs.items[s->output]);
    return s->axis < 0 ? to : nb_format(d->arena, "%s axis %d", to, s->axis);
}

/* `appended` says where the new entries are written, which is no difference. */
static void diff_states(differ *d, const nb_graph *g, bool only_here) {
    for (size_t i = 0; i < g->states.count; i++) {
        const char *name = g->body.params[g->states.items[i].input]->name;
        const nb_state *a = state_of(d->a, name), *b = state_of(d->b, name);
        if (only_here && a) continue;
        const char *p = state_text(d, d->a, a), *q = state_text(d, d->b, b);
        if (strcmp(p, q) != 0) differs(d, &d->out->graph, "state", name_text(d, "", name), p, q);
    }
}

static const char *range_text(differ *d, const nb_symbol *s) {
    return s->max == INT64_MAX
               ? nb_format(d->arena, "%lld..", (long long)s->min)
               : nb_format(d->arena, "%lld..%lld", (long long)s->min, (long long)s->max);
}

static void diff_symbols(differ *d) {
    for (size_t i = 0; i < d->a->symbols.count; i++) {
        for (size_t k = 0; k < d->b->symbols.count; k++) {
            const nb_symbol *a = d->a->symbols.items[i], *b = d->b->symbols.items[k];
            if (d->pairs->symbols_a[i] == d->pairs->symbols_b[k] &&
                (a->min != b->min || a->max != b->max))
                differs(d, &d->out->graph, "symbol", a->name, range_text(d, a), range_text(d, b));
        }
    }
}

nb_diff *nb_diff_graphs(const nb_graph *a, const nb_graph *b, bool errors, nb_arena *arena) {
    differ d = {.a = a,
                .b = b,
                .pairs = nb_pair_graphs(a, b, arena),
                .arena = arena,
                .text = {.arena = arena},
                .out = NB_NEW(arena, nb_diff)};
    if (a->stage != b->stage)
        differs(&d, &d.out->graph, "stage", "", nb_stage_names[a->stage], nb_stage_names[b->stage]);
    diff_inputs(&d);
    diff_outputs(&d);
    diff_states(&d, a, false);
    diff_states(&d, b, true);
    diff_symbols(&d);
    add_region(&d, &a->body, &b->body);
    diff_constants(&d);
    if (errors) nb_parallel((int64_t)d.out->constants.count, measure_error, &d);
    return d.out;
}
