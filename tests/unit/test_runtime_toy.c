/* The hand-written model of the runtime's tests (test_runtime_toy.h). */
#include "tests/unit/test_runtime_toy.h"

#include <stdbool.h>
#include <string.h>

enum { B, T, P, N_SYMBOLS };

_Alignas(64) const float toy_weights[16] = {10, 20, 30, 40};
void (*toy_on_run)(const nb_frame *frame);

/* One dimension of an input: known, a value to compare or a symbol without one yet. */
static bool agree(int64_t dim, int64_t *value) {
    if (dim == -1) return true;
    if (*value == -1) *value = dim;
    return *value == dim;
}

static int64_t bind(const int64_t *const *shapes, int64_t *symbols, bool with_h) {
    for (int i = 0; i < N_SYMBOLS; i++) symbols[i] = -1;
    int64_t two = 2, three = 3;
    int64_t *x[] = {&symbols[B], &symbols[T]};
    int64_t *past[] = {&symbols[B], &two, &symbols[P], &three};
    int64_t *h[] = {&symbols[B], &two};
    for (int axis = 0; axis < 2; axis++)
        if (!agree(shapes[TOY_X][axis], x[axis])) return 1 + 16 * TOY_X + axis;
    for (int axis = 0; axis < 4; axis++)
        if (!agree(shapes[TOY_PAST][axis], past[axis])) return 1 + 16 * TOY_PAST + axis;
    for (int axis = 0; axis < 2 && with_h; axis++)
        if (!agree(shapes[TOY_H][axis], h[axis])) return 1 + 16 * TOY_H + axis;
    for (int i = 0; i < N_SYMBOLS; i++)
        if (symbols[i] == -1) return -1 - i;
    return 0;
}

static int64_t bind_all(const int64_t *const *shapes, int64_t *symbols) {
    return bind(shapes, symbols, true);
}

static int64_t bind_cache(const int64_t *const *shapes, int64_t *symbols) {
    return bind(shapes, symbols, false);
}

static void set_dims(int64_t *dims, int n, const int64_t *values) {
    memcpy(dims, values, (size_t)n * sizeof *values);
}

static void input_shape(const int64_t *s, int64_t input, int64_t *dims) {
    switch (input) {
    case TOY_X:
        set_dims(dims, 2, (int64_t[]){s[B], s[T]});
        break;
    case TOY_PAST:
        set_dims(dims, 4, (int64_t[]){s[B], 2, s[P], 3});
        break;
    case TOY_H:
        set_dims(dims, 2, (int64_t[]){s[B], 2});
        break;
    default:
        break;
    }
}

static void shape(const int64_t *s, int64_t output, int64_t *dims) {
    switch (output) {
    case TOY_Y:
        set_dims(dims, 1, (int64_t[]){s[B]});
        break;
    case TOY_PRESENT:
        set_dims(dims, 4, (int64_t[]){s[B], 2, s[P] + s[T], 3});
        break;
    default:
        set_dims(dims, 2, (int64_t[]){s[B], 2});
        break;
    }
}

/* One buffer: the sum of each row of the state. */
static int64_t plan(const int64_t *s, int64_t *offsets) {
    offsets[0] = 64;
    return 64 + s[B] * 2 * (int64_t)sizeof(float);
}

/* Rows of the state, [B,2]. */
static void append_rows(const nb_frame *f, int64_t begin, int64_t end) {
    const int64_t *s = f->symbols;
    const float *x = f->ports[TOY_X];
    float *sums = (float *)(void *)(f->arena + f->offsets[0]);
    for (int64_t row = begin; row < end; row++) {
        float *entries = (float *)f->ports[TOY_PAST] + row * s[N_SYMBOLS] * 3;
        for (int64_t t = 0; t < s[T]; t++)
            for (int j = 0; j < 3; j++)
                entries[(s[P] + t) * 3 + j] =
                    (float)(row % 2 + 1) * x[row / 2 * s[T] + t] + (float)j;
        sums[row] = 0;
        for (int64_t i = 0; i < (s[P] + s[T]) * 3; i++) sums[row] += entries[i];
    }
}

static int32_t run(const nb_frame *f, uint32_t n_inputs, bool with_h) {
    const int64_t *s = f->symbols;
    if (toy_on_run) toy_on_run(f);
    if (__atomic_load_n(f->cancel, __ATOMIC_RELAXED)) return NB_RUN_CANCELLED;
    if (f->parallel_for)
        f->parallel_for(f->pool, s[B] * 2, append_rows, f);
    else
        append_rows(f, 0, s[B] * 2);
    int64_t index = *(const int64_t *)f->ports[TOY_INDEX];
    if (index < 0 || index > 3) {
        *f->error = 1;
        return NB_RUN_INDEX;
    }
    const float *sums = (const float *)(const void *)(f->arena + f->offsets[0]);
    const float *weights = (const float *)(const void *)f->weights;
    float *y = f->ports[n_inputs + TOY_Y];
    for (int64_t b = 0; b < s[B]; b++) {
        y[b] = sums[2 * b] + sums[2 * b + 1] + weights[index];
        if (!with_h) continue;
        const float *x = f->ports[TOY_X], *h = f->ports[TOY_H];
        float *h_out = f->ports[n_inputs + TOY_H_OUT];
        float sum = h[2 * b];
        for (int64_t t = 0; t < s[T]; t++) sum += x[b * s[T] + t];
        h_out[2 * b] = sum;
        h_out[2 * b + 1] = h[2 * b + 1] + (float)s[T];
        y[b] += sum;
    }
    return NB_RUN_OK;
}

static int32_t run_all(const nb_frame *f) { return run(f, 4, true); }
static int32_t run_cache(const nb_frame *f) { return run(f, 3, false); }

static const nb_port inputs[] = {
    {"x", 1, 2, -1, 0, "[B,T]"},
    {"index", 7, 0, -1, 0, "[]"},
    {"past", 1, 4, 0, 0, "[B,2,P,3]"},
    {"h", 1, 2, 1, 0, "[B,2]"},
};
static const nb_port outputs[] = {
    {"y", 1, 1, -1, 0, "[B]"},
    {"present", 1, 4, 0, 0, "[B,2,P+T,3]"},
    {"h.out", 1, 2, 1, 0, "[B,2]"},
};
static const nb_model_symbol symbols[] = {{"B", 1, 4}, {"T", 1, 8}, {"P", 0, 32}};
static const nb_model_state states[] = {
    {TOY_PAST, TOY_PRESENT, 1, 2, P, 0},
    {TOY_H, TOY_H_OUT, 0, -1, -1, 0},
};
static const char *const op_names[] = {"/append", "/gather"};

/* The hash of toy_weights, as tools outside of this program compute it. */
#define TOY_HASH UINT64_C(0x529db1f391a0a055)

#define TOY(name_, ins, outs, n_states_, weights_, bind_, run_)                                 \
    {                                                                                           \
        .size = sizeof(nb_model), .abi = NB_MODEL_ABI, .name = name_, .compiler = "by hand",    \
        .target = "any", .scheme = "f32", .n_inputs = ins, .n_outputs = outs,                   \
        .n_symbols = N_SYMBOLS, .n_states = n_states_, .inputs = inputs, .outputs = outputs,    \
        .symbols = symbols, .states = states, .n_buffers = 1, .n_ops = 2, .op_names = op_names, \
        .weights_size = sizeof toy_weights, .weights_hash = TOY_HASH, .weights = weights_,      \
        .bind = bind_, .input_shape = input_shape, .shape = shape, .plan = plan, .run = run_    \
    }
#define INSIDE (const unsigned char *)toy_weights

const nb_model toy_model = TOY("toy", 4, 3, 2, INSIDE, bind_all, run_all);
const nb_model toy_cache = TOY("toy-cache", 3, 2, 1, INSIDE, bind_cache, run_cache);
const nb_model toy_sidecar = TOY("toy-sidecar", 4, 3, 2, NULL, bind_all, run_all);
