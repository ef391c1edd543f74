/* conv: a sequence of fma for each output, channels of the group outside, positions of the kernel
 * in row-major order inside (NUMBERS.md, "Products"). Outputs are computed a row at a time. And
 * depthwise, which is the same for channels that lie next to each other. */
#include "ir/conv.h"
#include "ir/eval_fast.h"
#include "ir/eval_private.h"

#include <math.h>
#include <string.h>

/* acc[i] = fma(x[i * step], w, acc[i]) */
NB_INNER void add_f32(const float *x, int64_t step, float w, int64_t n, float *acc) {
    for (int64_t i = 0; i < n; i++) acc[i] = fmaf(x[i * step], w, acc[i]);
}
NB_FAST static void add_fast(const float *x, int64_t step, float w, int64_t n, float *acc) {
    if (step == 1)
        add_f32(x, 1, w, n, acc);
    else
        add_f32(x, step, w, n, acc);
}
static void add_plain(const float *x, int64_t step, float w, int64_t n, float *acc) {
    add_f32(x, step, w, n, acc);
}

typedef struct conv {
    const nb_op *op;
    const nb_tensor *x, *w;
    const void *x_data, *w_data;  /* f32, or f64 for f64 */
    int axes;                     /* that the kernel slides along */
    int64_t inputs, positions;    /* channels of a group, positions of a kernel */
    int64_t strides[NB_MAX_RANK]; /* of those axes in x, in elements */
    bool fast;
} conv;

/* Row-major index `at` over the first `n` of `dims` as an offset in x, where an index along an axis
 * moves by `step` of it. */
static int64_t offset_of(const conv *c, const int64_t *dims, int n, int64_t at, const char *step) {
    int64_t offset = 0;
    for (int d = n - 1; d >= 0; d--) {
        offset += at % dims[d] * nb_conv_step(c->op, step, d) * c->strides[d];
        at /= dims[d];
    }
    return offset;
}

/* Row `row` of outputs of channel `m`: `start` is its first input in the group's first channel. */
static void add_row(const conv *c, int64_t start, int64_t m, int64_t n, void *acc) {
    int64_t step = nb_conv_stride(c->op, c->axes - 1), plane = c->x->dims[2] * c->strides[0];
    for (int64_t k = 0; k < c->inputs * c->positions; k++) {
        int64_t at = start + k / c->positions * plane +
                     offset_of(c, c->w->dims + 2, c->axes, k % c->positions, "dilations");
        int64_t w = m * c->inputs * c->positions + k;
        if (c->x->elem != NB_F64) {
            (c->fast ? add_fast : add_plain)((const float *)c->x_data + at, step,
                                             ((const float *)c->w_data)[w], n, acc);
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            ((double *)acc)[i] = fma(((const double *)c->x_data)[at + i * step],
                                     ((const double *)c->w_data)[w], ((double *)acc)[i]);
    }
}

static void store_row(const nb_evaluating *e, int64_t at, int64_t m, int64_t n, const void *acc) {
    bool wide = e->out->elem == NB_F64;
    for (int64_t i = 0; i < n; i++) {
        double v = wide ? ((const double *)acc)[i] : (double)((const float *)acc)[i];
        if (nb_given(e, 2)) {
            double bias = nb_tensor_get(&e->in[2], m);
            v = wide ? v + bias : (double)((float)v + (float)bias);
        }
        nb_tensor_set_float(e->out, at + i, v);
    }
}

nb_status nb_eval_conv(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *w = &e->in[1];
    nb_tensor *y = e->out;
    conv c = {.op = e->op, .x = x, .w = w, .axes = x->rank - 2, .fast = nb_have_fast()};
    bool wide = x->elem == NB_F64;
    c.x_data = wide ? x->data : nb_tensor_floats(x, e->arena);
    c.w_data = wide ? w->data : nb_tensor_floats(w, e->arena);
    c.inputs = w->dims[1];
    c.positions = 1;
    for (int64_t d = c.axes - 1, stride = 1; d >= 0; d--) {
        c.positions *= w->dims[d + 2];
        c.strides[d] = stride;
        stride *= x->dims[d + 2];
    }
    int64_t M = y->dims[1], n = y->dims[y->rank - 1], rows = 1;
    for (int d = 0; d < c.axes - 1; d++) rows *= y->dims[d + 2];
    int64_t per_group = M / nb_conv_groups(e->op), plane = x->dims[2] * c.strides[0];
    size_t bytes = (size_t)n * (wide ? sizeof(double) : sizeof(float));
    void *acc = nb_alloc(e->arena, bytes + 8);
    for (int64_t i = 0; i < y->dims[0] * M * rows && n > 0; i++) {
        int64_t b = i / (M * rows), m = i / rows % M, row = i % rows;
        int64_t channel = b * x->dims[1] + m / per_group * c.inputs;
        memset(acc, 0, bytes);
        add_row(&c, channel * plane + offset_of(&c, y->dims + 2, c.axes - 1, row, "strides"), m, n,
                acc);
        store_row(e, i * n, m, n, acc);
    }
    return NB_OK;
}

/* depthwise: x[B,D...,C], w[K...,C]. For each output place all channels, position by position. */
nb_status nb_eval_depthwise(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *w = &e->in[1];
    nb_tensor *y = e->out;
    const int axes = x->rank - 2;
    const int64_t C = x->dims[x->rank - 1];
    conv c = {.op = e->op, .x = x, .w = w, .axes = axes, .positions = 1};
    int64_t places = 1, image = C;
    for (int d = axes - 1; d >= 0; d--) {
        c.strides[d] = image;
        image *= x->dims[d + 1];
        places *= y->dims[d + 1];
        c.positions *= w->dims[d];
    }
    float *acc = (float *)nb_alloc(e->arena, (size_t)C * sizeof(float) + 8);
    const float *data = (const float *)x->data, *weights = (const float *)w->data;
    for (int64_t i = 0; i < y->dims[0] * places && C > 0; i++) {
        const float *from =
            data + i / places * image + offset_of(&c, y->dims + 1, axes, i % places, "strides");
        for (int64_t k = 0; k < C; k++) acc[k] = 0;
        for (int64_t p = 0; p < c.positions; p++) {
            const float *at = from + offset_of(&c, w->dims, axes, p, "dilations");
            for (int64_t k = 0; k < C; k++) acc[k] = fmaf(at[k], weights[p * C + k], acc[k]);
        }
        for (int64_t k = 0; k < C; k++) {
            const float bias = nb_given(e, 2) ? ((const float *)e->in[2].data)[k] : 0;
            ((float *)y->data)[i * C + k] = nb_given(e, 2) ? acc[k] + bias : acc[k];
        }
    }
    return NB_OK;
}
