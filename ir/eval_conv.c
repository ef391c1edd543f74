/* conv: a sequence of fma for each output, channels of the group outside, positions of the kernel
 * in row-major order inside (NUMBERS.md, "Products"). Outputs are computed a row at a time. And
 * depthwise, which is the same for channels that lie next to each other, of codes too. */
#include "ir/codes.h"
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
typedef struct places {
    conv c;
    int64_t count, each, image; /* all of them, those of an image, and its elements in x */
} places;

static places places_of(const nb_op *op, const nb_tensor *x, const nb_tensor *w,
                        const nb_tensor *y) {
    const int axes = x->rank - 2;
    places p = {.c = {.op = op, .x = x, .w = w, .axes = axes, .positions = 1},
                .each = 1,
                .image = x->dims[x->rank - 1]};
    for (int d = axes - 1; d >= 0; d--) {
        p.c.strides[d] = p.image;
        p.image *= x->dims[d + 1];
        p.each *= y->dims[d + 1];
        p.c.positions *= w->dims[d];
    }
    p.count = y->dims[0] * p.each;
    return p;
}

/* Where in x the first input of place `i` is, and position `k` of the kernel from there. */
static int64_t place_at(const places *p, const nb_tensor *y, int64_t i) {
    return i / p->each * p->image +
           offset_of(&p->c, y->dims + 1, p->c.axes, i % p->each, "strides");
}
static int64_t position_at(const places *p, int64_t k) {
    return offset_of(&p->c, p->c.w->dims, p->c.axes, k, "dilations");
}

nb_status nb_eval_depthwise(const nb_evaluating *e) {
    const nb_tensor *x = &e->in[0], *w = &e->in[1];
    const int64_t C = x->dims[x->rank - 1];
    const places p = places_of(e->op, x, w, e->out);
    if (C == 0) return NB_OK;
    float *acc = (float *)nb_alloc(e->arena, (size_t)C * sizeof(float) + 8);
    const float *data = (const float *)x->data, *weights = (const float *)w->data;
    for (int64_t i = 0; i < p.count; i++) {
        const float *from = data + place_at(&p, e->out, i);
        for (int64_t k = 0; k < C; k++) acc[k] = 0;
        for (int64_t n = 0; n < p.c.positions; n++) {
            const float *at = from + position_at(&p, n);
            for (int64_t k = 0; k < C; k++) acc[k] = fmaf(at[k], weights[n * C + k], acc[k]);
        }
        for (int64_t k = 0; k < C; k++) {
            const float bias = nb_given(e, 2) ? ((const float *)e->in[2].data)[k] : 0;
            ((float *)e->out->data)[i * C + k] = nb_given(e, 2) ? acc[k] + bias : acc[k];
        }
    }
    return NB_OK;
}

nb_status nb_eval_depthwise_of_codes(const nb_evaluating *e, const nb_tensor *x, const nb_quant *qx,
                                     const nb_tensor *w, const nb_quant *qw, const nb_tensor *bias,
                                     const nb_tensor *residual, nb_tensor *y) {
    const int64_t C = x->dims[x->rank - 1];
    const places p = places_of(e->op, x, w, y);
    const nb_codes c = nb_codes_expand(qw, w, e->arena);
    const float scale = nb_quant_scale(qx, 0);
    for (int64_t i = 0; i < p.count * C; i++) {
        const int64_t from = place_at(&p, y, i / C) + i % C;
        int64_t sum = 0;
        for (int64_t n = 0; n < p.c.positions; n++)
            sum += (nb_tensor_get_int(x, from + position_at(&p, n)) - qx->zero) *
                   (nb_tensor_get_int(w, n * C + i % C) - nb_codes_zero(&c, n * C + i % C));
        if (y->elem == NB_I32) {
            nb_tensor_set_int(y, i, sum);
            continue;
        }
        float v = fmaf((float)sum, nb_codes_scale(&c, i % C), 0) * scale;
        if (bias) v = v + ((const float *)bias->data)[i % C];
        if (residual) v = v + ((const float *)residual->data)[i];
        ((float *)y->data)[i] = v;
    }
    return NB_OK;
}
