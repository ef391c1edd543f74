/* State pairs: an output that is an input with entries added along one axis.
 *
 *   present = concat(past, new) along the axis where past's length is a symbol of its own */
#include "passes/raise.h"

static bool is_paired(const nb_graph *g, uint32_t input, uint32_t output) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].input == input || g->states.items[i].output == output) return true;
    }
    return false;
}

/* Does only this axis have that length? */
static bool is_length_of_its_own(const nb_type *t, int64_t axis) {
    if (t->dims[axis]->kind != NB_DIM_SYMBOL) return false;
    for (int d = 0; d < t->rank; d++) {
        if (d != axis && t->dims[d] == t->dims[axis]) return false;
    }
    return true;
}

void nb_raise_states(nb_pass_ctx *ctx, bool *changed) {
    nb_graph *g = ctx->graph;
    const nb_op *ret = g->body.last;
    for (uint32_t o = 0; o < ret->n_operands; o++) {
        const nb_op *concat = nb_made_by(nb_in(ret, o), NB_OP_concat);
        if (!concat || concat->n_operands != 2 || nb_in(concat, 0) == nb_in(concat, 1)) continue;
        const nb_value *past = nb_in(concat, 0);
        int64_t axis = nb_attr_int(concat, "axis");
        if (past->region != &g->body || !is_length_of_its_own(past->type, axis)) continue;
        if (is_paired(g, past->index, o)) continue;
        nb_state state = {.input = past->index, .output = o, .axis = (int)axis};
        nb_vec_push(g->arena, &g->states, state);
        *changed = true;
    }
}
