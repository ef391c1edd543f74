/* Proves that each angle of a rotary embedding stands twice in its row, and makes the row without
 * the repetition.
 *
 *   half(concat(t, t)) = t                     half(table) = table[.., :D/2] if bitwise doubled
 *   half(f(a, b)) = f(half(a), half(b))        for elementwise f; numbers stay as they are
 *   half(gather, transpose, expand, slice, reshape of x) = the same of half(x), last axis untouched
 *
 * Each half is made once for all layers that use it. */
#include "passes/raise.h"

#include <string.h>

/* From a table to its use there are about ten ops. */
#define MAX_DEPTH 24

typedef struct halving {
    nb_halves *h;
    nb_builder *b;
    nb_doubling doubling;
} halving;

static nb_value *half_of(halving *s, nb_value *v, int depth);

static const nb_dim *last_dim(const nb_value *v) { return v->type->dims[v->type->rank - 1]; }

/* The dims of v with D/2 for D. */
static void half_dims(halving *s, const nb_value *v, const nb_dim **dims) {
    memcpy(dims, v->type->dims, (size_t)v->type->rank * sizeof *dims);
    dims[v->type->rank - 1] = nb_dim_const(s->h->graph, last_dim(v)->value / 2);
}

/* Where element i of a half stands among the D doubled ones, first and second time. */
static int64_t first_at(nb_doubling d, int64_t i) { return d == NB_TWICE ? i : 2 * i; }
static int64_t second_at(nb_doubling d, int64_t i, int64_t half) {
    return d == NB_TWICE ? i + half : 2 * i + 1;
}

/* A constant [..,D]: every other element as a constant of its own. */
static nb_value *half_table(halving *s, nb_value *t) {
    int64_t size = nb_elems[t->type->elem].bits / 8, width = last_dim(t)->value, half = width / 2;
    if (t->type->quant || nb_elems[t->type->elem].bits % 8 != 0) return NULL;
    int64_t rows = t->blob->size / size / width;
    const char *from = t->blob->data;
    for (int64_t i = 0; i < rows * half; i++) {
        const char *row = from + i / half * width * size;
        if (memcmp(row + first_at(s->doubling, i % half) * size,
                   row + second_at(s->doubling, i % half, half) * size, (size_t)size) != 0)
            return NULL;
    }
    void *data;
    nb_blob *blob = nb_blob_create(rows * half * size, &data);
    if (!blob) return NULL;
    for (int64_t i = 0; i < rows * half; i++) {
        const char *row = from + i / half * width * size;
        memcpy((char *)data + i * size, row + first_at(s->doubling, i % half) * size, (size_t)size);
    }
    nb_graph *g = s->h->graph;
    const nb_dim *dims[NB_MAX_RANK];
    half_dims(s, t, dims);
    return nb_graph_add_const(g, nb_format(g->arena, "%s.half", t->name),
                              nb_type_with_dims(g, t->type, t->type->rank, dims), blob,
                              nb_loc_via(g, t->loc, "raise"));
}

/* [..,2,n] or [..,n,2] that says the same along the axis of 2, by concat(u, u) or expand(u). */
static nb_value *repeated(const nb_value *v, int axis) {
    const nb_op *op = v->def;
    if (!op || (op->kind != NB_OP_concat && op->kind != NB_OP_expand)) return NULL;
    nb_value *u = nb_in(op, 0);
    if (u->type->rank != v->type->rank || !nb_dim_is(u->type->dims[axis], 1)) return NULL;
    if (op->kind == NB_OP_concat)
        return op->n_operands == 2 && nb_attr_int(op, "axis") == axis && nb_in(op, 1) == u ? u
                                                                                           : NULL;
    for (int d = 0; d < v->type->rank; d++) {
        if (d != axis && u->type->dims[d] != v->type->dims[d]) return NULL;
    }
    return u;
}

static nb_value *half_reshape(halving *s, nb_op *op, int depth) {
    nb_value *v = nb_out(op), *x = nb_in(op, 0), *half = NULL;
    int64_t n = last_dim(v)->value / 2;
    const nb_dim *dims[NB_MAX_RANK];
    half_dims(s, v, dims);
    bool twice = s->doubling == NB_TWICE;
    nb_value *stack = nb_unstacked(v, twice ? 2 : n, twice ? n : 2);
    if (stack) half = repeated(stack, stack->type->rank - (twice ? 2 : 1));
    if (!half && x->type->rank >= 1 && last_dim(x) == last_dim(v)) half = half_of(s, x, depth);
    return half ? nb_reshape(s->b, half, v->type->rank, dims) : NULL;
}

/* Is v the same for all angles of a row, as a scalar is? */
static bool is_constant_along_last(const nb_value *v) {
    return v->type->rank == 0 || nb_dim_is(last_dim(v), 1);
}

static nb_value *half_elementwise(halving *s, nb_op *op, int depth) {
    nb_value *halves[3];
    if (op->n_operands < 1 || op->n_operands > 3) return NULL;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        nb_value *x = nb_in(op, i);
        halves[i] = is_constant_along_last(x) ? x : half_of(s, x, depth);
        if (!halves[i]) return NULL;
    }
    nb_begin(s->b, op->kind);
    for (uint32_t i = 0; i < op->n_operands; i++) nb_arg(s->b, halves[i]);
    if (op->kind == NB_OP_cast) {
        nb_set_elem(s->b, "to", nb_out(op)->type->elem);
        nb_set_bool(s->b, "overflow", nb_attr_bool(op, "overflow"));
    }
    return nb_end(s->b);
}

static nb_value *half_slice(halving *s, nb_op *op, int depth) {
    const nb_dim *starts[NB_MAX_RANK], *counts[NB_MAX_RANK];
    const nb_attr *start = nb_attr_of(op, "start"), *step = nb_attr_of(op, "step");
    nb_value *v = nb_out(op), *half;
    int last = v->type->rank - 1;
    if (last_dim(nb_in(op, 0)) != last_dim(v) || step->ints.items[last] != 1) return NULL;
    half = half_of(s, nb_in(op, 0), depth);
    if (!half) return NULL;
    memcpy(starts, start->dims.items, start->dims.count * sizeof *starts);
    half_dims(s, v, counts);
    nb_begin(s->b, NB_OP_slice);
    nb_arg(s->b, half);
    nb_set_dims(s->b, "start", start->dims.count, starts);
    nb_set_dims(s->b, "count", start->dims.count, counts);
    nb_set_ints(s->b, "step", step->ints.count, step->ints.items);
    return nb_end(s->b);
}

static nb_value *half_gather(halving *s, nb_op *op, int depth) {
    nb_value *x = nb_in(op, 0);
    int64_t axis = nb_attr_int(op, "axis");
    if (axis < 0 || axis == x->type->rank - 1) return NULL;
    nb_value *half = half_of(s, x, depth);
    if (!half) return NULL;
    nb_begin(s->b, NB_OP_gather);
    nb_arg(s->b, half);
    nb_arg(s->b, nb_in(op, 1));
    nb_set_int(s->b, "axis", axis);
    return nb_end(s->b);
}

static nb_value *half_expand(halving *s, nb_op *op, int depth) {
    nb_value *v = nb_out(op), *x = nb_in(op, 0);
    const nb_dim *dims[NB_MAX_RANK];
    if (x->type->rank < 1 || last_dim(x) != last_dim(v)) return NULL;
    nb_value *half = half_of(s, x, depth);
    if (!half) return NULL;
    half_dims(s, v, dims);
    nb_begin(s->b, NB_OP_expand);
    nb_arg(s->b, half);
    nb_set_dims(s->b, "shape", (size_t)v->type->rank, dims);
    return nb_end(s->b);
}

static nb_value *half_transpose(halving *s, nb_op *op, int depth) {
    const nb_attr *perm = nb_attr_of(op, "perm");
    int64_t last = nb_out(op)->type->rank - 1;
    if (perm->ints.items[last] != last) return NULL;
    nb_value *half = half_of(s, nb_in(op, 0), depth);
    return half ? nb_transpose(s->b, half, perm->ints.items) : NULL;
}

static nb_value *find_half(halving *s, nb_value *v, int depth) {
    if (nb_is_const(v)) return half_table(s, v);
    nb_op *op = v->def;
    if (!op) return NULL;
    s->b->loc = nb_loc_via(s->h->graph, op->loc, "raise");
    switch (op->kind) {
    case NB_OP_concat:
        return s->doubling == NB_TWICE && nb_joins_last(op) && nb_in(op, 0) == nb_in(op, 1)
                   ? nb_in(op, 0)
                   : NULL;
    case NB_OP_gather:
        return half_gather(s, op, depth);
    case NB_OP_reshape:
        return half_reshape(s, op, depth);
    case NB_OP_slice:
        return half_slice(s, op, depth);
    case NB_OP_expand:
        return half_expand(s, op, depth);
    case NB_OP_transpose:
        return half_transpose(s, op, depth);
    default:
        return nb_has_trait(op, NB_TRAIT_ELEMENTWISE) ? half_elementwise(s, op, depth) : NULL;
    }
}

static nb_value *half_of(halving *s, nb_value *v, int depth) {
    nb_map *known = &s->h->known[s->doubling];
    nb_value *half = nb_map_get(known, v);
    if (half || depth == 0 || v->type->rank < 1 || !nb_dim_is_const(last_dim(v))) return half;
    if (last_dim(v)->value < 2 || last_dim(v)->value % 2 != 0) return NULL;
    const nb_loc *loc = s->b->loc;
    half = find_half(s, v, depth - 1);
    s->b->loc = loc;
    if (half) nb_map_set(known, v, half);
    return half;
}

nb_value *nb_half_of(nb_halves *h, nb_builder *b, nb_value *v, nb_doubling doubling) {
    halving s = {.h = h, .b = b, .doubling = doubling};
    return half_of(&s, v, MAX_DEPTH);
}
