/* State pairs: an output that is an input with entries added along one axis.
 *
 *   present = concat(past, new) along the axis where past's length is a symbol of its own
 *
 * The new entries are computed, and no input but other pasts is as long as past: two inputs that
 * are merely joined are no state. */
#include "passes/raise.h"

static bool is_paired(const nb_graph *g, uint32_t input, uint32_t output) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].input == input || g->states.items[i].output == output) return true;
    }
    return false;
}

/* The concat whose result is output `o`, if it appends to an input along a symbol; else NULL. */
static const nb_op *appends(const nb_graph *g, uint32_t o) {
    const nb_op *concat = nb_made_by(nb_in(g->body.last, o), NB_OP_concat);
    if (!concat || concat->n_operands != 2) return NULL;
    const nb_value *past = nb_in(concat, 0);
    int64_t axis = nb_attr_int(concat, "axis");
    return past->region == &g->body && past->type->dims[axis]->kind == NB_DIM_SYMBOL &&
                   nb_in(concat, 1)->def
               ? concat
               : NULL;
}

static bool is_past(const nb_graph *g, const nb_value *input) {
    for (uint32_t o = 0; o < g->body.last->n_operands; o++) {
        const nb_op *concat = appends(g, o);
        if (concat && nb_in(concat, 0) == input) return true;
    }
    return false;
}

static bool is_own_length(const nb_graph *g, const nb_dim *length) {
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *input = g->body.params[i];
        for (int d = 0; d < input->type->rank; d++)
            if (input->type->dims[d] == length && !is_past(g, input)) return false;
    }
    return true;
}

void nb_raise_states(nb_pass_ctx *ctx, bool *changed) {
    nb_graph *g = ctx->graph;
    const nb_op *ret = g->body.last;
    for (uint32_t o = 0; o < ret->n_operands; o++) {
        const nb_op *concat = appends(g, o);
        if (!concat) continue;
        const nb_value *past = nb_in(concat, 0);
        int64_t axis = nb_attr_int(concat, "axis");
        if (is_paired(g, past->index, o) || !is_own_length(g, past->type->dims[axis])) continue;
        nb_state state = {.input = past->index, .output = o, .axis = (int)axis};
        nb_vec_push(g->arena, &g->states, state);
        *changed = true;
    }
}
