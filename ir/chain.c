/* Chains of elementwise ops (chain.h). */
#include "ir/chain.h"

bool nb_can_chain(const nb_op *op) {
    return nb_has_trait(op, NB_TRAIT_ELEMENTWISE) && op->kind != NB_OP_cast;
}

/* Are numbers of this element computed as they are stored? */
static bool is_exact(nb_elem e) {
    switch (e) {
    case NB_F64:
    case NB_F32:
    case NB_I64:
    case NB_I32:
    case NB_U64:
    case NB_U32:
    case NB_BOOL:
        return true;
    default:
        return false;
    }
}

/* Elements that a pooling kernel writes out. */
#define MOST_SEEN 64

static bool is_reduction(const nb_op *op) {
    return op->kind == NB_OP_reduce_max || op->kind == NB_OP_reduce_min ||
           op->kind == NB_OP_reduce_sum || op->kind == NB_OP_reduce_mean;
}

/* Pooling: patches of one channel, reduced to a number each. */
static bool is_pooled(const nb_value *v, const nb_op *user) {
    const nb_type *t = v->type, *x = nb_in(v->def, 0)->type;
    if (v->def->kind != NB_OP_patches || !is_reduction(user)) return false;
    const bool sum = user->kind == NB_OP_reduce_sum || user->kind == NB_OP_reduce_mean;
    const bool bytes = t->elem == NB_I8 || t->elem == NB_U8;
    const nb_attr *axes = nb_attr_of(user, "axes");
    if (t->elem != NB_F32 && (sum || !bytes)) return false;
    return nb_dim_is(x->dims[1], 1) && t->dims[t->rank - 1]->value <= MOST_SEEN &&
           t->dims[t->rank - 1]->value > 0 && axes->ints.count == 1 &&
           axes->ints.items[0] == t->rank - 1;
}

bool nb_chains_into(const nb_value *v, const nb_op *user) {
    if (v->def && v->def->n_operands && is_pooled(v, user)) return true;
    if (!v->def || !nb_can_chain(v->def) || !nb_can_chain(user)) return false;
    const nb_type *t = v->type, *y = nb_out(user)->type;
    if (t->quant || !is_exact(t->elem) || t->rank != y->rank) return false;
    for (int d = 0; d < t->rank; d++)
        if (t->dims[d] != y->dims[d]) return false;
    return true;
}

static bool has_op(const nb_chain *c, const nb_op *op) {
    for (size_t i = 0; i < c->ops.count; i++)
        if (c->ops.items[i] == op) return true;
    return false;
}

static bool has_input(const nb_chain *c, const nb_value *v) {
    for (size_t i = 0; i < c->inputs.count; i++)
        if (c->inputs.items[i] == v) return true;
    return false;
}

/* `depth` ops lie between this one and the root. */
static void collect(nb_arena *arena, nb_chain *c, const nb_op *op, size_t depth) {
    if (depth >= NB_CHAIN_OPS || c->ops.count >= NB_CHAIN_OPS) c->whole = false;
    for (uint32_t i = 0; c->whole && i < op->n_operands; i++) {
        nb_value *v = nb_in(op, i);
        if (nb_in_registers(v) && v->def) {
            if (!has_op(c, v->def)) collect(arena, c, v->def, depth + 1);
        } else if (!has_input(c, v)) {
            nb_vec_push(arena, &c->inputs, v);
        }
    }
    nb_vec_push(arena, &c->ops, op);
    if (c->inputs.count > NB_CHAIN_INPUTS) c->whole = false;
}

nb_chain nb_chain_of(nb_arena *arena, const nb_op *root) {
    nb_chain c = {.whole = true};
    if (nb_can_chain(root) || (root->n_operands == 1 && nb_in(root, 0) && is_reduction(root) &&
                               nb_in_registers(nb_in(root, 0)))) {
        collect(arena, &c, root, 0);
        return c;
    }
    for (uint32_t i = 0; i < root->n_operands; i++) nb_vec_push(arena, &c.inputs, nb_in(root, i));
    nb_vec_push(arena, &c.ops, root);
    return c;
}

size_t nb_chain_place(const nb_chain *chain, const nb_value *v) {
    size_t at = 0;
    while (at < chain->inputs.count && chain->inputs.items[at] != v) at++;
    if (at < chain->inputs.count) return at;
    for (size_t i = 0; i < chain->ops.count && chain->ops.items[i] != v->def; i++) at++;
    return at;
}
