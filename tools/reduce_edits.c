/* The edits that `nibble reduce` tries, one row each (reduce.h). */
#include "ir/build.h"
#include "tools/reduce.h"

#include <string.h>

/* ---- outputs -------------------------------------------------------------------------------- */

static bool *all_but(nb_arena *arena, size_t n, size_t first, size_t count) {
    bool *keep = NB_NEW_ARRAY(arena, bool, n + 1);
    for (size_t i = 0; i < n; i++) keep[i] = i < first || i >= first + count;
    return keep;
}

static size_t outputs(const nb_graph *g) { return g->outputs.count > 1 ? g->outputs.count : 0; }

static void drop_outputs(nbt_candidate *c, size_t first, size_t n) {
    nbt_keep_outputs(c->graph, all_but(c->arena, c->graph->outputs.count, first, n));
}

typedef struct ends {
    nb_arena *arena;
    NB_VEC(nb_value *) values;
    NB_VEC(const char *) names;
} ends;

/* Codes are no output: nothing says what they stand for. */
static void add_end(ends *e, nb_value *v, const char *name) {
    if (!v || nb_is_const(v) || v->type->quant) return;
    for (size_t i = 0; i < e->values.count; i++) {
        if (e->values.items[i] == v) return;
    }
    nb_vec_push(e->arena, &e->values, v);
    nb_vec_push(e->arena, &e->names, name);
}

static void set_ends(nbt_candidate *c, const ends *e) {
    c->graph->states.count = 0;
    nb_graph_set_outputs(c->graph, e->values.count, e->values.items, e->names.items);
}

static size_t ops(const nb_graph *g) {
    size_t n = 0;
    NB_FOR_OPS(op, &g->body) n += op->kind != NB_OP_return;
    return n;
}

/* The model ends at an op. */
static void end_early(nbt_candidate *c, size_t first, size_t n) {
    size_t count;
    nb_op **list = nbt_list_ops(c->graph, c->arena, &count), *op = list[first];
    ends e = {.arena = c->arena};
    (void)n;
    for (uint32_t i = 0; i < op->n_results; i++) add_end(&e, op->results[i], op->results[i]->name);
    set_ends(c, &e);
}

/* An output becomes what its op takes. */
static void peel_outputs(nbt_candidate *c, size_t first, size_t n) {
    ends e = {.arena = c->arena};
    for (size_t i = 0; i < c->graph->outputs.count; i++) {
        nb_value *v = nb_in(c->graph->body.last, i);
        const bool peel = i >= first && i < first + n && v->def;
        if (!peel) add_end(&e, v, c->graph->outputs.items[i]);
        for (uint32_t k = 0; peel && k < v->def->n_operands; k++) {
            nb_value *in = nb_in(v->def, k);
            if (in) add_end(&e, in, in->name);
        }
    }
    set_ends(c, &e);
}

static size_t every_output(const nb_graph *g) { return g->outputs.count; }

/* ---- ops ------------------------------------------------------------------------------------ */

/* A constant of zeros; NULL when the type has a size that is not known, or is of codes. */
static nb_value *zeros(nbt_candidate *c, const nb_value *like) {
    int64_t count, bytes;
    void *data;
    if (like->type->quant || !nb_type_static_count(like->type, &count) ||
        !nb_elem_bytes_of(like->type->elem, count, &bytes))
        return NULL;
    nb_blob *blob = nb_blob_create(bytes, &data);
    if (!blob) return NULL;
    memset(data, 0, (size_t)bytes);
    return nb_graph_add_const(c->graph, like->name, like->type, blob, NULL);
}

static nb_value *as_input(nbt_candidate *c, const nb_value *like) {
    nb_value *in = nb_graph_add_input(c->graph, like->name, like->type);
    const nbt_cut cut = {in->id, like->id};
    nb_vec_push(c->arena, &c->cuts, cut);
    return in;
}

/* Outputs that are nothing but inputs tell nothing, where there are others. */
static void drop_plain_outputs(nbt_candidate *c) {
    const size_t n = c->graph->outputs.count;
    bool *keep = NB_NEW_ARRAY(c->arena, bool, n + 1), any = false;
    for (size_t i = 0; i < n; i++) any |= keep[i] = nb_in(c->graph->body.last, i)->def != NULL;
    if (any) nbt_keep_outputs(c->graph, keep);
}

/* What a range of ops computes for others becomes something that is given. */
static void replace_range(nbt_candidate *c, size_t first, size_t n,
                          nb_value *(*by)(nbt_candidate *c, const nb_value *like)) {
    size_t count;
    nb_op **list = nbt_list_ops(c->graph, c->arena, &count);
    bool *inside = NB_NEW_ARRAY(c->arena, bool, (size_t)c->graph->n_ops + 1);
    for (size_t i = first; i < first + n; i++) inside[list[i]->id] = true;
    for (size_t i = first; i < first + n; i++) {
        for (uint32_t k = 0; k < list[i]->n_results; k++) {
            nb_value *v = list[i]->results[k], *other = NULL;
            for (nb_use *u = v->uses, *next; u; u = next) {
                next = u->next;
                if (inside[u->user->id]) continue;
                if (!other) other = by(c, v);
                if (other) nb_set_operand(u, other);
            }
        }
    }
    drop_plain_outputs(c);
}

static void cut_ops(nbt_candidate *c, size_t first, size_t n) {
    replace_range(c, first, n, as_input);
}
static void zero_ops(nbt_candidate *c, size_t first, size_t n) {
    replace_range(c, first, n, zeros);
}

/* The operand number `which` of those that could stand for the op's result. */
static nb_value *stand_in(const nb_op *op, size_t which, bool same_type) {
    const nb_type *t = nb_out(op)->type;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        nb_value *v = nb_in(op, i);
        if (!v || nb_is_const(v) || v->type->elem != t->elem || v->type->quant != t->quant)
            continue;
        if ((v->type == t) == same_type && which-- == 0) return v;
    }
    return NULL;
}

static void bypass(nbt_candidate *c, size_t first, size_t n, size_t which, bool same_type) {
    size_t count;
    nb_op **list = nbt_list_ops(c->graph, c->arena, &count);
    for (size_t i = first; i < first + n; i++) {
        if (list[i]->n_results != 1) continue;
        nb_value *v = stand_in(list[i], which, same_type);
        if (v) nb_replace_uses(nb_out(list[i]), v);
    }
}

static void bypass_first(nbt_candidate *c, size_t first, size_t n) { bypass(c, first, n, 0, true); }
static void bypass_second(nbt_candidate *c, size_t first, size_t n) {
    bypass(c, first, n, 1, true);
}
static void bypass_shape(nbt_candidate *c, size_t first, size_t n) {
    bypass(c, first, n, 0, false);
}

/* ---- operands and attributes ---------------------------------------------------------------- */

/* Slots that may be empty; -1: none. Calls are functions that count on theirs. */
static bool may_lose(const nb_op *op, uint32_t i) {
    const nb_op_info *info = nb_info(op);
    if (op->kind == NB_OP_return || op->kind == NB_OP_call || !nb_in(op, i)) return false;
    uint32_t k = 0;
    while (k < i && info->operands[k].mode != NB_OPERAND_VAR) k++;
    return info->operands[k].mode == NB_OPERAND_OPT ||
           (info->operands[k].mode == NB_OPERAND_VAR && op->n_operands > 1);
}

static size_t slots(const nb_graph *g) {
    size_t n = 0;
    NB_FOR_OPS(op, &g->body) {
        for (uint32_t i = 0; i < op->n_operands; i++) n += may_lose(op, i);
    }
    return n;
}

static void drop_slot(nb_op *op, uint32_t i) {
    const nb_op_info *info = nb_info(op);
    uint32_t k = 0;
    while (k < i && info->operands[k].mode != NB_OPERAND_VAR) k++;
    if (info->operands[k].mode == NB_OPERAND_OPT) {
        nb_set_operand(&op->operands[i], NULL);
        return;
    }
    for (; i + 1 < op->n_operands; i++) nb_set_operand(&op->operands[i], nb_in(op, i + 1));
    nb_set_operand(&op->operands[--op->n_operands], NULL);
}

/* From the last one on, so that the numbers of those before stay. */
static void drop_slots(nbt_candidate *c, size_t first, size_t n) {
    size_t at = slots(c->graph);
    for (nb_op *op = c->graph->body.last; op; op = op->prev) {
        for (uint32_t i = op->n_operands; i-- > 0;) {
            if (!may_lose(op, i)) continue;
            at--;
            if (at >= first && at < first + n && (op->n_operands > 1 || i)) drop_slot(op, i);
        }
    }
}

static bool may_unset(const nb_op *op, int a) {
    const nb_op_info *info = nb_info(op);
    if (info->attrs[a].kind == NB_ATTR_END) return false;
    return op->attrs[a].set && op->kind != NB_OP_call;
}

static size_t attributes(const nb_graph *g) {
    size_t n = 0;
    NB_FOR_OPS(op, &g->body) {
        for (int a = 0; a < NB_MAX_ATTRS && nb_info(op)->attrs[a].kind != NB_ATTR_END; a++)
            n += may_unset(op, a);
    }
    return n;
}

static void unset_attributes(nbt_candidate *c, size_t first, size_t n) {
    size_t at = 0;
    NB_FOR_OPS(op, &c->graph->body) {
        for (int a = 0; a < NB_MAX_ATTRS && nb_info(op)->attrs[a].kind != NB_ATTR_END; a++) {
            if (!may_unset(op, a)) continue;
            if (at >= first && at < first + n) op->attrs[a] = (nb_attr){0};
            at++;
        }
    }
}

/* ---- inputs, states ------------------------------------------------------------------------- */

static size_t inputs(const nb_graph *g) { return g->body.n_params; }

static void drop_unused(nbt_candidate *c, size_t first, size_t n) {
    bool *keep = all_but(c->arena, c->graph->body.n_params, first, n);
    for (uint32_t i = 0; i < c->graph->body.n_params; i++)
        keep[i] = keep[i] || c->graph->body.params[i]->uses;
    nbt_keep_inputs(c->graph, keep);
}

static void zero_inputs(nbt_candidate *c, size_t first, size_t n) {
    for (size_t i = first; i < first + n; i++) {
        nb_value *in = c->graph->body.params[i], *zero = in->uses ? zeros(c, in) : NULL;
        if (zero) nb_replace_uses(in, zero);
    }
    drop_unused(c, first, n);
}

static size_t states(const nb_graph *g) { return g->states.count; }

static void drop_states(nbt_candidate *c, size_t first, size_t n) {
    nb_graph *g = c->graph;
    for (size_t i = first; i + n < g->states.count; i++)
        g->states.items[i] = g->states.items[i + n];
    g->states.count -= n;
}

/* ---- constants ------------------------------------------------------------------------------ */

static size_t constants(const nb_graph *g) { return g->constants.count; }

/* Every element gets the bits of `bits`, or those of its first one. */
static void splat(nb_value *v, const uint64_t *bits) {
    int64_t count;
    void *data;
    if (!nb_type_static_count(v->type, &count) || !count) return;
    const nb_elem e = v->type->elem;
    const uint64_t own = bits ? *bits : nb_elem_get(e, v->blob->data, 0);
    nb_blob *blob = nb_blob_create(v->blob->size, &data);
    if (!blob) return;
    memset(data, 0, (size_t)v->blob->size);
    for (int64_t i = 0; own && i < count; i++) nb_elem_put(e, data, i, own);
    nbt_set_data(v, blob);
}

static void splat_zero(nbt_candidate *c, size_t first, size_t n) {
    const uint64_t zero = 0;
    for (size_t i = first; i < first + n; i++) splat(c->graph->constants.items[i], &zero);
}

static void splat_first(nbt_candidate *c, size_t first, size_t n) {
    for (size_t i = first; i < first + n; i++) splat(c->graph->constants.items[i], NULL);
}

static void splat_one(nbt_candidate *c, size_t first, size_t n) {
    const float one = 1;
    uint32_t bits;
    memcpy(&bits, &one, sizeof bits);
    for (size_t i = first; i < first + n; i++) {
        nb_value *v = c->graph->constants.items[i];
        const uint64_t ones = v->type->elem == NB_F32 ? bits : 1;
        if (v->type->elem == NB_F32 || nb_elem_is_integer(v->type->elem)) splat(v, &ones);
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

const nbt_edit nbt_edits[] = {
    {"splat constants", constants, splat_first, false, false},
    {"drop outputs", outputs, drop_outputs, false, false},
    {"end early", ops, end_early, true, true},
    {"drop states", states, drop_states, false, false},
    {"cut ops", ops, cut_ops, false, false},
    {"bypass ops", ops, bypass_first, false, false},
    {"bypass ops by another operand", ops, bypass_second, false, false},
    {"bypass ops of another shape", ops, bypass_shape, false, false},
    {"zeros for ops", ops, zero_ops, false, false},
    {"peel outputs", every_output, peel_outputs, true, false},
    {"drop unused inputs", inputs, drop_unused, false, false},
    {"zeros for inputs", inputs, zero_inputs, false, false},
    {"drop operands", slots, drop_slots, false, false},
    {"zeros for constants", constants, splat_zero, false, false},
    {"ones for constants", constants, splat_one, false, false},
    {"unset attributes", attributes, unset_attributes, false, false},
    {NULL, NULL, NULL, false, false},
};
