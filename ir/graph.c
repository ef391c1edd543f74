/* Graphs: creation, symbols, names, inputs and outputs. */
#include "ir/interner.h"

#include <assert.h>
#include <string.h>

static nb_graph *create_in(nb_arena *arena, const char *name) {
    nb_graph *g = NB_NEW(arena, nb_graph);
    g->arena = arena;
    g->name = nb_strdup(arena, name);
    g->body.graph = g;
    g->interner = NB_NEW(arena, struct nb_interner);
    nb_map *maps[] = {&g->interner->dims,   &g->interner->types,  &g->interner->symbols,
                      &g->interner->quants, &g->interner->values, &g->interner->consts,
                      &g->interner->codes};
    for (size_t i = 0; i < NB_COUNT(maps); i++) maps[i]->arena = arena;
    return g;
}

nb_graph *nb_graph_create(const char *name, nb_oom_fn oom, void *user) {
    return create_in(nb_arena_create(oom, user), name);
}
nb_graph *nb_graph_create_like(const nb_graph *other, const char *name) {
    return create_in(nb_arena_create_like(other->arena), name);
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

const nb_symbol *nb_graph_counted(nb_graph *g, const char *name) {
    const char *free = name;
    for (int i = 1; nb_map_get_str(&g->interner->symbols, free, strlen(free)); i++)
        free = nb_format(g->arena, "%s_%d", name, i);
    const nb_symbol *s = nb_graph_symbol(g, free, true);
    g->symbols.items[s->index]->counted = true;
    return s;
}

const nb_symbol *nb_bound_by(const nb_op *op) {
    const nb_attr *size = op->kind == NB_OP_bind ? nb_attr_of(op, "size") : NULL;
    if (!size || size->dims.count != 1 || size->dims.items[0]->kind != NB_DIM_SYMBOL) return NULL;
    const nb_symbol *s = size->dims.items[0]->symbol;
    return s->counted ? s : NULL;
}

/* What to do with every dim of a graph: put `by` for `symbol`, or without one, renew it. */
typedef struct rewriter {
    nb_graph *g;
    const nb_symbol *symbol;
    const nb_dim *by;
} rewriter;

static const nb_dim *rewrite_dim(const rewriter *r, const nb_dim *d) {
    return r->symbol ? nb_dim_substitute(r->g, d, r->symbol, r->by) : nb_dim_renew(r->g, d);
}

static const nb_type *rewrite_type(const rewriter *r, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK];
    bool same = true;
    for (int i = 0; i < t->rank; i++) {
        dims[i] = rewrite_dim(r, t->dims[i]);
        same = same && dims[i] == t->dims[i];
    }
    return same ? t : nb_type_intern(r->g, t->elem, t->quant, t->rank, dims);
}

static void rewrite_region(const rewriter *r, nb_region *region) {
    for (uint32_t i = 0; i < region->n_params; i++)
        region->params[i]->type = rewrite_type(r, region->params[i]->type);
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_results; i++)
            op->results[i]->type = rewrite_type(r, op->results[i]->type);
        const nb_op_info *info = nb_info(op);
        for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
            if (info->attrs[a].kind != NB_ATTR_DIMS || !op->attrs[a].set) continue;
            size_t n = op->attrs[a].dims.count;
            const nb_dim **dims = (const nb_dim **)nb_alloc_array(r->g->arena, n + 1, sizeof *dims);
            for (size_t i = 0; i < n; i++) dims[i] = rewrite_dim(r, op->attrs[a].dims.items[i]);
            op->attrs[a].dims.items = dims;
        }
        for (uint32_t k = 0; k < op->n_regions; k++) rewrite_region(r, op->regions[k]);
    }
}

static void rewrite_graph(const rewriter *r) {
    rewrite_region(r, &r->g->body);
    for (size_t i = 0; i < r->g->open.count; i++) rewrite_region(r, r->g->open.items[i]);
}

void nb_symbol_narrow(nb_graph *g, const nb_symbol *symbol, int64_t min, int64_t max) {
    nb_symbol *s = g->symbols.items[symbol->index];
    if (min <= s->min && max >= s->max) return;
    s->min = nb_max_i64(s->min, min);
    s->max = nb_min_i64(s->max, max);
    /* Bounds decide minima, maxima and quotients: with new ones, dims may have a simpler form. */
    rewrite_graph(&(rewriter){.g = g});
}

void nb_graph_substitute(nb_graph *g, const nb_symbol *symbol, const nb_dim *by) {
    assert(nb_dim_substitute(g, by, symbol, nb_dim_const(g, 0)) == by); /* or it never goes */
    rewrite_graph(&(rewriter){.g = g, .symbol = symbol, .by = by});
    nb_map_set_str(&g->interner->symbols, symbol->name, strlen(symbol->name), NULL);
    for (size_t i = symbol->index; i + 1 < g->symbols.count; i++) {
        g->symbols.items[i] = g->symbols.items[i + 1];
        g->symbols.items[i]->index = (uint32_t)i;
    }
    g->symbols.count--;
}

/* ---- names --------------------------------------------------------------------------------- */

static nb_name *name_entry(nb_map *map, const char *name, size_t length) {
    nb_map_entry *entry = nb_map_add_str(map, name, length);
    nb_name *n = entry->value;
    if (!n) {
        entry->value = n = NB_NEW(map->arena, nb_name);
        *n = (nb_name){.text = entry->key, .next = 1};
    }
    return n;
}

/* Of the name itself, or else of the first with a number behind it that is free. */
static nb_name *free_name(nb_map *names, const char *name, size_t length) {
    nb_name *base = name_entry(names, name, length), *n = base;
    while (n->taken) {
        const char *next = nb_format(names->arena, "%s_%u", base->text, base->next++);
        n = name_entry(names, next, strlen(next));
    }
    return n;
}

nb_name *nb_name_take(nb_map *names, const char *name, size_t length) {
    nb_name *n = free_name(names, name, length);
    n->taken = true;
    return n;
}

void nb_name_free(nb_name *name) {
    name->taken = false;
    name->value = NULL;
}

static nb_map *names_of(const nb_graph *g, bool constant) {
    return constant ? &g->interner->consts : &g->interner->values;
}

const char *nb_unique_name(nb_graph *g, const char *name, bool constant) {
    return free_name(names_of(g, constant), name, strlen(name))->text;
}

static void take_name(nb_graph *g, nb_value *v, const char *name, size_t length, bool constant) {
    v->entry = nb_name_take(names_of(g, constant), name, length);
    v->entry->value = v;
    v->name = v->entry->text;
}

void nb_set_name(nb_graph *g, nb_value *v, const char *name) {
    if (strcmp(v->name, name) == 0) return;
    nb_name *old = v->entry;
    take_name(g, v, name, strlen(name), nb_is_const(v));
    nb_name_free(old);
}

nb_value *nb_value_create_named(nb_graph *g, const char *name, size_t length, const nb_type *type,
                                bool constant) {
    nb_value *v = NB_NEW(g->arena, nb_value);
    v->type = type;
    v->id = g->n_values++;
    take_name(g, v, name, length, constant);
    return v;
}

nb_value *nb_value_create(nb_graph *g, const char *name, const nb_type *type, bool constant) {
    return nb_value_create_named(g, name, strlen(name), type, constant);
}

nb_value *nb_value_named(const nb_graph *g, const char *name, size_t length, bool constant) {
    const nb_name *n = nb_map_get_str(names_of(g, constant), name, length);
    return n ? n->value : NULL;
}

void nb_value_forget_name(nb_value *v) { nb_name_free(v->entry); }

/* ---- inputs and outputs -------------------------------------------------------------------- */

void nb_region_add_param(nb_region *region, nb_value *param) {
    uint32_t n = region->n_params;
    if ((n & (n - 1)) == 0) { /* full at each power of two, the empty list too */
        nb_value **grown =
            (nb_value **)nb_alloc_array(region->graph->arena, n ? 2 * (size_t)n : 1, sizeof *grown);
        if (n) memcpy(grown, region->params, n * sizeof *grown);
        region->params = grown;
    }
    param->region = region;
    param->index = n;
    region->params[region->n_params++] = param;
}

nb_value *nb_graph_add_input(nb_graph *g, const char *name, const nb_type *type) {
    nb_value *v = nb_value_create(g, name, type, false);
    nb_region_add_param(&g->body, v);
    return v;
}
