/* conv: ranks, strides, dilations, groups, lengths next to and between multiples of 16, kernels in
 * panels and in place, behind a pad and of an input that is given. */
#include "tests/diff/diff.h"

#define FEW (-2)

typedef struct form {
    int axes;
    int64_t channels, M, groups;
    int64_t length[3], kernel[3], stride[3], dilation[3],
        pad[3]; /* length -1: any, FEW: any short */
} form;

static nb_value *padded(diff *d, const form *f, nb_value *x) {
    const nb_dim *before[NB_MAX_RANK] = {nb_dim_const(d->graph, 0), nb_dim_const(d->graph, 0)};
    int64_t most = 0;
    for (int i = 0; i < f->axes; i++) {
        before[i + 2] = nb_dim_const(d->graph, f->pad[i]);
        most = nb_max_i64(most, f->pad[i]);
    }
    if (!most) return x;
    nb_begin(&d->b, NB_OP_pad);
    nb_arg(&d->b, x);
    nb_arg(&d->b, NULL);
    nb_set_dims(&d->b, "before", (size_t)f->axes + 2, before);
    nb_set_dims(&d->b, "after", (size_t)f->axes + 2, before);
    return nb_end(&d->b);
}

static nb_value *conv(diff *d, const form *f, nb_value *x, nb_value *w, nb_value *bias) {
    nb_begin(&d->b, NB_OP_conv);
    nb_arg(&d->b, x);
    nb_arg(&d->b, w);
    nb_arg(&d->b, bias);
    if (f->stride[0]) nb_set_ints(&d->b, "strides", (size_t)f->axes, f->stride);
    if (f->dilation[0]) nb_set_ints(&d->b, "dilations", (size_t)f->axes, f->dilation);
    if (f->groups != 1) nb_set_int(&d->b, "groups", f->groups);
    return nb_end(&d->b);
}

static const int64_t lengths[] = {5, 6, 18, 37};
static const int64_t short_lengths[] = {3, 4, 5, 6, 7, 9}; /* 1, 2, 3, 4, 5 and 7 outputs */

static void check(const form *f, size_t number, nb_elem elem, bool constant, bool bias,
                  bool plain) {
    diff d;
    diff_begin(&d, "conv %zu, %s%s%s%s", number, nb_elems[elem].text, constant ? ", constant" : "",
               bias ? ", bias" : "", plain ? "" : ", any bits");
    d.lengths = lengths;
    d.n_lengths = f->length[f->axes - 1] == -1 ? NB_COUNT(lengths) : 0;
    if (f->length[f->axes - 1] == FEW) {
        d.lengths = short_lengths;
        d.n_lengths = NB_COUNT(short_lengths);
    }
    d.plain = plain;
    d.wide = constant;
    int64_t x[NB_MAX_RANK] = {2, f->channels}, w[NB_MAX_RANK] = {f->M, f->channels / f->groups};
    for (int i = 0; i < f->axes; i++) {
        x[i + 2] = nb_max_i64(f->length[i], -1);
        w[i + 2] = f->kernel[i];
    }
    nb_value *in = padded(&d, f, diff_input(&d, elem, f->axes + 2, x));
    nb_value *kernel =
        constant ? diff_const(&d, elem, f->axes + 2, w) : diff_input(&d, elem, f->axes + 2, w);
    nb_value *y = conv(&d, f, in, kernel, bias ? diff_const(&d, elem, 1, w) : NULL);
    /* As an output of the model, and as a value inside. */
    diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_relu, y)});
}

/* Channels last, tiles that fit into a row of outputs and that do not. */
static void depthwise(const form *f, size_t number, bool constant, bool bias) {
    diff d;
    diff_begin(&d, "depthwise %zu%s%s", number, constant ? ", constant" : "", bias ? ", bias" : "");
    d.lengths = lengths;
    d.n_lengths = f->length[f->axes - 1] < 0 ? NB_COUNT(lengths) : 0;
    d.wide = constant;
    int64_t x[NB_MAX_RANK] = {2}, w[NB_MAX_RANK];
    for (int i = 0; i < f->axes; i++) {
        x[i + 1] = f->length[i];
        w[i] = f->kernel[i];
    }
    x[f->axes + 1] = w[f->axes] = f->channels;
    nb_value *in = diff_input(&d, NB_F32, f->axes + 2, x),
             *kernel = constant ? diff_const(&d, NB_F32, f->axes + 1, w)
                                : diff_input(&d, NB_F32, f->axes + 1, w);
    nb_begin(&d.b, NB_OP_depthwise);
    nb_arg(&d.b, in);
    nb_arg(&d.b, kernel);
    nb_arg(&d.b, bias ? diff_const(&d, NB_F32, 1, &f->channels) : NULL);
    if (f->stride[0]) nb_set_ints(&d.b, "strides", (size_t)f->axes, f->stride);
    if (f->dilation[0]) nb_set_ints(&d.b, "dilations", (size_t)f->axes, f->dilation);
    nb_value *y = nb_end(&d.b);
    diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_relu, y)});
}

static void depthwise_forms(void) {
    static const form forms[] = {
        {1, 16, 0, 0, {20}, {3}, {0}, {0}, {0}},
        {1, 21, 0, 0, {-1}, {3}, {2}, {2}, {0}},
        {2, 1, 0, 0, {3, 3}, {3, 3}, {0}, {0}, {0}},
        {2, 40, 0, 0, {6, 13}, {5, 5}, {1, 1}, {1, 1}, {0}},
        {2, 32, 0, 0, {7, -1}, {3, 2}, {2, 1}, {1, 1}, {0}},
        {2, 5, 0, 0, {7, -1}, {2, 5}, {1, 2}, {3, 1}, {0}},
        {2, 3, 0, 0, {4, 33}, {2, 7}, {1, 3}, {1, 1}, {0}},
        {3, 17, 0, 0, {4, 3, 9}, {2, 3, 2}, {2, 1, 1}, {1, 1, 2}, {0}},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        depthwise(&forms[i], i, true, i % 2 == 0);
        depthwise(&forms[i], i, false, i % 2);
    }
}

/* Fewer outputs than a tile has rows: panels beside each other, one that is left, a part of one. */
static void few_outputs(void) {
    static const form forms[] = {
        {1, 3, 80, 1, {FEW}, {3}, {0}, {0}, {0}},     {1, 2, 66, 1, {FEW}, {3}, {1}, {1}, {0}},
        {1, 4, 64, 2, {FEW}, {3}, {0}, {0}, {0}},     {1, 5, 8, 1, {FEW}, {3}, {0}, {0}, {0}},
        {1, 3, 112, 1, {6}, {3}, {0}, {0}, {0}},      {1, 3, 32, 1, {5}, {3}, {0}, {0}, {0}},
        {1, 7, 100, 1, {4}, {3}, {2}, {0}, {0}},      {2, 3, 64, 1, {4, 4}, {3, 3}, {0}, {0}, {0}},
        {2, 3, 48, 1, {5, 4}, {3, 3}, {0}, {0}, {0}},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++)
        check(&forms[i], 100 + i, NB_F32, true, i % 3, i % 2);
}

void diff_test_conv(void) {
    depthwise_forms();
    few_outputs();
    static const form forms[] = {
        {1, 3, 16, 1, {20}, {3}, {0}, {0}, {0}},
        {1, 4, 37, 1, {-1}, {5}, {2}, {1}, {2}},
        {1, 2, 5, 1, {-1}, {2}, {3}, {3}, {0}},
        {2, 1, 8, 1, {9, 9}, {3, 3}, {0}, {0}, {0}},
        {2, 8, 24, 1, {7, 8}, {3, 2}, {1, 1}, {1, 1}, {1, 1}},
        {2, 5, 33, 1, {9, -1}, {3, 3}, {2, 1}, {1, 2}, {0, 1}},
        {2, 6, 6, 6, {6, 19}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
        {2, 6, 6, 3, {3, 83}, {3, 3}, {1, 2}, {1, 1}, {1, 1}},
        {2, 4, 4, 4, {3, 60}, {1, 5}, {1, 1}, {1, 2}, {0, 0}},
        {2, 6, 12, 6, {8, -1}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
        {2, 8, 40, 2, {5, 5}, {1, 1}, {0}, {0}, {0}},
        {2, 4, 64, 2, {5, -1}, {1, 3}, {1, 2}, {1, 1}, {0, 2}},
        {2, 3, 16, 1, {4, 4}, {4, 4}, {1, 1}, {1, 1}, {0, 0}},
        {2, 1, 1, 1, {1, 3}, {1, 1}, {0}, {0}, {0}},
        {3, 2, 18, 1, {4, 3, 9}, {2, 3, 2}, {2, 1, 3}, {1, 1, 2}, {1, 0, 2}},
        {3, 2, 4, 2, {4, 3, -1}, {2, 2, 2}, {1, 2, 1}, {2, 1, 1}, {0, 0, 1}},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        check(&forms[i], i, NB_F32, true, i % 2, i % 3);
        check(&forms[i], i, NB_F32, true, i % 2 == 0, i % 3 == 0);
        check(&forms[i], i, NB_F32, false, i % 2, i % 2);
    }
    check(&forms[4], 4, NB_F16, true, true, true);
    check(&forms[9], 9, NB_BF16, false, true, false);
}
