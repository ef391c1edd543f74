/* Smaller sizes for `nibble reduce`: a size is one number wherever it stands, in types of inputs
 * and constants and in attributes, and all of them change together. Where sizes hang together (128
 * channels are 4 heads of 32) several change at once; inference tells which do. Constants keep the
 * elements in front. */
#include "ir/interner.h"
#include "tools/reduce.h"

#include <stdlib.h>
#include <string.h>

static int64_t resized(const nbt_resize *r, int64_t size) {
    for (size_t i = 0; i < r->n; i++) {
        if (r->sizes[i] == size) return r->by[i];
    }
    return size;
}

/* ---- which sizes there are ------------------------------------------------------------------ */

typedef struct size_list {
    nb_arena *arena;
    NB_VEC(int64_t) list;
} size_list;

static void add_size(size_list *s, const nb_dim *d) {
    if (d->kind == NB_DIM_SYMBOL) return;
    if (d->kind != NB_DIM_CONST) {
        add_size(s, d->a);
        add_size(s, d->b);
        return;
    }
    for (size_t i = 0; i < s->list.count; i++) {
        if (s->list.items[i] == d->value) return;
    }
    if (d->value > 1) nb_vec_push(s->arena, &s->list, d->value);
}

static void add_type(size_list *s, const nb_type *t) {
    for (int i = 0; i < t->rank; i++) add_size(s, t->dims[i]);
}

static int larger_first(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

size_t nbt_list_sizes(const nb_graph *g, nb_arena *arena, int64_t **sizes) {
    size_list s = {.arena = arena};
    for (uint32_t i = 0; i < g->body.n_params; i++) add_type(&s, g->body.params[i]->type);
    for (size_t i = 0; i < g->constants.count; i++) add_type(&s, g->constants.items[i]->type);
    NB_FOR_OPS(op, &g->body) {
        const nb_op_info *info = nb_info(op);
        for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
            if (info->attrs[a].kind != NB_ATTR_DIMS || !op->attrs[a].set) continue;
            for (size_t k = 0; k < op->attrs[a].dims.count; k++)
                add_size(&s, op->attrs[a].dims.items[k]);
        }
    }
    if (s.list.count) qsort(s.list.items, s.list.count, sizeof *s.list.items, larger_first);
    *sizes = s.list.items;
    return s.list.count;
}

/* ---- changing them -------------------------------------------------------------------------- */

static const nb_dim *change_dim(nb_graph *g, const nbt_resize *r, const nb_dim *d) {
    if (d->kind == NB_DIM_CONST) return nb_dim_const(g, resized(r, d->value));
    if (d->kind == NB_DIM_SYMBOL) return d;
    return nb_dim_binary(g, d->kind, change_dim(g, r, d->a), change_dim(g, r, d->b));
}

static const nb_type *change_type(nb_graph *g, const nbt_resize *r, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK];
    for (int i = 0; i < t->rank; i++) dims[i] = change_dim(g, r, t->dims[i]);
    return nb_type_with_dims(g, t, t->rank, dims);
}

/* The elements in front along each axis. */
static nb_blob *slice(const nb_value *c, const nb_type *to) {
    int64_t count, bytes, at[NB_MAX_RANK] = {0};
    void *data;
    const nb_elem e = to->elem;
    if (!nb_type_static_count(to, &count) || !nb_elem_bytes_of(e, count, &bytes)) return NULL;
    nb_blob *blob = nb_blob_create(bytes, &data);
    if (!blob) return NULL;
    memset(data, 0, (size_t)bytes);
    for (int64_t i = 0; i < count; i++) {
        int64_t from = 0;
        for (int d = 0; d < to->rank; d++) from = from * c->type->dims[d]->value + at[d];
        nb_elem_put(e, data, i, nb_elem_get(e, c->blob->data, from));
        for (int d = to->rank - 1; d >= 0 && ++at[d] == to->dims[d]->value; d--) at[d] = 0;
    }
    return blob;
}

static void change_const(nb_graph *g, const nbt_resize *r, nb_value *c) {
    const nb_type *to = change_type(g, r, c->type);
    if (to == c->type) return;
    nb_blob *blob = slice(c, to);
    if (!blob) return;
    nbt_set_data(c, blob);
    c->type = to;
}

/* Places in an axis that has become shorter: the last one that is left. */
static void clamp_places(const nbt_resize *r, const nb_op *op) {
    const bool gathers = op->kind == NB_OP_gather || op->kind == NB_OP_qgather;
    if (!gathers || !nb_is_const(nb_in(op, 1)) || !nb_elem_is_integer(nb_in(op, 1)->type->elem))
        return;
    nb_value *index = nb_in(op, 1);
    const int axis = op->kind == NB_OP_gather ? (int)nb_attr_int(op, "axis") : 0;
    const nb_tensor t = nb_tensor_of_const(index);
    const nb_type *table = nb_in(op, 0)->type;
    const int64_t count = nb_tensor_count(&t);
    if (axis < 0 || axis >= table->rank || !nb_dim_is_const(table->dims[axis])) return;
    const int64_t last = resized(r, table->dims[axis]->value) - 1;
    void *data;
    nb_blob *blob = nb_blob_create(index->blob->size, &data);
    if (!blob) return;
    memcpy(data, index->blob->data, (size_t)index->blob->size);
    for (int64_t i = 0; i < count; i++) {
        if (nb_tensor_get_int(&t, i) > last) nb_elem_put(t.elem, data, i, (uint64_t)last);
    }
    nbt_set_data(index, blob);
}

static void change_attrs(nb_graph *g, const nbt_resize *r, nb_op *op) {
    const nb_op_info *info = nb_info(op);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        if (info->attrs[a].kind != NB_ATTR_DIMS || !op->attrs[a].set) continue;
        const size_t n = op->attrs[a].dims.count;
        const nb_dim **dims = (const nb_dim **)nb_alloc_array(g->arena, n + 1, sizeof *dims);
        for (size_t k = 0; k < n; k++) dims[k] = change_dim(g, r, op->attrs[a].dims.items[k]);
        op->attrs[a].dims.items = dims;
    }
}

void nbt_apply_resize(nbt_candidate *c, const nbt_resize *r) {
    nb_graph *g = c->graph;
    NB_FOR_OPS(op, &g->body) {
        clamp_places(r, op);
        change_attrs(g, r, op);
    }
    for (uint32_t i = 0; i < g->body.n_params; i++)
        g->body.params[i]->type = change_type(g, r, g->body.params[i]->type);
    for (size_t i = 0; i < g->constants.count; i++) change_const(g, r, g->constants.items[i]);
}
