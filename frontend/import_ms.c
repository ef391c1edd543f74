/* com.microsoft RotaryEmbedding and GroupQueryAttention, as onnxruntime computes them. */
#include "frontend/quant.h"

#include <math.h>
#include <string.h>

nb_value *nb_split_heads(nb_importer *im, nb_value *x, int64_t heads, int64_t size) {
    if (!x) return NULL;
    const nb_type *t = x->type;
    if (t->rank != 3 || nb_unify(im, t->dims[2], nb_num(im, heads * size)) != NB_OK) return NULL;
    nb_value *y = nb_reshape(&im->b, x, 4,
                             (const nb_dim *[]){x->type->dims[0], x->type->dims[1],
                                                nb_num(im, heads), nb_num(im, size)});
    return nb_swap_axes(im, y, 1, 2);
}

nb_value *nb_join_heads(nb_importer *im, nb_value *x) {
    nb_value *y = nb_swap_axes(im, x, 1, 2);
    if (!y) return NULL;
    const nb_type *t = y->type;
    return nb_reshape(
        &im->b, y, 3,
        (const nb_dim *[]){t->dims[0], t->dims[1], nb_dim_mul(im->g, t->dims[2], t->dims[3])});
}

nb_value *nb_as(nb_importer *im, nb_value *x, nb_elem elem) {
    return x && x->type->elem != elem ? nb_cast(&im->b, x, elem) : x;
}

nb_value *nb_rotate(nb_importer *im, nb_value *x, nb_value *cosine, nb_value *sine,
                    bool interleaved) {
    if (!x || !cosine || !sine) return NULL;
    const nb_elem elem = x->type->elem;
    const nb_dim *size = x->type->dims[3], *half = cosine->type->dims[cosine->type->rank - 1],
                 *turned = nb_dim_add(im->g, half, half);
    const bool partly = nb_dim_is_const(size) && nb_dim_is_const(turned) &&
                        turned->value < size->value && turned->value > 0;
    nb_value *head = partly ? nb_slice_axis(im, x, 3, nb_num(im, 0), turned, 1) : x;
    nb_value *c = nb_as(im, cosine, NB_F32), *s = nb_as(im, sine, NB_F32),
             *wide = nb_as(im, head, NB_F32);
    nb_begin(&im->b, NB_OP_rotary);
    nb_arg(&im->b, wide);
    nb_arg(&im->b, c);
    nb_arg(&im->b, s);
    nb_set_bool(&im->b, "interleaved", interleaved);
    nb_value *y = nb_as(im, nb_end(&im->b), elem);
    if (!partly) return y;
    return nb_join(im, y, nb_slice_axis(im, x, 3, turned, nb_dim_sub(im->g, size, turned), 1), 3);
}

/* x[B,S,N*D] as [B,N,S,D]: heads are as large as the tables say, or there are num_heads of them, of
 * which only the first elements are rotated. */
static nb_value *heads_to_rotate(nb_importer *im, nb_value *x, int64_t turned) {
    const nb_dim *width = x->type->dims[2];
    const int64_t given = nb_node_int(im, "num_heads", 0),
                  part = nb_node_int(im, "rotary_embedding_dim", 0);
    if (!nb_dim_is_const(width) || turned == 0 || given < 0 ||
        (part && (part != turned || !given)) || width->value % (part ? given : turned)) {
        nb_node_error(im, NB_MALFORMED,
                      "%s elements are no heads of which %lld elements are rotated",
                      nb_dim_text(im->arena, width), (long long)turned);
        return NULL;
    }
    const int64_t heads = part ? given : width->value / turned;
    if (given && given != heads) {
        nb_node_error(im, NB_MALFORMED, "num_heads is %lld, the tables give %lld", (long long)given,
                      (long long)heads);
        return NULL;
    }
    return nb_split_heads(im, x, heads, width->value / heads);
}

nb_status nb_import_ms_rotary(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *position = nb_node_input(im, 1),
             *cosine = nb_node_input(im, 2), *sine = nb_node_input(im, 3);
    if (!x || !position || !cosine || !sine) return NB_MALFORMED;
    if (nb_node_float(im, "scale", 1) != 1.0f || nb_node_int(im, "is_packed_batching", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "scale and packed batches are not supported");
    if (cosine->type->rank != 2 || !nb_dim_is_const(cosine->type->dims[1]))
        return nb_node_error(im, NB_MALFORMED, "the table of cosines is not a matrix");
    const bool flat = x->type->rank == 3;
    if (flat) {
        x = heads_to_rotate(im, x, 2 * cosine->type->dims[1]->value);
        if (!x) return NB_MALFORMED;
    }
    if (x->type->rank != 4) return nb_node_error(im, NB_MALFORMED, "expected rank 3 or 4");
    if (position->type->rank == 1) { /* the offset of the first row */
        nb_value *steps = nb_count_up(im, nb_num(im, 0), x->type->dims[2]);
        position = nb_combine(
            im, NB_OP_add,
            nb_reshape(&im->b, position, 2, (const nb_dim *[]){nb_num(im, 1), nb_num(im, 1)}),
            steps);
    } else {
        if (position->type->rank != 2)
            return nb_node_error(im, NB_MALFORMED, "positions have rank %d, expected 1 or 2",
                                 position->type->rank);
        NB_TRY(nb_unify(im, position->type->dims[0], x->type->dims[0]));
        NB_TRY(nb_unify(im, position->type->dims[1], x->type->dims[2]));
    }
    nb_value *y = nb_rotate(im, x, nb_take(im, cosine, position, 0), nb_take(im, sine, position, 0),
                            nb_node_int(im, "interleaved", 0) != 0);
    return nb_node_output(im, 0, flat ? nb_join_heads(im, y) : y);
}

/* ---- GroupQueryAttention -------------------------------------------------------------------- */

typedef struct gqa {
    int64_t heads, groups, size;
    nb_value *q, *k, *v;       /* [B,H,S,D], [B,G,S,D] */
    nb_value *past_k, *past_v; /* [B,G,P,D] */
    nb_value *length;          /* i64[B,1]: valid keys of each row, new ones included */
    nb_value *before;          /* i64[B,1]: valid keys of the cache */
    const nb_dim *past;        /* P */
    nb_cache keys, values;
} gqa;

static nb_status check_attributes(nb_importer *im) {
    if (nb_node_int(im, "smooth_softmax", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "smooth_softmax is not supported");
    if (nb_node_int(im, "qk_output", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "scores as an output are not supported");
    if (im->node->n_output > 3 && *im->node->output[3])
        return nb_node_error(im, NB_UNSUPPORTED, "output 3 is not supported");
    return nb_has_input(im, 11) ? nb_node_error(im, NB_UNSUPPORTED, "head_sink is not supported")
                                : NB_OK;
}

static nb_status read_heads(nb_importer *im, gqa *a) {
    nb_value *q = nb_node_input(im, 0);
    a->heads = nb_node_int(im, "num_heads", 0);
    a->groups = nb_node_int(im, "kv_num_heads", 0);
    if (!q || q->type->rank != 3 || !nb_dim_is_const(q->type->dims[2]))
        return nb_node_error(im, NB_MALFORMED, "expected a query of rank 3 and known width");
    if (a->heads <= 0 || a->groups <= 0 || a->heads > 65536 || a->heads % a->groups)
        return nb_node_error(im, NB_MALFORMED, "%lld heads and %lld groups", (long long)a->heads,
                             (long long)a->groups);
    bool packed = !nb_has_input(im, 1);
    int64_t width = q->type->dims[2]->value, all = packed ? a->heads + 2 * a->groups : a->heads;
    a->size = width / all;
    if (a->size * all != width || a->size == 0)
        return nb_node_error(im, NB_MALFORMED, "width %lld is not a multiple of %lld heads",
                             (long long)width, (long long)all);
    nb_value *k, *v;
    if (packed) {
        const nb_dim *qw = nb_num(im, a->heads * a->size), *kw = nb_num(im, a->groups * a->size),
                     *zero = nb_num(im, 0);
        k = nb_slice_axis(im, q, 2, qw, kw, 1);
        v = nb_slice_axis(im, q, 2, nb_dim_add(im->g, qw, kw), kw, 1);
        q = nb_slice_axis(im, q, 2, zero, qw, 1);
    } else {
        k = nb_node_input(im, 1);
        v = nb_node_input(im, 2);
    }
    a->q = nb_split_heads(im, q, a->heads, a->size);
    a->k = nb_split_heads(im, k, a->groups, a->size);
    a->v = nb_split_heads(im, v, a->groups, a->size);
    return a->q && a->k && a->v
               ? NB_OK
               : nb_node_error(im, NB_MALFORMED,
                               "query, key and value do not have the shapes of their heads");
}

/* Lengths: seqlens_k holds each row's number of valid keys minus 1. */
static nb_status read_lengths(nb_importer *im, gqa *a) {
    nb_value *seqlens = nb_node_input(im, 5);
    if (!seqlens) return NB_MALFORMED;
    const nb_dim *batch = a->q->type->dims[0], *one = nb_num(im, 1);
    NB_TRY(nb_unify(im, nb_type_count(im->g, seqlens->type), batch));
    nb_value *valid = nb_reshape(&im->b, nb_cast(&im->b, seqlens, NB_I64), 2,
                                 (const nb_dim *[]){a->q->type->dims[0], one});
    a->length = nb_combine(im, NB_OP_add, valid, nb_scalar(im, NB_I64, 1));
    const nb_dim *new = a->q->type->dims[2];
    nb_begin(&im->b, NB_OP_dims);
    nb_set_dims(&im->b, "values", 1, &new);
    nb_value *count = nb_end(&im->b);
    /* A prompt's cache is empty, also for rows shorter than the prompt. */
    a->before = nb_combine(im, NB_OP_max, nb_combine(im, NB_OP_sub, a->length, count),
                           nb_scalar(im, NB_I64, 0));
    if (nb_has_input(im, 6)) {
        size_t n;
        const nb_dim *const *total = nb_symbolic(im->g, nb_node_input(im, 6), &n);
        if (total && n == 1)
            NB_TRY(nb_unify(im, total[0], nb_dim_add(im->g, a->past, a->q->type->dims[2])));
    }
    return a->before ? NB_OK : NB_MALFORMED;
}

/* bool[B,1,S,T]: is key t one of the `window` last that row s may see, its own included? */
static nb_value *near(nb_importer *im, const gqa *a, nb_value *row, nb_value *key, nb_value *fresh,
                      nb_value *is_new, int64_t window) {
    nb_value *at = nb_choose(im, is_new, nb_combine(im, NB_OP_add, fresh, a->before), key),
             *rows = nb_combine(im, NB_OP_sub, nb_combine(im, NB_OP_add, row, a->before),
                                nb_scalar(im, NB_I64, (double)window));
    if (!at || !rows) return NULL;
    const nb_dim *one = nb_num(im, 1), *const *k = at->type->dims, *const *r = rows->type->dims;
    return nb_combine(im, NB_OP_lt,
                      nb_reshape(&im->b, rows, 4, (const nb_dim *[]){r[0], one, r[1], one}),
                      nb_reshape(&im->b, at, 4, (const nb_dim *[]){k[0], one, one, k[1]}));
}

/* f32[B,1,S,T]: 0 where row s may see key t. */
static nb_value *mask(nb_importer *im, const gqa *a) {
    nb_graph *g = im->g;
    const nb_dim *new = a->q->type->dims[2], *total = nb_dim_add(g, a->past, new),
                 *one = nb_num(im, 1), *zero = nb_num(im, 0);
    const nb_dim *b = a->q->type->dims[0];
    nb_value *row =
        nb_reshape(&im->b, nb_count_up(im, zero, new), 2, (const nb_dim *[]){new, one}); /* s */
    nb_value *key = nb_count_up(im, zero, total);                                        /* t */
    nb_value *fresh = nb_count_up(im, nb_dim_sub(g, zero, a->past), total);              /* t - P */
    nb_value *causal = nb_combine(im, NB_OP_le, fresh, row);                             /* [S,T] */
    nb_value *cached = nb_combine(im, NB_OP_lt, key, a->before);                         /* [B,T] */
    nb_value *is_new = nb_combine(im, NB_OP_le, nb_scalar(im, NB_I64, 0), fresh);
    nb_value *in_row =
        nb_combine(im, NB_OP_lt, fresh, nb_combine(im, NB_OP_sub, a->length, a->before));
    nb_value *valid = nb_combine(im, NB_OP_or, cached, nb_combine(im, NB_OP_and, is_new, in_row));
    if (!valid || !causal) return NULL;
    valid = nb_reshape(&im->b, valid, 4, (const nb_dim *[]){b, one, one, total});
    nb_value *keep = nb_combine(im, NB_OP_and, valid, causal);
    const int64_t window = nb_node_int(im, "local_window_size", -1);
    if (window > 0 && keep)
        keep = nb_combine(im, NB_OP_and, keep,
                          near(im, a, nb_count_up(im, zero, new), key, fresh, is_new, window));
    return keep ? nb_choose(im, keep, nb_scalar(im, NB_F32, 0),
                            nb_scalar(im, NB_F32, -3.4028234663852886e38))
                : NULL;
}

/* Places of the new rows: given, or behind those of the cache. */
static nb_value *positions(nb_importer *im, const gqa *a) {
    if (nb_has_input(im, 9)) {
        nb_value *at = nb_node_input(im, 9);
        return at && at->type->rank == 2 &&
                       nb_unify(im, at->type->dims[1], a->q->type->dims[2]) == NB_OK
                   ? at
                   : NULL;
    }
    return nb_combine(im, NB_OP_add, a->before,
                      nb_count_up(im, nb_num(im, 0), a->q->type->dims[2]));
}

/* Codes where there are scales, floats elsewhere. */
static nb_status check_cache(nb_importer *im, const nb_cache *c, const nb_value *past) {
    if (c->scale ? past->type->elem == NB_I8 : nb_elem_is_float(past->type->elem)) return NB_OK;
    return nb_node_error(im, NB_MALFORMED, "the cache is %s, expected %s",
                         nb_type_text(im->arena, past->type), c->scale ? "i8" : "floats");
}

static float scale_of(nb_importer *im, const gqa *a) {
    const float scale = nb_node_float(im, "scale", 0);
    return scale != 0.0f ? scale : 1.0f / sqrtf((float)a->size);
}

static nb_value *attend(nb_importer *im, const gqa *a, nb_value *k, nb_value *v, nb_value *bias) {
    const nb_attending with = {.q = a->q,
                               .k = k,
                               .v = v,
                               .bias = bias,
                               .scale = scale_of(im, a),
                               .softcap = nb_node_float(im, "softcap", 0)};
    return bias ? nb_attend(im, &with) : NULL;
}

/* Caches of codes keep them. */
static nb_value *attend_codes(nb_importer *im, const gqa *a, nb_value *k, nb_value *v,
                              nb_value *bias) {
    if (nb_node_float(im, "softcap", 0) != 0.0f) {
        nb_node_error(im, NB_UNSUPPORTED, "softcap is not supported with a cache of codes");
        return NULL;
    }
    const nb_elem elem = a->q ? a->q->type->elem : NB_F32;
    nb_value *qf = nb_cache_scaled(im, &a->keys, nb_as(im, a->q, NB_F32), a->heads);
    nb_value *kf = a->keys.scale ? k : nb_as(im, k, NB_F32),
             *vf = a->values.scale ? v : nb_as(im, v, NB_F32);
    nb_value *k_scales = nb_cache_scales(im, &a->keys, k),
             *v_scales = nb_cache_scales(im, &a->values, v);
    nb_begin(&im->b, NB_OP_attention);
    nb_arg(&im->b, qf);
    nb_arg(&im->b, kf);
    nb_arg(&im->b, vf);
    nb_arg(&im->b, bias);
    nb_arg(&im->b, k_scales);
    nb_arg(&im->b, v_scales);
    nb_set_float(&im->b, "scale", scale_of(im, a));
    nb_value *y = bias ? nb_end(&im->b) : NULL;
    return nb_as(im, nb_cache_scaled(im, &a->values, y, a->heads), elem);
}

nb_status nb_import_gqa(nb_importer *im) {
    gqa a = {0};
    NB_TRY(check_attributes(im));
    NB_TRY(read_heads(im, &a));
    NB_TRY(nb_read_cache(im, "k_quant_type", 12, a.groups, a.size, &a.keys));
    NB_TRY(nb_read_cache(im, "v_quant_type", 13, a.groups, a.size, &a.values));
    if (nb_has_input(im, 3)) {
        a.past_k = nb_node_input(im, 3);
        a.past_v = nb_node_input(im, 4);
        if (!a.past_k || !a.past_v || a.past_k->type->rank != 4 || a.past_v->type->rank != 4)
            return nb_node_error(im, NB_MALFORMED, "the caches are not of rank 4");
        NB_TRY(check_cache(im, &a.keys, a.past_k));
        NB_TRY(check_cache(im, &a.values, a.past_v));
        NB_TRY(nb_unify(im, a.past_k->type->dims[2], a.past_v->type->dims[2]));
    }
    a.past = a.past_k ? a.past_k->type->dims[2] : nb_num(im, 0);
    NB_TRY(read_lengths(im, &a));
    a.past = a.past_k ? a.past_k->type->dims[2] : nb_num(im, 0);
    if (nb_node_int(im, "do_rotary", 0)) {
        nb_value *cosine = nb_node_input(im, 7), *sine = nb_node_input(im, 8),
                 *at = positions(im, &a);
        if (!cosine || !sine || !at) return NB_MALFORMED;
        bool interleaved = nb_node_int(im, "rotary_interleaved", 0) != 0;
        nb_value *c = nb_take(im, cosine, at, 0), *s = nb_take(im, sine, at, 0);
        a.q = nb_rotate(im, a.q, c, s, interleaved);
        a.k = nb_rotate(im, a.k, c, s, interleaved);
    }
    a.k = nb_cache_codes(im, &a.keys, a.k);
    a.v = nb_cache_codes(im, &a.values, a.v);
    nb_value *k = a.past_k ? nb_join(im, a.past_k, a.k, 2) : a.k,
             *v = a.past_v ? nb_join(im, a.past_v, a.v, 2) : a.v;
    nb_value *bias = mask(im, &a);
    if (nb_has_input(im, 10)) bias = nb_combine(im, NB_OP_add, bias, nb_node_input(im, 10));
    const bool codes = a.keys.scale || a.values.scale;
    nb_value *y = codes ? attend_codes(im, &a, k, v, bias) : attend(im, &a, k, v, bias);
    NB_TRY(nb_node_output(im, 0, nb_join_heads(im, y)));
    NB_TRY(nb_node_output(im, 1, k));
    return nb_node_output(im, 2, v);
}
