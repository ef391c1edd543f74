/* Candidates: copies of a graph with edits, and what makes one smaller than another (reduce.h). */
#include "ir/build.h"
#include "ir/verify.h"
#include "tools/reduce.h"

#include <string.h>

/* ---- ops, ports ----------------------------------------------------------------------------- */

nb_op **nbt_list_ops(const nb_graph *g, nb_arena *arena, size_t *n) {
    NB_VEC(nb_op *) list = {0};
    NB_FOR_OPS(op, &g->body) {
        if (op->kind != NB_OP_return) nb_vec_push(arena, &list, op);
    }
    *n = list.count;
    return list.items;
}

/* New numbers of those that are kept; UINT32_MAX of the others. */
static uint32_t *numbers_of(nb_arena *arena, const bool *keep, size_t n) {
    uint32_t *out = NB_NEW_ARRAY(arena, uint32_t, n + 1), next = 0;
    for (size_t i = 0; i < n; i++) out[i] = keep[i] ? next++ : UINT32_MAX;
    return out;
}

static void renumber_states(nb_graph *g, const uint32_t *inputs, const uint32_t *outputs) {
    size_t kept = 0;
    for (size_t i = 0; i < g->states.count; i++) {
        nb_state s = g->states.items[i];
        if (inputs) s.input = inputs[s.input];
        if (outputs) s.output = outputs[s.output];
        if (s.input != UINT32_MAX && s.output != UINT32_MAX) g->states.items[kept++] = s;
    }
    g->states.count = kept;
}

void nbt_keep_outputs(nb_graph *g, const bool *keep) {
    const size_t n = g->outputs.count;
    nb_value **values = (nb_value **)nb_alloc_array(g->arena, n + 1, sizeof *values);
    const char **names = (const char **)nb_alloc_array(g->arena, n + 1, sizeof *names);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!keep[i]) continue;
        values[kept] = nb_in(g->body.last, i);
        names[kept++] = g->outputs.items[i];
    }
    renumber_states(g, NULL, numbers_of(g->arena, keep, n));
    nb_graph_set_outputs(g, kept, values, names);
}

void nbt_keep_inputs(nb_graph *g, const bool *keep) {
    uint32_t kept = 0;
    renumber_states(g, numbers_of(g->arena, keep, g->body.n_params), NULL);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        if (!keep[i]) continue;
        g->body.params[kept] = g->body.params[i];
        g->body.params[kept]->index = kept;
        kept++;
    }
    g->body.n_params = kept;
}

/* ---- valid ---------------------------------------------------------------------------------- */

static nb_status infer_again(nbt_candidate *c) {
    NB_FOR_OPS(op, &c->graph->body) {
        const nb_type *types[NB_MAX_RESULTS];
        if (op->kind == NB_OP_return) continue;
        NB_TRY(nb_infer(c->graph, op, types, c->diags));
        for (uint32_t i = 0; i < op->n_results; i++) op->results[i]->type = types[i];
    }
    return NB_OK;
}

static bool dim_has(const nb_dim *d, const nb_symbol *s) {
    if (d->kind == NB_DIM_CONST) return false;
    if (d->kind == NB_DIM_SYMBOL) return d->symbol == s;
    return dim_has(d->a, s) || dim_has(d->b, s);
}

static bool type_has(const nb_type *t, const nb_symbol *s) {
    bool has = false;
    for (int i = 0; i < t->rank; i++) has = has || dim_has(t->dims[i], s);
    return has;
}

static bool graph_has(const nb_graph *g, const nb_symbol *s) {
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        if (type_has(g->body.params[i]->type, s)) return true;
    }
    NB_FOR_OPS(op, &g->body) {
        const nb_op_info *info = nb_info(op);
        for (uint32_t i = 0; i < op->n_results; i++) {
            if (type_has(op->results[i]->type, s)) return true;
        }
        for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
            if (info->attrs[a].kind != NB_ATTR_DIMS || !op->attrs[a].set) continue;
            for (size_t k = 0; k < op->attrs[a].dims.count; k++) {
                if (dim_has(op->attrs[a].dims.items[k], s)) return true;
            }
        }
    }
    return false;
}

static void drop_symbols(nb_graph *g) {
    for (size_t i = g->symbols.count; i-- > 0;) {
        const nb_symbol *s = g->symbols.items[i];
        if (!graph_has(g, s)) nb_graph_substitute(g, s, nb_dim_const(g, 1));
    }
}

bool nbt_finish_candidate(nbt_candidate *c) {
    if (!c->graph->outputs.count) return false;
    nb_graph_sweep(c->graph);
    drop_symbols(c->graph);
    return infer_again(c) == NB_OK && nb_verify_form(c->graph, c->diags) == NB_OK;
}

/* ---- constants ------------------------------------------------------------------------------ */

bool nbt_is_splat(const nb_value *c) {
    int64_t n;
    if (!nb_type_static_count(c->type, &n)) return false;
    const nb_elem e = c->type->elem;
    for (int64_t i = 1; i < n; i++) {
        if (nb_elem_get(e, c->blob->data, i) != nb_elem_get(e, c->blob->data, 0)) return false;
    }
    return true;
}

void nbt_set_data(nb_value *c, nb_blob *blob) {
    nb_blob_release(c->blob);
    c->blob = blob;
}

/* ---- sizes ---------------------------------------------------------------------------------- */

#define SYMBOL_SIZE (INT64_C(1) << 32) /* larger than sums of sizes: a symbol is harder to read */

static int64_t dim_size(const nb_dim *d) {
    if (d->kind == NB_DIM_CONST) return d->value > 0 ? d->value : -d->value;
    return d->kind == NB_DIM_SYMBOL ? SYMBOL_SIZE : dim_size(d->a) + dim_size(d->b);
}

static int64_t type_size(const nb_type *t) {
    int64_t all = 0;
    for (int i = 0; i < t->rank; i++) all += nb_min_i64(dim_size(t->dims[i]), INT64_C(1) << 40);
    return all;
}

/* The value 1 in an element's bits, as far as that is known; all ones otherwise, which no splat is
 * taken for by mistake. */
static bool is_one(const nb_value *c) {
    const nb_tensor t = nb_tensor_of_const(c);
    return nb_elems[t.elem].bits >= 8 && !nb_elem_is_code(t.elem) && t.elem != NB_F8E8M0 &&
           nb_tensor_get(&t, 0) == 1;
}

static int64_t count_numbers(const nb_value *c) {
    int64_t n, all = 0;
    if (!nb_type_static_count(c->type, &n) || n == 0) return 0;
    const nb_elem e = c->type->elem;
    if (nbt_is_splat(c)) return nb_elem_get(e, c->blob->data, 0) == 0 || is_one(c) ? 0 : 1;
    for (int64_t i = 0; i < n; i++) all += nb_elem_get(e, c->blob->data, i) != 0;
    return all + 1;
}

/* Equal bytes are counted once: candidates share them. */
static int64_t numbers_in(const nb_value *c, nb_map *known) {
    const uint64_t key[] = {nb_blob_hash(c->blob), (uint64_t)c->type->elem};
    const uintptr_t found = (uintptr_t)nb_map_get_str(known, (const char *)key, sizeof key);
    if (found) return (int64_t)found - 1;
    const int64_t n = count_numbers(c);
    nb_map_set_str(known, (const char *)key, sizeof key, (void *)(uintptr_t)(n + 1));
    return n;
}

static void add_op(nbt_size_of_graph *s, const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    s->parts[NBT_SIZE_OPS]++;
    for (uint32_t i = 0; i < op->n_operands; i++)
        s->parts[NBT_SIZE_OPERANDS] += nb_in(op, i) != NULL;
    for (uint32_t i = 0; i < op->n_results; i++)
        s->parts[NBT_SIZE_DIMS] += type_size(op->results[i]->type);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        if (!op->attrs[a].set) continue;
        s->parts[NBT_SIZE_ATTRIBUTES]++;
        for (size_t k = 0; info->attrs[a].kind == NB_ATTR_DIMS && k < op->attrs[a].dims.count; k++)
            s->parts[NBT_SIZE_DIMS] += dim_size(op->attrs[a].dims.items[k]);
    }
}

nbt_size_of_graph nbt_graph_size(const nb_graph *g, nb_map *known) {
    nbt_size_of_graph s = {{0}};
    NB_FOR_OPS(op, &g->body) {
        if (op->kind != NB_OP_return) add_op(&s, op);
    }
    s.parts[NBT_SIZE_PORTS] = (int64_t)(g->body.n_params + g->outputs.count + g->states.count);
    for (uint32_t i = 0; i < g->body.n_params; i++)
        s.parts[NBT_SIZE_DIMS] += type_size(g->body.params[i]->type);
    s.parts[NBT_SIZE_CONSTANTS] = (int64_t)g->constants.count;
    for (size_t i = 0; i < g->constants.count; i++) {
        s.parts[NBT_SIZE_DIMS] += type_size(g->constants.items[i]->type);
        s.parts[NBT_SIZE_NUMBERS] += numbers_in(g->constants.items[i], known);
    }
    return s;
}

bool nbt_is_smaller(const nbt_size_of_graph *a, const nbt_size_of_graph *b) {
    for (size_t i = 0; i < NB_COUNT(a->parts); i++) {
        if (a->parts[i] != b->parts[i]) return a->parts[i] < b->parts[i];
    }
    return false;
}
