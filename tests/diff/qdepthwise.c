/* Depthwise convolutions of codes. Ranks, strides and dilations, rows in and between words and
 * tiles, channels in and between vectors, kernels that go by rows and by positions, every epilogue.
 */
#include "tests/diff/quants.h"

typedef struct form {
    int axes;
    int64_t channels, length[3], kernel[3], stride[3], dilation[3]; /* length -1: any */
} form;

static const form forms[] = {
    {1, 16, {40}, {3}, {0}, {0}},
    {1, 5, {-1}, {3}, {3}, {2}},
    {1, 33, {70}, {21}, {2}, {1}},
    {2, 16, {9, 24}, {3, 3}, {1, 1}, {1, 1}},
    {2, 40, {7, 13}, {5, 5}, {1, 1}, {1, 1}},
    {2, 24, {9, -1}, {3, 3}, {2, 2}, {1, 1}},
    {2, 17, {8, 29}, {2, 7}, {2, 3}, {1, 1}},
    {2, 3, {9, -1}, {3, 3}, {2, 1}, {1, 2}},
    {2, 48, {4, 150}, {1, 1}, {1, 1}, {1, 1}},
    {2, 32, {3, 3}, {3, 3}, {4, 4}, {0}},
    {3, 18, {4, 3, 19}, {2, 3, 2}, {2, 1, 1}, {1, 1, 1}},
};

static const int64_t lengths[] = {5, 6, 18, 37};

static const nb_quant acts[] = {
    {.storage = NB_I8, .scale = 0.05F},
    {.storage = NB_U8, .scale = 0.03F, .zero = 131},
    {.storage = NB_I8, .narrow = true, .scale = 0.04F, .zero = -100},
    {.storage = NB_U8, .scale = 1e-6F, .zero = 255},
};

static const nb_quant results[] = {{.storage = NB_I8, .scale = 0.9F, .zero = -128},
                                   {.storage = NB_U8, .scale = 2.5F, .zero = 100}};

/* The axis of the channels is filled in. */
static const diff_codes weights[] = {
    {.storage = NB_I8, .granularity = NB_PER_AXIS},
    {.storage = NB_I8, .contents = DIFF_ENDS},
    {.storage = NB_I4, .granularity = NB_PER_AXIS},
    {.storage = NB_U4, .zeros = DIFF_ONE_ZERO},
    {.storage = NB_I8, .granularity = NB_PER_AXIS, .scales = NB_F16},
};

typedef enum ending { PLAIN, BIAS, RESIDUAL, CODES, SUMS, N_ENDINGS } ending;

static nb_value *slide(diff *d, const form *f, nb_value *x, nb_value *w, nb_value *bias,
                       nb_value *residual, ending end, const nb_quant *to) {
    nb_begin(&d->b, NB_OP_qdepthwise);
    nb_arg(&d->b, x);
    nb_arg(&d->b, w);
    nb_arg(&d->b, bias);
    nb_arg(&d->b, residual);
    if (f->stride[0]) nb_set_ints(&d->b, "strides", (size_t)f->axes, f->stride);
    if (f->dilation[0]) nb_set_ints(&d->b, "dilations", (size_t)f->axes, f->dilation);
    if (end == CODES) nb_set_quant(&d->b, "to", nb_quant_intern(d->graph, to, "to", d->diags));
    if (end == SUMS) nb_set_bool(&d->b, "sums", true);
    return nb_end(&d->b);
}

static void check(const form *f, const nb_quant *act, const diff_codes *kind, ending end) {
    static const char *const endings[] = {"alone", "bias", "residual", "to codes", "sums"};
    diff d;
    diff_begin(&d, "qdepthwise %zu, act %zu by %s, %s", (size_t)(f - forms), (size_t)(act - acts),
               diff_codes_text(kind).text, endings[end]);
    d.wide = (f - forms) % 3 == 0;
    d.lengths = lengths;
    d.n_lengths = f->length[f->axes - 1] < 0 ? NB_COUNT(lengths) : 0;
    int64_t dims[NB_MAX_RANK] = {2}, kernel[NB_MAX_RANK];
    for (int i = 0; i < f->axes; i++) {
        dims[i + 1] = f->length[i];
        kernel[i] = f->kernel[i];
    }
    dims[f->axes + 1] = kernel[f->axes] = f->channels;
    diff_codes channels = *kind;
    if (kind->granularity == NB_PER_AXIS) channels.axis = f->axes;
    nb_value *plain = diff_input(&d, act->storage, f->axes + 2, dims);
    nb_begin(&d.b, NB_OP_as_codes);
    nb_arg(&d.b, plain);
    nb_set_quant(&d.b, "to", nb_quant_intern(d.graph, act, "a", d.diags));
    nb_value *x = nb_end(&d.b), *w = diff_codes_const(&d, &channels, f->axes + 1, kernel);
    nb_value *bias = end == PLAIN || end == SUMS ? NULL : diff_const(&d, NB_F32, 1, &f->channels);
    nb_value *residual = NULL;
    if (end == RESIDUAL) { /* a result of the same type */
        residual = slide(&d, f, x, w, NULL, NULL, PLAIN, NULL);
        residual = nb_unary(&d.b, NB_OP_relu, residual);
    }
    nb_value *y = slide(&d, f, x, w, bias, residual, end, &results[(f - forms) % 2]);
    diff_check(&d, end == CODES ? nb_unary(&d.b, NB_OP_codes, y) : y);
}

void diff_test_qdepthwise(void) {
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        for (size_t k = 0; k < 2; k++) {
            const size_t act = (i + k + i / 4) % NB_COUNT(acts);
            const diff_codes *kind = &weights[(i + 2 * k) % NB_COUNT(weights)];
            check(&forms[i], &acts[act], kind, (ending)((3 * i + 2 * k + i / 5) % N_ENDINGS));
        }
    }
}
