/* Sections (section.h): the whole is copied, cut at `in`, and what nothing uses any more goes. */
#include "ir/section.h"

#include "ir/interner.h"

/* The copy's values by id, which copies keep. */
static nb_value **values_by_id(nb_graph *g, nb_arena *scratch) {
    nb_value **by_id = (nb_value **)nb_alloc_array(scratch, (size_t)g->n_values + 1, sizeof *by_id);
    for (uint32_t i = 0; i < g->body.n_params; i++)
        by_id[g->body.params[i]->id] = g->body.params[i];
    NB_FOR_OPS(op, &g->body) {
        for (uint32_t i = 0; i < op->n_results; i++) by_id[op->results[i]->id] = op->results[i];
    }
    return by_id;
}

/* Does the size of one of v's axes say what a symbol is that `known` lacks? Notes those it does. */
static bool tells_symbol(const nb_value *v, bool *known) {
    bool tells = false;
    for (int axis = 0; axis < v->type->rank; axis++) {
        const nb_dim *d = v->type->dims[axis];
        if (d->kind != NB_DIM_SYMBOL || known[d->symbol->index]) continue;
        known[d->symbol->index] = tells = true;
    }
    return tells;
}

/* Keeps the parameters that are used or whose sizes are needed; sources follow. */
static void drop_params(nb_graph *g, const nb_value **sources, nb_arena *scratch) {
    bool *known = NB_NEW_ARRAY(scratch, bool, g->symbols.count + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        if (g->body.params[i]->uses) tells_symbol(g->body.params[i], known);
    }
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        nb_value *v = g->body.params[i];
        if (!v->uses && !tells_symbol(v, known)) {
            nb_value_forget_name(v);
            continue;
        }
        v->index = n;
        sources[n] = sources[i];
        g->body.params[n++] = v;
    }
    g->body.n_params = n;
}

nb_section nb_section_create(const nb_graph *whole, const nb_value *const *in, size_t n_in,
                             const nb_value *const *out, size_t n_out) {
    nb_graph *g = nb_graph_clone(whole);
    nb_arena *scratch = nb_arena_create_like(whole->arena);
    nb_value **by_id = values_by_id(g, scratch);
    const uint32_t n_params = g->body.n_params;
    const nb_value **sources =
        (const nb_value **)nb_alloc_array(g->arena, n_params + n_in + 1, sizeof *sources);
    for (uint32_t i = 0; i < n_params; i++) sources[i] = whole->body.params[i];
    g->states.count = 0;
    for (size_t i = 0; i < n_in; i++) {
        nb_value *v = by_id[in[i]->id];
        nb_value *given = nb_graph_add_input(g, nb_format(g->arena, "in%zu", i), v->type);
        nb_replace_uses(v, given);
        by_id[in[i]->id] = given;
        sources[n_params + i] = in[i];
    }
    nb_value **results = (nb_value **)nb_alloc_array(scratch, n_out + 1, sizeof *results);
    const char **names = (const char **)nb_alloc_array(scratch, n_out + 1, sizeof *names);
    for (size_t i = 0; i < n_out; i++) {
        results[i] = by_id[out[i]->id];
        names[i] = nb_format(g->arena, "out%zu", i);
    }
    nb_graph_set_outputs(g, n_out, results, names);
    nb_graph_sweep(g);
    drop_params(g, sources, scratch);
    nb_arena_destroy(scratch);
    return (nb_section){g, sources};
}
