/* Deep copies of graphs. The copy shares the constants' bytes; names and ids are the same, so that
 * what a pass noted about a value by its id holds for both. */
#include "ir/interner.h"

#include <string.h>

typedef struct cloner {
    const nb_graph *from;
    nb_graph *to;
    nb_value **values; /* by id in `from` */
    nb_map quants, dims;
} cloner;

static const nb_dim *clone_dim(cloner *c, const nb_dim *d) {
    nb_graph *g = c->to;
    if (d->kind == NB_DIM_CONST) return nb_dim_const(g, d->value);
    if (d->kind == NB_DIM_SYMBOL) return nb_dim_symbol(g, g->symbols.items[d->symbol->index]);
    const nb_dim *known = nb_map_get(&c->dims, d);
    if (known) return known;
    const nb_dim *out = nb_dim_binary(g, d->kind, clone_dim(c, d->a), clone_dim(c, d->b));
    nb_map_set(&c->dims, d, (void *)(uintptr_t)out);
    return out;
}

static const nb_type *clone_type(cloner *c, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK];
    for (int i = 0; i < t->rank; i++) dims[i] = clone_dim(c, t->dims[i]);
    return nb_type_intern(c->to, t->elem, t->quant ? nb_map_get(&c->quants, t->quant) : NULL,
                          t->rank, dims);
}

static nb_value *clone_value(cloner *c, const nb_value *v, bool constant) {
    nb_value *out = nb_value_create(c->to, v->name, clone_type(c, v->type), constant);
    out->id = v->id;
    out->index = v->index;
    out->storage = v->storage;
    c->values[v->id] = out;
    return out;
}

static nb_value *mapped(cloner *c, const nb_value *v) { return v ? c->values[v->id] : NULL; }

static const char *const *clone_names(nb_arena *arena, const char *const *names, uint32_t n) {
    const char **out = (const char **)nb_alloc_array(arena, (size_t)n + 1, sizeof *out);
    for (uint32_t i = 0; i < n; i++) out[i] = nb_strdup(arena, names[i]);
    return out;
}

static const nb_loc *clone_loc(cloner *c, const nb_loc *loc) {
    if (!loc) return NULL;
    nb_loc *out = NB_NEW(c->to->arena, nb_loc);
    *out = (nb_loc){.at = clone_names(c->to->arena, loc->at, loc->n_at),
                    .n_at = loc->n_at,
                    .via = clone_names(c->to->arena, loc->via, loc->n_via),
                    .n_via = loc->n_via};
    return out;
}

static void clone_attrs(cloner *c, const nb_op *from, nb_op *to) {
    const nb_op_info *info = nb_info(from);
    nb_arena *arena = c->to->arena;
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        const nb_attr *a = &from->attrs[i];
        nb_attr *b = &to->attrs[i];
        *b = *a;
        if (!a->set) continue;
        if (info->attrs[i].kind == NB_ATTR_STR) b->str = nb_strdup(arena, a->str);
        if (info->attrs[i].kind == NB_ATTR_QUANT) b->quant = nb_map_get(&c->quants, a->quant);
        if (info->attrs[i].kind == NB_ATTR_INTS) {
            int64_t *items = NB_NEW_ARRAY(arena, int64_t, a->ints.count + 1);
            if (a->ints.count) memcpy(items, a->ints.items, a->ints.count * sizeof *items);
            b->ints.items = items;
        }
        if (info->attrs[i].kind == NB_ATTR_DIMS) {
            const nb_dim **items =
                (const nb_dim **)nb_alloc_array(arena, a->dims.count + 1, sizeof *items);
            for (size_t k = 0; k < a->dims.count; k++) items[k] = clone_dim(c, a->dims.items[k]);
            b->dims.items = items;
        }
    }
}

static void clone_region(cloner *c, const nb_region *from, nb_region *to) {
    to->graph = c->to;
    for (uint32_t i = 0; i < from->n_params; i++)
        nb_region_add_param(to, clone_value(c, from->params[i], false));
    for (const nb_op *op = from->first; op; op = op->next) {
        nb_op *copy = nb_op_create(c->to, op->kind, op->n_operands);
        copy->id = op->id;
        for (uint32_t i = 0; i < op->n_operands; i++)
            nb_set_operand(&copy->operands[i], mapped(c, nb_in(op, i)));
        copy->n_results = op->n_results;
        copy->results = (nb_value **)nb_alloc_array(c->to->arena, (size_t)op->n_results + 1,
                                                    sizeof *copy->results);
        for (uint32_t i = 0; i < op->n_results; i++) {
            copy->results[i] = clone_value(c, op->results[i], false);
            copy->results[i]->def = copy;
        }
        clone_attrs(c, op, copy);
        copy->loc = clone_loc(c, op->loc);
        copy->n_regions = op->n_regions;
        copy->regions = (nb_region **)nb_alloc_array(c->to->arena, (size_t)op->n_regions + 1,
                                                     sizeof *copy->regions);
        for (uint32_t r = 0; r < op->n_regions; r++) {
            copy->regions[r] = NB_NEW(c->to->arena, nb_region);
            copy->regions[r]->parent = copy;
            clone_region(c, op->regions[r], copy->regions[r]);
        }
        nb_op_insert(copy, to, NULL);
    }
}

static void clone_const(cloner *c, const nb_value *v) {
    nb_value *out = clone_value(c, v, true);
    out->blob = nb_blob_retain(v->blob);
    out->loc = clone_loc(c, v->loc);
    nb_vec_push(c->to->arena, &c->to->constants, out);
}

/* Descriptors and constants refer to each other: a constant is copied once its descriptor is there,
 * a descriptor once its scales are. Plain constants come first, then rounds until nothing is left.
 */
static void clone_constants(cloner *c) {
    nb_graph *g = c->to;
    for (bool progress = true; progress;) {
        progress = false;
        for (size_t i = 0; i < c->from->constants.count; i++) {
            const nb_value *v = c->from->constants.items[i];
            if (c->values[v->id] || (v->type->quant && !nb_map_get(&c->quants, v->type->quant)))
                continue;
            clone_const(c, v);
            progress = true;
        }
        for (size_t i = 0; i < c->from->quants.count; i++) {
            const nb_quant *q = c->from->quants.items[i];
            if (nb_map_get(&c->quants, q) || (q->scales && !mapped(c, q->scales)) ||
                (q->zeros && !mapped(c, q->zeros)) || (q->minima && !mapped(c, q->minima)))
                continue;
            nb_quant copy = *q;
            copy.scales = mapped(c, q->scales);
            copy.zeros = mapped(c, q->zeros);
            copy.minima = mapped(c, q->minima);
            nb_map_set(&c->quants, q, (void *)(uintptr_t)nb_quant_adopt(g, &copy, q->name));
            progress = true;
        }
    }
    /* The order of the lists is part of the text. */
    for (size_t i = 0; i < g->constants.count; i++)
        g->constants.items[i] = mapped(c, c->from->constants.items[i]);
    for (size_t i = 0; i < g->quants.count; i++)
        g->quants.items[i] = nb_map_get(&c->quants, c->from->quants.items[i]);
}

nb_graph *nb_graph_clone(const nb_graph *from) {
    nb_graph *g = nb_graph_create_like(from, from->name);
    nb_arena *scratch = nb_arena_create_like(from->arena);
    cloner c = {.from = from, .to = g, .quants = {.arena = scratch}, .dims = {.arena = scratch}};
    c.values = (nb_value **)nb_alloc_array(scratch, (size_t)from->n_values + 1, sizeof *c.values);
    g->file = from->file ? nb_strdup(g->arena, from->file) : NULL;
    g->stage = from->stage;
    for (size_t i = 0; i < from->symbols.count; i++) {
        const nb_symbol *s = from->symbols.items[i];
        nb_graph_symbol(g, s->name, true);
        g->symbols.items[i]->min = s->min;
        g->symbols.items[i]->max = s->max;
        g->symbols.items[i]->counted = s->counted;
    }
    clone_constants(&c);
    clone_region(&c, &from->body, &g->body);
    g->n_values = from->n_values;
    g->n_ops = from->n_ops;
    for (size_t i = 0; i < from->outputs.count; i++)
        nb_vec_push(g->arena, &g->outputs, nb_strdup(g->arena, from->outputs.items[i]));
    for (size_t i = 0; i < from->states.count; i++)
        nb_vec_push(g->arena, &g->states, from->states.items[i]);
    for (size_t i = 0; i < from->metadata.count; i++) {
        const nb_metadatum *m = &from->metadata.items[i];
        const nb_metadatum copy = {nb_strdup(g->arena, m->key), nb_strdup(g->arena, m->value)};
        nb_vec_push(g->arena, &g->metadata, copy);
    }
    nb_arena_destroy(scratch);
    return g;
}
