/* Samples that follow a candidate of `nibble reduce` (reduce.h). */
#include "passes/check.h"
#include "tools/reduce.h"

#include <string.h>

/* ---- values that became inputs -------------------------------------------------------------- */

typedef struct recorded {
    nb_arena *arena;
    nb_tensor tensor;
    bool seen;
} recorded;

static nb_tensor copy_of(nb_arena *arena, const nb_tensor *t) {
    nb_tensor copy = *t;
    copy.data = nb_alloc(arena, (size_t)t->bytes + 8);
    if (t->bytes) memcpy(copy.data, t->data, (size_t)t->bytes);
    return copy;
}

static void record(void *user, const nb_value *value, const nb_tensor *tensor) {
    recorded *r = user;
    (void)value;
    r->tensor = copy_of(r->arena, tensor);
    r->seen = true;
}

static const nb_value *value_of(const nb_graph *g, uint32_t id) {
    NB_FOR_OPS(op, &g->body) {
        for (uint32_t i = 0; i < op->n_results; i++) {
            if (op->results[i]->id == id) return op->results[i];
        }
    }
    return NULL;
}

/* What the graph before the edit computes where the candidate was cut. */
static bool record_cuts(const nbt_reduction *r, const nbt_candidate *c, const nb_sample *sample,
                        recorded *out) {
    nb_tap *taps = NB_NEW_ARRAY(c->arena, nb_tap, c->cuts.count + 1);
    for (size_t i = 0; i < c->cuts.count; i++) {
        out[i].arena = c->arena;
        taps[i] = (nb_tap){value_of(r->graph, c->cuts.items[i].value), record, &out[i]};
        if (!taps[i].value || taps[i].value->type->quant) return false;
    }
    if (!c->cuts.count) return true;
    nb_arena *arena = nb_arena_create_like(c->arena);
    nb_tensor *outputs = NB_NEW_ARRAY(arena, nb_tensor, r->graph->outputs.count + 1);
    bool ran =
        nb_eval(r->graph, sample->inputs, outputs, taps, c->cuts.count, arena, c->diags) == NB_OK;
    nb_arena_destroy(arena);
    for (size_t i = 0; i < c->cuts.count; i++) ran = ran && out[i].seen;
    return ran;
}

/* ---- inputs --------------------------------------------------------------------------------- */

static const nb_tensor *source_of(const nbt_reduction *r, const nbt_candidate *c,
                                  const nb_sample *sample, const recorded *cuts, uint32_t id) {
    for (uint32_t i = 0; i < r->graph->body.n_params; i++) {
        if (r->graph->body.params[i]->id == id) return &sample->inputs[i];
    }
    for (size_t i = 0; i < c->cuts.count; i++) {
        if (c->cuts.items[i].input == id) return &cuts[i].tensor;
    }
    return NULL;
}

/* Sizes of symbols that are an axis by themselves: the smallest that the samples have. */
static void bind(const nbt_candidate *c, const nb_tensor *const *sources, int64_t *symbols) {
    const nb_graph *g = c->graph;
    for (size_t i = 0; i < g->symbols.count; i++)
        symbols[i] = c->limit && i == c->symbol ? c->limit : INT64_MAX;
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_type *t = g->body.params[i]->type;
        for (int d = 0; d < t->rank && t->rank == sources[i]->rank; d++) {
            if (t->dims[d]->kind != NB_DIM_SYMBOL) continue;
            int64_t *s = &symbols[t->dims[d]->symbol->index];
            *s = nb_min_i64(*s, sources[i]->dims[d]);
        }
    }
}

/* The elements in front along each axis. */
static bool slice(const nb_type *type, const int64_t *symbols, const nb_tensor *from,
                  nb_arena *arena, nb_tensor *out) {
    int64_t count = 1, at[NB_MAX_RANK] = {0};
    bool same = true;
    *out = (nb_tensor){.elem = type->elem, .rank = type->rank};
    if (from->rank != type->rank || from->elem != type->elem || from->scales) return false;
    for (int d = 0; d < type->rank; d++) {
        if (!nb_dim_eval(type->dims[d], symbols, &out->dims[d]) || out->dims[d] < 0 ||
            out->dims[d] > from->dims[d])
            return false;
        same = same && out->dims[d] == from->dims[d];
        count *= out->dims[d];
    }
    if (same) {
        *out = copy_of(arena, from);
        return true;
    }
    if (!nb_elem_bytes_of(type->elem, count, &out->bytes)) return false;
    out->data = nb_alloc(arena, (size_t)out->bytes + 8);
    for (int64_t i = 0; i < count; i++) {
        int64_t place = 0;
        for (int d = 0; d < type->rank; d++) place = place * from->dims[d] + at[d];
        nb_elem_put(type->elem, out->data, i, nb_elem_get(type->elem, from->data, place));
        for (int d = type->rank - 1; d >= 0 && ++at[d] == out->dims[d]; d--) at[d] = 0;
    }
    return true;
}

/* An input of places in a table that has become shorter: the last one that is left. */
static void clamp(const nb_value *input, nb_tensor *t) {
    for (const nb_use *u = input->uses; u; u = u->next) {
        const nb_op *op = u->user;
        const bool gathers = op->kind == NB_OP_gather || op->kind == NB_OP_qgather;
        if (!gathers || u->index != 1 || !nb_elem_is_integer(t->elem)) continue;
        const int axis = op->kind == NB_OP_gather ? (int)nb_attr_int(op, "axis") : 0;
        const nb_type *table = nb_in(op, 0)->type;
        if (axis < 0 || axis >= table->rank || !nb_dim_is_const(table->dims[axis])) continue;
        const int64_t last = table->dims[axis]->value - 1, n = nb_tensor_count(t);
        for (int64_t i = 0; i < n; i++) {
            if (nb_tensor_get_int(t, i) > last) nb_elem_put(t->elem, t->data, i, (uint64_t)last);
        }
    }
}

static bool fit(const nbt_reduction *r, nbt_candidate *c, const nb_sample *sample, nb_sample *out) {
    const nb_graph *g = c->graph;
    const uint32_t n = g->body.n_params;
    recorded *cuts = NB_NEW_ARRAY(c->arena, recorded, c->cuts.count + 1);
    int64_t *symbols = NB_NEW_ARRAY(c->arena, int64_t, g->symbols.count + 1);
    nb_tensor *inputs = NB_NEW_ARRAY(c->arena, nb_tensor, n + 1);
    const nb_tensor **sources =
        (const nb_tensor **)nb_alloc_array(c->arena, (size_t)n + 1, sizeof *sources);
    if (!record_cuts(r, c, sample, cuts)) return false;
    for (uint32_t i = 0; i < n; i++) {
        sources[i] = source_of(r, c, sample, cuts, g->body.params[i]->id);
        if (!sources[i]) return false;
    }
    bind(c, sources, symbols);
    for (uint32_t i = 0; i < n; i++) {
        if (!slice(g->body.params[i]->type, symbols, sources[i], c->arena, &inputs[i]))
            return false;
        clamp(g->body.params[i], &inputs[i]);
    }
    out->inputs = inputs;
    return true;
}

bool nbt_fit_samples(const nbt_reduction *r, nbt_candidate *c, nbt_samples *out) {
    *out = (nbt_samples){.graph = c->graph};
    if (!r->test->takes_samples) return true;
    nb_sample *items = NB_NEW_ARRAY(c->arena, nb_sample, r->samples.count + 1);
    out->items = items;
    if (c->made_up) {
        items[0].inputs = nb_made_up_inputs(c->graph, c->arena);
        out->count = 1;
        return items[0].inputs != NULL;
    }
    for (size_t i = 0; i < r->samples.count; i++) {
        if (c->keep_sample && !c->keep_sample[i]) continue;
        if (!fit(r, c, &r->samples.items[i], &items[out->count++])) return false;
    }
    return out->count > 0;
}

int64_t nbt_count_elements(const nbt_samples *samples) {
    int64_t all = 0;
    for (size_t i = 0; i < samples->count; i++) {
        for (uint32_t k = 0; k < samples->graph->body.n_params; k++)
            all += 1 + nb_tensor_count(&samples->items[i].inputs[k]);
    }
    return all;
}
