/* Sizes that only data tell. A `bind` stores its number among the frame's symbols, and what follows
 * in its body is a function of its own, run_<n>: there, as in kernels, sizes are computed on entry.
 */
#include "codegen/model.h"

#include "ir/eval.h"
#include "runtime/nb_model.h"

#include <stddef.h>

const nb_lowering nb_lower_counted = {0};

static void find_binds(const nb_region *region, const nb_op **binds) {
    NB_FOR_OPS(op, region) {
        const nb_symbol *s = nb_bound_by(op);
        if (s && !binds[s->index]) binds[s->index] = op;
        for (uint32_t r = 0; r < op->n_regions; r++) find_binds(op->regions[r], binds);
    }
}

const nb_op **nb_binds_of(const nb_graph *g, nb_arena *arena) {
    const nb_op **binds =
        (const nb_op **)nb_alloc_array(arena, g->symbols.count + 1, sizeof *binds);
    find_binds(&g->body, binds);
    return binds;
}

static void check_type(nb_runner *r, const nb_type *t, const nb_symbol *symbol, nb_map *seen) {
    bool *without = NULL;
    if (symbol) {
        const size_t n = r->build->graph->symbols.count;
        without = NB_NEW_ARRAY(r->build->arena, bool, n + 1);
        for (size_t i = 0; i < n; i++) without[i] = i != symbol->index;
    }
    for (int d = 0; d < t->rank; d++) {
        int64_t low, high;
        nb_dim_range(t->dims[d], &low, &high);
        if (low >= 0 || nb_map_get(seen, t->dims[d])) continue;
        nb_map_set(seen, t->dims[d], (void *)(uintptr_t)t);
        if (nb_dim_is_counted(t->dims[d], r->bound)) continue; /* not known yet */
        if (symbol && !nb_dim_is_counted(t->dims[d], without)) continue;
        nb_run_fails(r, cg_cmpi(r->g, CG_LT, nb_dims_value(r->dims, t->dims[d]), 0));
    }
}

/* The plan did not look: it is made before it is known which bodies run, and what data say. */
void nb_run_check_signs(nb_runner *r, const nb_op *op, const nb_symbol *symbol) {
    nb_map seen = {.arena = r->build->arena};
    for (; op; op = op->next)
        for (uint32_t i = 0; i < op->n_results; i++)
            check_type(r, op->results[i]->type, symbol, &seen);
}

static cg_val number_of(nb_runner *r, const nb_value *v) {
    const nb_value *root = nb_root_of(v);
    if (!nb_is_const(root))
        return cg_load(r->g, CG_S(CG_I64), nb_frame_address(r->build, r->g, r->frame, v), 8);
    const nb_tensor t = nb_tensor_of_const(root);
    return cg_i64(r->g, nb_tensor_get_int(&t, 0));
}

/* Stores the symbol's value, if there is memory for it. */
static void say(nb_runner *r, const nb_symbol *s, cg_val n) {
    cg *g = r->g;
    nb_run_fails(r, cg_cmpi(g, CG_LT, n, s->min));
    if (s->max != INT64_MAX) nb_run_fails(r, cg_cmpi(g, CG_GT, n, s->max));
    cg_val at = cg_i64(g, s->index);
    cg_val symbols = nb_frame_member(g, r->frame, CG_PTR, offsetof(nb_frame, symbols));
    cg_val planned = nb_frame_member(g, r->frame, CG_PTR, offsetof(nb_frame, planned));
    cg_store(g, n, cg_index(g, symbols, CG_I64, at), 8);
    cg_val room = cg_load(g, CG_S(CG_I64), cg_index(g, planned, CG_I64, at), 8);
    nb_run_leaves(r, cg_cmp(g, CG_GT, n, room), NB_RUN_MORE);
}

void nb_run_check_frame(nb_runner *r) {
    const nb_graph *graph = r->build->graph;
    bool counted = false;
    for (size_t i = 0; i < graph->symbols.count; i++)
        counted = counted || graph->symbols.items[i]->counted;
    if (!counted) return;
    cg_val size = nb_frame_member(r->g, r->frame, CG_I32, offsetof(nb_frame, size));
    nb_run_fails(r, cg_cmpi(r->g, CG_ULT, size, offsetof(nb_frame, planned) + sizeof(void *)));
}

static void run_rest(nb_runner *r, const nb_op *op, const nb_symbol *s, const char *name,
                     uint32_t number) {
    nb_model_build *b = r->build;
    const cg_type param = CG_S(CG_PTR);
    cg *g = cg_function(b->m, nb_format(b->arena, "run_%s", name), CG_S(CG_I32), 1, &param,
                        CG_NOINLINE);
    nb_runner rest = nb_runner_open(b, g);
    rest.bound = r->bound;
    rest.scratch = r->scratch;
    rest.number = r->number;
    rest.path = r->path;
    nb_run_check_signs(&rest, op, s);
    nb_run_ops(&rest, op, number);
    cg_return(g, cg_i32(g, NB_RUN_OK));
    cg_val result = cg_call(r->g, cg_finish(g), 1, &r->frame);
    r->scratch = rest.scratch;
    CG_IF(r->g, cg_cmpi(r->g, CG_NE, result, NB_RUN_OK)) cg_return(r->g, result);
}

bool nb_run_bind(nb_runner *r, const nb_op *op, const char *name, uint32_t number) {
    cg *g = r->g;
    const nb_symbol *s = nb_bound_by(op);
    const nb_attr *most = nb_attr_of(op, "most");
    cg_val n = number_of(r, nb_in(op, 0));
    if (most->set)
        nb_run_fails(r, cg_cmp(g, CG_GT, n, nb_dims_value(r->dims, most->dims.items[0])));
    if (s && !r->bound[s->index]) {
        say(r, s, n);
        r->bound[s->index] = true;
        run_rest(r, op->next, s, name, number + 1);
        return true;
    }
    const nb_dim *size = nb_attr_of(op, "size")->dims.items[0];
    nb_run_fails(r, cg_cmp(g, CG_NE, n, nb_dims_value(r->dims, size)));
    return false;
}
