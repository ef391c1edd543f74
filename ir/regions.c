/* Bodies of ops: making and ending them, and taking an operand away from the op that has them. */
#include "ir/interner.h"

#include <string.h>

nb_region *nb_region_create(nb_graph *g) {
    nb_region *region = NB_NEW(g->arena, nb_region);
    region->graph = g;
    nb_vec_push(g->arena, &g->open, region);
    return region;
}

nb_value *nb_region_add(nb_region *region, const char *name, const nb_type *type) {
    nb_value *v = nb_value_create(region->graph, name, type, false);
    nb_region_add_param(region, v);
    return v;
}

void nb_region_return(nb_region *region, size_t n, nb_value *const *values, const nb_loc *loc) {
    nb_op *ret = nb_op_create(region->graph, NB_OP_return, (uint32_t)n);
    ret->loc = loc;
    for (size_t i = 0; i < n; i++) nb_set_operand(&ret->operands[i], values[i]);
    nb_op_insert(ret, region, NULL);
}

void nb_region_close(nb_region *region) {
    nb_graph *g = region->graph;
    size_t kept = 0;
    for (size_t i = 0; i < g->open.count; i++)
        if (g->open.items[i] != region) g->open.items[kept++] = g->open.items[i];
    g->open.count = kept;
}

void nb_region_discard(nb_region *region) {
    while (region->last) nb_op_remove(region->last);
    for (uint32_t i = 0; i < region->n_params; i++) nb_value_forget_name(region->params[i]);
    region->n_params = 0;
    nb_region_close(region);
}

uint32_t nb_result_count(const nb_op *op) {
    const int fixed = nb_info(op)->results;
    if (fixed != NB_RESULTS_ANY) return (uint32_t)fixed;
    const nb_op *ret = op->n_regions ? op->regions[0]->last : NULL;
    if (!ret || ret->kind != NB_OP_return) return 0;
    const uint32_t conditions = op->kind == NB_OP_loop && op->n_operands > 1 && nb_in(op, 1);
    return ret->n_operands > conditions ? ret->n_operands - conditions : 0;
}

void nb_op_drop_operand(nb_op *op, uint32_t index, uint32_t param) {
    for (uint32_t i = index; i + 1 < op->n_operands; i++)
        nb_set_operand(&op->operands[i], nb_in(op, i + 1));
    nb_set_operand(&op->operands[--op->n_operands], NULL);
    for (uint32_t r = 0; r < op->n_regions; r++) {
        nb_region *region = op->regions[r];
        nb_value_forget_name(region->params[param]);
        for (uint32_t i = param; i + 1 < region->n_params; i++) {
            region->params[i] = region->params[i + 1];
            region->params[i]->index = i;
        }
        region->n_params--;
    }
}
