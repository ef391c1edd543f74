/* What holds for a graph between any two passes (verify.h). One walk over the ops in order; what
 * was seen so far is in tables by value id, so that the work is linear. */
#include "ir/verify.h"
#include "ir/chain.h"

#include "ir/build.h"
#include "ir/interner.h"

#include <math.h>
#include <string.h>

typedef struct checker {
    const nb_graph *g;
    nb_diags *diags;
    bool form_only;
    nb_arena *arena;
    const nb_value **defined; /* by id: constants, parameters and results so far */
    nb_map types;             /* whose symbols were checked */
    size_t uses, slots;       /* uses in the lists of values; operand slots that have a value */
    bool *bound;              /* by index: counted symbols that a `bind` has said */
} checker;

NB_PRINTF(3, 4) static void fault(checker *c, const nb_op *op, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(c->arena, fmt, args);
    va_end(args);
    nb_where where = {
        .offset = -1, .file = c->g->file, .node = op ? nb_loc_name(op->loc) : c->g->name};
    nb_error(c->diags, NB_INTERNAL, where, "verifier: %s%s%s", op ? nb_info(op)->name : "",
             op ? ": " : "", message);
}

bool nb_legal_in(nb_op_kind kind, nb_stage stage) {
    switch (kind) {
    case NB_OP_quantize:
    case NB_OP_dequantize:
    case NB_OP_codes:
    case NB_OP_as_codes:
    case NB_OP_scales:
    case NB_OP_quantize_u4:
        return stage >= NB_STAGE_QDQ;
    case NB_OP_qmatmul:
    case NB_OP_qdepthwise:
    case NB_OP_qgather:
    case NB_OP_qpatches:
        return stage >= NB_STAGE_FUSED;
    default:
        return true;
    }
}

/* ---- values -------------------------------------------------------------------------------- */

/* A symbol of `d` that the graph does not have, or NULL. */
static const nb_symbol *stranger_in(const nb_graph *g, const nb_dim *d) {
    if (d->kind == NB_DIM_CONST) return NULL;
    if (d->kind == NB_DIM_SYMBOL) {
        const nb_symbol *s = d->symbol;
        return s->index < g->symbols.count && g->symbols.items[s->index] == s ? NULL : s;
    }
    const nb_symbol *s = stranger_in(g, d->a);
    return s ? s : stranger_in(g, d->b);
}

static void check_dims(checker *c, const nb_op *op, const char *what, size_t n,
                       const nb_dim *const *dims) {
    for (size_t i = 0; i < n; i++) {
        const nb_symbol *s = stranger_in(c->g, dims[i]);
        if (s) fault(c, op, "%s holds symbol '%s', which the graph does not have", what, s->name);
        if (!s && nb_dim_is_counted(dims[i], c->bound))
            fault(c, op, "%s holds %s, of which no `bind` has told all before", what,
                  nb_dim_text(c->arena, dims[i]));
    }
}

static void check_type(checker *c, const nb_value *v) {
    const nb_type *t = v->type;
    if (!nb_map_get(&c->types, t)) {
        bool counted = false; /* these are good from some op on, in a body to its end */
        for (int d = 0; d < t->rank; d++) counted = counted || nb_dim_is_counted(t->dims[d], NULL);
        if (!counted) nb_map_set(&c->types, t, (void *)(uintptr_t)t);
        check_dims(c, v->def, nb_type_text(c->arena, t), (size_t)t->rank, t->dims);
    }
    if (!t->quant) return;
    const char *why = nb_quant_misfit((nb_graph *)(uintptr_t)c->g, t->quant, t);
    if (t->elem != t->quant->storage) why = "the element is not the storage's";
    if (why) fault(c, v->def, "'%s' of type %s: %s", v->name, nb_type_text(c->arena, t), why);
}

/* Both ends of each use know each other: a use is in one list only, since one thing links to it. */
static void check_uses(checker *c, const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        if (u->value != v || *u->link != u || u->index >= u->user->n_operands ||
            &u->user->operands[u->index] != u) {
            fault(c, v->def, "the list of uses of '%s' is broken", v->name);
            return;
        }
        c->uses++;
    }
}

/* Everything about a value but how it was made; from here on it is defined. */
static void check_value(checker *c, const nb_value *v, const char *sigil) {
    if (v->id >= c->g->n_values || c->defined[v->id]) {
        fault(c, v->def, "id %u of '%s%s' is not its own", v->id, sigil, v->name);
        return;
    }
    c->defined[v->id] = v;
    /* The table has each name once. */
    if (v->entry->text != v->name || v->entry->value != v)
        fault(c, v->def, "two values are named '%s%s'", sigil, v->name);
    check_uses(c, v);
    check_type(c, v);
    if (c->g->stage == NB_STAGE_PLANNED && v->storage.kind == NB_STORE_NONE)
        fault(c, v->def, "'%s%s' has no storage", sigil, v->name);
}

static bool is_defined(const checker *c, const nb_value *v) {
    return v->id < c->g->n_values && c->defined[v->id] == v;
}

/* ---- constants ----------------------------------------------------------------------------- */

static void check_scales(checker *c, const nb_quant *q) {
    const nb_value *parts[] = {q->scales, q->zeros, q->minima};
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        if (!parts[i]) continue;
        if (!is_defined(c, parts[i])) {
            fault(c, NULL, "'#%s' refers to a constant that the graph does not have", q->name);
            return;
        }
        const nb_quant *own = parts[i]->type->quant; /* a misfit was told of the constant */
        if (own && nb_quant_misfit((nb_graph *)(uintptr_t)c->g, own, parts[i]->type)) return;
    }
    if (!q->scales || c->form_only) return;
    int64_t count = 0;
    (void)nb_type_static_count(q->scales->type, &count);
    for (int64_t i = 0; i < count; i++) {
        const float scale = nb_quant_scale(q, i), minimum = nb_quant_minimum(q, i);
        if (nb_quant_takes_scale(q, scale) && isfinite(minimum)) continue;
        if (isfinite(minimum))
            fault(c, NULL, "scale %lld of '#%s' is %g, and must be finite and not 0", (long long)i,
                  q->name, (double)scale);
        else
            fault(c, NULL, "minimum %lld of '#%s' is not finite", (long long)i, q->name);
        return;
    }
}

static void check_constants(checker *c) {
    nb_map quants = {.arena = c->arena};
    for (size_t i = 0; i < c->g->constants.count; i++) {
        const nb_value *v = c->g->constants.items[i];
        int64_t count, bytes;
        if (!nb_type_static_count(v->type, &count) ||
            !nb_elem_bytes_of(v->type->elem, count, &bytes) || bytes != v->blob->size)
            fault(c, NULL, "constant '@%s' of type %s has %lld bytes", v->name,
                  nb_type_text(c->arena, v->type), (long long)v->blob->size);
        check_value(c, v, "@");
    }
    for (size_t i = 0; i < c->g->quants.count; i++) {
        const nb_quant *q = c->g->quants.items[i];
        if (nb_map_get_str(&quants, q->name, strlen(q->name)))
            fault(c, NULL, "two quantizations are named '#%s'", q->name);
        nb_map_set_str(&quants, q->name, strlen(q->name), (void *)(uintptr_t)q);
        check_scales(c, q);
    }
}

/* ---- ops ----------------------------------------------------------------------------------- */

/* False when an operand is not to be looked at further. */
static bool check_operands(checker *c, const nb_op *op) {
    bool ok = true;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_use *u = &op->operands[i];
        if (!u->value) continue;
        c->slots++;
        if (!is_defined(c, u->value)) {
            fault(c, op, "operand %u '%s' is used before it is defined", i, u->value->name);
            ok = false;
        } else if (!nb_is_const(u->value) && nb_region_of(u->value) != op->parent) {
            fault(c, op, "operand %u '%s' is not of this body", i, u->value->name);
            ok = false;
        } else if (u->user != op || u->index != i || !u->link || *u->link != u) {
            fault(c, op, "operand %u '%s' is not in the list of its uses", i, u->value->name);
        }
    }
    return ok;
}

static void check_attrs(checker *c, const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        if (info->attrs[a].kind == NB_ATTR_DIMS)
            check_dims(c, op, info->attrs[a].name, op->attrs[a].dims.count,
                       op->attrs[a].dims.items);
    }
}

static void check_results(checker *c, const nb_op *op) {
    const nb_type *types[NB_MAX_RESULTS];
    if (op->n_results != nb_result_count(op)) {
        fault(c, op, "%u results, expected %u", op->n_results, nb_result_count(op));
        return;
    }
    if (nb_infer((nb_graph *)(uintptr_t)c->g, op, types, c->diags) != NB_OK) return;
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (op->results[i]->type != types[i])
            fault(c, op, "'%%%s' has type %s, the operands give %s", op->results[i]->name,
                  nb_type_text(c->arena, op->results[i]->type), nb_type_text(c->arena, types[i]));
    }
}

static void check_region(checker *c, const nb_region *region);

/* Of a convolution of codes all that can stay in registers does, or nothing. */
static void check_convolution(checker *c, const nb_op *op) {
    nb_qconv conv;
    if (!nb_can_convolve(op, &conv) || !conv.patches) return;
    const nb_value *between[] = {nb_in(op, 0), nb_out(conv.patches),
                                 conv.turned ? nb_out(conv.turned) : nb_in(op, 0)};
    for (size_t i = 1; i < NB_COUNT(between); i++)
        if (nb_in_registers(between[i]) != nb_in_registers(between[0]))
            fault(c, op, "'%%%s' and '%%%s' are not both in registers", between[0]->name,
                  between[i]->name);
}

/* So it is of a pooling. */
static void check_pooling(checker *c, const nb_op *op) {
    const nb_op *patches = nb_pooled(op);
    if (!patches) return;
    const nb_value *last = nb_in(op, 0);
    for (const nb_value *v = last; v->def != patches; v = nb_in(v->def, 0))
        if (nb_in_registers(nb_in(v->def, 0)) != nb_in_registers(last))
            fault(c, op, "'%%%s' and '%%%s' are not both in registers", last->name,
                  nb_in(v->def, 0)->name);
}

/* What stays in registers is made and used by ops of one chain, which is not too long. */
static void check_chain(checker *c, const nb_op *op) {
    const nb_value *y = op->n_results == 1 ? op->results[0] : NULL;
    if (c->g->stage != NB_STAGE_PLANNED) return;
    check_convolution(c, op);
    check_pooling(c, op);
    if (y && nb_in_registers(y)) {
        if (!y->uses) fault(c, op, "'%%%s' is in registers for no op", y->name);
        for (const nb_use *u = y->uses; u; u = u->next) {
            if (nb_chains_into(y, u->user)) continue;
            fault(c, op, "'%%%s' cannot stay in registers for %s", y->name, nb_info(u->user)->name);
            break;
        }
    } else if ((nb_can_chain(op) || nb_is_code_step(op)) && !nb_chain_of(c->arena, op).whole) {
        fault(c, op, "the ops in registers in front of it are too many, or read too much");
    }
}

static void check_op(checker *c, const nb_op *op, const nb_region *body) {
    if (op->parent != body || (op->prev ? op->prev->next : body->first) != op ||
        (op->next ? op->next->prev : body->last) != op)
        fault(c, op, "the list of ops is broken");
    if (nb_has_trait(op, NB_TRAIT_TERMINATOR) != (op == body->last))
        fault(c, op, "return stands last, and only there");
    if (!nb_legal_in(op->kind, c->g->stage)) fault(c, op, "is not legal in this stage");
    const nb_symbol *said = nb_bound_by(op);
    if (said && said->index < c->g->symbols.count) c->bound[said->index] = true;
    check_attrs(c, op);
    bool ok = check_operands(c, op);
    for (uint32_t r = 0; r < op->n_regions; r++) {
        if (op->regions[r]->parent != op) fault(c, op, "body %u does not know its op", r);
        check_region(c, op->regions[r]);
    }
    if (ok) check_results(c, op);
    if (ok) check_chain(c, op);
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (op->results[i]->def != op || op->results[i]->index != i)
            fault(c, op, "'%%%s' does not know its op", op->results[i]->name);
        check_value(c, op->results[i], "%");
    }
}

/* ---- the graph ----------------------------------------------------------------------------- */

static void check_params(checker *c, const nb_region *body) {
    for (uint32_t i = 0; i < body->n_params; i++) {
        if (body->params[i]->region != body || body->params[i]->index != i)
            fault(c, body->parent, "input '%%%s' does not know its place", body->params[i]->name);
        check_value(c, body->params[i], "%");
    }
}

static void check_region(checker *c, const nb_region *region) {
    const size_t n = c->g->symbols.count;
    bool *outside = NB_NEW_ARRAY(c->arena, bool, n + 1);
    if (n) memcpy(outside, c->bound, n * sizeof *outside);
    check_params(c, region);
    for (const nb_op *op = region->first; op; op = op->next) check_op(c, op, region);
    if (n) memcpy(c->bound, outside, n * sizeof *outside);
}

static void check_symbols(checker *c) {
    for (size_t i = 0; i < c->g->symbols.count; i++) {
        const nb_symbol *s = c->g->symbols.items[i];
        if (s->index != i || s->min > s->max)
            fault(c, NULL, "symbol '%s' has position %u and range %lld..%lld", s->name, s->index,
                  (long long)s->min, (long long)s->max);
    }
}

static void check_states(checker *c) {
    bool *taken[2] = {NB_NEW_ARRAY(c->arena, bool, (size_t)c->g->body.n_params + 1),
                      NB_NEW_ARRAY(c->arena, bool, c->g->outputs.count + 1)};
    for (size_t i = 0; i < c->g->states.count; i++) {
        const nb_state *s = &c->g->states.items[i];
        if (s->input >= c->g->body.n_params || s->output >= c->g->outputs.count ||
            !nb_in(c->g->body.last, s->output)) {
            fault(c, NULL, "state %zu names a port that does not exist", i);
            continue;
        }
        if (taken[0][s->input] || taken[1][s->output])
            fault(c, NULL, "state %zu names a port of another state", i);
        taken[0][s->input] = taken[1][s->output] = true;
        const nb_type *in = c->g->body.params[s->input]->type,
                      *out = nb_in(c->g->body.last, s->output)->type;
        bool fits = in->elem == out->elem && in->quant == out->quant && in->rank == out->rank &&
                    s->axis >= -1 && s->axis < in->rank;
        for (int d = 0; fits && d < in->rank; d++)
            fits = d == s->axis || in->dims[d] == out->dims[d];
        if (!fits)
            fault(c, NULL, "state %zu pairs %s with %s", i, nb_type_text(c->arena, in),
                  nb_type_text(c->arena, out));
    }
}

static nb_status verify(const nb_graph *g, nb_diags *diags, bool form_only) {
    nb_arena *arena = nb_arena_create_like(g->arena);
    checker c = {
        .g = g, .form_only = form_only, .diags = diags, .arena = arena, .types = {.arena = arena}};
    size_t errors = diags->errors;
    c.defined =
        (const nb_value **)nb_alloc_array(arena, (size_t)g->n_values + 1, sizeof *c.defined);
    c.bound = NB_NEW_ARRAY(arena, bool, g->symbols.count + 1);
    check_symbols(&c);
    check_constants(&c);
    check_region(&c, &g->body);
    if (!g->body.last || g->body.last->kind != NB_OP_return)
        fault(&c, NULL, "the graph has no return");
    else if (g->body.last->n_operands != g->outputs.count)
        fault(&c, g->body.last, "%u values for %zu outputs", g->body.last->n_operands,
              g->outputs.count);
    else
        check_states(&c);
    if (diags->errors == errors && c.uses != c.slots)
        fault(&c, NULL, "%zu uses of values, %zu operands: an op outside the graph uses a value",
              c.uses, c.slots);
    nb_arena_destroy(arena);
    return diags->errors == errors ? NB_OK : NB_INTERNAL;
}

nb_status nb_verify(const nb_graph *g, nb_diags *diags) { return verify(g, diags, false); }
nb_status nb_verify_form(const nb_graph *g, nb_diags *diags) { return verify(g, diags, true); }
