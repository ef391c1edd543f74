/* patches and qpatches: ranks, strides, dilations, inputs next to and between multiples of 16
 * bytes, rows of places shorter and longer than a vector, few places, by many inputs too, places
 * that are one long axis. */
#include "tests/diff/quants.h"

typedef struct form {
    int axes;
    int64_t channels, length[3], kernel[3], stride[3], dilation[3]; /* length -1: any */
} form;

static const form forms[] = {
    {1, 3, {40}, {3}, {0}, {0}},
    {1, 16, {-1}, {1}, {0}, {0}},
    {1, 2, {-1}, {2}, {3}, {3}},
    {2, 4, {9, 9}, {1, 1}, {0}, {0}},
    {2, 33, {5, -1}, {1, 1}, {1, 1}, {1, 1}},
    {2, 3, {9, -1}, {3, 3}, {2, 1}, {1, 2}},
    {2, 5, {6, 83}, {3, 2}, {1, 2}, {1, 1}},
    {2, 8, {3, 150}, {1, 3}, {1, 1}, {1, 1}},
    {2, 7, {1, 1}, {1, 1}, {0}, {0}},
    {2, 16, {4, 70}, {1, 1}, {1, 2}, {0}},
    {3, 2, {4, 3, 9}, {2, 3, 2}, {2, 1, 3}, {1, 1, 2}},
    {3, 5, {2, 3, -1}, {1, 1, 1}, {0}, {0}},
    {2, 1, {9, -1}, {2, 2}, {2, 2}, {0}},
    {2, 2, {7, 40}, {5, 5}, {1, 3}, {0}},
    {1, 2, {29}, {4}, {2}, {0}},
    {1, 1, {64}, {24}, {5}, {0}},
    {1, 2100, {3}, {2}, {0}, {0}},
};

static const int64_t lengths[] = {5, 6, 18, 37, 133};

static const nb_quant bytes[] = {{.storage = NB_I8, .scale = 0.04F, .zero = -77},
                                 {.storage = NB_U8, .scale = 0.05F, .zero = 131}};

static const nb_quant acts[] = {
    {.storage = NB_I8, .granularity = NB_PER_TOKEN, .amax_code = 127},
    {.storage = NB_I16, .granularity = NB_PER_TOKEN, .amax_code = 32639},
    {.storage = NB_I8, .narrow = true, .scale = 0.05F},
    {.storage = NB_I16, .scale = 0.0003F, .zero = 32639},
};

static nb_value *begin(diff *d, const form *f, nb_elem elem) {
    int64_t dims[NB_MAX_RANK] = {2, f->channels};
    for (int i = 0; i < f->axes; i++) dims[i + 2] = f->length[i];
    d->lengths = lengths;
    d->n_lengths = f->length[f->axes - 1] < 0 ? NB_COUNT(lengths) : 0;
    return diff_input(d, elem, f->axes + 2, dims);
}

static void slide(diff *d, const form *f) {
    nb_set_ints(&d->b, "kernel", (size_t)f->axes, f->kernel);
    if (f->stride[0]) nb_set_ints(&d->b, "strides", (size_t)f->axes, f->stride);
    if (f->dilation[0]) nb_set_ints(&d->b, "dilations", (size_t)f->axes, f->dilation);
}

static nb_value *patches(diff *d, const form *f, nb_value *x) {
    nb_begin(&d->b, NB_OP_patches);
    nb_arg(&d->b, x);
    slide(d, f);
    return nb_end(&d->b);
}

static nb_value *qpatches(diff *d, const form *f, nb_value *x, const nb_quant *quant) {
    nb_begin(&d->b, NB_OP_qpatches);
    nb_arg(&d->b, x);
    nb_set_quant(&d->b, "to", nb_quant_intern(d->graph, quant, "a", d->diags));
    slide(d, f);
    return nb_end(&d->b);
}

/* As an output of the model, and as a value inside. */
static void floats(size_t i, nb_elem elem) {
    diff d;
    diff_begin(&d, "patches %zu %s", i, nb_elems[elem].text);
    nb_value *x = begin(&d, &forms[i], elem), *y = patches(&d, &forms[i], x);
    diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_neg, y)});
}

static void codes(size_t i, size_t act) {
    const nb_quant *quant = &acts[act];
    diff d;
    diff_begin(&d, "qpatches %zu, act %zu", i, act);
    d.rows = act % 2 == i % 2; /* else any bits */
    nb_value *x = begin(&d, &forms[i], NB_F32),
             *q = qpatches(&d, &forms[i], nb_unary(&d.b, NB_OP_neg, x), quant);
    bool fixed = quant->granularity == NB_PER_TENSOR;
    nb_value *scales = fixed ? q : nb_unary(&d.b, NB_OP_scales, q);
    diff_check_all(&d, 3,
                   (nb_value *[]){diff_dequantize(&d, q), scales, nb_unary(&d.b, NB_OP_codes, q)});
}

/* Patches of one channel that only a reduction reads, which has no memory for them. */
static void pool(size_t i, nb_op_kind kind, nb_elem elem, bool keep) {
    form f = forms[i];
    f.channels = 1;
    diff d;
    diff_begin(&d, "pool %zu %s %s", i, nb_ops[kind].name, nb_elems[elem].text);
    nb_value *p = patches(&d, &f, begin(&d, &f, elem));
    nb_begin(&d.b, kind);
    nb_arg(&d.b, p);
    nb_set_ints(&d.b, "axes", 1, (int64_t[]){f.axes + 1});
    nb_set_bool(&d.b, "keep", keep);
    nb_value *y = nb_end(&d.b);
    diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_neg, y)});
}

/* The same of patches of codes, which a mean takes as the numbers that they stand for. */
static void pool_of_codes(size_t i, nb_op_kind kind, const nb_quant *quant) {
    form f = forms[i];
    f.channels = 1;
    diff d;
    diff_begin(&d, "pool %zu %s of codes of %s", i, nb_ops[kind].name,
               nb_elems[quant->storage].text);
    nb_value *q = diff_quantize(&d, begin(&d, &f, NB_F32), quant);
    nb_value *p = patches(&d, &f, nb_unary(&d.b, NB_OP_codes, q));
    nb_begin(&d.b, NB_OP_as_codes);
    nb_arg(&d.b, p);
    nb_set_quant(&d.b, "to", q->type->quant);
    nb_value *real = diff_dequantize(&d, nb_end(&d.b));
    nb_begin(&d.b, kind);
    nb_arg(&d.b, real);
    nb_set_ints(&d.b, "axes", 1, (int64_t[]){f.axes + 1});
    nb_set_bool(&d.b, "keep", false);
    diff_check(&d, nb_end(&d.b));
}

static void pools(void) {
    static const nb_op_kind kinds[] = {NB_OP_reduce_max, NB_OP_reduce_min, NB_OP_reduce_mean,
                                       NB_OP_reduce_sum};
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        for (size_t k = 0; k < NB_COUNT(kinds); k++) {
            pool(i, kinds[k], NB_F32, k == i % 2);
            if (k < 2) pool(i, kinds[k], i % 2 ? NB_U8 : NB_I8, false);
            if (k >= 2) pool_of_codes(i, kinds[k], &bytes[(i + k) % 2]);
        }
    }
}

void diff_test_patches(void) {
    pools();
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        floats(i, i % 4 == 3 ? NB_F16 : NB_F32);
        floats(i, i % 2 ? NB_I8 : NB_U8);
        for (size_t act = 0; act < NB_COUNT(acts); act++) codes(i, act);
    }
}
