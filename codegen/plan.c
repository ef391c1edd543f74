/* bind, shape, input_shape and plan: straight-line code from dim expressions. */
#include "codegen/model.h"
#include "runtime/nb_model.h"

static cg_val element(cg *g, cg_val pointer, int64_t index) {
    return cg_index(g, pointer, CG_I64, cg_i64(g, index));
}

/* ---- bind ---------------------------------------------------------------------------------- */

typedef struct binder {
    cg *g;
    const nb_graph *graph;
    cg_val shapes, symbols;
    cg_var *bound; /* i1 for each symbol */
} binder;

static cg_val given_dim(const binder *b, uint32_t input, int axis) {
    cg *g = b->g;
    cg_val shape = cg_load(g, CG_S(CG_PTR), cg_index(g, b->shapes, CG_PTR, cg_i64(g, input)), 0);
    return cg_load(g, CG_S(CG_I64), element(g, shape, axis), 0);
}

/* Splits `dim` into `symbol + offset` or a lone `symbol`, if it is one of these. */
static bool solvable(const nb_dim *dim, const nb_symbol **symbol, int64_t *offset) {
    *offset = 0;
    if (dim->kind == NB_DIM_ADD) {
        const nb_dim *c = nb_dim_is_const(dim->a) ? dim->a : dim->b;
        const nb_dim *rest = c == dim->a ? dim->b : dim->a;
        if (!nb_dim_is_const(c)) return false;
        *offset = c->value;
        dim = rest;
    }
    if (dim->kind != NB_DIM_SYMBOL) return false;
    *symbol = dim->symbol;
    return true;
}

/* A symbol gets its value from the first known dimension that is it (or it plus a constant). */
static void bind_symbols(const binder *b) {
    cg *g = b->g;
    for (uint32_t i = 0; i < b->graph->body.n_params; i++) {
        const nb_type *t = b->graph->body.params[i]->type;
        for (int axis = 0; axis < t->rank; axis++) {
            const nb_symbol *symbol;
            int64_t offset;
            if (!solvable(t->dims[axis], &symbol, &offset)) continue;
            cg_val given = given_dim(b, i, axis), bound = cg_get(g, b->bound[symbol->index]);
            cg_val take = cg_and(g, cg_not(g, bound), cg_cmpi(g, CG_NE, given, -1));
            cg_val at = element(g, b->symbols, symbol->index);
            cg_val old = cg_load(g, CG_S(CG_I64), at, 0);
            cg_store(g, cg_select(g, take, cg_sub(g, given, cg_i64(g, offset)), old), at, 0);
            cg_set(g, b->bound[symbol->index], cg_or(g, bound, take));
        }
    }
}

/* Is every symbol of `dim` bound? */
static cg_val all_bound(const binder *b, const nb_dim *dim) {
    if (dim->kind == NB_DIM_CONST) return cg_i1(b->g, true);
    if (dim->kind == NB_DIM_SYMBOL) return cg_get(b->g, b->bound[dim->symbol->index]);
    return cg_and(b->g, all_bound(b, dim->a), all_bound(b, dim->b));
}

static void check_dims(const binder *b) {
    cg *g = b->g;
    for (uint32_t i = 0; i < b->graph->body.n_params; i++) {
        const nb_type *t = b->graph->body.params[i]->type;
        for (int axis = 0; axis < t->rank; axis++) {
            nb_dims *dims = nb_dims_create(g, b->symbols, true);
            cg_val given = given_dim(b, i, axis);
            cg_val wanted = nb_dims_value(dims, t->dims[axis]);
            cg_val bad = cg_or(g, cg_cmp(g, CG_NE, given, wanted), cg_get(g, dims->overflow));
            bad = cg_and(g, bad, all_bound(b, t->dims[axis]));
            bad = cg_and(g, bad, cg_cmpi(g, CG_NE, given, -1));
            CG_IF(g, bad) cg_return(g, cg_i64(g, 1 + 16 * (int64_t)i + axis));
        }
    }
}

/* Counted symbols: what they can be at most, where that is known. */
static void bind_counted(const binder *b, const nb_op *const *binds) {
    cg *g = b->g;
    for (size_t i = 0; i < b->graph->symbols.count; i++) {
        const nb_symbol *s = b->graph->symbols.items[i];
        if (!s->counted) continue;
        cg_val value = cg_i64(g, s->min);
        const nb_attr *most = binds[i] ? nb_attr_of(binds[i], "most") : NULL;
        if (most && most->set) {
            nb_dims *dims = nb_dims_create(g, b->symbols, true);
            cg_val bound = nb_dims_value(dims, most->dims.items[0]);
            value = cg_select(g, cg_get(g, dims->overflow), value, cg_smax(g, value, bound));
            value = cg_smin(g, value, cg_i64(g, s->max));
        }
        cg_store(g, value, element(g, b->symbols, (int64_t)i), 0);
        cg_set(g, b->bound[i], cg_i1(g, true));
    }
}

static cg_val emit_bind(nb_model_build *build) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_PTR)};
    const nb_graph *graph = build->graph;
    cg *g = cg_function(build->m, "bind", CG_S(CG_I64), 2, params, 0);
    binder b = {.g = g, .graph = graph, .shapes = cg_param(g, 0), .symbols = cg_param(g, 1)};
    b.bound = NB_NEW_ARRAY(build->arena, cg_var, graph->symbols.count + 1);
    for (size_t i = 0; i < graph->symbols.count; i++) {
        b.bound[i] = cg_var_new(g, cg_i1(g, false));
        cg_store(g, cg_i64(g, 0), element(g, b.symbols, (int64_t)i), 0);
    }
    bind_symbols(&b);
    check_dims(&b);
    bind_counted(&b, nb_binds_of(graph, build->arena));
    for (size_t i = 0; i < graph->symbols.count; i++)
        CG_IF(g, cg_not(g, cg_get(g, b.bound[i]))) cg_return(g, cg_i64(g, -1 - (int64_t)i));
    return cg_finish(g);
}

/* ---- shapes -------------------------------------------------------------------------------- */

/* f(symbols, number, dims): writes the dims of the numbered value. */
static cg_val emit_shapes(nb_model_build *b, const char *name, size_t n, nb_value *const *values) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_I64), CG_S(CG_PTR)};
    cg *g = cg_function(b->m, name, CG_S(CG_VOID), 3, params, 0);
    for (size_t i = 0; i < n; i++) {
        CG_IF(g, cg_cmpi(g, CG_EQ, cg_param(g, 1), (int64_t)i)) {
            nb_dims *dims = nb_dims_create(g, cg_param(g, 0), true);
            for (int axis = 0; axis < values[i]->type->rank; axis++)
                cg_store(g, nb_dims_value(dims, values[i]->type->dims[axis]),
                         element(g, cg_param(g, 2), axis), 0);
        }
    }
    return cg_finish(g);
}

/* ---- plan ---------------------------------------------------------------------------------- */

typedef struct planning {
    nb_model_build *b;
    cg *g;
    nb_dims *dims;
    cg_val *sizes;   /* of slots, then of the scratch memory */
    nb_map known[2]; /* type -> bytes, outside of bodies and inside */
} planning;

static void plan_value(planning *p, const nb_value *v) {
    nb_map *known = &p->known[p->dims->lenient];
    cg_val bytes = (cg_val)nb_map_get(known, v->type);
    if (!bytes) {
        bytes = nb_dims_value_bytes(p->dims, v->type);
        nb_map_set(known, v->type, bytes);
    }
    if (v->storage.kind == NB_STORE_SLOT)
        p->sizes[v->storage.index] = cg_smax(p->g, p->sizes[v->storage.index], bytes);
}

static void plan_scratch(planning *p, const nb_op *op) {
    const nb_lowering *lowering = nb_lowering_of(op->kind);
    if (nb_emits_nothing(op) || !lowering->scratch) return;
    cg *g = p->g;
    nb_lower l;
    nb_lower_open(&l, p->b, g, op, nb_dims_create(g, cg_param(g, 0), false), NULL);
    cg_val bytes = lowering->scratch(&l);
    cg_val rounded = cg_andi(g, nb_dims_add(p->dims, bytes, cg_i64(g, 63)), -64);
    p->sizes[p->b->n_slots] = cg_smax(g, p->sizes[p->b->n_slots], rounded);
}

static void plan_region(planning *p, const nb_region *region) {
    for (uint32_t i = 0; i < region->n_params; i++) plan_value(p, region->params[i]);
    NB_FOR_OPS(op, region) {
        for (uint32_t i = 0; i < op->n_results; i++) plan_value(p, op->results[i]);
        /* A body that does not run may have sizes that no run could have; those that run look. */
        const bool lenient = p->dims->lenient;
        for (uint32_t r = 0; r < op->n_regions; r++) {
            p->dims->lenient = true;
            plan_region(p, op->regions[r]);
        }
        p->dims->lenient = lenient;
        plan_scratch(p, op);
    }
}

/* Every slot is as large as the largest value kept in it; behind the slots, the scratch memory of
 * whichever op needs most. All sizes are checked, also of values that live elsewhere, so that no
 * index computed during the run can overflow. */
static cg_val emit_plan(nb_model_build *b) {
    const cg_type params[] = {CG_S(CG_PTR), CG_S(CG_PTR)};
    cg *g = cg_function(b->m, "plan", CG_S(CG_I64), 2, params, 0);
    nb_dims *dims = nb_dims_create(g, cg_param(g, 0), true);
    cg_val *sizes = NB_NEW_ARRAY(b->arena, cg_val, b->n_slots + 1U);
    for (uint32_t i = 0; i <= b->n_slots; i++) sizes[i] = cg_i64(g, 0);
    planning p = {.b = b, .g = g, .dims = dims, .sizes = sizes};
    p.known[0].arena = p.known[1].arena = b->arena;
    plan_region(&p, &b->graph->body);

    cg_val end = cg_i64(g, 0);
    for (uint32_t i = 0; i <= b->n_slots; i++) {
        cg_store(g, end, element(g, cg_param(g, 1), i), 0);
        end = nb_dims_add(dims, end, sizes[i]);
    }
    cg_return(g, cg_select(g, cg_get(g, dims->overflow), cg_i64(g, -1), end));
    return cg_finish(g);
}

void nb_model_shapes(nb_model_build *b) {
    const nb_graph *g = b->graph;
    const uint32_t n_outputs = g->body.last->n_operands;
    nb_value **outputs = NB_NEW_ARRAY(b->arena, nb_value *, n_outputs + 1U);
    for (uint32_t i = 0; i < n_outputs; i++) outputs[i] = nb_in(g->body.last, i);
    b->bind = emit_bind(b);
    b->input_shape = emit_shapes(b, "input_shape", g->body.n_params, g->body.params);
    b->shape = emit_shapes(b, "shape", n_outputs, outputs);
    b->plan = emit_plan(b);
}
