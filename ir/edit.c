/* Edits: uses, ops, outputs, and the sweep of what nothing uses. */
#include "ir/interner.h"

#include <assert.h>

bool nb_has_one_use(const nb_value *v) { return v->uses && !v->uses->next; }

size_t nb_use_count(const nb_value *v) {
    size_t n = 0;
    for (const nb_use *u = v->uses; u; u = u->next) n++;
    return n;
}

static void unlink_use(nb_use *use) {
    if (!use->value) return;
    *use->link = use->next;
    if (use->next) use->next->link = use->link;
    use->value = NULL;
}

void nb_set_operand(nb_use *use, nb_value *v) {
    unlink_use(use);
    if (!v) return;
    use->value = v;
    use->next = v->uses;
    use->link = &v->uses;
    if (use->next) use->next->link = &use->next;
    v->uses = use;
}

void nb_replace_uses(nb_value *from, nb_value *to) {
    if (from == to) return;
    while (from->uses) nb_set_operand(from->uses, to);
}

nb_op *nb_op_create(nb_graph *g, nb_op_kind kind, uint32_t n_operands) {
    nb_op *op = NB_NEW(g->arena, nb_op);
    op->kind = kind;
    op->id = g->n_ops++;
    op->n_operands = n_operands;
    op->operands = NB_NEW_ARRAY(g->arena, nb_use, (size_t)n_operands + 1);
    for (uint32_t i = 0; i < n_operands; i++) {
        op->operands[i].user = op;
        op->operands[i].index = i;
    }
    return op;
}

void nb_op_insert(nb_op *op, nb_region *region, nb_op *before) {
    op->parent = region;
    op->next = before;
    op->prev = before ? before->prev : region->last;
    *(op->prev ? &op->prev->next : &region->first) = op;
    *(before ? &before->prev : &region->last) = op;
}

static void unlink_op(nb_op *op) {
    *(op->prev ? &op->prev->next : &op->parent->first) = op->next;
    *(op->next ? &op->next->prev : &op->parent->last) = op->prev;
    op->prev = op->next = NULL;
}

void nb_op_remove(nb_op *op) {
    for (uint32_t i = 0; i < op->n_operands; i++) unlink_use(&op->operands[i]);
    for (uint32_t i = 0; i < op->n_results; i++) {
        assert(!op->results[i]->uses);
        nb_value_forget_name(op->results[i]);
    }
    for (uint32_t r = 0; r < op->n_regions; r++) {
        while (op->regions[r]->last) nb_op_remove(op->regions[r]->last);
    }
    unlink_op(op);
}

void nb_op_move_before(nb_op *op, nb_op *before) {
    if (op == before) return;
    unlink_op(op);
    nb_op_insert(op, before->parent, before);
}

void nb_graph_set_outputs(nb_graph *g, size_t n, nb_value *const *values,
                          const char *const *names) {
    if (g->body.last && g->body.last->kind == NB_OP_return) nb_op_remove(g->body.last);
    nb_op *ret = nb_op_create(g, NB_OP_return, (uint32_t)n);
    g->outputs.count = 0;
    for (size_t i = 0; i < n; i++) {
        nb_set_operand(&ret->operands[i], values[i]);
        nb_vec_push(g->arena, &g->outputs, nb_strdup(g->arena, names[i]));
    }
    nb_op_insert(ret, &g->body, NULL);
}

/* ---- sweep --------------------------------------------------------------------------------- */

static size_t sweep_region(nb_region *region) {
    size_t removed = 0;
    for (nb_op *op = region->last, *prev; op;
         op = prev) { /* backwards: users go before what they use */
        prev = op->prev;
        bool used = !nb_has_trait(op, NB_TRAIT_PURE);
        for (uint32_t i = 0; i < op->n_results; i++) used = used || op->results[i]->uses;
        if (used) {
            for (uint32_t r = 0; r < op->n_regions; r++) removed += sweep_region(op->regions[r]);
            continue;
        }
        nb_op_remove(op);
        removed++;
    }
    return removed;
}

/* What is referred to: constants by id, descriptors by position in the graph's list. */
typedef struct marks {
    bool *values, *quants;
    nb_map positions; /* nb_quant -> position + 1 */
} marks;

static void mark_quant(marks *m, const nb_quant *q) {
    uintptr_t at = q ? (uintptr_t)nb_map_get(&m->positions, q) : 0;
    if (!at) return;
    m->quants[at - 1] = true;
    const nb_value *parts[] = {q->scales, q->zeros, q->minima};
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        if (!parts[i]) continue;
        m->values[parts[i]->id] = true;
        mark_quant(m, parts[i]->type->quant);
    }
}

static void mark_region(marks *m, const nb_region *region) {
    for (uint32_t i = 0; i < region->n_params; i++) mark_quant(m, region->params[i]->type->quant);
    for (const nb_op *op = region->first; op; op = op->next) {
        for (uint32_t i = 0; i < op->n_results; i++) mark_quant(m, op->results[i]->type->quant);
        const nb_op_info *info = nb_info(op);
        for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++)
            if (info->attrs[a].kind == NB_ATTR_QUANT) mark_quant(m, op->attrs[a].quant);
        for (uint32_t r = 0; r < op->n_regions; r++) mark_region(m, op->regions[r]);
    }
}

static size_t sweep_constants(nb_graph *g, const bool *live) {
    size_t kept = 0, count = g->constants.count;
    for (size_t i = 0; i < count; i++) {
        nb_value *c = g->constants.items[i];
        if (live[c->id]) {
            g->constants.items[kept++] = c;
            continue;
        }
        nb_value_forget_name(c);
        nb_blob_release(c->blob);
    }
    g->constants.count = kept;
    return count - kept;
}

size_t nb_graph_sweep(nb_graph *g) {
    size_t removed = sweep_region(&g->body);
    nb_arena *scratch = nb_arena_create_like(g->arena);
    marks m = {.values = NB_NEW_ARRAY(scratch, bool, (size_t)g->n_values + 1),
               .quants = NB_NEW_ARRAY(scratch, bool, g->quants.count + 1),
               .positions = {.arena = scratch}};
    for (uintptr_t i = 0; i < g->quants.count; i++)
        nb_map_set(&m.positions, g->quants.items[i], (void *)(i + 1));
    mark_region(&m, &g->body);
    for (size_t i = 0; i < g->open.count; i++) mark_region(&m, g->open.items[i]);
    for (size_t i = 0; i < g->constants.count; i++) {
        nb_value *c = g->constants.items[i];
        if (!c->uses) continue;
        m.values[c->id] = true;
        mark_quant(&m, c->type->quant);
    }
    removed += sweep_constants(g, m.values);
    nb_quants_sweep(g, m.quants);
    nb_arena_destroy(scratch);
    return removed;
}
