/* The values of an attention (values.h). */
#include "passes/values.h"

#include "passes/raise.h"

#include <string.h>

bool nb_is_float_const(const nb_value *v) {
    int64_t count;
    return nb_is_const(v) && v->type->elem == NB_F32 && !v->type->quant && v->type->rank > 0 &&
           nb_type_static_count(v->type, &count) && count > 0;
}

nb_use *nb_float_weight(nb_op *op) {
    nb_value *w = nb_linear_weight(op);
    return w && w == nb_in(op, 1) && nb_is_float_const(w) ? &op->operands[1] : NULL;
}

/* Is `output` a state whose input is `past`, which can be empty? */
static bool is_state_of(const nb_graph *g, uint32_t output, const nb_value *past) {
    for (size_t i = 0; i < g->states.count; i++) {
        const nb_state *s = &g->states.items[i];
        if (s->output != output || g->body.params[s->input] != past || s->axis != 2) continue;
        const nb_dim *length = past->type->dims[2];
        return length->kind == NB_DIM_SYMBOL && length->symbol->min == 0;
    }
    return false;
}

nb_use *nb_fresh_states(const nb_graph *g, nb_op *attention, uint32_t index, const char **why) {
    nb_use *use = &attention->operands[index];
    nb_op *concat = nb_made_by(use->value, NB_OP_concat);
    if (!concat) return use;
    bool is_state = false, is_shared = false;
    for (const nb_use *u = use->value->uses; u; u = u->next) {
        if (u->user->kind == NB_OP_return && is_state_of(g, u->index, nb_in(concat, 0)))
            is_state = true;
        else
            is_shared |= u != use;
    }
    if (is_state && !is_shared && concat->n_operands == 2 && nb_has_one_use(nb_in(concat, 0)))
        return &concat->operands[1];
    *why = is_state ? "its keys or values are read by others, too"
                    : "its past keys or values are not a state that begins empty";
    return NULL;
}

/* The operand of the op of that kind that makes v for one user. */
static nb_value *behind(const nb_value *v, nb_op_kind kind) {
    nb_op *op = nb_made_by(v, kind);
    return op && nb_has_one_use(v) ? nb_in(op, 0) : NULL;
}

/* [B,S,H,E] and [B,H,S,E] become each other. */
static bool swaps_heads(const nb_op *transpose) {
    static const int64_t perm[4] = {0, 2, 1, 3};
    const nb_attr *a = nb_attr_of(transpose, "perm");
    return a->ints.count == 4 && memcmp(a->ints.items, perm, sizeof perm) == 0;
}

/* [..,H*E] from heads [B,S,H,E], or the other way round. */
static bool merges_heads(const nb_type *heads, const nb_type *rows) {
    const nb_dim *h = heads->dims[2], *e = heads->dims[3];
    return rows->rank > 0 && nb_dim_is_const(h) && nb_dim_is_const(e) &&
           nb_dim_is(rows->dims[rows->rank - 1], h->value * e->value);
}

/* Columns [from, from + count) of what `v` is cut from; NULL when others read some of them. */
static nb_value *columns(nb_value *v, nb_values *h) {
    nb_span own;
    if (!nb_has_one_use(v) || !nb_span_of(v, &own)) return NULL;
    h->from = own.start;
    h->count = own.count;
    if (own.base == v) return v;
    if (own.step != 1 || own.base != nb_in(v->def, 0)) return NULL;
    for (const nb_use *u = own.base->uses; u; u = u->next) {
        nb_span other;
        if (u->user == v->def) continue;
        if (u->user->kind != NB_OP_slice || !nb_span_of(nb_out(u->user), &other) ||
            other.base != own.base || other.step != 1 ||
            (other.start < own.start + own.count && own.start < other.start + other.count))
            return NULL;
    }
    return own.base;
}

nb_use *nb_layer_behind(nb_value *v, nb_use **bias) {
    nb_op *add = nb_made_by(v, NB_OP_add);
    *bias = NULL;
    for (uint32_t i = 0; add && i < 2; i++) {
        const nb_value *b = nb_in(add, i);
        if (!nb_is_float_const(b) || b->type->rank != 1 ||
            b->type->dims[0] != v->type->dims[v->type->rank - 1])
            continue;
        *bias = &add->operands[i];
        v = nb_in(add, 1 - i);
        if (!nb_has_one_use(v)) return NULL;
        break;
    }
    return v->def ? nb_float_weight(v->def) : NULL;
}

static const char *find_maker(const nb_graph *g, nb_op *attention, nb_values *h) {
    const char *why = "its values are not the result of a linear layer alone";
    const nb_use *use = nb_fresh_states(g, attention, 2, &why);
    const nb_type *type = nb_in(attention, 2)->type;
    if (!use) return why;
    if (type->elem != NB_F32) return "its values are not f32";
    if (!nb_dim_is_const(type->dims[3]) || type->dims[3]->value < 1) return why;
    h->size = type->dims[3]->value;
    nb_value *heads = behind(use->value, NB_OP_transpose);
    nb_value *rows = heads && swaps_heads(use->value->def) ? behind(heads, NB_OP_reshape) : NULL;
    if (!rows || !merges_heads(heads->type, rows->type)) return why;
    nb_value *whole = columns(rows, h);
    h->weight = whole ? nb_layer_behind(whole, &h->bias) : NULL;
    return h->weight ? NULL : why;
}

static const char *find_readers(nb_arena *arena, const nb_op *attention, nb_values *h) {
    const char *why = "what it makes is taken by others than linear layers";
    const nb_value *y = nb_out(attention);
    const nb_op *transpose = nb_has_one_use(y) ? y->uses->user : NULL;
    if (!transpose || transpose->kind != NB_OP_transpose || !swaps_heads(transpose)) return why;
    const nb_value *heads = nb_out(transpose);
    const nb_op *reshape = nb_has_one_use(heads) ? heads->uses->user : NULL;
    if (!reshape || reshape->kind != NB_OP_reshape) return why;
    if (!merges_heads(heads->type, nb_out(reshape)->type)) return why;
    h->rows = nb_out(reshape);
    for (nb_use *u = h->rows->uses; u; u = u->next) {
        nb_use *weight = u->index == 0 ? nb_float_weight(u->user) : NULL;
        if (!weight) return why;
        nb_vec_push(arena, &h->readers, weight);
    }
    return NULL;
}

const char *nb_values_find(const nb_graph *g, nb_arena *arena, nb_op *attention, nb_values *out) {
    *out = (nb_values){0};
    const char *why = find_maker(g, attention, out);
    return why ? why : find_readers(arena, attention, out);
}
