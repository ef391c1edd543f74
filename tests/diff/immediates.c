/* Constants of one element, which kernels get as numbers: as every operand of every layer. */
#include "tests/diff/diff.h"

/* Tensors of one element: rank `rank`, from outside or of the model. */
static nb_value *one(diff *d, int rank, bool constant) {
    static const int64_t dims[4] = {1, 1, 1, 1};
    return constant ? diff_const(d, NB_F32, rank, dims) : diff_input(d, NB_F32, rank, dims);
}

typedef struct form {
    nb_op_kind kind;
    int n, ranks[4];
} form;

static void attributes(diff *d, nb_op_kind kind) {
    const nb_dim *dims[4];
    for (int i = 0; i < 4; i++) dims[i] = nb_dim_const(d->graph, kind == NB_OP_expand ? 3 : 1);
    static const int64_t ones[4] = {1, 1, 1, 1}, perm[2] = {1, 0};
    if (kind == NB_OP_transpose) nb_set_ints(&d->b, "perm", 2, perm);
    if (kind == NB_OP_expand) nb_set_dims(&d->b, "shape", 2, dims);
    if (kind == NB_OP_attention) nb_set_float(&d->b, "scale", 0.5F);
    if (kind == NB_OP_rms_norm || kind == NB_OP_layer_norm) nb_set_float(&d->b, "eps", 1e-5F);
    if (kind == NB_OP_pad) nb_set_dims(&d->b, "before", 2, dims);
    if (kind == NB_OP_pad) nb_set_dims(&d->b, "after", 2, dims);
    if (kind != NB_OP_slice) return;
    const nb_dim *zeros[2] = {nb_dim_const(d->graph, 0), nb_dim_const(d->graph, 0)};
    nb_set_dims(&d->b, "start", 2, zeros);
    nb_set_dims(&d->b, "count", 2, dims);
    nb_set_ints(&d->b, "step", 2, ones);
}

/* Each set of operands that are constants is one output. */
static void check(const form *f) {
    diff d;
    diff_begin(&d, "one element: %s", nb_ops[f->kind].name);
    d.plain = true;
    size_t n = 0;
    nb_value *ys[DIFF_MAX_PORTS];
    nb_value *inputs[4] = {NULL};
    for (int i = 0; i < f->n; i++) inputs[i] = one(&d, f->ranks[i], false);
    const unsigned sets = 1U << f->n;
    for (unsigned set = 1; set < sets; set++) {
        /* All of four operands, pairs and triples skipped. */
        bool single = (set & (set - 1)) == 0;
        if (f->n == 4 && !single && set != sets - 1) continue;
        nb_begin(&d.b, f->kind);
        for (int i = 0; i < f->n; i++)
            nb_arg(&d.b, set >> i & 1 ? one(&d, f->ranks[i], true) : inputs[i]);
        attributes(&d, f->kind);
        ys[n++] = nb_end(&d.b);
    }
    diff_check_all(&d, n, ys);
}

/* A right operand of one element beside rows that are not known. */
static void column(void) {
    static const int64_t rows[] = {0, 1, 5, 17};
    diff d;
    diff_begin(&d, "one element: a column times a number");
    d.lengths = rows;
    d.n_lengths = NB_COUNT(rows);
    nb_value *x = diff_input(&d, NB_F32, 3, (int64_t[]){2, -1, 1});
    diff_check(&d, nb_binary(&d.b, NB_OP_matmul, x, one(&d, 2, true)));
}

void diff_test_immediates(void) {
    static const form forms[] = {
        {NB_OP_matmul, 2, {2, 2}},        {NB_OP_matmul, 2, {3, 2}},
        {NB_OP_attention, 3, {4, 4, 4}},  {NB_OP_attention, 4, {4, 4, 4, 2}},
        {NB_OP_softmax, 1, {2}},          {NB_OP_rms_norm, 2, {2, 1}},
        {NB_OP_layer_norm, 3, {2, 1, 1}}, {NB_OP_transpose, 1, {2}},
        {NB_OP_expand, 1, {2}},           {NB_OP_slice, 1, {2}},
        {NB_OP_pad, 2, {2, 0}},           {NB_OP_concat, 2, {2, 2}},
        {NB_OP_reduce_sum, 1, {2}},       {NB_OP_reduce_max, 1, {2}},
        {NB_OP_sub, 2, {2, 1}},           {NB_OP_neg, 1, {2}},
        {NB_OP_cumsum, 1, {2}},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++) check(&forms[i]);
    column();
}
