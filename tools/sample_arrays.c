/* Calibration samples from arrays (samples.h).
 *
 * An array with one axis more than the input has samples along it. One with as many is cut along
 * its first axis where the input's is a constant, or is a symbol that stands in front of all inputs
 * and outputs and nowhere else: a batch, whose entries know nothing of each other. Otherwise it is
 * one sample. */
#include "passes/windows.h"
#include "tools/samples.h"

#include <string.h>

static bool uses(const nb_dim *d, const nb_symbol *s) {
    if (d->kind == NB_DIM_CONST) return false;
    return d->kind == NB_DIM_SYMBOL ? d->symbol == s : uses(d->a, s) || uses(d->b, s);
}

/* The symbol in front of all inputs and outputs that is nowhere else in their shapes, or NULL. */
static const nb_symbol *find_batch(const nb_graph *g) {
    const nb_symbol *batch = NULL;
    size_t n_in = g->body.n_params;
    for (size_t i = 0; i < n_in + g->outputs.count; i++) {
        const nb_value *v = i < n_in ? g->body.params[i] : nb_in(g->body.last, i - n_in);
        const nb_dim *first = v->type->rank ? v->type->dims[0] : NULL;
        if (!first || first->kind != NB_DIM_SYMBOL || (batch && first->symbol != batch))
            return NULL;
        batch = first->symbol;
        for (int d = 1; d < v->type->rank; d++)
            if (uses(v->type->dims[d], batch)) return NULL;
    }
    return batch;
}

/* An input's array: `count` samples, each of `step` entries along the first axis, which is dropped
 * when it only counts samples. */
typedef struct cut {
    const nb_tensor *array;
    int64_t count, step;
    bool drop;
} cut;

static nb_status cut_array(const nbt_reader *r, uint32_t input, const nb_tensor *array, cut *out) {
    const nb_type *type = r->g->body.params[input]->type;
    const nb_dim *first = type->rank ? type->dims[0] : NULL;
    int64_t length = array->rank ? array->dims[0] : 1;
    *out = (cut){.array = array, .count = 1, .step = length};
    if (array->elem != type->elem || (array->rank != type->rank && array->rank != type->rank + 1))
        return nbt_reader_error(r, NB_MALFORMED,
                                "input \"%s\": expected %s, or an axis of samples in front of it, "
                                "found %s of rank %d",
                                r->g->body.params[input]->name, nb_type_text(r->args->arena, type),
                                nb_elems[array->elem].text, array->rank);
    if (nb_elems[array->elem].bits < 8) return NB_OK; /* cannot be cut everywhere */
    if (array->rank > type->rank)
        *out = (cut){.array = array, .count = length, .step = 1, .drop = true};
    else if (first && first->kind == NB_DIM_CONST && first->value > 0 && length % first->value == 0)
        *out = (cut){.array = array, .count = length / first->value, .step = first->value};
    else if (first && first->kind == NB_DIM_SYMBOL && first->symbol == find_batch(r->g))
        *out = (cut){.array = array, .count = length, .step = 1};
    if (out->count > 0) return NB_OK;
    return nbt_reader_error(r, NB_MALFORMED, "input \"%s\": the array holds no samples",
                            r->g->body.params[input]->name);
}

static nb_tensor piece_of(const cut *c, int64_t i) {
    nb_tensor t = *c->array;
    if (c->count == 1 && !c->drop) return t;
    t.bytes /= c->count;
    t.data = (char *)t.data + t.bytes * i;
    t.dims[0] = c->step;
    if (c->drop) memmove(t.dims, t.dims + 1, (size_t)--t.rank * sizeof *t.dims);
    return t;
}

/* What is not given follows from the tokens, as for windows. */
static nb_status rest_of_inputs(const nbt_reader *r, const cut *cuts, int64_t i, nb_tensor **out) {
    nb_arena *arena = r->args->arena;
    const nb_graph *g = r->g;
    uint32_t missing = 0;
    while (missing < g->body.n_params && cuts[missing].array) missing++;
    *out = NB_NEW_ARRAY(arena, nb_tensor, g->body.n_params + 1);
    if (missing == g->body.n_params) return NB_OK;
    if (r->tokens < 0 || !cuts[r->tokens].array)
        return nbt_reader_error(r, NB_MALFORMED, "there is no array for input \"%s\"",
                                g->body.params[missing]->name);
    nb_tensor t = piece_of(&cuts[r->tokens], i);
    int64_t *tokens = NB_NEW_ARRAY(arena, int64_t, (size_t)nb_tensor_count(&t));
    for (int64_t k = 0; k < nb_tensor_count(&t); k++) tokens[k] = nb_tensor_get_int(&t, k);
    return nb_window_inputs(g, tokens, t.dims[0], t.dims[1], arena, r->args->diags, out);
}

/* An array of one sample beside others of many is the same for all. */
nb_status nbt_add_arrays(nbt_reader *r, const nbt_named_tensor *arrays, size_t n) {
    cut *cuts = NB_NEW_ARRAY(r->args->arena, cut, r->g->body.n_params + 1);
    int64_t count = 1;
    const char *of = NULL;
    for (size_t k = 0; k < n; k++) {
        uint32_t i = 0;
        while (i < r->g->body.n_params && strcmp(r->g->body.params[i]->name, arrays[k].name) != 0)
            i++;
        if (i == r->g->body.n_params)
            return nbt_reader_error(r, NB_MALFORMED, "there is no input '%s'", arrays[k].name);
        NB_TRY(cut_array(r, i, &arrays[k].tensor, &cuts[i]));
        if (cuts[i].count == 1) continue;
        if (of && cuts[i].count != count)
            return nbt_reader_error(r, NB_MALFORMED, "%lld samples of \"%s\", %lld of \"%s\"",
                                    (long long)count, of, (long long)cuts[i].count, arrays[k].name);
        count = cuts[i].count;
        of = arrays[k].name;
    }
    for (int64_t s = 0; s < count && r->left > 0; s++) {
        nb_tensor *inputs;
        NB_TRY(rest_of_inputs(r, cuts, s, &inputs));
        for (uint32_t i = 0; i < r->g->body.n_params; i++)
            if (cuts[i].array) inputs[i] = piece_of(&cuts[i], cuts[i].count == 1 ? 0 : s);
        NB_TRY(nbt_add_sample(r, inputs));
    }
    return NB_OK;
}
