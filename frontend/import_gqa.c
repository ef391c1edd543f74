/* GroupQueryAttention of com.microsoft, as onnxruntime computes it: a decoder's attention with its
 * cache, rotation and causal mask. */
#include "frontend/quant.h"

#include <math.h>

typedef struct gqa {
    int64_t heads, groups, size;
    nb_value *q, *k, *v;       /* [B,H,S,D], [B,G,S,D] */
    nb_value *past_k, *past_v; /* [B,G,P,D] */
    nb_value *length;          /* i64[B,1]: valid keys of each row, new ones included */
    nb_value *before;          /* i64[B,1]: valid keys of the cache */
    const nb_dim *past;        /* P */
    nb_cache keys, values;
    nb_value *sinks; /* f32[H]: a score of nothing, for each head; NULL: none */
    float scale, softcap;
} gqa;

static nb_status check_attributes(nb_importer *im) {
    if (nb_node_int(im, "qk_output", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "scores as an output are not supported");
    if (im->node->n_output > 3 && *im->node->output[3])
        return nb_node_error(im, NB_UNSUPPORTED, "output 3 is not supported");
    return NB_OK;
}

/* What is done to the scores. */
static nb_status read_scores(nb_importer *im, gqa *a) {
    const float scale = nb_node_float(im, "scale", 0);
    a->scale = scale != 0 ? scale : 1 / sqrtf((float)a->size);
    a->softcap = nb_node_float(im, "softcap", 0);
    if (nb_has_input(im, 11)) {
        a->sinks = nb_as(im, nb_node_input(im, 11), NB_F32);
        if (!a->sinks || a->sinks->type->rank != 1)
            return nb_node_error(im, NB_MALFORMED, "the sinks are not a vector");
        NB_TRY(nb_unify(im, a->sinks->type->dims[0], nb_num(im, a->heads)));
    } else if (nb_node_int(im, "smooth_softmax", 0) > 0) {
        const nb_dim *heads = nb_num(im, a->heads);
        a->sinks = nb_expand_to(im, nb_scalar(im, NB_F32, 0), 1, &heads);
    }
    if ((a->softcap == 0 && !a->sinks) || (!a->keys.scale && !a->values.scale)) return NB_OK;
    return nb_node_error(im, NB_UNSUPPORTED, "softcap and sinks with a cache of codes");
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

/* bool[B,S,T]: is key t among the last `window` up to row s? */
static nb_value *in_window(nb_importer *im, const gqa *a, nb_value *row, nb_value *key,
                           nb_value *fresh, int64_t window) {
    nb_value *first = nb_plus(im, row, (double)(1 - window)); /* [S,1], behind the cache */
    nb_value *before = nb_along(im, nb_reshape(&im->b, a->before, 1, &a->q->type->dims[0]), 3, 0);
    nb_value *is_new = nb_combine(im, NB_OP_le, nb_scalar(im, NB_I64, 0), fresh);
    nb_value *of_cache = nb_combine(im, NB_OP_le, nb_combine(im, NB_OP_add, first, before), key);
    nb_value *of_new = nb_combine(im, NB_OP_le, first, fresh);
    return of_cache && of_new && is_new ? nb_choose(im, is_new, of_new, of_cache) : NULL;
}

/* f32[B,1,S,T], or [B,H,S,T] with a bias: 0 where row s may see key t. */
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
    if (window > 0 && keep) {
        nb_value *near = in_window(im, a, row, key, fresh, window);
        const nb_dim *wide[] = {b, one, new, total};
        keep = near ? nb_combine(im, NB_OP_and, keep, nb_reshape(&im->b, near, 4, wide)) : NULL;
    }
    keep = keep ? nb_choose(im, keep, nb_scalar(im, NB_F32, 0),
                            nb_scalar(im, NB_F32, -3.4028234663852886e38))
                : NULL;
    return keep ? nb_ms_add_bias(im, 10, a->q, total, keep) : NULL;
}

/* A cache of codes keeps them. */
static nb_value *attend_codes(nb_importer *im, const gqa *a, nb_value *k, nb_value *v,
                              nb_value *bias) {
    nb_value *q = nb_cache_scaled(im, &a->keys, nb_as(im, a->q, NB_F32), a->heads);
    k = a->keys.scale ? k : nb_as(im, k, NB_F32);
    v = a->values.scale ? v : nb_as(im, v, NB_F32);
    nb_value *k_scales = nb_cache_scales(im, &a->keys, k),
             *v_scales = nb_cache_scales(im, &a->values, v);
    nb_begin(&im->b, NB_OP_attention);
    nb_arg(&im->b, q);
    nb_arg(&im->b, k);
    nb_arg(&im->b, v);
    nb_arg(&im->b, bias);
    nb_arg(&im->b, k_scales);
    nb_arg(&im->b, v_scales);
    nb_set_float(&im->b, "scale", a->scale);
    return nb_as(im, nb_cache_scaled(im, &a->values, nb_end(&im->b), a->heads), a->q->type->elem);
}

static nb_value *attend(nb_importer *im, const gqa *a, nb_value *k, nb_value *v, nb_value *bias) {
    if (!a->q || !k || !v || !bias) return NULL;
    if (a->keys.scale || a->values.scale) return attend_codes(im, a, k, v, bias);
    return nb_attend(im, &(nb_attending){.q = a->q,
                                         .k = k,
                                         .v = v,
                                         .bias = bias,
                                         .sinks = a->sinks,
                                         .scale = a->scale,
                                         .softcap = a->softcap});
}

static nb_value *positions(nb_importer *im, const gqa *a) {
    if (nb_has_input(im, 9)) {
        nb_value *given = nb_node_input(im, 9);
        if (given && given->type->rank == 2 &&
            nb_unify(im, given->type->dims[1], a->q->type->dims[2]) == NB_OK)
            return given;
        nb_node_error(im, NB_MALFORMED, "the positions are not of rank 2");
        return NULL;
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

nb_status nb_import_gqa(nb_importer *im) {
    gqa a = {0};
    NB_TRY(check_attributes(im));
    NB_TRY(read_heads(im, &a));
    NB_TRY(nb_read_cache(im, "k_quant_type", 12, a.groups, a.size, &a.keys));
    NB_TRY(nb_read_cache(im, "v_quant_type", 13, a.groups, a.size, &a.values));
    NB_TRY(read_scores(im, &a));
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
    nb_value *y = attend(im, &a, k, v, bias);
    NB_TRY(nb_node_output(im, 0, nb_join_heads(im, y)));
    NB_TRY(nb_node_output(im, 1, k));
    return nb_node_output(im, 2, v);
}
