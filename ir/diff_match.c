/* Which op of one graph is which of the other (diff.h): rounds of keys, and steps from pairs to
 * their neighbours. Every list is sorted by its key and then by its order in the graph, so that
 * the result depends on nothing but the graphs. */
#include "ir/diff.h"

#include <stdlib.h>
#include <string.h>

/* One graph's side of the work. */
typedef struct side {
    const nb_graph *g;
    const uint64_t *symbols;
    NB_VEC(const nb_op *) ops; /* all, those of bodies behind the op they belong to */
    uint64_t *meaning;         /* by id of a value: hash of all it depends on */
    const nb_op **op_pair;     /* by id of an op: its partner in the other graph */
    const nb_value **pair;     /* by id of a value */
} side;

/* An op or a value with what must be equal in both graphs. */
typedef struct item {
    uint64_t key;
    size_t order;
    const void *what;
} item;

typedef NB_VEC(item) items;

typedef struct matcher {
    nb_arena *arena;
    side a, b;
    NB_VEC(const nb_value *) todo; /* values of `a` whose neighbours were not looked at */
    items left, right;             /* what is being paired */
    bool any_origin; /* neighbours may stand for different ONNX nodes: other names for the same */
} matcher;

static int by_key(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static void add_item(matcher *m, items *list, uint64_t key, const void *what) {
    item i = {.key = key, .order = list->count, .what = what};
    nb_vec_push(m->arena, list, i);
}

static size_t run_length(const items *list, size_t from) {
    size_t n = 0;
    while (from + n < list->count && list->items[from + n].key == list->items[from].key) n++;
    return n;
}

/* How many of a key there may be. */
typedef enum crowd {
    ALONE,     /* one in each graph */
    AS_MANY,   /* equally many, which are paired in order */
    AS_FEWEST, /* any number: in order, until one graph has no more */
} crowd;

/* Calls link(m, a, b) for what of m->left and m->right has equal keys, and empties both. */
static void pair_items(matcher *m, crowd allowed,
                       void (*link)(matcher *, const void *, const void *)) {
    items *a = &m->left, *b = &m->right;
    if (!a->count || !b->count) a->count = b->count = 0;
    if (!a->count) return;
    qsort(a->items, a->count, sizeof *a->items, by_key);
    qsort(b->items, b->count, sizeof *b->items, by_key);
    for (size_t i = 0, k = 0; i < a->count && k < b->count;) {
        const uint64_t x = a->items[i].key, y = b->items[k].key;
        if (x != y) {
            i += x < y;
            k += y < x;
            continue;
        }
        const size_t n = run_length(a, i), o = run_length(b, k), fewest = n < o ? n : o;
        const bool fits = allowed == AS_FEWEST || (n == o && (n == 1 || allowed == AS_MANY));
        for (size_t j = 0; fits && j < fewest; j++)
            link(m, a->items[i + j].what, b->items[k + j].what);
        i += n;
        k += o;
    }
    a->count = b->count = 0;
}

/* ---- links --------------------------------------------------------------------------------- */

static void link_values(matcher *m, const nb_value *a, const nb_value *b) {
    if (m->a.pair[a->id] || m->b.pair[b->id] || nb_is_const(a) != nb_is_const(b)) return;
    m->a.pair[a->id] = b;
    m->b.pair[b->id] = a;
    nb_vec_push(m->arena, &m->todo, a);
    const nb_quant *p = a->type->quant, *q = b->type->quant;
    if (!nb_is_const(a) || !p || !q) return;
    if (p->scales && q->scales) link_values(m, p->scales, q->scales);
    if (p->zeros && q->zeros) link_values(m, p->zeros, q->zeros);
    if (p->minima && q->minima) link_values(m, p->minima, q->minima);
}

static void link_value_items(matcher *m, const void *a, const void *b) { link_values(m, a, b); }

/* What codes were made into floats again; constants are looked for there. */
static const nb_value *codes_behind(const nb_value *v) {
    return v && v->def && v->def->kind == NB_OP_dequantize ? nb_in(v->def, 0) : v;
}

static bool has_origin(const nb_op *op) { return op->loc && op->loc->n_at; }

/* Do both stand for an ONNX node, or both for none? */
static bool share_origin(const nb_op *a, const nb_op *b) {
    if (!has_origin(a) || !has_origin(b)) return has_origin(a) == has_origin(b);
    for (uint32_t i = 0; i < a->loc->n_at; i++) {
        for (uint32_t k = 0; k < b->loc->n_at; k++) {
            if (strcmp(a->loc->at[i], b->loc->at[k]) == 0) return true;
        }
    }
    return false;
}

static void link_ops(matcher *m, const nb_op *a, const nb_op *b);

/* What both take at one place: constants are one another, and so are ops of one kind. */
static void link_operands(matcher *m, const nb_value *a, const nb_value *b) {
    if (!a || !b) return;
    const nb_value *p = codes_behind(a), *q = codes_behind(b);
    if (nb_is_const(p) && nb_is_const(q)) {
        link_values(m, p, q);
        return;
    }
    if (a->def && b->def && a->def->kind == b->def->kind && a->index == b->index &&
        (m->any_origin || share_origin(a->def, b->def)))
        link_ops(m, a->def, b->def);
}

/* Operands and users follow by way of m->todo, lest a long chain becomes a deep recursion. */
static void link_ops(matcher *m, const nb_op *a, const nb_op *b) {
    if (m->a.op_pair[a->id] || m->b.op_pair[b->id] || a->n_results != b->n_results ||
        a->n_regions != b->n_regions)
        return;
    m->a.op_pair[a->id] = b;
    m->b.op_pair[b->id] = a;
    for (uint32_t i = 0; i < a->n_results; i++) link_values(m, a->results[i], b->results[i]);
    for (uint32_t r = 0; r < a->n_regions; r++) {
        for (uint32_t i = 0; i < a->regions[r]->n_params && i < b->regions[r]->n_params; i++)
            link_values(m, a->regions[r]->params[i], b->regions[r]->params[i]);
    }
}

static void link_op_items(matcher *m, const void *a, const void *b) { link_ops(m, a, b); }

/* ---- neighbours ---------------------------------------------------------------------------- */

static uint64_t text_key(const char *text) { return nb_hash(text, strlen(text)); }

static void add_users(matcher *m, const side *s, const nb_value *v, items *out) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        if (s->op_pair[u->user->id]) continue;
        const char *node = m->any_origin ? "" : nb_loc_name(u->user->loc);
        const uint64_t place = nb_hash_mix((uint64_t)u->user->kind, u->index);
        add_item(m, out, nb_hash_mix(place, text_key(node)), u->user);
    }
}

/* The place of an output is its name. */
static const nb_value *output_of(const nb_graph *g, const char *name) {
    for (size_t i = 0; i < g->outputs.count && i < g->body.last->n_operands; i++) {
        if (strcmp(g->outputs.items[i], name) == 0) return nb_in(g->body.last, i);
    }
    return NULL;
}

static void link_outputs(matcher *m) {
    const nb_graph *a = m->a.g;
    for (size_t i = 0; i < a->outputs.count && i < a->body.last->n_operands; i++)
        link_operands(m, nb_in(a->body.last, i), output_of(m->b.g, a->outputs.items[i]));
}

/* From each new pair to what it takes, and to those who take it and are unmistakable. */
static void follow(matcher *m) {
    link_outputs(m);
    while (m->todo.count) {
        const nb_value *a = m->todo.items[--m->todo.count], *b = m->a.pair[a->id];
        const nb_op *p = a->def, *q = b->def;
        for (uint32_t i = 0; p && q && i < p->n_operands && i < q->n_operands; i++)
            link_operands(m, nb_in(p, i), nb_in(q, i));
        add_users(m, &m->a, a, &m->left);
        add_users(m, &m->b, b, &m->right);
        pair_items(m, ALONE, link_op_items);
    }
}

static void look_again(matcher *m, const nb_value *v) {
    if (m->a.pair[v->id]) nb_vec_push(m->arena, &m->todo, v);
}

/* The same from all pairs, whatever ONNX nodes say. */
static void follow_structure(matcher *m) {
    m->any_origin = true;
    for (uint32_t i = 0; i < m->a.g->body.n_params; i++) look_again(m, m->a.g->body.params[i]);
    for (size_t i = 0; i < m->a.g->constants.count; i++) look_again(m, m->a.g->constants.items[i]);
    for (size_t i = 0; i < m->a.ops.count; i++) {
        const nb_op *op = m->a.ops.items[i];
        for (uint32_t r = 0; r < op->n_results; r++) look_again(m, op->results[r]);
    }
    follow(m);
}

/* ---- rounds -------------------------------------------------------------------------------- */

/* A key of ops that are free, 0 for those that do not take part. */
typedef uint64_t (*key_fn)(const side *s, const nb_op *op);

static void pair_round(matcher *m, key_fn key, crowd allowed) {
    for (int k = 0; k < 2; k++) {
        const side *s = k ? &m->b : &m->a;
        for (size_t i = 0; i < s->ops.count; i++) {
            const nb_op *op = s->ops.items[i];
            const uint64_t h = s->op_pair[op->id] ? 0 : key(s, op);
            if (h) add_item(m, k ? &m->right : &m->left, h, op);
        }
    }
    pair_items(m, allowed, link_op_items);
}

static uint64_t origin_key(const nb_op *op) {
    uint64_t h = op->loc ? op->loc->n_at : 0;
    for (uint32_t i = 0; op->loc && i < op->loc->n_at; i++)
        h = nb_hash_mix(h, text_key(op->loc->at[i]));
    return h;
}

static uint64_t name_key(const nb_op *op) { return op->n_results ? text_key(nb_out(op)->name) : 0; }
static uint64_t kind_and(const nb_op *op, uint64_t key) {
    return nb_hash_mix((uint64_t)op->kind, key);
}

static uint64_t meaning_of(const side *s, const nb_op *op) {
    return op->n_results ? s->meaning[nb_out(op)->id] : 0;
}
static uint64_t meaning_and_name(const side *s, const nb_op *op) {
    return nb_hash_mix(meaning_of(s, op), name_key(op));
}
static uint64_t kind_origin_name(const side *s, const nb_op *op) {
    (void)s;
    return has_origin(op) ? nb_hash_mix(kind_and(op, origin_key(op)), name_key(op)) : 0;
}
static uint64_t kind_origin(const side *s, const nb_op *op) {
    (void)s;
    return has_origin(op) ? kind_and(op, origin_key(op)) : 0;
}
static uint64_t kind_node(const side *s, const nb_op *op) {
    (void)s;
    return has_origin(op) ? kind_and(op, text_key(op->loc->at[0])) : 0;
}
static uint64_t kind_name(const side *s, const nb_op *op) {
    (void)s;
    return has_origin(op) || !op->n_results ? 0 : kind_and(op, name_key(op));
}
static uint64_t origin_alone(const side *s, const nb_op *op) {
    (void)s;
    return has_origin(op) ? origin_key(op) : 0;
}

static void replace(matcher *m, const nb_value *a, const nb_value *b) {
    if (a && b && a->def && b->def && a->index == b->index && share_origin(a->def, b->def))
        link_ops(m, a->def, b->def);
}

/* Free ops of different kinds whose values a pair takes at one place. From the end on, so that
 * what is found leads on to what lies before it. */
static void pair_replaced(matcher *m) {
    const nb_graph *a = m->a.g;
    for (size_t i = 0; i < a->outputs.count && i < a->body.last->n_operands; i++)
        replace(m, nb_in(a->body.last, i), output_of(m->b.g, a->outputs.items[i]));
    for (size_t i = m->a.ops.count; i-- > 0;) {
        const nb_op *p = m->a.ops.items[i], *q = m->a.op_pair[p->id];
        for (uint32_t k = 0; q && k < p->n_operands && k < q->n_operands; k++)
            replace(m, nb_in(p, k), nb_in(q, k));
    }
}

/* ---- values without ops -------------------------------------------------------------------- */

static void pair_inputs(matcher *m) {
    const nb_region *a = &m->a.g->body, *b = &m->b.g->body;
    for (uint32_t i = 0; i < a->n_params; i++)
        add_item(m, &m->left, text_key(a->params[i]->name), a->params[i]);
    for (uint32_t i = 0; i < b->n_params; i++)
        add_item(m, &m->right, text_key(b->params[i]->name), b->params[i]);
    pair_items(m, ALONE, link_value_items);
}

static uint64_t const_name(const nb_value *v) { return text_key(v->name); }
static uint64_t const_content(const nb_value *v) { return nb_sign_const(v); }
static uint64_t const_both(const nb_value *v) {
    return nb_hash_mix(const_name(v), const_content(v));
}

static void pair_consts(matcher *m, uint64_t (*key)(const nb_value *), crowd allowed) {
    for (int k = 0; k < 2; k++) {
        const side *s = k ? &m->b : &m->a;
        for (size_t i = 0; i < s->g->constants.count; i++) {
            const nb_value *v = s->g->constants.items[i];
            if (!s->pair[v->id]) add_item(m, k ? &m->right : &m->left, key(v), v);
        }
    }
    pair_items(m, allowed, link_value_items);
}

/* ---- meaning ------------------------------------------------------------------------------- */

static uint64_t meaning_of_operands(const side *s, const nb_op *op) {
    uint64_t h = op->n_operands;
    uint32_t i = 0;
    if (nb_has_trait(op, NB_TRAIT_COMMUTES) && op->n_operands >= 2) {
        h = nb_hash_mix(h, s->meaning[nb_in(op, 0)->id] + s->meaning[nb_in(op, 1)->id]);
        i = 2;
    }
    for (; i < op->n_operands; i++)
        h = nb_hash_mix(h, nb_in(op, i) ? s->meaning[nb_in(op, i)->id] : 0);
    return h;
}

/* Of what bodies compute nothing is known from outside: such ops, and those in bodies, are paired
 * by other rounds. */
static void find_meaning(side *s, const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    uint64_t h = nb_hash_mix((uint64_t)op->kind, meaning_of_operands(s, op));
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++)
        h = nb_hash_mix(h, nb_sign_attr(&op->attrs[i], info->attrs[i].kind, s->symbols));
    if (op->n_regions || op->parent != &s->g->body) h = nb_hash_mix(h, (uintptr_t)op);
    for (uint32_t i = 0; i < op->n_results; i++) {
        const nb_value *r = op->results[i];
        s->meaning[r->id] = nb_hash_mix(nb_hash_mix(h, i), nb_sign_type(r->type, s->symbols));
    }
}

static void find_meanings(side *s) {
    for (uint32_t i = 0; i < s->g->body.n_params; i++)
        s->meaning[s->g->body.params[i]->id] = text_key(s->g->body.params[i]->name);
    for (size_t i = 0; i < s->g->constants.count; i++)
        s->meaning[s->g->constants.items[i]->id] = nb_sign_const(s->g->constants.items[i]);
    for (size_t i = 0; i < s->ops.count; i++) find_meaning(s, s->ops.items[i]);
}

/* ---- symbols ------------------------------------------------------------------------------- */

/* Symbols are the same by name. One that stands where the same input of the other graph has
 * another, which the own graph does not have, is that one under a new name. */
static void name_symbols(const nb_graph *g, uint64_t *numbers) {
    for (size_t i = 0; i < g->symbols.count; i++) numbers[i] = text_key(g->symbols.items[i]->name);
}

static bool has_symbol(const nb_graph *g, const char *name) {
    for (size_t i = 0; i < g->symbols.count; i++) {
        if (strcmp(g->symbols.items[i]->name, name) == 0) return true;
    }
    return false;
}

static void rename_symbols(matcher *m, uint64_t *numbers) {
    for (uint32_t i = 0; i < m->a.g->body.n_params; i++) {
        const nb_value *a = m->a.g->body.params[i], *b = m->a.pair[a->id];
        for (int d = 0; b && a->type->rank == b->type->rank && d < a->type->rank; d++) {
            const nb_dim *p = a->type->dims[d], *q = b->type->dims[d];
            if (p->kind != NB_DIM_SYMBOL || q->kind != NB_DIM_SYMBOL) continue;
            if (has_symbol(m->b.g, p->symbol->name) || has_symbol(m->a.g, q->symbol->name))
                continue;
            numbers[q->symbol->index] = text_key(p->symbol->name);
        }
    }
}

/* ---- all ----------------------------------------------------------------------------------- */

static void collect(matcher *m, side *s, const nb_region *region) {
    for (const nb_op *op = region->first; op; op = op->next) {
        nb_vec_push(m->arena, &s->ops, op);
        for (uint32_t r = 0; r < op->n_regions; r++) collect(m, s, op->regions[r]);
    }
}

static uint64_t *open_side(matcher *m, side *s, const nb_graph *g, nb_arena *arena) {
    uint64_t *symbols = NB_NEW_ARRAY(arena, uint64_t, g->symbols.count + 1);
    s->g = g;
    s->symbols = symbols;
    s->meaning = NB_NEW_ARRAY(m->arena, uint64_t, (size_t)g->n_values + 1);
    s->op_pair = (const nb_op **)nb_alloc_array(arena, (size_t)g->n_ops + 1, sizeof *s->op_pair);
    s->pair = (const nb_value **)nb_alloc_array(arena, (size_t)g->n_values + 1, sizeof *s->pair);
    name_symbols(g, symbols);
    collect(m, s, &g->body);
    return symbols;
}

static void pair_all(matcher *m) {
    pair_round(m, meaning_and_name, AS_FEWEST);
    pair_round(m, meaning_of, AS_FEWEST);
    pair_consts(m, const_both, ALONE);
    pair_round(m, kind_origin_name, ALONE);
    pair_round(m, kind_origin, ALONE);
    follow(m);
    pair_round(m, kind_origin, AS_MANY);
    pair_round(m, kind_node, AS_MANY);
    follow(m);
    pair_round(m, kind_name, ALONE);
    follow(m);
    pair_round(m, origin_alone, ALONE);
    pair_replaced(m);
    follow_structure(m);
    pair_replaced(m);
    pair_consts(m, const_content, AS_FEWEST);
    pair_consts(m, const_name, ALONE);
}

nb_pairs *nb_pair_graphs(const nb_graph *a, const nb_graph *b, nb_arena *arena) {
    matcher m = {.arena = nb_arena_create_like(arena)};
    nb_pairs *out = NB_NEW(arena, nb_pairs);
    open_side(&m, &m.a, a, arena);
    uint64_t *symbols = open_side(&m, &m.b, b, arena);
    pair_inputs(&m);
    rename_symbols(&m, symbols);
    find_meanings(&m.a);
    find_meanings(&m.b);
    link_ops(&m, a->body.last, b->body.last);
    pair_all(&m);
    *out = (nb_pairs){.to_b = m.a.op_pair,
                      .to_a = m.b.op_pair,
                      .value_b = m.a.pair,
                      .value_a = m.b.pair,
                      .symbols_a = m.a.symbols,
                      .symbols_b = m.b.symbols};
    nb_arena_destroy(m.arena);
    return out;
}
