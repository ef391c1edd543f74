/* Attention and RotaryEmbedding of ai.onnx, from opset 23 on. Heads have axes of their own here,
 * [B,H,S,D]; an input of rank 3 holds them side by side, [B,S,H*D]. */
#include "frontend/import.h"

#include <math.h>

typedef struct attending {
    nb_attending with;
    const nb_dim *past; /* keys that came before */
    nb_value *valid;    /* i64[B]: keys that are no padding, or NULL */
} attending;

/* `heads` is what the node says of an input of rank 3. */
static nb_value *heads_apart(nb_importer *im, nb_value *x, const char *heads) {
    if (!x || x->type->rank == 4) return x;
    const nb_dim *width = x->type->rank == 3 ? x->type->dims[2] : NULL;
    int64_t n = nb_node_int(im, heads, 0);
    if (!width || !nb_dim_is_const(width) || n < 1 || width->value % n) {
        nb_node_error(im, NB_MALFORMED, "%s is %lld, found %s", heads, (long long)n,
                      nb_type_text(im->arena, x->type));
        return NULL;
    }
    return nb_split_heads(im, x, n, width->value / n);
}

static nb_value *behind_past(nb_importer *im, nb_value *x, size_t past) {
    if (!x || !nb_has_input(im, past)) return x;
    nb_value *before = nb_node_input(im, past);
    if (before && before->type->rank == 4) return nb_join(im, before, x, 2);
    nb_node_error(im, NB_MALFORMED, "input %zu is not of rank 4", past);
    return NULL;
}

nb_status nb_check_heads(nb_importer *im, nb_value *q, nb_value *k, nb_value *v, int64_t *heads,
                         int64_t *groups) {
    for (int d = 0; d < 3; d += 2) NB_TRY(nb_unify(im, k->type->dims[d], v->type->dims[d]));
    NB_TRY(nb_unify(im, q->type->dims[0], k->type->dims[0]));
    NB_TRY(nb_unify(im, q->type->dims[3], k->type->dims[3]));
    const nb_dim *n = q->type->dims[1], *shared = k->type->dims[1];
    if (!nb_dim_is_const(n) || !nb_dim_is_const(shared) || !nb_dim_is_const(q->type->dims[3]))
        return nb_node_error(im, NB_UNSUPPORTED,
                             "the number of heads and their size must be known");
    if (shared != v->type->dims[1] || shared->value < 1 || n->value % shared->value)
        return nb_node_error(im, NB_MALFORMED, "%lld heads of queries, %lld of keys",
                             (long long)n->value, (long long)shared->value);
    *heads = n->value;
    *groups = shared->value;
    return NB_OK;
}

static nb_status read_operands(nb_importer *im, attending *a) {
    a->with.q = heads_apart(im, nb_node_input(im, 0), "q_num_heads");
    a->with.k = heads_apart(im, nb_node_input(im, 1), "kv_num_heads");
    a->with.v = heads_apart(im, nb_node_input(im, 2), "kv_num_heads");
    if (!a->with.q || !a->with.k || !a->with.v) return NB_MALFORMED;
    if (nb_has_input(im, 4) != nb_has_input(im, 5))
        return nb_node_error(im, NB_MALFORMED, "keys or values of the past are missing");
    a->with.k = behind_past(im, a->with.k, 4);
    a->with.v = behind_past(im, a->with.v, 5);
    if (!a->with.k || !a->with.v) return NB_MALFORMED;
    int64_t heads, groups;
    NB_TRY(nb_check_heads(im, a->with.q, a->with.k, a->with.v, &heads, &groups));
    a->past = nb_has_input(im, 4) ? nb_node_input(im, 4)->type->dims[2] : nb_num(im, 0);
    a->with.scale = nb_node_float(im, "scale", 1 / sqrtf((float)a->with.q->type->dims[3]->value));
    a->with.softcap = nb_node_float(im, "softcap", 0);
    if (!nb_has_input(im, 6)) return NB_OK;
    a->valid = nb_node_input(im, 6);
    if (!a->valid || a->valid->type->rank != 1)
        return nb_node_error(im, NB_MALFORMED, "nonpad_kv_seqlen is not a vector");
    return nb_unify(im, a->valid->type->dims[0], a->with.q->type->dims[0]);
}

/* The node's mask as numbers to add; keys that it does not reach are hidden. */
static nb_value *given_mask(nb_importer *im, const attending *a, nb_value *hidden) {
    nb_value *m = nb_node_input(im, 3);
    if (!m || m->type->rank < 1 || m->type->rank > 4) {
        nb_node_error(im, NB_MALFORMED, "the mask is not of rank 1 to 4");
        return NULL;
    }
    if (m->type->elem == NB_BOOL)
        m = nb_choose(im, m, nb_scalar(im, NB_F32, 0), hidden);
    else if (m->type->elem != NB_F32)
        m = nb_cast(&im->b, m, NB_F32);
    if (!m) return NULL;
    const int last = m->type->rank - 1;
    const nb_dim *keys = a->with.k->type->dims[2], *has = m->type->dims[last];
    if (nb_dim_is_const(keys) && nb_dim_is_const(has) && has->value > 1 &&
        has->value < keys->value) {
        const nb_dim *sides[2][NB_MAX_RANK];
        for (int d = 0; d <= last; d++) {
            sides[0][d] = nb_num(im, 0);
            sides[1][d] = nb_num(im, d == last ? keys->value - has->value : 0);
        }
        nb_begin(&im->b, NB_OP_pad);
        nb_arg(&im->b, m);
        nb_arg(&im->b, hidden);
        nb_set_dims(&im->b, "before", (size_t)last + 1, sides[0]);
        nb_set_dims(&im->b, "after", (size_t)last + 1, sides[1]);
        m = nb_end(&im->b);
    }
    for (int d = 1; m && d <= m->type->rank; d++) {
        const nb_dim *full[] = {a->with.k->type->dims[2], a->with.q->type->dims[2],
                                a->with.q->type->dims[1], a->with.q->type->dims[0]};
        const nb_dim *dim = m->type->dims[m->type->rank - d];
        if (!nb_dim_is(dim, 1) && nb_unify(im, dim, full[d - 1]) != NB_OK) return NULL;
    }
    return m;
}

/* Row s sees keys up to s and those before it; of rows with padding, the last one sees the last
 * key that is none. */
static nb_value *causal(nb_importer *im, const attending *a) {
    const nb_dim *rows = a->with.q->type->dims[2], *keys = a->with.k->type->dims[2];
    nb_value *row = nb_positions(im, 4, 2, rows), *key = nb_positions(im, 4, 3, keys), *offset;
    if (a->valid) {
        nb_value *count = nb_make_dims(im, 1, &rows, true);
        offset = nb_along(im, nb_combine(im, NB_OP_sub, a->valid, count), 4, 0);
    } else {
        offset = nb_make_dims(im, 1, &a->past, true);
    }
    return nb_combine(im, NB_OP_le, key, nb_combine(im, NB_OP_add, row, offset));
}

static nb_status read_bias(nb_importer *im, attending *a) {
    nb_value *hidden = nb_scalar(im, NB_F32, -(double)INFINITY), *seen = NULL;
    if (nb_has_input(im, 3)) {
        a->with.bias = given_mask(im, a, hidden);
        if (!a->with.bias) return NB_MALFORMED;
    }
    if (nb_node_int(im, "is_causal", 0)) {
        seen = causal(im, a);
        if (!seen) return NB_MALFORMED;
    }
    if (a->valid) {
        nb_value *inside =
            nb_combine(im, NB_OP_lt, nb_positions(im, 4, 3, a->with.k->type->dims[2]),
                       nb_along(im, a->valid, 4, 0));
        seen = seen ? nb_combine(im, NB_OP_and, seen, inside) : inside;
        if (!seen) return NB_MALFORMED;
    }
    if (seen)
        a->with.bias =
            nb_choose(im, seen, a->with.bias ? a->with.bias : nb_scalar(im, NB_F32, 0), hidden);
    return seen && !a->with.bias ? NB_MALFORMED : NB_OK;
}

/* y, 0 where the row sees no key: attention has no number for that. */
static nb_value *zero_where_blind(nb_importer *im, const nb_attending *a, nb_value *y) {
    if (!a->bias || !y) return y;
    const int64_t last = a->bias->type->rank - 1;
    nb_value *best = nb_reduce(im, NB_OP_reduce_max, a->bias, 1, &last, true);
    nb_value *blind = nb_combine(im, NB_OP_eq, best, nb_scalar(im, NB_F32, -(double)INFINITY));
    return blind ? nb_choose(im, blind, nb_scalar(im, y->type->elem, 0), y) : NULL;
}

nb_value *nb_repeat_heads(nb_importer *im, nb_value *x, int64_t groups, int64_t heads) {
    if (!x || heads == groups) return x;
    const nb_dim *const *d = x->type->dims, *share = nb_num(im, heads / groups);
    const nb_dim *apart[] = {d[0], d[1], nb_num(im, 1), d[2], d[3]},
                 *wide[] = {d[0], d[1], share, d[2], d[3]},
                 *whole[] = {d[0], nb_num(im, heads), d[2], d[3]};
    x = nb_expand_to(im, nb_reshape(&im->b, x, 5, apart), 5, wide);
    return nb_reshape(&im->b, x, 4, whole);
}

/* Along the keys. */
static nb_value *softmax(nb_importer *im, nb_value *s) {
    nb_begin(&im->b, NB_OP_softmax);
    nb_arg(&im->b, s);
    nb_set_int(&im->b, "axis", 3);
    return nb_end(&im->b);
}

/* The same where heads have one more score. */
static nb_value *softmax_beside(nb_importer *im, nb_value *s, nb_value *sinks) {
    if (!s) return NULL;
    const nb_dim *const *d = s->type->dims, *zero = nb_num(im, 0), *keys = d[3];
    const nb_dim *column[] = {d[0], d[1], d[2], nb_num(im, 1)};
    nb_value *sink = nb_expand_to(im, nb_along(im, sinks, 3, 0), 4, column);
    return nb_slice_axis(im, softmax(im, nb_join(im, s, sink, 3)), 3, zero, keys, 1);
}

/* Step by step, because scores are wanted, capped, or have a sink beside them. *scores: output 3 in
 * the form that `mode` asks for. */
static nb_value *stepwise(nb_importer *im, const nb_attending *a, int64_t mode, nb_value **scores) {
    const int64_t heads = a->q->type->dims[1]->value, groups = a->k->type->dims[1]->value;
    nb_value *k = nb_as(im, nb_repeat_heads(im, a->k, groups, heads), NB_F32);
    nb_value *v = nb_as(im, nb_repeat_heads(im, a->v, groups, heads), NB_F32);
    nb_value *s = nb_multiply(im, nb_as(im, a->q, NB_F32), nb_swap_axes(im, k, 2, 3));
    s = nb_times(im, s, (double)a->scale);
    if (mode == 0) *scores = s;
    if (a->softcap != 0.0F && s) {
        s = nb_combine(im, NB_OP_div, s, nb_scalar(im, NB_F32, (double)a->softcap));
        s = nb_times(im, nb_unary(&im->b, NB_OP_tanh, s), (double)a->softcap);
    }
    if (mode == 1) *scores = s;
    if (a->bias && s) s = nb_combine(im, NB_OP_add, s, a->bias);
    if (mode == 2) *scores = s;
    s = a->sinks ? softmax_beside(im, s, a->sinks) : softmax(im, s);
    if (a->blind) s = zero_where_blind(im, a, s);
    if (mode == 3) *scores = s;
    return nb_multiply(im, s, v);
}

static nb_value *at_once(nb_importer *im, const nb_attending *a) {
    nb_value *q = nb_as(im, a->q, NB_F32), *k = nb_as(im, a->k, NB_F32),
             *v = nb_as(im, a->v, NB_F32);
    nb_begin(&im->b, NB_OP_attention);
    nb_arg(&im->b, q);
    nb_arg(&im->b, k);
    nb_arg(&im->b, v);
    nb_arg(&im->b, a->bias);
    nb_set_float(&im->b, "scale", a->scale);
    return a->blind ? zero_where_blind(im, a, nb_end(&im->b)) : nb_end(&im->b);
}

nb_value *nb_attend(nb_importer *im, const nb_attending *a) {
    if (!a->q || !a->k || !a->v) return NULL;
    nb_value *scores;
    const bool steps = a->softcap != 0.0F || a->sinks;
    return nb_as(im, steps ? stepwise(im, a, -1, &scores) : at_once(im, a), a->q->type->elem);
}

nb_status nb_import_attention(nb_importer *im) {
    attending a = {.with.blind = true};
    NB_TRY(read_operands(im, &a));
    NB_TRY(read_bias(im, &a));
    const bool asked = im->node->n_output > 3 && *im->node->output[3];
    const nb_elem elem = a.with.q->type->elem;
    nb_value *scores = NULL;
    nb_value *y =
        asked
            ? nb_as(im, stepwise(im, &a.with, nb_node_int(im, "qk_matmul_output_mode", 0), &scores),
                    elem)
            : nb_attend(im, &a.with);
    nb_value *q = nb_node_input(im, 0);
    NB_TRY(nb_node_output(im, 0, y && q->type->rank == 3 ? nb_join_heads(im, y) : y));
    NB_TRY(nb_node_output(im, 1, a.with.k));
    NB_TRY(nb_node_output(im, 2, a.with.v));
    return asked ? nb_node_output(im, 3, nb_as(im, scores, elem)) : NB_OK;
}

/* ---- RotaryEmbedding ------------------------------------------------------------------------ */

/* [B,S,R/2] of a table [positions,R/2], or the input itself. */
static nb_value *angles(nb_importer *im, size_t input, const nb_value *x) {
    nb_value *table = nb_node_input(im, input);
    if (!table || !nb_has_input(im, 3)) return table;
    nb_value *at = nb_node_input(im, 3);
    if (!at || at->type->rank != 2 || table->type->rank != 2) {
        nb_node_error(im, NB_MALFORMED, "positions and the tables they are of are not matrices");
        return NULL;
    }
    if (nb_unify(im, at->type->dims[0], x->type->dims[0]) != NB_OK ||
        nb_unify(im, at->type->dims[1], x->type->dims[2]) != NB_OK)
        return NULL;
    return nb_take(im, table, at, 0);
}

nb_status nb_import_rotary(nb_importer *im) {
    nb_value *given = nb_node_input(im, 0), *x = heads_apart(im, given, "num_heads");
    if (!x) return NB_MALFORMED;
    const nb_dim *size = x->type->dims[3];
    const int64_t turned = nb_node_int(im, "rotary_embedding_dim", 0);
    if (!nb_dim_is_const(size) || turned < 0 || turned > size->value)
        return nb_node_error(im, NB_MALFORMED, "%lld of %s elements of each head are rotated",
                             (long long)turned, nb_dim_text(im->arena, size));
    nb_value *c = angles(im, 1, x), *s = angles(im, 2, x);
    if (!c || !s) return NB_MALFORMED;
    if (c->type->rank != 3 || s->type->rank != 3)
        return nb_node_error(im, NB_MALFORMED, "cosines and sines are not of rank 3");
    NB_TRY(nb_unify(im, c->type->dims[2], nb_num(im, (turned ? turned : size->value) / 2)));
    nb_value *y = nb_rotate(im, x, c, s, nb_node_int(im, "interleaved", 0) != 0);
    return nb_node_output(im, 0, y && given->type->rank == 3 ? nb_join_heads(im, y) : y);
}
