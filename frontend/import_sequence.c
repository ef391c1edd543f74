/* Sequences and optional values where they fold away: a sequence is a list of tensors that is known
 * at import, an optional is what it holds. Neither is a value of the graph, so none may go in or
 * out of the model, of a loop, or of an If that runs at run time. */
#include "frontend/import.h"

#include <string.h>

#define MOST_TENSORS 4096 /* of a sequence */

struct nb_sequence {
    bool optional; /* that holds nothing */
    size_t count;
    nb_value **items;
};

const nb_sequence *nb_sequence_of(const nb_importer *im, const nb_value *v) {
    return nb_map_get(&im->sequences, v);
}

/* A name's value that stands for a list. */
static nb_value *make(nb_importer *im, size_t count, nb_value *const *items, bool optional) {
    nb_value *v = NB_NEW(im->arena, nb_value);
    nb_sequence *s = NB_NEW(im->arena, nb_sequence);
    s->optional = optional;
    s->count = count;
    s->items = (nb_value **)nb_alloc_array(im->arena, count + 1, sizeof *s->items);
    if (count) memcpy(s->items, items, count * sizeof *items);
    nb_map_set(&im->sequences, v, s);
    return v;
}

nb_value *nb_sequence_inside(nb_importer *im, const nb_value *v,
                             nb_value *(*take)(nb_importer *im, nb_body *body, nb_value *v),
                             nb_body *body) {
    const nb_sequence *s = nb_sequence_of(im, v);
    nb_value **items = (nb_value **)nb_alloc_array(im->arena, s->count + 1, sizeof *items);
    for (size_t i = 0; i < s->count; i++)
        items[i] = nb_is_const(s->items[i]) ? s->items[i] : take(im, body, s->items[i]);
    return make(im, s->count, items, s->optional);
}

/* Names the first output. */
static nb_status define(nb_importer *im, nb_value *v) {
    const char *name = im->node->output[0];
    if (*name && nb_scope_has(im, name))
        return nb_node_error(im, NB_MALFORMED, "output \"%s\" is defined twice", name);
    if (*name) nb_scope_define(im, name, v);
    return NB_OK;
}

static nb_status new_sequence(nb_importer *im, size_t count, nb_value *const *items) {
    if (count > MOST_TENSORS)
        return nb_node_error(im, NB_LIMIT, "%zu tensors, more than %d", count, MOST_TENSORS);
    return define(im, make(im, count, items, false));
}

static const nb_sequence *input_sequence(nb_importer *im, size_t i) {
    nb_value *v = nb_has_input(im, i) ? nb_scope_find(im, im->node->input[i]) : NULL;
    const nb_sequence *s = v ? nb_sequence_of(im, v) : NULL;
    if (s && !s->optional) return s;
    nb_node_error(im, NB_MALFORMED, "input %zu is no sequence", i);
    return NULL;
}

/* A position, from the end when it is negative; `most` when it is not given. */
static nb_status position(nb_importer *im, size_t input, size_t length, size_t most, size_t *out) {
    const int64_t *at;
    size_t n;
    *out = most;
    if (!nb_has_input(im, input)) return NB_OK;
    NB_TRY(nb_ints_of(im, input, &at, &n));
    const int64_t place = n == 1 && at[0] < 0 ? at[0] + (int64_t)length : n == 1 ? at[0] : -1;
    if (place < 0 || place > (int64_t)most)
        return nb_node_error(im, NB_MALFORMED, "position %lld of a sequence of %zu tensors",
                             n == 1 ? (long long)at[0] : -1LL, length);
    *out = (size_t)place;
    return NB_OK;
}

nb_status nb_import_sequence_construct(nb_importer *im) {
    const size_t n = im->node->n_input;
    nb_value **items = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *items);
    for (size_t i = 0; i < n; i++) {
        items[i] = nb_node_input(im, i);
        if (!items[i]) return NB_MALFORMED;
    }
    return new_sequence(im, n, items);
}

nb_status nb_import_sequence_empty(nb_importer *im) { return new_sequence(im, 0, NULL); }

nb_status nb_import_sequence_at(nb_importer *im) {
    const nb_sequence *s = input_sequence(im, 0);
    size_t at;
    if (!s) return NB_MALFORMED;
    if (s->count == 0) return nb_node_error(im, NB_MALFORMED, "the sequence is empty");
    NB_TRY(position(im, 1, s->count, s->count - 1, &at));
    return nb_node_output(im, 0, s->items[at]);
}

nb_status nb_import_sequence_insert(nb_importer *im) {
    const nb_sequence *s = input_sequence(im, 0);
    nb_value *tensor = s ? nb_node_input(im, 1) : NULL;
    size_t at, n = 0;
    if (!tensor) return NB_MALFORMED;
    NB_TRY(position(im, 2, s->count, s->count, &at));
    nb_value **items = (nb_value **)nb_alloc_array(im->arena, s->count + 1, sizeof *items);
    for (size_t i = 0; i <= s->count; i++) items[i] = i == at ? tensor : s->items[n++];
    return new_sequence(im, s->count + 1, items);
}

nb_status nb_import_sequence_erase(nb_importer *im) {
    const nb_sequence *s = input_sequence(im, 0);
    size_t at, n = 0;
    if (!s) return NB_MALFORMED;
    if (s->count == 0) return nb_node_error(im, NB_MALFORMED, "the sequence is empty");
    NB_TRY(position(im, 1, s->count, s->count - 1, &at));
    nb_value **items = (nb_value **)nb_alloc_array(im->arena, s->count + 1, sizeof *items);
    for (size_t i = 0; i < s->count; i++)
        if (i != at) items[n++] = s->items[i];
    return new_sequence(im, n, items);
}

nb_status nb_import_sequence_length(nb_importer *im) {
    const nb_sequence *s = input_sequence(im, 0);
    if (!s) return NB_MALFORMED;
    return nb_node_output(im, 0, nb_scalar(im, NB_I64, (double)s->count));
}

nb_status nb_import_concat_from_sequence(nb_importer *im) {
    const nb_sequence *s = input_sequence(im, 0);
    if (!s) return NB_MALFORMED;
    if (s->count == 0) return nb_node_error(im, NB_MALFORMED, "the sequence is empty");
    const bool fresh = nb_node_int(im, "new_axis", 0) != 0;
    const int rank = s->items[0]->type->rank + fresh;
    int64_t axis;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), rank, &axis));
    nb_value *all = NULL;
    for (size_t i = 0; i < s->count; i++) {
        nb_value *v = s->items[i];
        if (v->type->rank + fresh != rank || rank > NB_MAX_RANK)
            return nb_node_error(im, NB_MALFORMED, "tensor %zu is %s, the first is %s", i,
                                 nb_type_text(im->arena, v->type),
                                 nb_type_text(im->arena, s->items[0]->type));
        const nb_dim *dims[NB_MAX_RANK];
        for (int d = 0, from = 0; fresh && d < rank; d++)
            dims[d] = d == axis ? nb_num(im, 1) : v->type->dims[from++];
        if (fresh) v = nb_reshape(&im->b, v, rank, dims);
        all = i ? nb_join(im, all, v, (int)axis) : v;
        if (!all) return nb_diags_status(im->diags);
    }
    return nb_node_output(im, 0, all);
}

nb_status nb_import_split_to_sequence(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    int64_t axis, length;
    const int64_t *sizes = NULL;
    size_t n = 0;
    if (!x) return NB_MALFORMED;
    NB_TRY(nb_axis(im, nb_node_int(im, "axis", 0), x->type->rank, &axis));
    if (!nb_dim_is_const(x->type->dims[axis]))
        return nb_node_error(im, NB_UNSUPPORTED,
                             "axis %lld is %s: how many parts there are must not depend on a run",
                             (long long)axis, nb_dim_text(im->arena, x->type->dims[axis]));
    length = x->type->dims[axis]->value;
    int64_t each = 1;
    if (nb_has_input(im, 1)) {
        NB_TRY(nb_ints_of(im, 1, &sizes, &n));
        const nb_value *split = nb_node_input(im, 1);
        if (split->type->rank == 0) {
            each = sizes[0];
            sizes = NULL;
        }
    }
    if (each < 1 || (!sizes && length / each > MOST_TENSORS))
        return nb_node_error(im, each < 1 ? NB_MALFORMED : NB_LIMIT, "parts of %lld of %lld",
                             (long long)each, (long long)length);
    const bool drop = !nb_has_input(im, 1) && nb_node_int(im, "keepdims", 1) == 0;
    if (!sizes) n = (size_t)nb_ceildiv(length, each);
    nb_value **items = (nb_value **)nb_alloc_array(im->arena, n + 1, sizeof *items);
    int64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const int64_t size = sizes ? sizes[i] : nb_min_i64(each, length - at);
        if (size < 0 || size > length - at)
            return nb_node_error(im, NB_MALFORMED, "part %zu of %lld is beyond %lld", i,
                                 (long long)size, (long long)length);
        items[i] = nb_slice_axis(im, x, (int)axis, nb_num(im, at), nb_num(im, size), 1);
        const nb_dim *dims[NB_MAX_RANK];
        int rank = 0;
        for (int d = 0; drop && d < x->type->rank; d++)
            if (d != axis) dims[rank++] = x->type->dims[d];
        if (drop && items[i]) items[i] = nb_reshape(&im->b, items[i], rank, dims);
        if (!items[i]) return nb_diags_status(im->diags);
        at += size;
    }
    if (at != length)
        return nb_node_error(im, NB_MALFORMED, "the parts have %lld of %lld", (long long)at,
                             (long long)length);
    return new_sequence(im, n, items);
}

/* ---- optional values ----------------------------------------------------------------------- */

nb_status nb_import_optional(nb_importer *im) {
    if (!nb_has_input(im, 0)) return define(im, make(im, 0, NULL, true));
    return define(im, nb_scope_find(im, im->node->input[0]));
}

static bool holds_nothing(nb_importer *im) {
    if (!nb_has_input(im, 0)) return true;
    const nb_sequence *s = nb_sequence_of(im, nb_scope_find(im, im->node->input[0]));
    return s && s->optional;
}

nb_status nb_import_optional_get(nb_importer *im) {
    if (holds_nothing(im)) return nb_node_error(im, NB_MALFORMED, "the optional holds nothing");
    return define(im, nb_scope_find(im, im->node->input[0]));
}

nb_status nb_import_optional_has(nb_importer *im) {
    nb_value *flag = nb_scalar(im, NB_I64, holds_nothing(im) ? 0 : 1);
    return nb_node_output(im, 0, nb_cast(&im->b, flag, NB_BOOL));
}
