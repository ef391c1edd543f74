/* TfIdfVectorizer: how often each n-gram of a pool occurs in a row of tokens, with none to so many
 * tokens between its own. For each length of n-grams and each distance all places of a row are
 * compared with all n-grams of that length, and counted. */
#include "frontend/import.h"

#include <string.h>

typedef struct ngrams {
    nb_value *x;                  /* i64[B,T] */
    const int64_t *pool, *counts; /* tokens; where the n-grams of each length begin in them */
    const int64_t *indexes;       /* columns of the result, one for each n-gram */
    size_t n_pool, n_counts, n_indexes;
    int64_t least, most, skips; /* lengths; tokens between */
    int64_t columns;
    bool frequency, weighted; /* of counts: themselves, not whether there are any; times weights */
} ngrams;

static nb_status read_ngrams(nb_importer *im, ngrams *p) {
    const char *mode = nb_node_string(im, "mode", "");
    p->pool = nb_node_ints(im, "pool_int64s", &p->n_pool);
    p->counts = nb_node_ints(im, "ngram_counts", &p->n_counts);
    p->indexes = nb_node_ints(im, "ngram_indexes", &p->n_indexes);
    p->least = nb_node_int(im, "min_gram_length", 1);
    p->most = nb_node_int(im, "max_gram_length", 1);
    p->skips = nb_node_int(im, "max_skip_count", 0);
    p->frequency = strcmp(mode, "IDF") != 0;
    p->weighted = strcmp(mode, "TF") != 0 && nb_node_attr(im, "weights");
    if (strcmp(mode, "TF") != 0 && p->frequency && strcmp(mode, "TFIDF") != 0)
        return nb_node_error(im, NB_MALFORMED, "mode is '%s', expected TF, IDF or TFIDF", mode);
    if (nb_node_attr(im, "pool_strings"))
        return nb_node_error(im, NB_UNSUPPORTED, "n-grams of strings");
    if (p->least < 1 || p->most < p->least || p->skips < 0 || p->skips > 1024)
        return nb_node_error(im, NB_MALFORMED,
                             "n-grams of %lld to %lld tokens with up to %lld between",
                             (long long)p->least, (long long)p->most, (long long)p->skips);
    /* Those of length k + 1 lie from counts[k] to the next. */
    int64_t from = 0, n = 0;
    for (size_t k = 0; k < p->n_counts; k++) {
        const int64_t to = k + 1 < p->n_counts ? p->counts[k + 1] : (int64_t)p->n_pool;
        from = p->counts[k];
        if (from < 0 || to < from || to > (int64_t)p->n_pool || (to - from) % ((int64_t)k + 1))
            return nb_node_error(im, NB_MALFORMED, "%zu-grams lie from %lld to %lld of %zu tokens",
                                 k + 1, (long long)from, (long long)to, p->n_pool);
        n += (to - from) / ((int64_t)k + 1);
    }
    if (n != (int64_t)p->n_indexes || n == 0)
        return nb_node_error(im, NB_MALFORMED, "%zu indexes of %lld n-grams", p->n_indexes,
                             (long long)n);
    for (size_t i = 0; i < p->n_indexes; i++) {
        if (p->indexes[i] < 0 || p->indexes[i] > INT32_MAX)
            return nb_node_error(im, NB_MALFORMED, "ngram_indexes[%zu] is %lld", i,
                                 (long long)p->indexes[i]);
        if (p->indexes[i] >= p->columns) p->columns = p->indexes[i] + 1;
    }
    const Onnx__AttributeProto *weights = nb_node_attr(im, "weights");
    if (weights && weights->n_floats != p->n_indexes)
        return nb_node_error(im, NB_MALFORMED, "%zu weights of %zu n-grams", weights->n_floats,
                             p->n_indexes);
    return NB_OK;
}

/* f32[m,B]: how often each of the m n-grams of length n from pool[from] on occurs, with `distance`
 * from token to token. */
static nb_value *occurrences(nb_importer *im, const ngrams *p, int64_t from, int64_t m, int64_t n,
                             int64_t distance) {
    nb_graph *g = im->g;
    const nb_dim *one = nb_num(im, 1), *length = p->x->type->dims[1];
    const nb_dim *places =
        nb_dim_max(g, nb_dim_sub(g, length, nb_num(im, distance * (n - 1))), nb_num(im, 0));
    const nb_dim *rows[] = {one, p->x->type->dims[0], places};
    nb_value *is = NULL;
    if (nb_dim_is(places, 0)) return NULL;
    for (int64_t k = 0; k < n; k++) {
        int64_t *tokens = NB_NEW_ARRAY(im->arena, int64_t, (size_t)m);
        for (int64_t i = 0; i < m; i++) tokens[i] = p->pool[from + i * n + k];
        nb_value *own = nb_along(im, nb_numbers(im, (size_t)m, tokens), 3, 0);
        /* Of a row too short there are no places, wherever they begin. */
        const nb_dim *start = nb_dim_min(g, nb_num(im, k * distance), length);
        nb_value *x = nb_slice_axis(im, p->x, 1, start, places, 1);
        nb_value *same = nb_combine(im, NB_OP_eq, own, nb_reshape(&im->b, x, 3, rows));
        is = is ? nb_combine(im, NB_OP_and, is, same) : same;
    }
    const int64_t last = 2;
    return is ? nb_reduce(im, NB_OP_reduce_sum, nb_cast(&im->b, is, NB_F32), 1, &last, false)
              : NULL;
}

/* f32[n-grams,B]: of all lengths, in the order of the pool. */
static nb_value *counted(nb_importer *im, const ngrams *p) {
    nb_value *all = NULL;
    for (size_t k = 0; k < p->n_counts; k++) {
        const int64_t n = (int64_t)k + 1, from = p->counts[k];
        const int64_t to = k + 1 < p->n_counts ? p->counts[k + 1] : (int64_t)p->n_pool;
        const int64_t m = (to - from) / n;
        if (m == 0) continue;
        const nb_dim *dims[] = {nb_num(im, m), p->x->type->dims[0]};
        nb_value *sum = nb_expand_to(im, nb_scalar(im, NB_F32, 0), 2, dims);
        /* A single token has no distance to others. */
        const int64_t most = n == 1 ? 1 : p->skips + 1;
        for (int64_t distance = 1; distance <= most && n >= p->least && n <= p->most; distance++) {
            nb_value *part = occurrences(im, p, from, m, n, distance);
            sum = part ? nb_combine(im, NB_OP_add, sum, part) : sum;
        }
        all = all ? nb_join(im, all, sum, 0) : sum;
    }
    return all;
}

nb_status nb_import_tf_idf_vectorizer(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0);
    ngrams p = {0};
    if (!x) return NB_MALFORMED;
    const int rank = x->type->rank;
    if (rank < 1 || rank > 2 || !nb_elem_is_integer(x->type->elem))
        return nb_node_error(im, NB_MALFORMED, "takes integers of rank 1 or 2, found %s",
                             nb_type_text(im->arena, x->type));
    NB_TRY(read_ngrams(im, &p));
    const nb_dim *rows[] = {rank == 2 ? x->type->dims[0] : nb_num(im, 1), x->type->dims[rank - 1]};
    p.x = nb_as(im, nb_reshape(&im->b, x, 2, rows), NB_I64);
    if (!p.x) return NB_MALFORMED;
    nb_value *y = counted(im, &p), *zero = nb_scalar(im, NB_F32, 0);
    if (y && !p.frequency) y = nb_as(im, nb_combine(im, NB_OP_lt, zero, y), NB_F32);
    if (y && p.weighted) {
        const Onnx__AttributeProto *weights = nb_node_attr(im, "weights");
        const int64_t n = (int64_t)p.n_indexes;
        nb_value *w = nb_const_f32(im->g, "weights", 1, &n, weights->floats);
        y = nb_combine(im, NB_OP_mul, y, nb_along(im, w, 2, 0));
    }
    y = nb_put_rows(im, NB_OP_scatter_add, nb_num(im, p.columns),
                    nb_numbers(im, p.n_indexes, p.indexes), y);
    y = nb_swap_axes(im, y, 0, 1);
    const nb_dim *flat[] = {nb_num(im, p.columns)};
    return nb_node_output(im, 0, rank == 1 ? nb_reshape(&im->b, y, 1, flat) : y);
}
