/* Values, and queries with keys, in new coordinates.
 *
 * values (R2 of SpinQuant): attention mixes whole rows of a head, so the rotation of a head's
 * values passes through it, and the layers on both sides take it. queries (R3): a score is a
 * product of a query and a key, and stays when both are rotated; it is worth its time where keys
 * are held in few bits. Past keys and values are states: they hold rotated ones from the first
 * token on. */
#include "passes/rotate.h"
#include "passes/values.h"

/* ---- values -------------------------------------------------------------------------------- */

void nb_rotate_values(nb_turns *t, uint64_t seed) {
    nb_arena *scratch = nb_state_of(t->ctx)->scratch;
    nb_refusal refusal = {.ctx = t->ctx, .rule = "values"};
    size_t found = 0;
    NB_FOR_OPS(op, &t->ctx->graph->body) {
        if (op->kind != NB_OP_attention) continue;
        nb_values h;
        const char *why = nb_values_find(t->ctx->graph, scratch, op, &h);
        found++;
        if (why) {
            nb_refuse_rotation(&refusal, op, why);
            continue;
        }
        nb_rotation *r = NB_NEW(scratch, nb_rotation);
        *r = nb_rotation_random(scratch, h.size, nb_hash_mix(seed, found));
        nb_turn columns_turn = {.by = r, .axis = 1, .from = h.from, .count = h.count};
        nb_turns_add(t, h.weight, columns_turn);
        if (h.bias) nb_turns_add(t, h.bias, columns_turn);
        for (size_t i = 0; i < h.readers.count; i++) {
            const int64_t rows = h.readers.items[i]->value->type->dims[0]->value;
            nb_turns_add(t, h.readers.items[i], (nb_turn){.by = r, .count = rows});
        }
    }
    nb_refusal_report(t->ctx, &refusal, "values", "attentions", found);
}

/* ---- queries ------------------------------------------------------------------------------- */

static const char *rotate_queries(nb_pass_ctx *ctx, nb_op *attention) {
    const char *why = NULL;
    nb_use *k = nb_fresh_states(ctx->graph, attention, 1, &why);
    const nb_type *type = nb_in(attention, 0)->type;
    if (!k) return why;
    if (k->value->type->elem != NB_F32) return "its keys are not f32";
    const int64_t size = nb_dim_is_const(type->dims[3]) ? type->dims[3]->value : 1;
    const int64_t block = nb_min_i64(size & -size, 1024);
    if (block < 2) return "the size of its heads is odd";
    nb_set_operand(&attention->operands[0], nb_hadamard_of(ctx, nb_in(attention, 0), block));
    nb_set_operand(k, nb_hadamard_of(ctx, k->value, block));
    return NULL;
}

bool nb_rotate_queries(nb_pass_ctx *ctx) {
    nb_refusal refusal = {.ctx = ctx, .rule = "queries"};
    size_t found = 0;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (op->kind != NB_OP_attention) continue;
        const char *why = rotate_queries(ctx, op);
        if (why) nb_refuse_rotation(&refusal, op, why);
        found++;
    }
    nb_refusal_report(ctx, &refusal, "queries", "attentions", found);
    return found > refusal.count;
}
