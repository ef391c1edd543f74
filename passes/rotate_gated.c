/* Inputs of the layers behind gated units in new coordinates, at run time (R4): outliers of a gate
 * times a signal are in other channels for every token, so that no constant before them takes a
 * rotation. Short blocks are enough where scales are per group of inputs as well. */
#include "passes/rotate.h"

#define LEAST 4 /* entries that share what stands out */

bool nb_rotate_gated(nb_turns *t, int64_t block) {
    nb_arena *scratch = nb_state_of(t->ctx)->scratch;
    nb_map done = {.arena = scratch}; /* value -> its transform */
    nb_refusal refusal = {.ctx = t->ctx, .rule = "gated"};
    size_t found = 0;
    NB_FOR_OPS(op, &t->ctx->graph->body) {
        nb_use *weight = nb_float_weight(op);
        nb_value *x = weight ? nb_in(op, 0) : NULL;
        if (!weight || !nb_is_gated(x)) continue;
        const int64_t rows = weight->value->type->dims[0]->value;
        const int64_t length = nb_min_i64(block, rows & -rows);
        found++;
        if (length < block && length < LEAST) {
            nb_refuse_rotation(&refusal, op,
                               nb_format(scratch, "its %lld inputs are not a multiple of %d",
                                         (long long)rows, LEAST));
            continue;
        }
        nb_rotation *r = NB_NEW(scratch, nb_rotation);
        *r = nb_rotation_plain(length);
        nb_value *y = nb_map_get(&done, x);
        if (!y) y = nb_hadamard_of(t->ctx, x, length);
        nb_map_set(&done, x, y);
        nb_set_operand(&op->operands[0], y);
        nb_turns_add(t, weight, (nb_turn){.by = r, .count = rows});
    }
    nb_refusal_report(t->ctx, &refusal, "gated", "layers behind gated units", found);
    return found > refusal.count;
}
