/* Graphs on their way through a pipeline (stages.h). */
#include "tools/stages.h"

bool nbt_has_codes(const nb_graph *g) {
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

void nbt_stages_see(nbt_stages *stages, size_t index, const char *pass, const nb_graph *g) {
    if (stages->arena) {
        const nbt_stage stage = {index, pass, nb_graph_clone(g)};
        nb_vec_push(stages->arena, &stages->all, stage);
    }
    if (g->stage > NB_STAGE_QDQ) return;
    keep(&stages->rounded, g);
    if (!nbt_has_codes(g)) keep(&stages->plain, g);
}

void nbt_stages_drop(nbt_stages *stages) {
    for (size_t i = stages->all.count; i-- > 0;) nb_graph_destroy(stages->all.items[i].graph);
    nb_graph_destroy(stages->plain);
    nb_graph_destroy(stages->rounded);
    *stages = (nbt_stages){0};
}
