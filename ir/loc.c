/* Locations: where an op came from. */
#include "ir/ir.h"

#include <string.h>

static bool contains(const char *const *list, uint32_t n, const char *s) {
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(list[i], s) == 0) return true;
    }
    return false;
}

/* a followed by what of b it lacks. */
static const char *const *join(nb_arena *arena, const char *const *a, uint32_t na,
                               const char *const *b, uint32_t nb, uint32_t *n) {
    const char **out = (const char **)nb_alloc_array(arena, (size_t)na + nb + 1, sizeof(char *));
    if (na) memcpy(out, a, na * sizeof(char *));
    *n = na;
    for (uint32_t i = 0; i < nb; i++) {
        if (!contains(out, *n, b[i])) out[(*n)++] = b[i];
    }
    return out;
}

const nb_loc *nb_loc_at(nb_graph *g, const char *node) {
    nb_loc *loc = NB_NEW(g->arena, nb_loc);
    const char **at = (const char **)nb_alloc_array(g->arena, 1, sizeof(char *));
    at[0] = nb_strdup(g->arena, node);
    loc->at = at;
    loc->n_at = 1;
    return loc;
}

const nb_loc *nb_loc_merge(nb_graph *g, const nb_loc *a, const nb_loc *b) {
    if (!a || !b || a == b) return a ? a : b;
    nb_loc *loc = NB_NEW(g->arena, nb_loc);
    loc->at = join(g->arena, a->at, a->n_at, b->at, b->n_at, &loc->n_at);
    loc->via = join(g->arena, a->via, a->n_via, b->via, b->n_via, &loc->n_via);
    return loc;
}

const nb_loc *nb_loc_via(nb_graph *g, const nb_loc *loc, const char *pass) {
    if (loc && contains(loc->via, loc->n_via, pass)) return loc;
    nb_loc *out = NB_NEW(g->arena, nb_loc);
    if (loc) *out = *loc;
    const char *name = nb_strdup(g->arena, pass);
    out->via = join(g->arena, out->via, out->n_via, &name, 1, &out->n_via);
    return out;
}

const char *nb_loc_name(const nb_loc *loc) { return loc && loc->n_at ? loc->at[0] : ""; }
