/* Graphs on their way through a pipeline (stages.h). */
#include "tools/stages.h"

static bool has_codes(const nb_graph *g) {
    for (size_t i = 0; i < g->constants.count; i++) {
        if (g->constants.items[i]->type->quant) return true;
    }
    for (const nb_op *op = g->body.first; op; op = op->next) {
        if (op->n_results && nb_out(op)->type->quant) return true;
    }
    return false;
}

static void keep(nb_graph **slot, const nb_graph *g) {
    nb_graph_destroy(*slot);
    *slot = nb_graph_clone(g);
}

void nbt_stages_see(nbt_stages *stages, const nb_graph *g) {
    if (g->stage > NB_STAGE_QDQ) return;
    keep(&stages->rounded, g);
    if (!has_codes(g)) keep(&stages->plain, g);
}

void nbt_stages_drop(nbt_stages *stages) {
    nb_graph_destroy(stages->plain);
    nb_graph_destroy(stages->rounded);
    *stages = (nbt_stages){0};
}
