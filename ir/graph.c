/* Graphs: creation, symbols, names, inputs and outputs. */
#include "ir/interner.h"

#include <string.h>

nb_graph *nb_graph_create(const char *name, nb_oom_fn oom, void *user) {
    nb_arena *arena = nb_arena_create(oom, user);
    nb_graph *g = NB_NEW(arena, nb_graph);
    g->arena = arena;
    g->name = nb_strdup(arena, name);
    g->body.graph = g;
    g->interner = NB_NEW(arena, struct nb_interner);
    nb_map *maps[] = {&g->interner->dims, &g->interner->types, &g->interner->symbols,
                      &g->interner->values, &g->interner->consts};
    for (size_t i = 0; i < NB_COUNT(maps); i++) maps[i]->arena = arena;
    return g;
}

void nb_graph_destroy(nb_graph *g) {
    if (!g) return;
    for (size_t i = 0; i < g->constants.count; i++) nb_blob_release(g->constants.items[i]->blob);
    for (size_t i = 0; i < g->cleanups.count; i++)
        g->cleanups.items[i].fn(g->cleanups.items[i].user);
    nb_arena_destroy(g->arena);
}

void nb_graph_on_destroy(nb_graph *g, void (*fn)(void *user), void *user) {
    nb_cleanup c = {fn, user};
    nb_vec_push(g->arena, &g->cleanups, c);
}

/* ---- symbols ------------------------------------------------------------------------------- */

const nb_symbol *nb_graph_symbol(nb_graph *g, const char *name, bool zero_ok) {
    nb_symbol *s = nb_map_get_str(&g->interner->symbols, name, strlen(name));
    if (s) return s;
    s = NB_NEW(g->arena, nb_symbol);
    *s = (nb_symbol){.name = nb_strdup(g->arena, name),
                     .min = zero_ok ? 0 : 1,
                     .max = INT64_MAX,
                     .index = (uint32_t)g->symbols.count};
    nb_vec_push(g->arena, &g->symbols, s);
    nb_map_set_str(&g->interner->symbols, name, strlen(name), s);
    return s;
}

void nb_symbol_narrow(nb_graph *g, const nb_symbol *symbol, int64_t min, int64_t max) {
    nb_symbol *s = g->symbols.items[symbol->index];
    s->min = nb_max_i64(s->min, min);
    s->max = nb_min_i64(s->max, max);
}

static const nb_type *substitute_type(nb_graph *g, const nb_type *t, const nb_symbol *symbol,
                                      const nb_dim *by) {
    const nb_dim *dims[NB_MAX_RANK];
    bool same = true;
    for (int i = 0; i < t->rank; i++) {
        dims[i] = nb_dim_substitute(g, t->dims[i], symbol, by);
        same = same && dims[i] == t->dims[i];
    }
    if (same) return t;
    return nb_type_intern(g, t->elem, t->quant, t->rank, dims);
}

static void substitute_region(nb_graph *g, nb_region *region, const nb_symbol *symbol,
                              const nb_dim *by) {
    for (uint32_t i = 0; i < region->n_params; i++)
        region->params[i]->type = substitute_type(g, region->params[i]->type, symbol, by);
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_results; i++)
            op->results[i]->type = substitute_type(g, op->results[i]->type, symbol, by);
        const nb_op_info *info = nb_info(op);
        for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
            if (info->attrs[a].kind != NB_ATTR_DIMS || !op->attrs[a].set) continue;
            size_t n = op->attrs[a].dims.count;
            const nb_dim **dims = (const nb_dim **)nb_alloc_array(g->arena, n + 1, sizeof *dims);
            for (size_t i = 0; i < n; i++)
                dims[i] = nb_dim_substitute(g, op->attrs[a].dims.items[i], symbol, by);
            op->attrs[a].dims.items = dims;
        }
        for (uint32_t r = 0; r < op->n_regions; r++)
            substitute_region(g, op->regions[r], symbol, by);
    }
}

void nb_graph_substitute(nb_graph *g, const nb_symbol *symbol, const nb_dim *by) {
    substitute_region(g, &g->body, symbol, by);
    nb_map_set_str(&g->interner->symbols, symbol->name, strlen(symbol->name), NULL);
    for (size_t i = symbol->index; i + 1 < g->symbols.count; i++) {
        g->symbols.items[i] = g->symbols.items[i + 1];
        g->symbols.items[i]->index = (uint32_t)i;
    }
    g->symbols.count--;
}

/* ---- names --------------------------------------------------------------------------------- */

typedef struct name_use {
    bool taken;
    uint32_t next; /* number to try next behind this name */
} name_use;

static name_use *name_entry(nb_map *map, const char *name) {
    name_use *n = nb_map_get_str(map, name, strlen(name));
    if (!n) {
        n = NB_NEW(map->arena, name_use);
        n->next = 1;
        nb_map_set_str(map, name, strlen(name), n);
    }
    return n;
}

const char *nb_unique_name(nb_graph *g, const char *name, bool constant) {
    nb_map *map = constant ? &g->interner->consts : &g->interner->values;
    name_use *base = name_entry(map, name);
    const char *candidate = name;
    for (name_use *n = base; n->taken; n = name_entry(map, candidate))
        candidate = nb_format(g->arena, "%s_%u", name, base->next++);
    return nb_strdup(g->arena, candidate);
}

/* A name is taken once a value has it. */
static const char *take_name(nb_graph *g, const char *name, bool constant) {
    name_use *own = name_entry(constant ? &g->interner->consts : &g->interner->values, name);
    if (!own->taken) {
        own->taken = true;
        return nb_strdup(g->arena, name);
    }
    const char *unique = nb_unique_name(g, name, constant);
    name_entry(constant ? &g->interner->consts : &g->interner->values, unique)->taken = true;
    return unique;
}

void nb_set_name(nb_graph *g, nb_value *v, const char *name) {
    if (strcmp(v->name, name) == 0) return;
    bool constant = nb_is_const(v);
    const char *fresh = take_name(g, name, constant);
    name_entry(constant ? &g->interner->consts : &g->interner->values, v->name)->taken = false;
    v->name = fresh;
}

nb_value *nb_value_create(nb_graph *g, const char *name, const nb_type *type, bool constant) {
    nb_value *v = NB_NEW(g->arena, nb_value);
    v->type = type;
    v->id = g->n_values++;
    v->name = take_name(g, name, constant);
    return v;
}

void nb_value_forget_name(nb_graph *g, const nb_value *v, bool constant) {
    name_entry(constant ? &g->interner->consts : &g->interner->values, v->name)->taken = false;
}

/* ---- inputs and outputs -------------------------------------------------------------------- */

nb_value *nb_graph_add_input(nb_graph *g, const char *name, const nb_type *type) {
    nb_value *v = nb_value_create(g, name, type, false);
    v->region = &g->body;
    v->index = g->body.n_params;
    nb_value **params =
        (nb_value **)nb_alloc_array(g->arena, (size_t)g->body.n_params + 1, sizeof *params);
    if (g->body.n_params) memcpy(params, g->body.params, g->body.n_params * sizeof *params);
    params[g->body.n_params++] = v;
    g->body.params = params;
    return v;
}
