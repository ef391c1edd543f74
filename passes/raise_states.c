/* State pairs: an output that is an input with entries added along one axis.
 *
 *   present = concat(past, new) along the axis where past's length is a symbol of its own
 *
 * The new entries are computed, and no other input but pasts is as long as past: two inputs that
 * are merely joined are no state. */
#include "passes/raise.h"

static bool is_paired(const nb_graph *g, uint32_t input, uint32_t output) {
    for (size_t i = 0; i < g->states.count; i++) {
        if (g->states.items[i].input == input || g->states.items[i].output == output) return true;
    }
    return false;
}

/* The past that output `o` appends to and *axis, or NULL. */
static const nb_value *past_of(const nb_graph *g, uint32_t o, int64_t *axis) {
    const nb_op *concat = nb_made_by(nb_in(g->body.last, o), NB_OP_concat);
    if (!concat || concat->n_operands != 2 || !nb_in(concat, 1)->def) return NULL;
    const nb_value *past = nb_in(concat, 0);
    *axis = nb_attr_int(concat, "axis");
    bool symbol = past->type->dims[*axis]->kind == NB_DIM_SYMBOL;
    return past->region == &g->body && symbol ? past : NULL;
}

static bool is_past(const nb_graph *g, const nb_value *input) {
    int64_t axis;
    for (uint32_t o = 0; o < g->body.last->n_operands; o++) {
        if (past_of(g, o, &axis) == input) return true;
    }
    return false;
}

static int times(const nb_type *t, const nb_dim *length) {
    int n = 0;
    for (int d = 0; d < t->rank; d++) n += t->dims[d] == length;
    return n;
}

/* Is it the length of one axis of past, and otherwise of pasts only? */
static bool is_length_of_its_own(const nb_graph *g, const nb_value *past, const nb_dim *length) {
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *input = g->body.params[i];
        int n = times(input->type, length);
        if (input == past ? n != 1 : n && !is_past(g, input)) return false;
    }
    return true;
}

void nb_raise_states(nb_pass_ctx *ctx, bool *changed) {
    nb_graph *g = ctx->graph;
    for (uint32_t o = 0; o < g->body.last->n_operands; o++) {
        int64_t axis;
        const nb_value *past = past_of(g, o, &axis);
        if (!past || is_paired(g, past->index, o)) continue;
        if (!is_length_of_its_own(g, past, past->type->dims[axis])) {
            nb_refused(
                ctx, nb_in(g->body.last, o)->def, "state",
                "present = concat(past, new)  ->  state past -> present",
                "another input than a past is as long as '%%%s', or it has that length twice",
                past->name);
            continue;
        }
        nb_state state = {.input = past->index, .output = o, .axis = (int)axis};
        nb_vec_push(g->arena, &g->states, state);
        *changed = true;
    }
}
