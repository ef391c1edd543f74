/* simplify, for sizes that data tell (simplify.h): a `bind` of a constant says a number, and one
 * whose symbol nothing holds says nothing.
 *
 *   %n: i64[] = bind @three {size=[N]}                   %z: i64[3] = iota {start=[0], count=[3]}
 *   %z: i64[N] = iota {start=[0], count=[N]}         -> */
#include "passes/simplify.h"

#include "ir/build.h"
#include "ir/eval.h"

static void mark_dims(bool *held, size_t n, const nb_dim *const *dims) {
    for (size_t i = 0; i < n; i++) {
        const nb_dim *d = dims[i];
        for (; d->kind != NB_DIM_CONST && d->kind != NB_DIM_SYMBOL; d = d->a)
            mark_dims(held, 1, &d->b);
        if (d->kind == NB_DIM_SYMBOL) held[d->symbol->index] = true;
    }
}

/* Symbols in types and attributes; `size` of a bind says one and holds none. */
static void mark_region(bool *held, const nb_region *region) {
    for (uint32_t i = 0; i < region->n_params; i++)
        mark_dims(held, (size_t)region->params[i]->type->rank, region->params[i]->type->dims);
    for (const nb_op *op = region->first; op; op = op->next) {
        const nb_op_info *info = nb_info(op);
        for (uint32_t i = 0; i < op->n_results; i++)
            mark_dims(held, (size_t)op->results[i]->type->rank, op->results[i]->type->dims);
        for (int a = nb_bound_by(op) ? 1 : 0;
             a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++)
            if (info->attrs[a].kind == NB_ATTR_DIMS)
                mark_dims(held, op->attrs[a].dims.count, op->attrs[a].dims.items);
        for (uint32_t r = 0; r < op->n_regions; r++) mark_region(held, op->regions[r]);
    }
}

static void remove_bind(nb_op *op) {
    nb_replace_uses(nb_out(op), nb_in(op, 0));
    nb_op_remove(op);
}

/* Does it say a number that the symbol may be? */
static bool says_number(const nb_op *op, const nb_symbol *s, int64_t *value) {
    const nb_attr *most = nb_attr_of(op, "most");
    if (!nb_is_const(nb_in(op, 0))) return false;
    const nb_tensor t = nb_tensor_of_const(nb_in(op, 0));
    *value = nb_tensor_get_int(&t, 0);
    return *value >= s->min && *value <= s->max &&
           (!most->set ||
            (nb_dim_is_const(most->dims.items[0]) && *value <= most->dims.items[0]->value));
}

/* One at a time: each may take a symbol away, and others move up. */
static bool settle_one(nb_graph *g, const nb_region *region, const bool *held) {
    NB_FOR_OPS(op, region) {
        const nb_symbol *s = nb_bound_by(op);
        int64_t value;
        if (s && !held[s->index]) {
            remove_bind(op);
            return true;
        }
        if (s && says_number(op, s, &value)) {
            nb_graph_substitute(g, s, nb_dim_const(g, value));
            remove_bind(op);
            return true;
        }
        for (uint32_t r = 0; r < op->n_regions; r++)
            if (settle_one(g, op->regions[r], held)) return true;
    }
    return false;
}

bool nb_simplify_counts(nb_pass_ctx *ctx) {
    nb_graph *g = ctx->graph;
    bool changed = false, counted = false;
    for (size_t i = 0; i < g->symbols.count; i++) counted = counted || g->symbols.items[i]->counted;
    while (counted) {
        nb_arena *arena = nb_arena_create_like(g->arena);
        bool *held = NB_NEW_ARRAY(arena, bool, g->symbols.count + 1);
        mark_region(held, &g->body);
        counted = settle_one(g, &g->body, held);
        changed = changed || counted;
        nb_arena_destroy(arena);
    }
    return changed;
}
