/* MoE and QMoE of com.microsoft: each token (row) goes to the k experts that a router scores best,
 * and gets the sum of what they make of it, each times its share.
 *
 *   order = the T*k choices of all tokens, sorted by expert
 *   for each expert e, in turn:
 *     rows = x[tokens of e]                      as many as chose it: a counted size, 0 included
 *     y    = act(rows W1 + b1) [* (rows W3 + b3)] W2 + b2
 *     out[tokens of e] += y * share
 *
 * So no expert multiplies a row that did not choose it, nor reads its weights when nobody did, and
 * a token's sum is in the order of experts, whatever other tokens there are. */
#include "frontend/quant.h"

#include <math.h>
#include <string.h>

/* Each becomes some twenty operations. */
#define MOST_EXPERTS 1024

/* The matrices [experts, rows, inputs] of one of the layers, and their biases [experts, rows]. */
typedef struct matrix {
    size_t at; /* operand */
    const nb_value *w;
    nb_blocks blocks; /* of QMoE */
    nb_value *bias;   /* or NULL */
    int64_t rows, inputs;
} matrix;

typedef struct moe {
    nb_importer *im;
    bool packed;                             /* QMoE */
    int64_t experts, k, hidden, inner, bits; /* bits: of QMoE's weights, else 8 */
    bool gated;       /* a second product multiplies the activation of the first */
    int64_t gate, up; /* rows of the first matrix that they begin at, when it has both */
    int64_t step;     /* from one to the next */
    const char *activation;
    double alpha, beta, limit;
    matrix layer[3];
    nb_value *x;               /* f32[T,hidden] */
    nb_value *tokens;          /* i64[T*k], sorted by expert */
    nb_value *shares;          /* f32[T*k,1], the same */
    nb_value *counts, *starts; /* i64[experts]: of those of an expert */
} moe;

/* ---- what the node says ---------------------------------------------------------------------- */

static nb_status expect(nb_importer *im, const nb_value *v, const char *what, int rank,
                        const int64_t *dims) {
    bool fits = v->type->rank == rank;
    for (int d = 0; fits && d < rank; d++) fits = nb_dim_is(v->type->dims[d], dims[d]);
    if (fits) return NB_OK;
    const char *text = "";
    for (int d = 0; d < rank; d++)
        text = nb_format(im->arena, "%s%s%lld", text, d ? "," : "", (long long)dims[d]);
    return nb_node_error(im, NB_MALFORMED, "%s are %s, expected [%s]", what,
                         nb_type_text(im->arena, v->type), text);
}

/* Codes of the experts' matrices in bytes, their scales and zero points. */
static nb_status read_codes(moe *m, matrix *l, size_t scales, size_t zeros) {
    nb_importer *im = m->im;
    const int64_t bits = m->bits, block = nb_node_int(im, "block_size", 0),
                  rows = m->experts * l->rows;
    if (block && (block < 16 || block > INT32_MAX || (block & (block - 1)) != 0)) {
        nb_node_error(im, NB_MALFORMED, "block_size is %lld", (long long)block);
        nb_help(im->diags, "blocks have a power of two of at least 16 codes, or a whole row (0)");
        return NB_MALFORMED;
    }
    if (l->w->type->elem != NB_U8 || l->rows < 1 || l->inputs < 1 || l->inputs * bits % 8)
        return nb_node_error(im, NB_MALFORMED, "rows of %lld codes of %lld bits in %s",
                             (long long)l->inputs, (long long)bits,
                             nb_type_text(im->arena, l->w->type));
    l->blocks = (nb_blocks){.K = l->inputs,
                            .block = block ? block : l->inputs,
                            .count = block ? nb_ceildiv(l->inputs, block) : 1,
                            .row = l->inputs,
                            .bits = (int)bits,
                            .by_row = block == 0,
                            .storage = nb_elem_integer((int)bits, false),
                            .codes = l->w->blob->data};
    NB_TRY(nb_block_scales(im, scales, rows * l->blocks.count, &l->blocks.scales));
    return nb_block_zeros(im, zeros, rows, &l->blocks);
}

/* Layer `i`, whose matrices must have these rows and inputs. */
static nb_status read_layer(moe *m, int i, int64_t rows, int64_t inputs) {
    static const char *const names[] = {"the first matrices", "the second matrices",
                                        "the third matrices"};
    nb_importer *im = m->im;
    matrix *l = &m->layer[i];
    const size_t bias = l->at + (m->packed ? 2 : 1);
    l->w = nb_constant_input(im, l->at, names[i]);
    if (!l->w) return NB_MALFORMED;
    l->rows = rows;
    l->inputs = inputs;
    NB_TRY(
        expect(im, l->w, names[i], 3, (const int64_t[]){m->experts, rows, inputs * m->bits / 8}));
    if (nb_has_input(im, bias)) {
        l->bias = nb_node_input(im, bias);
        if (!l->bias) return NB_MALFORMED;
        NB_TRY(expect(im, l->bias, "biases", 2, (const int64_t[]){m->experts, rows}));
        l->bias = nb_as(im, l->bias, NB_F32);
    }
    if (m->packed) return read_codes(m, l, l->at + 1, 11 + (size_t)i);
    return nb_elem_is_float(l->w->type->elem)
               ? NB_OK
               : nb_node_error(im, NB_MALFORMED, "%s are %s, expected floats", names[i],
                               nb_type_text(im->arena, l->w->type));
}

/* swiglu in one matrix has its two halves in turn (1) or one behind the other (2). */
static nb_status read_activation(moe *m) {
    static const char *const known[] = {"relu", "gelu", "silu", "identity", "swiglu"};
    nb_importer *im = m->im;
    const int64_t fusion = nb_node_int(im, "swiglu_fusion", 0);
    const bool third = nb_has_input(im, m->layer[2].at);
    size_t i = 0;
    m->activation = nb_node_string(im, "activation_type", "relu");
    while (i < NB_COUNT(known) && strcmp(known[i], m->activation) != 0) i++;
    if (i == NB_COUNT(known))
        return nb_node_error(im, NB_UNSUPPORTED, "activation '%s' is not supported", m->activation);
    const bool swiglu = i == NB_COUNT(known) - 1;
    if (fusion < 0 || fusion > 2 || (fusion && (!swiglu || third)) || (swiglu && !fusion && !third))
        return nb_node_error(im, NB_MALFORMED,
                             "activation %s with swiglu_fusion=%lld and %sthird matrices",
                             m->activation, (long long)fusion, third ? "" : "no ");
    m->gated = swiglu || third;
    m->step = fusion == 1 ? 2 : 1;
    m->up = fusion == 1 ? 1 : fusion == 2 ? m->inner : 0;
    m->alpha = (double)nb_node_float(im, "activation_alpha", 1);
    m->beta = (double)nb_node_float(im, "activation_beta", 0);
    m->limit = (double)nb_node_float(im, "swiglu_limit", INFINITY);
    return NB_OK;
}

static nb_status read_node(moe *m) {
    nb_importer *im = m->im;
    nb_value *x = nb_node_input(im, 0), *router = nb_node_input(im, 1),
             *first = nb_constant_input(im, 2, "the first matrices");
    const size_t operands = m->packed ? 3 : 2; /* of a layer */
    for (size_t i = 0; i < 3; i++) m->layer[i].at = 2 + i * operands;
    nb_value *second = nb_constant_input(im, m->layer[1].at, "the second matrices");
    if (!x || !router || !first || !second) return NB_MALFORMED;
    if ((x->type->rank != 2 && x->type->rank != 3) || !nb_elem_is_float(x->type->elem) ||
        router->type->rank != 2 || !nb_elem_is_float(router->type->elem) ||
        first->type->rank != 3 || second->type->rank != 3)
        return nb_node_error(
            im, NB_MALFORMED, "%s with scores %s and matrices %s and %s",
            nb_type_text(im->arena, x->type), nb_type_text(im->arena, router->type),
            nb_type_text(im->arena, first->type), nb_type_text(im->arena, second->type));
    if (nb_node_int(im, "use_sparse_mixer", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "use_sparse_mixer is not supported");
    if (strcmp(nb_node_string(im, "quant_type", "int"), "int") != 0)
        return nb_node_error(im, NB_UNSUPPORTED, "matrices of %s are not supported",
                             nb_node_string(im, "quant_type", ""));
    m->experts = first->type->dims[0]->value;
    m->hidden = second->type->dims[1]->value;
    m->bits = m->packed ? nb_node_int(im, "expert_weight_bits", 4) : 8;
    if (m->bits != 2 && m->bits != 4 && m->bits != 8)
        return nb_node_error(im, NB_UNSUPPORTED, "weights of %lld bits", (long long)m->bits);
    m->inner = second->type->dims[2]->value * 8 / m->bits;
    m->k = nb_node_int(im, "k", 1);
    if (m->experts > MOST_EXPERTS)
        return nb_node_error(im, NB_LIMIT, "%lld experts, more than %d", (long long)m->experts,
                             MOST_EXPERTS);
    if (m->k < 1 || m->k > m->experts)
        return nb_node_error(im, NB_MALFORMED, "k is %lld of %lld experts", (long long)m->k,
                             (long long)m->experts);
    NB_TRY(nb_unify(im, router->type->dims[1], nb_num(im, m->experts)));
    NB_TRY(nb_unify(im, x->type->dims[x->type->rank - 1], nb_num(im, m->hidden)));
    NB_TRY(read_activation(m));
    const bool both = m->gated && !nb_has_input(im, m->layer[2].at);
    NB_TRY(read_layer(m, 0, both ? 2 * m->inner : m->inner, m->hidden));
    NB_TRY(read_layer(m, 1, m->hidden, m->inner));
    return both || !m->gated ? NB_OK : read_layer(m, 2, m->inner, m->hidden);
}

/* ---- routing --------------------------------------------------------------------------------- */

static nb_value *topk(nb_importer *im, nb_value *x, const nb_dim *count, bool smallest,
                      nb_value **places) {
    if (!x) return NULL;
    nb_begin(&im->b, NB_OP_topk);
    nb_arg(&im->b, x);
    nb_set_int(&im->b, "axis", x->type->rank - 1);
    nb_set_dims(&im->b, "count", 1, &count);
    nb_set_bool(&im->b, "smallest", smallest);
    nb_value *best = nb_end(&im->b);
    if (best) *places = im->b.op->results[1];
    return best;
}

/* The k best scores of each row of `router` f32[T,experts]: their experts, i64[T,k], and shares,
 * f32[T,k]: of the softmax over all, or, normalized, over the k; or what router_weights has there.
 * QMoE's are of the k either way in onnxruntime. */
static nb_value *choose_experts(moe *m, nb_value *router, nb_value **experts) {
    nb_importer *im = m->im;
    const int64_t last = 1;
    const bool normalize = nb_node_int(im, "normalize_routing_weights", 0) != 0,
               given = m->packed && nb_has_input(im, 14);
    nb_value *share = router;
    const bool of_all = !normalize && !m->packed;
    if (of_all && nb_softmax(im, router, 1, false, &share) != NB_OK) return NULL;
    nb_value *best = topk(im, share, nb_num(im, m->k), false, experts);
    if (!best || of_all) return best;
    if (!given) return nb_softmax(im, best, 1, false, &share) == NB_OK ? share : NULL;
    /* Entries of router_weights at the experts chosen. */
    nb_value *weights = nb_as(im, nb_node_input(im, 14), NB_F32);
    if (!weights || weights->type->rank != 2 ||
        nb_unify(im, weights->type->dims[0], router->type->dims[0]) != NB_OK ||
        nb_unify(im, weights->type->dims[1], router->type->dims[1]) != NB_OK) {
        nb_node_error(im, NB_MALFORMED, "router_weights do not have the shape of router_probs");
        return NULL;
    }
    const nb_dim *all = nb_type_count(im->g, weights->type);
    nb_value *width = nb_make_dims(im, 1, &weights->type->dims[1], true),
             *row = nb_positions(im, 2, 0, weights->type->dims[0]);
    nb_value *at = nb_combine(im, NB_OP_add, nb_combine(im, NB_OP_mul, row, width), *experts);
    share = nb_take(im, nb_reshape(&im->b, weights, 1, &all), at, 0);
    if (!normalize || !share) return share;
    return nb_combine(im, NB_OP_div, share, nb_reduce(im, NB_OP_reduce_sum, share, 1, &last, true));
}

/* Fills tokens, shares, counts and starts. */
static bool sort_choices(moe *m) {
    nb_importer *im = m->im;
    nb_value *router = nb_as(im, nb_node_input(im, 1), NB_F32), *experts = NULL, *order = NULL;
    if (!router || nb_unify(im, router->type->dims[0], m->x->type->dims[0]) != NB_OK) return false;
    nb_value *share = choose_experts(m, router, &experts);
    if (!share || !experts) return false;
    const nb_dim *all = nb_type_count(im->g, experts->type), *column[] = {all, nb_num(im, 1)};
    const int64_t zero = 0;
    nb_value *flat = nb_reshape(&im->b, experts, 1, &all);
    if (!topk(im, flat, all, true, &order)) return false;
    m->tokens = nb_combine(im, NB_OP_div, order, nb_scalar(im, NB_I64, (double)m->k));
    m->shares = nb_take(im, nb_reshape(&im->b, share, 2, column), order, 0);
    nb_value *is = nb_combine(im, NB_OP_eq, nb_reshape(&im->b, flat, 2, column),
                              nb_positions(im, 2, 1, nb_num(im, m->experts)));
    m->counts = nb_reduce(im, NB_OP_reduce_sum, nb_as(im, is, NB_I64), 1, &zero, false);
    if (!m->counts) return false;
    nb_begin(&im->b, NB_OP_cumsum);
    nb_arg(&im->b, m->counts);
    nb_set_int(&im->b, "axis", 0);
    m->starts = nb_combine(im, NB_OP_sub, nb_end(&im->b), m->counts);
    return m->tokens && m->shares && m->starts;
}

/* ---- an expert ------------------------------------------------------------------------------- */

/* Expert e's matrix [inputs, n] of the rows first, first + step, ... */
static nb_value *matrix_of(moe *m, const matrix *l, int64_t e, int64_t first, int64_t step,
                           int64_t n) {
    const char *name =
        nb_format(m->im->arena, "%s.%lld%s", l->w->name, (long long)e, first ? ".up" : "");
    if (m->packed) {
        nb_blocks b = l->blocks;
        b.first = e * l->rows + first;
        b.step = step;
        b.N = n;
        return nb_blocks_weight(m->im, &b, name);
    }
    void *data;
    const nb_tensor t = nb_tensor_of_const(l->w);
    nb_value *w = nb_new_const(m->im, name, NB_F32, 2, (const int64_t[]){l->inputs, n}, &data);
    for (int64_t i = 0; w && i < n; i++) {
        const int64_t from = (e * l->rows + first + i * step) * l->inputs;
        for (int64_t j = 0; j < l->inputs; j++)
            ((float *)data)[j * n + i] = (float)nb_tensor_get(&t, from + j);
    }
    return w;
}

/* rows W + b of expert e, of n of its outputs. */
static nb_value *product(moe *m, int layer, nb_value *rows, int64_t e, int64_t first, int64_t step,
                         int64_t n) {
    nb_importer *im = m->im;
    const matrix *l = &m->layer[layer];
    nb_value *y = nb_multiply(im, rows, matrix_of(m, l, e, first, step, n));
    if (!l->bias || !y) return y;
    nb_value *bias = nb_slice_axis(im, l->bias, 0, nb_num(im, e), nb_num(im, 1), 1);
    bias = nb_slice_axis(im, bias, 1, nb_num(im, first), nb_num(im, n), step);
    return nb_combine(im, NB_OP_add, y, bias);
}

/* What multiplies in swiglu: G sigmoid(alpha G), where G is at most the limit. */
static nb_value *activated(moe *m, nb_value *x) {
    nb_importer *im = m->im;
    if (strcmp(m->activation, "swiglu") == 0) {
        if (isfinite(m->limit)) x = nb_combine(im, NB_OP_min, x, nb_scalar(im, NB_F32, m->limit));
        return nb_swish(im, x, (float)m->alpha);
    }
    const nb_op_kind kind = strcmp(m->activation, "relu") == 0   ? NB_OP_relu
                            : strcmp(m->activation, "gelu") == 0 ? NB_OP_gelu_tanh
                                                                 : NB_OP_silu;
    return strcmp(m->activation, "identity") == 0 ? x : nb_unary(&im->b, kind, x);
}

/* The other factor: in swiglu within the limits, and beta more. */
static nb_value *other_factor(moe *m, nb_value *x) {
    nb_importer *im = m->im;
    if (strcmp(m->activation, "swiglu") != 0 || !x) return x;
    if (isfinite(m->limit)) {
        x = nb_combine(im, NB_OP_max, x, nb_scalar(im, NB_F32, -m->limit));
        x = nb_combine(im, NB_OP_min, x, nb_scalar(im, NB_F32, m->limit));
    }
    return m->beta != 0 ? nb_plus(im, x, m->beta) : x;
}

/* out + what expert e adds to it. */
static nb_value *add_expert(moe *m, nb_value *out, int64_t e) {
    nb_importer *im = m->im;
    const nb_dim *one = nb_num(im, 1);
    nb_value *n = nb_slice_axis(im, m->counts, 0, nb_num(im, e), one, 1),
             *start = nb_slice_axis(im, m->starts, 0, nb_num(im, e), one, 1);
    const nb_dim *count = nb_count(
        im, nb_format(im->arena, "%s.%lld", m->tokens->name, (long long)e), n, m->x->type->dims[0]);
    if (!count || !out) return NULL;
    nb_value *at = nb_combine(im, NB_OP_add, nb_count_up(im, nb_num(im, 0), count), start),
             *token = nb_take(im, m->tokens, at, 0), *rows = nb_take(im, m->x, token, 0);
    const bool third = m->layer[2].w != NULL;
    nb_value *y = activated(m, product(m, 0, rows, e, 0, m->step, m->inner));
    if (m->gated) {
        nb_value *up = third ? product(m, 2, rows, e, 0, 1, m->inner)
                             : product(m, 0, rows, e, m->up, m->step, m->inner);
        y = y && up ? nb_combine(im, NB_OP_mul, y, other_factor(m, up)) : NULL;
    }
    y = product(m, 1, y, e, 0, 1, m->hidden);
    y = y ? nb_combine(im, NB_OP_mul, y, nb_take(im, m->shares, at, 0)) : NULL;
    if (!y) return NULL;
    nb_begin(&im->b, NB_OP_scatter_add);
    nb_arg(&im->b, out);
    nb_arg(&im->b, token);
    nb_arg(&im->b, y);
    return nb_end(&im->b);
}

/* ---- operators ------------------------------------------------------------------------------- */

/* im->argument: QMoE? */
nb_status nb_import_moe(nb_importer *im) {
    moe m = {.im = im, .packed = im->argument != 0};
    NB_TRY(read_node(&m));
    nb_value *x = nb_node_input(im, 0);
    const nb_type *type = x->type;
    const nb_dim *rows = type->dims[0];
    if (type->rank == 3) rows = nb_dim_mul(im->g, rows, type->dims[1]);
    const nb_dim *flat[] = {rows, nb_num(im, m.hidden)};
    m.x = nb_reshape(&im->b, nb_as(im, x, NB_F32), 2, flat);
    if (!m.x || !sort_choices(&m)) return NB_MALFORMED;
    nb_value *out = nb_expand_to(im, nb_scalar(im, NB_F32, 0), 2, m.x->type->dims);
    for (int64_t e = 0; e < m.experts && out; e++) out = add_expert(&m, out, e);
    out = out ? nb_reshape(&im->b, out, type->rank, type->dims) : NULL;
    return nb_node_output(im, 0, out ? nb_as(im, out, type->elem) : NULL);
}
