/* Language models by the conventions of their exporters (windows.h). */
#include "passes/windows.h"

#include <string.h>

static bool contains(const char *text, const char *part) { return strstr(text, part) != NULL; }

nb_role nb_role_of(const char *name) {
    if (contains(name, "use_cache_branch")) return NB_BRANCH;
    if (contains(name, "mask")) return NB_MASK;
    if (contains(name, "position")) return NB_POSITIONS;
    if (contains(name, "input_ids") || contains(name, "tokens") || contains(name, "ids"))
        return NB_TOKEN_IDS;
    return NB_OTHER_INPUT;
}

bool nb_is_logits(const char *output) { return contains(output, "logits"); }

bool nb_takes_integers(nb_elem elem, int rank) {
    return rank == 2 && (elem == NB_I64 || elem == NB_I32);
}

/* Decoders that begin a text and those that go on with it are branches of one model (Optimum's
 * "merged"): the latter do both, with caches that are empty. */
static bool go_on(nb_elem elem, int rank, nb_arena *arena, nb_tensor *t) {
    if (elem != NB_BOOL || rank > 1) return false;
    *t = (nb_tensor){
        .elem = elem, .rank = rank, .dims = {1}, .bytes = 1, .data = nb_alloc(arena, 8)};
    memset(t->data, 1, 1);
    return true;
}

static int64_t *integers(nb_tensor *t, nb_elem elem, int64_t rows, int64_t columns,
                         nb_arena *arena) {
    *t = (nb_tensor){.elem = elem,
                     .rank = 2,
                     .dims = {rows, columns},
                     .bytes = rows * columns * (nb_elems[elem].bits / 8)};
    t->data = nb_alloc(arena, (size_t)(rows * columns) * 8 + 8);
    return t->data;
}

/* Narrows i64 values in place when the model wants i32. */
static void narrow(nb_tensor *t) {
    if (t->elem != NB_I32) return;
    int64_t n = nb_tensor_count(t);
    const int64_t *from = t->data;
    for (int64_t i = 0; i < n; i++) {
        int32_t v = (int32_t)from[i];
        memcpy((char *)t->data + 4 * i, &v, sizeof v);
    }
}

void nb_fill_window(nb_role role, const int64_t *tokens, int64_t batch, int64_t n, int64_t past,
                    nb_elem elem, nb_arena *arena, nb_tensor *t) {
    int64_t columns = role == NB_MASK ? past + n : n;
    int64_t *v = integers(t, elem, batch, columns, arena);
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < columns; i++)
            v[b * columns + i] = role == NB_TOKEN_IDS ? tokens[b * n + i]
                                 : role == NB_MASK    ? 1
                                                      : past + i;
    }
    narrow(t);
}

nb_language nb_language_of(const nb_graph *g) {
    nb_language out = {.tokens = -1, .logits = -1};
    for (uint32_t i = g->body.n_params; i-- > 0;) {
        const nb_value *v = g->body.params[i];
        if (nb_role_of(v->name) == NB_TOKEN_IDS && nb_takes_integers(v->type->elem, v->type->rank))
            out.tokens = (int)i;
    }
    for (size_t i = g->outputs.count; i-- > 0;) {
        const nb_type *t = nb_in(g->body.last, i)->type;
        if (!nb_is_logits(g->outputs.items[i])) continue;
        out.logits = (int)i;
        out.vocab = t->rank == 3 && nb_dim_is_const(t->dims[2]) ? t->dims[2]->value : 0;
    }
    return out;
}

/* A state that does not grow begins with zeros. */
static bool is_fixed_state(const nb_graph *g, uint32_t input) {
    for (size_t i = 0; i < g->states.count; i++)
        if (g->states.items[i].input == input) return g->states.items[i].axis < 0;
    return false;
}

static bool empty_state(const nb_type *type, int64_t batch, nb_arena *arena, nb_tensor *out) {
    *out = (nb_tensor){.elem = type->elem, .rank = type->rank};
    for (int d = 0; d < type->rank; d++) {
        if (d && !nb_dim_is_const(type->dims[d])) return false;
        out->dims[d] = nb_dim_is_const(type->dims[d]) ? type->dims[d]->value : batch;
    }
    if (!nb_elem_bytes_of(type->elem, nb_tensor_count(out), &out->bytes)) return false;
    out->data = nb_alloc(arena, (size_t)out->bytes + 8);
    return true;
}

nb_status nb_window_inputs(const nb_graph *g, const int64_t *tokens, int64_t batch, int64_t length,
                           nb_arena *arena, nb_diags *diags, nb_tensor **out) {
    nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, g->body.n_params + 1);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *v = g->body.params[i];
        nb_role r = nb_role_of(v->name);
        if (r == NB_BRANCH && go_on(v->type->elem, v->type->rank, arena, &inputs[i])) continue;
        if (r != NB_OTHER_INPUT && nb_takes_integers(v->type->elem, v->type->rank)) {
            nb_fill_window(r, tokens, batch, length, 0, v->type->elem, arena, &inputs[i]);
            continue;
        }
        if (is_fixed_state(g, i) && empty_state(v->type, batch, arena, &inputs[i])) continue;
        if (v->type->rank != 4)
            return nb_error(diags, NB_UNSUPPORTED, (nb_where){.file = g->file, .offset = -1},
                            "input \"%s\" is neither tokens, mask, positions nor a cache", v->name);
        nb_tensor *t = &inputs[i]; /* an empty cache: [batch, heads, 0, size] */
        *t = (nb_tensor){.elem = v->type->elem, .rank = 4, .data = nb_alloc(arena, 8)};
        bool empty = false;
        for (int d = 0; d < 4; d++) {
            t->dims[d] = nb_dim_is_const(v->type->dims[d]) ? v->type->dims[d]->value
                         : d == 0                          ? batch
                                                           : 0;
            empty = empty || t->dims[d] == 0;
        }
        if (!empty)
            return nb_error(diags, NB_UNSUPPORTED, (nb_where){.file = g->file, .offset = -1},
                            "input \"%s\": a cache that cannot be empty: %s", v->name,
                            nb_type_text(arena, v->type));
    }
    *out = inputs;
    return NB_OK;
}
