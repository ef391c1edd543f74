/* Finds key/value caches (cache.h). */
#include "passes/cache.h"

/* Is this use keys or values of an attention? */
static bool is_read(const nb_use *u) {
    return u->user->kind == NB_OP_attention && (u->index == 1 || u->index == 2);
}

/* Collects attention's uses of v, also behind casts; the first op that reads it otherwise. */
static const nb_op *find_readers(nb_arena *arena, const nb_value *v, nb_cache *c) {
    for (nb_use *u = v->uses; u; u = u->next) {
        const nb_op *other = NULL;
        if (is_read(u))
            nb_vec_push(arena, &c->readers, u);
        else if (u->user->kind == NB_OP_cast && nb_out(u->user)->type->elem == NB_F32)
            other = find_readers(arena, nb_out(u->user), c);
        else if (u->user->kind != NB_OP_return || u->index != c->output)
            other = u->user;
        if (other) return other;
    }
    return NULL;
}

bool nb_find_cache(nb_arena *arena, const nb_graph *g, const nb_state *s, nb_cache *c) {
    nb_op *concat = nb_in(g->body.last, s->output)->def;
    *c = (nb_cache){.output = s->output, .past = g->body.params[s->input], .concat = concat};
    if (s->axis != NB_TOKENS || !concat || concat->kind != NB_OP_concat ||
        concat->n_operands != 2 || nb_in(concat, 0) != c->past ||
        nb_attr_int(concat, "axis") != NB_TOKENS)
        return false;
    const nb_op *other = find_readers(arena, nb_out(concat), c);
    if (!c->readers.count) return false;
    for (const nb_use *u = c->past->uses; u && !other; u = u->next)
        if (u->user != concat) other = u->user;
    c->other = other;
    return !other && nb_has_one_use(c->past);
}

bool nb_cache_is(const nb_cache *c, uint32_t operand) {
    for (size_t i = 0; i < c->readers.count; i++)
        if (c->readers.items[i]->index != operand) return false;
    return true;
}
