/* Convolutions of codes: products of patches that have no memory. Ranks, strides and dilations,
 * channels in and between whole words and vectors, rows of places shorter and longer than a tile,
 * columns in and between panels, both orders of x in memory, every epilogue. */
#include "tests/diff/quants.h"

typedef struct form {
    int axes;
    int64_t channels, length[3], kernel[3], stride[3], dilation[3], columns; /* length -1: any */
} form;

static const form forms[] = {
    {1, 3, {40}, {3}, {0}, {0}, 5},
    {1, 16, {-1}, {1}, {0}, {0}, 16},
    {1, 2, {-1}, {2}, {3}, {3}, 33},
    {2, 1, {19, 47}, {8, 8}, {0}, {0}, 16},
    {2, 16, {9, 25}, {6, 6}, {0}, {0}, 12},
    {2, 12, {7, 13}, {4, 4}, {1, 1}, {1, 1}, 16},
    {2, 3, {9, -1}, {3, 3}, {2, 1}, {1, 2}, 72},
    {2, 33, {5, -1}, {1, 1}, {1, 1}, {1, 1}, 40},
    {2, 24, {6, 83}, {3, 1}, {1, 2}, {1, 1}, 24},
    {2, 8, {3, 150}, {1, 3}, {1, 1}, {1, 1}, 100},
    {2, 7, {1, 1}, {1, 1}, {0}, {0}, 1},
    {2, 20, {4, 6}, {3, 3}, {1, 1}, {2, 1}, 17},
    {2, 96, {4, -1}, {3, 2}, {1, 1}, {0}, 96},
    {3, 2, {4, 3, 9}, {2, 3, 2}, {2, 1, 3}, {1, 1, 2}, 18},
    {3, 5, {2, 3, -1}, {1, 2, 1}, {0}, {0}, 64},
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

static const diff_codes weights[] = {
    {.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1},
    {.storage = NB_I8, .contents = DIFF_ENDS},
    {.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1, .scales = NB_F16},
    /* These have patches in memory. */
    {.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 1, .zeros = DIFF_ZEROS},
};

typedef enum ending { PLAIN, BIAS, RESIDUAL, CODES, SUMS, N_ENDINGS } ending;

static nb_value *slide(diff *d, const form *f, nb_op_kind kind, nb_value *x, const nb_quant *to) {
    nb_begin(&d->b, kind);
    nb_arg(&d->b, x);
    if (to) nb_set_quant(&d->b, "to", to);
    nb_set_ints(&d->b, "kernel", (size_t)f->axes, f->kernel);
    if (f->stride[0]) nb_set_ints(&d->b, "strides", (size_t)f->axes, f->stride);
    if (f->dilation[0]) nb_set_ints(&d->b, "dilations", (size_t)f->axes, f->dilation);
    return nb_end(&d->b);
}

/* The input as [B,C,D...], and where `turned`, from an input with channels last. */
static nb_value *input(diff *d, const form *f, nb_elem elem, bool turned) {
    const int rank = f->axes + 2;
    int64_t dims[NB_MAX_RANK] = {2}, perm[NB_MAX_RANK] = {0, rank - 1};
    dims[turned ? rank - 1 : 1] = f->channels;
    for (int i = 0; i < f->axes; i++) dims[i + (turned ? 1 : 2)] = f->length[i];
    for (int i = 0; i < f->axes; i++) perm[i + 2] = i + 1;
    nb_value *x = diff_input(d, elem, rank, dims);
    return turned ? nb_transpose(&d->b, x, perm) : x;
}

static nb_value *product(diff *d, const form *f, nb_value *a, nb_value *w, ending end,
                         const nb_quant *to) {
    const nb_type *t = a->type;
    const nb_dim *y[NB_MAX_RANK];
    for (int i = 0; i < t->rank; i++) y[i] = t->dims[i];
    y[t->rank - 1] = w->type->dims[1];
    nb_value *residual = NULL;
    if (end == RESIDUAL) {
        const int64_t one = 1;
        nb_begin(&d->b, NB_OP_expand);
        nb_arg(&d->b, diff_input(d, NB_F32, 1, &one));
        nb_set_dims(&d->b, "shape", (size_t)t->rank, y);
        residual = nb_end(&d->b);
    }
    nb_begin(&d->b, NB_OP_qmatmul);
    nb_arg(&d->b, a);
    nb_arg(&d->b, w);
    nb_arg(&d->b, end == PLAIN || end == SUMS ? NULL : diff_const(d, NB_F32, 1, &f->columns));
    nb_arg(&d->b, residual);
    if (end == CODES) nb_set_quant(&d->b, "to", nb_quant_intern(d->graph, to, "to", d->diags));
    if (end == SUMS) nb_set_bool(&d->b, "sums", true);
    nb_value *v = nb_end(&d->b);
    return end == CODES ? nb_unary(&d->b, NB_OP_codes, v) : v;
}

static void check(const form *f, const nb_quant *act, const diff_codes *kind, ending end,
                  bool turned, bool of_floats) {
    static const char *const endings[] = {"alone", "bias", "residual", "to codes", "sums"};
    int64_t K = f->channels;
    for (int i = 0; i < f->axes; i++) K *= f->kernel[i];
    diff d;
    diff_begin(&d, "qconv %zu of %s, act %zu by %s, %s%s", (size_t)(f - forms),
               of_floats ? "floats" : "codes", (size_t)(act - acts), diff_codes_text(kind).text,
               endings[end], turned ? ", channels last" : "");
    d.rows = of_floats;
    d.wide = (f - forms) % 3 == 0;
    d.lengths = lengths;
    d.n_lengths = f->length[f->axes - 1] < 0 ? NB_COUNT(lengths) : 0;
    const nb_quant *quant = nb_quant_intern(d.graph, act, "a", d.diags);
    nb_value *x = input(&d, f, of_floats ? NB_F32 : act->storage, turned), *a;
    if (of_floats) {
        a = slide(&d, f, NB_OP_qpatches, x, quant);
    } else {
        nb_value *seen = slide(&d, f, NB_OP_patches, x, NULL);
        nb_begin(&d.b, NB_OP_as_codes);
        nb_arg(&d.b, seen);
        nb_set_quant(&d.b, "to", quant);
        a = nb_end(&d.b);
    }
    nb_value *w = diff_codes_const(&d, kind, 2, (int64_t[]){K, f->columns});
    diff_check(&d, product(&d, f, a, w, end, &results[turned]));
}

/* Twins: equal weights that belong to kernels of other shapes, which lie in another order. */
static void twins(void) {
    static const form shapes[] = {{2, 6, {5, 9}, {1, 4}, {0}, {0}, 20},
                                  {2, 6, {8, 6}, {4, 1}, {0}, {0}, 20}};
    diff d;
    diff_begin(&d, "qconv, equal weights of two kernels");
    nb_value *y[2], *w[2];
    for (int i = 0; i < 2; i++) {
        const nb_quant *quant = nb_quant_intern(d.graph, &acts[i], "a", d.diags);
        diff_random_start("twins");
        w[i] = diff_codes_const(&d, &weights[0], 2, (int64_t[]){24, 20});
        nb_value *x = input(&d, &shapes[i], NB_F32, false);
        nb_value *a = slide(&d, &shapes[i], NB_OP_qpatches, x, quant);
        y[i] = product(&d, &shapes[i], a, w[i], PLAIN, NULL);
    }
    diff_check_all(&d, 2, y);
}

/* Two kernels slide over one input that has its channels last, which both read where it stands:
 * without borders words of four bytes are whole. */
static void shared(void) {
    static const form shapes[] = {{2, 8, {6, 9}, {3, 3}, {0}, {0}, 20},
                                  {2, 8, {6, 9}, {1, 1}, {2, 2}, {0}, 33}};
    static const nb_quant bytes = {.storage = NB_U8, .scale = 0.5F, .zero = 3};
    diff d;
    diff_begin(&d, "qconv, two of one input, channels last");
    const nb_quant *quant = nb_quant_intern(d.graph, &bytes, "a", d.diags);
    nb_value *x = input(&d, &shapes[0], NB_U8, true), *y[2];
    for (int i = 0; i < 2; i++) {
        nb_value *seen = slide(&d, &shapes[i], NB_OP_patches, x, NULL);
        nb_begin(&d.b, NB_OP_as_codes);
        nb_arg(&d.b, seen);
        nb_set_quant(&d.b, "to", quant);
        nb_value *a = nb_end(&d.b);
        const int64_t K = a->type->dims[3]->value;
        nb_value *w = diff_codes_const(&d, &weights[0], 2, (int64_t[]){K, shapes[i].columns});
        y[i] = product(&d, &shapes[i], a, w, PLAIN, NULL);
    }
    diff_check_all(&d, 2, y);
}

/* Kernels of one element: codes with channels last, which have no patches. */
static void pointwise(void) {
    static const nb_quant quants[] = {
        {.storage = NB_U8, .scale = 0.5F, .zero = 3},
        {.storage = NB_I8, .scale = 0.5F, .zero = -7},
    };
    for (int i = 0; i < 2 * N_ENDINGS; i++) {
        const form f = {.columns = 9 + 7 * i};
        const int64_t K = i % 3 ? 16 + i : 24;
        diff d;
        diff_begin(&d, "qconv of one element %d", i);
        nb_value *x = diff_input(&d, quants[i % 2].storage, 4, (int64_t[]){2, 3, 1 + 4 * i, K});
        nb_begin(&d.b, NB_OP_as_codes);
        nb_arg(&d.b, x);
        nb_set_quant(&d.b, "to", nb_quant_intern(d.graph, &quants[i % 2], "a", d.diags));
        nb_value *a = nb_end(&d.b);
        nb_value *w = diff_codes_const(&d, &weights[(size_t)i % NB_COUNT(weights)], 2,
                                       (int64_t[]){K, f.columns});
        diff_check(&d, product(&d, &f, a, w, (ending)(i / 2), &results[0]));
    }
}

void diff_test_qconv(void) {
    twins();
    pointwise();
    shared();
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        for (size_t k = 0; k < 2; k++) {
            const size_t act = (i + k + i / 4) % NB_COUNT(acts);
            const diff_codes *kind = &weights[(i + k) % NB_COUNT(weights)];
            const ending end = (ending)((3 * i + 2 * k + i / 5) % N_ENDINGS);
            check(&forms[i], &acts[act], kind, end, (i + k) % 3 == 0, (i / 2 + k) % 2);
        }
    }
}
