/* State pairs: an output that is an input with entries added along one axis.
 *
 *   present = concat(past, new) along the axis where past's length is a symbol of its own
 *
 * The new entries are computed, and no other input but pasts is as long as past: two inputs that
 * are merely joined are no state. */
#include "passes/raise.h"

/* The past that output `o` appends to and *axis, or NULL. */
static const nb_value *past_of(const nb_graph *g, uint32_t o, int64_t *axis) {
    const nb_op *concat = nb_made_by(nb_in(g->body.last, o), NB_OP_concat);
    if (!concat || concat->n_operands != 2 || !nb_in(concat, 1)->def) return NULL;
    const nb_value *past = nb_in(concat, 0);
    *axis = nb_attr_int(concat, "axis");
    bool symbol = past->type->dims[*axis]->kind == NB_DIM_SYMBOL;
    return past->region == &g->body && symbol ? past : NULL;
}

static int times(const nb_type *t, const nb_dim *length) {
    int n = 0;
    for (int d = 0; d < t->rank; d++) n += t->dims[d] == length;
    return n;
}

/* What is known before the first pair is made, by number of input and output. */
typedef struct known {
    bool *is_past, *input_paired, *output_paired;
    nb_map others; /* length -> an input that has it and is no past */
} known;

static known look(const nb_graph *g, nb_arena *arena) {
    const uint32_t n_outputs = g->body.last->n_operands;
    known k = {.is_past = NB_NEW_ARRAY(arena, bool, (size_t)g->body.n_params + 1),
               .input_paired = NB_NEW_ARRAY(arena, bool, (size_t)g->body.n_params + 1),
               .output_paired = NB_NEW_ARRAY(arena, bool, (size_t)n_outputs + 1),
               .others = {.arena = arena}};
    for (uint32_t o = 0; o < n_outputs; o++) {
        int64_t axis;
        const nb_value *past = past_of(g, o, &axis);
        if (past) k.is_past[past->index] = true;
    }
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        nb_value *input = g->body.params[i];
        for (int d = 0; !k.is_past[i] && d < input->type->rank; d++)
            nb_map_set(&k.others, input->type->dims[d], input);
    }
    for (size_t i = 0; i < g->states.count; i++) {
        k.input_paired[g->states.items[i].input] = true;
        k.output_paired[g->states.items[i].output] = true;
    }
    return k;
}

void nb_raise_states(nb_pass_ctx *ctx, bool *changed) {
    nb_graph *g = ctx->graph;
    known k = look(g, nb_state_of(ctx)->scratch);
    for (uint32_t o = 0; o < g->body.last->n_operands; o++) {
        int64_t axis;
        const nb_value *past = past_of(g, o, &axis);
        if (!past || k.input_paired[past->index] || k.output_paired[o]) continue;
        const nb_dim *length = past->type->dims[axis];
        if (times(past->type, length) != 1 || nb_map_get(&k.others, length)) {
            nb_refused(
                ctx, nb_in(g->body.last, o)->def, "state",
                "present = concat(past, new)  ->  state past -> present",
                "another input than a past is as long as '%%%s', or it has that length twice",
                past->name);
            continue;
        }
        nb_state state = {.input = past->index, .output = o, .axis = (int)axis};
        nb_vec_push(g->arena, &g->states, state);
        k.input_paired[past->index] = k.output_paired[o] = true;
        *changed = true;
    }
}
