/* Attention and MultiHeadAttention of com.microsoft, as onnxruntime computes them: encoders that
 * its optimizer has fused, and the decoders of its model builder. The former projects its input
 * first.
 *
 * Heads have an axis of their own here, [B,H,S,D]; keys and values of the past come first. */
#include "frontend/import.h"

#include <math.h>

typedef struct attending {
    nb_value *q, *k, *v; /* [B,H,S,D], [B,H,T,D], [B,H,T,E] */
    int64_t heads;
} attending;

/* ---- masks ---------------------------------------------------------------------------------- */

/* f32: 0 where `seen` holds. */
static nb_value *bias_of(nb_importer *im, nb_value *seen) {
    const double hidden = (double)nb_node_float(im, "mask_filter_value", -10000.0F);
    return seen ? nb_choose(im, seen, nb_scalar(im, NB_F32, 0), nb_scalar(im, NB_F32, hidden))
                : NULL;
}

/* Entries from..from+B of ends and starts, for each of the keys. */
static nb_value *bounds(nb_importer *im, nb_value *mask, const nb_dim *from, const nb_dim *batch) {
    const nb_dim *one = nb_num(im, 1), *wide[] = {batch, one, one, one};
    return nb_reshape(&im->b, nb_slice_axis(im, mask, 0, from, batch, 1), 4, wide);
}

/* Keys before the ends i32[B]; of i32[2*B], those of them that are not before the starts behind the
 * ends. */
static nb_value *between(nb_importer *im, nb_value *mask, const nb_value *q, const nb_value *k) {
    const nb_dim *batch = q->type->dims[0], *all = mask->type->dims[0];
    nb_value *place = nb_positions(im, 4, 3, k->type->dims[2]);
    nb_value *seen = nb_combine(im, NB_OP_lt, place, bounds(im, mask, nb_num(im, 0), batch));
    if (all == batch) return seen;
    return nb_combine(im, NB_OP_and, seen,
                      nb_combine(im, NB_OP_le, bounds(im, mask, batch, batch), place));
}

/* Rows and keys of a mask i32[B,1,M,M] for all there can be: those of the present ones. */
static nb_value *cut(nb_importer *im, nb_value *mask, const nb_value *q, const nb_value *k) {
    const nb_dim *rows = q->type->dims[2], *keys = k->type->dims[2];
    mask = nb_slice_axis(im, mask, 2, nb_dim_sub(im->g, keys, rows), rows, 1);
    return nb_slice_axis(im, mask, 3, nb_num(im, 0), keys, 1);
}

/* Keys that a mask i32[B,T], i32[B,S,T] or i32[B,1,M,M] has ones for, or those between bounds. */
static nb_value *given_mask(nb_importer *im, size_t input, const nb_value *q, const nb_value *k) {
    nb_value *mask = nb_node_input(im, input);
    if (!mask) return NULL;
    const int rank = mask->type->rank;
    const nb_dim *one = nb_num(im, 1), *two = nb_num(im, 2);
    const bool both = rank == 1 && mask->type->dims[0] == nb_dim_mul(im->g, two, q->type->dims[0]);
    if (!nb_elem_is_integer(mask->type->elem) || rank < 1 || rank > 4 ||
        (!both && nb_unify(im, mask->type->dims[0], q->type->dims[0]) != NB_OK) ||
        ((rank == 2 || rank == 3) &&
         nb_unify(im, mask->type->dims[rank - 1], k->type->dims[2]) != NB_OK) ||
        (rank == 3 && nb_unify(im, mask->type->dims[1], q->type->dims[2]) != NB_OK) ||
        (rank == 4 && !nb_dim_is(mask->type->dims[1], 1))) {
        nb_node_error(im, NB_UNSUPPORTED,
                      "a mask of type %s, expected i32[B], i32[2*B], i32[B,T], i32[B,S,T] or "
                      "i32[B,1,M,M]",
                      nb_type_text(im->arena, mask->type));
        return NULL;
    }
    mask = nb_cast(&im->b, mask, NB_I64);
    if (rank == 1) return bias_of(im, between(im, mask, q, k));
    if (rank == 4)
        return bias_of(im, nb_combine(im, NB_OP_lt, nb_scalar(im, NB_I64, 0), cut(im, mask, q, k)));
    const nb_dim *wide[] = {q->type->dims[0], one, rank > 2 ? q->type->dims[2] : one,
                            k->type->dims[2]};
    mask = nb_reshape(&im->b, mask, 4, wide);
    return bias_of(im, nb_combine(im, NB_OP_lt, nb_scalar(im, NB_I64, 0), mask));
}

/* Keys up to a row's own place, which is behind those of the past. */
static nb_value *causal_mask(nb_importer *im, const nb_value *q, const nb_value *k) {
    const nb_dim *rows = q->type->dims[2], *keys = k->type->dims[2];
    nb_value *row = nb_along(im, nb_count_up(im, nb_dim_sub(im->g, keys, rows), rows), 4, 2);
    return bias_of(im, nb_combine(im, NB_OP_le, nb_positions(im, 4, 3, keys), row));
}

static nb_value *sum(nb_importer *im, nb_value *a, nb_value *b) {
    return a ? nb_combine(im, NB_OP_add, a, b) : b;
}

nb_value *nb_ms_add_bias(nb_importer *im, size_t input, const nb_value *q, const nb_dim *keys,
                         nb_value *mask) {
    if (!nb_has_input(im, input)) return mask;
    nb_value *bias = nb_as(im, nb_node_input(im, input), NB_F32);
    if (!bias || bias->type->rank != 4) {
        nb_node_error(im, NB_MALFORMED, "the bias of the scores is not of rank 4");
        return NULL;
    }
    for (int d = 0; d < 4; d++) {
        const nb_dim *own = bias->type->dims[d], *full = d < 3 ? q->type->dims[d] : keys;
        if (!nb_dim_is(own, 1) && nb_unify(im, own, full) != NB_OK) return NULL;
    }
    return sum(im, mask, bias);
}

nb_status nb_ms_bias(nb_importer *im, const nb_value *q, const nb_value *k, size_t mask_at,
                     size_t bias_at, nb_value **out) {
    *out = NULL;
    if (nb_has_input(im, mask_at)) {
        *out = given_mask(im, mask_at, q, k);
        if (!*out) return NB_MALFORMED;
    }
    if (nb_node_int(im, "unidirectional", 0)) {
        *out = sum(im, *out, causal_mask(im, q, k));
        if (!*out) return NB_MALFORMED;
    }
    if (!nb_has_input(im, bias_at)) return NB_OK;
    *out = nb_ms_add_bias(im, bias_at, q, k->type->dims[2], *out);
    return *out ? NB_OK : NB_MALFORMED;
}

nb_value *nb_ms_attend(nb_importer *im, nb_value *q, nb_value *k, nb_value *v, nb_value *bias) {
    const float given = nb_node_float(im, "scale", 0), size = (float)q->type->dims[3]->value;
    const nb_attending a = {
        .q = q, .k = k, .v = v, .bias = bias, .scale = given != 0 ? given : 1.0F / sqrtf(size)};
    return nb_join_heads(im, nb_attend(im, &a));
}

/* ---- Attention ------------------------------------------------------------------------------ */

nb_value *nb_ms_heads(nb_importer *im, nb_value *x, int64_t from, int64_t width, int64_t heads) {
    x = nb_slice_axis(im, x, 2, nb_num(im, from), nb_num(im, width), 1);
    return nb_split_heads(im, x, heads, width / heads);
}

/* Which is 0 keys, 1 values of past[2,B,H,P,D], before `x`. */
static nb_value *behind(nb_importer *im, nb_value *past, int which, nb_value *x) {
    if (!past || !x) return NULL;
    nb_value *one = nb_slice_axis(im, past, 0, nb_num(im, which), nb_num(im, 1), 1);
    return nb_join(im, nb_reshape(&im->b, one, 4, past->type->dims + 1), x, 2);
}

static nb_value *stacked(nb_importer *im, nb_value *k, nb_value *v) {
    const nb_dim *dims[NB_MAX_RANK] = {nb_num(im, 1)};
    for (int d = 0; d < 4; d++) dims[d + 1] = k->type->dims[d];
    nb_value *first = nb_reshape(&im->b, k, 5, dims);
    for (int d = 0; d < 4; d++) dims[d + 1] = v->type->dims[d];
    return nb_join(im, first, nb_reshape(&im->b, v, 5, dims), 0);
}

/* Widths of queries, keys and values in the projection. */
static nb_status read_widths(nb_importer *im, const nb_value *w, int64_t heads, int64_t *widths) {
    size_t n;
    const int64_t *given = nb_node_ints(im, "qkv_hidden_sizes", &n);
    const nb_dim *all = w->type->rank == 2 ? w->type->dims[1] : NULL;
    if (!all || !nb_dim_is_const(all))
        return nb_node_error(im, NB_MALFORMED, "the projection is %s, expected a matrix",
                             nb_type_text(im->arena, w->type));
    int64_t sum_of = 0;
    for (size_t i = 0; i < 3; i++) {
        widths[i] = given && n == 3 ? given[i] : all->value / 3;
        if (widths[i] < 1 || widths[i] > all->value || heads < 1 || widths[i] % heads)
            return nb_node_error(im, NB_MALFORMED, "%lld heads in a width of %lld",
                                 (long long)heads, (long long)widths[i]);
        sum_of += widths[i];
    }
    if (sum_of == all->value && widths[0] == widths[1]) return NB_OK;
    return nb_node_error(im, NB_MALFORMED,
                         "queries, keys and values of widths %lld, %lld, %lld in %s",
                         (long long)widths[0], (long long)widths[1], (long long)widths[2],
                         nb_dim_text(im->arena, all));
}

nb_status nb_import_ms_attention(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *w = nb_node_input(im, 1), *bias;
    int64_t widths[3];
    attending a = {.heads = nb_node_int(im, "num_heads", 0)};
    if (!x || !w) return NB_MALFORMED;
    if (nb_has_input(im, 6) || nb_node_int(im, "do_rotary", 0) ||
        nb_node_int(im, "past_present_share_buffer", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "rotation and shared buffers are not supported");
    if (x->type->rank != 3)
        return nb_node_error(im, NB_MALFORMED, "the input is %s, expected rank 3",
                             nb_type_text(im->arena, x->type));
    NB_TRY(read_widths(im, w, a.heads, widths));
    nb_value *y = nb_multiply(im, x, w);
    if (nb_has_input(im, 2) && y) y = nb_combine(im, NB_OP_add, y, nb_node_input(im, 2));
    a.q = nb_ms_heads(im, y, 0, widths[0], a.heads);
    a.k = nb_ms_heads(im, y, widths[0], widths[1], a.heads);
    a.v = nb_ms_heads(im, y, widths[0] + widths[1], widths[2], a.heads);
    if (nb_has_input(im, 4)) {
        nb_value *past = nb_node_input(im, 4);
        if (!past || past->type->rank != 5)
            return nb_node_error(im, NB_MALFORMED, "the past is not of rank 5");
        a.k = behind(im, past, 0, a.k);
        a.v = behind(im, past, 1, a.v);
    }
    if (!a.q || !a.k || !a.v) return nb_node_output(im, 0, NULL);
    NB_TRY(nb_ms_bias(im, a.q, a.k, 3, 5, &bias));
    NB_TRY(nb_node_output(im, 0, nb_ms_attend(im, a.q, a.k, a.v, bias)));
    if (im->node->n_output < 2 || !*im->node->output[1]) return NB_OK;
    return nb_node_output(im, 1, stacked(im, a.k, a.v));
}

/* ---- MultiHeadAttention --------------------------------------------------------------------- */

/* Part `which` of packed[B,S,H,n,D], as [B,S,H*D]. */
static nb_value *unpacked(nb_importer *im, nb_value *packed, int which) {
    const nb_dim *const *d = packed->type->dims;
    const nb_dim *flat[] = {d[0], d[1], nb_dim_mul(im->g, d[2], d[4])};
    nb_value *one = nb_slice_axis(im, packed, 3, nb_num(im, which), nb_num(im, 1), 1);
    return nb_reshape(&im->b, one, 3, flat);
}

/* [B,S,N] + bias[from..from+N], as heads. */
static nb_value *with_bias(nb_importer *im, nb_value *x, nb_value *bias, int64_t from,
                           int64_t heads) {
    const nb_dim *width = x->type->rank == 3 ? x->type->dims[2] : NULL;
    if (!width || !nb_dim_is_const(width) || heads < 1 || width->value % heads) {
        nb_node_error(im, NB_MALFORMED, "%lld heads of %s", (long long)heads,
                      nb_type_text(im->arena, x->type));
        return NULL;
    }
    if (bias)
        x = nb_combine(im, NB_OP_add, x, nb_slice_axis(im, bias, 0, nb_num(im, from), width, 1));
    return nb_split_heads(im, x, heads, width->value / heads);
}

static nb_status read_parts(nb_importer *im, attending *a) {
    nb_value *q = nb_node_input(im, 0), *bias = NULL;
    nb_value *k = nb_has_input(im, 1) ? nb_node_input(im, 1) : NULL,
             *v = nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL;
    if (!q || (nb_has_input(im, 1) && !k) || (nb_has_input(im, 2) && !v)) return NB_MALFORMED;
    if (q->type->rank == 5 && nb_dim_is(q->type->dims[3], 3) && !k) {
        k = unpacked(im, q, 1);
        v = unpacked(im, q, 2);
        q = unpacked(im, q, 0);
    } else if (k && k->type->rank == 5 && nb_dim_is(k->type->dims[3], 2) && !v) {
        v = unpacked(im, k, 1);
        k = unpacked(im, k, 0);
    }
    if (!q || !k || !v) return nb_node_error(im, NB_MALFORMED, "keys or values are missing");
    if (nb_has_input(im, 3)) {
        bias = nb_node_input(im, 3);
        if (!bias || bias->type->rank != 1)
            return nb_node_error(im, NB_MALFORMED, "the bias is not a vector");
    }
    const int64_t heads = a->heads;
    a->q = with_bias(im, q, bias, 0, heads);
    if (!a->q) return NB_MALFORMED;
    const int64_t width = heads * a->q->type->dims[3]->value;
    /* Keys with an axis of heads are whole already: those of an encoder. */
    a->k = k->type->rank == 4 ? k : with_bias(im, k, bias, width, heads);
    a->v = v->type->rank == 4 ? v : with_bias(im, v, bias, 2 * width, heads);
    if (!a->k || !a->v) return NB_MALFORMED;
    for (int d = 0; d < 3; d++) NB_TRY(nb_unify(im, a->k->type->dims[d], a->v->type->dims[d]));
    for (int d = 0; d < 4; d++)
        if (d != 2) NB_TRY(nb_unify(im, a->q->type->dims[d], a->k->type->dims[d]));
    return NB_OK;
}

nb_status nb_import_multi_head_attention(nb_importer *im) {
    attending a = {.heads = nb_node_int(im, "num_heads", 0)};
    nb_value *bias;
    if (nb_has_input(im, 8) || nb_has_input(im, 9))
        return nb_node_error(im, NB_UNSUPPORTED, "shared buffers are not supported");
    if (im->node->n_output > 3 && *im->node->output[3])
        return nb_node_error(im, NB_UNSUPPORTED, "scores as an output are not supported");
    NB_TRY(read_parts(im, &a));
    if (nb_has_input(im, 6) != nb_has_input(im, 7))
        return nb_node_error(im, NB_MALFORMED, "keys or values of the past are missing");
    if (nb_has_input(im, 6)) {
        nb_value *k = nb_node_input(im, 6), *v = nb_node_input(im, 7);
        if (!k || !v || k->type->rank != 4 || v->type->rank != 4)
            return nb_node_error(im, NB_MALFORMED, "the past is not of rank 4");
        a.k = nb_join(im, k, a.k, 2);
        a.v = nb_join(im, v, a.v, 2);
        if (!a.k || !a.v) return NB_MALFORMED;
        NB_TRY(nb_unify(im, a.k->type->dims[2], a.v->type->dims[2]));
    }
    NB_TRY(nb_ms_bias(im, a.q, a.k, 4, 5, &bias));
    NB_TRY(nb_node_output(im, 0, nb_ms_attend(im, a.q, a.k, a.v, bias)));
    NB_TRY(nb_node_output(im, 1, a.k));
    return nb_node_output(im, 2, a.v);
}
