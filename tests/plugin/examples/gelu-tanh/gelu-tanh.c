/* gelu-tanh: GELU by its tanh form, where the error allows.
 *
 *   requires   nothing; with samples (--calib) the error is what it is on them
 *   maintains  each replaced GELU within `tolerance`
 *
 *   %y: f32[B,4] = gelu %x   ->   %y: f32[B,4] = gelu_tanh %x
 *
 * The two forms differ by up to 4.8e-4, near |x| = 2.7, and not at all around 0 and far from it:
 * whether that is much depends on which x a layer sees. Each GELU's largest difference is told as a
 * fact, which `nibble report` shows. */
#include "nb_pass.h"

#include <math.h>
#include <string.h>

enum { TOLERANCE, SKIP };
static const nb_option options[] = {
    {.name = "tolerance",
     .kind = NB_OPTION_FLOAT,
     .fallback = "5e-4",
     .min = 0,
     .max = 1,
     .summary = "largest difference of a result that is allowed"},
    {.name = "skip",
     .kind = NB_OPTION_SELECTOR,
     .fallback = "",
     .summary = "ONNX nodes to leave alone"},
    {.name = NULL},
};

#define F32 1 /* ONNX's number */

/* Largest difference of the two forms for any x: 4.74e-4 at x = 2.6989, rounded up. */
#define EVERYWHERE 4.8e-4

static double difference(double x) {
    double exact = 0.5 * x * (1 + erf(x / sqrt(2.0)));
    double with_tanh =
        0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    return fabs(exact - with_tanh);
}

/* A GELU of f32, and the largest difference on the samples. */
typedef struct site {
    nb_op *op;
    const nb_value *x;
    double largest;
} site;

typedef struct sites {
    site *list;
    size_t count;
} sites;

static void see(void *user, const nb_value *value, const nb_array *array) {
    const sites *all = user;
    const float *data = array->data;
    int64_t n = 1;
    double largest = 0;
    for (int32_t i = 0; i < array->rank; i++) n *= array->dims[i];
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, difference((double)data[i]));
    for (size_t i = 0; i < all->count; i++)
        if (all->list[i].x == value) all->list[i].largest = fmax(all->list[i].largest, largest);
}

static sites find(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    sites all = {0};
    size_t n = 0;
    for (nb_op *op = h->first_op(ctx->graph); op; op = h->next_op(op)) n++;
    all.list = h->scratch(ctx, n * sizeof *all.list);
    for (nb_op *op = h->first_op(ctx->graph); op && all.list; op = h->next_op(op)) {
        const nb_value *x = h->operand(op, 0);
        if (strcmp(h->op_name(op), "gelu") != 0) continue;
        if (h->value_elem(x) != F32 || h->selected(ctx, "skip", op)) continue;
        all.list[all.count++] = (site){.op = op, .x = x};
    }
    return all;
}

/* Sets the differences from the samples; without any, those of all numbers. 0 after an error. */
static int measure(nb_pass_ctx *ctx, sites *all) {
    const nb_pass_host *h = ctx->host;
    const size_t n = h->sample_count(ctx);
    const nb_value **taps = h->scratch(ctx, (all->count + 1) * sizeof *taps);
    size_t n_taps = 0;
    for (size_t i = 0; i < all->count; i++) {
        size_t k = 0;
        while (k < n_taps && taps[k] != all->list[i].x) k++; /* two GELUs may share an x */
        if (k == n_taps) taps[n_taps++] = all->list[i].x;
        if (!n) all->list[i].largest = EVERYWHERE;
    }
    for (size_t i = 0; i < n; i++) {
        const nb_array *inputs;
        if (!h->sample(ctx, i, &inputs) || !h->run(ctx, inputs, NULL, taps, n_taps, see, all))
            return 0;
    }
    return 1;
}

static int replace(nb_pass_ctx *ctx, nb_op *op) {
    const nb_pass_host *h = ctx->host;
    nb_value *x = h->operand(op, 0), *y = h->build(ctx, op, "gelu_tanh", &x, 1, NULL, 0);
    return y && h->replace_uses(ctx, h->result(op, 0), y) && h->remove_op(ctx, op);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const nb_pass_host *h = ctx->host;
    nb_pass_result result = NB_PASS_UNCHANGED;
    sites all = find(ctx);
    if (!all.count) return result;
    if (!measure(ctx, &all)) return NB_PASS_FAILED;
    for (size_t i = 0; i < all.count; i++) {
        const site *s = &all.list[i];
        h->fact(ctx, s->op, "difference", s->largest);
        if (s->largest > ctx->options[TOLERANCE].f) {
            h->report(ctx, NB_LEVEL_INFO, s->op, "stays: its tanh form differs by %.1e",
                      s->largest);
            h->help(ctx, "allow it with gelu-tanh{tolerance=%.1e}", 1.1 * s->largest);
            continue;
        }
        if (!replace(ctx, s->op)) return NB_PASS_FAILED;
        result = NB_PASS_CHANGED;
    }
    return result;
}

static const nb_pass pass = {
    .size = sizeof(nb_pass),
    .name = "gelu-tanh",
    .summary = "replace GELU by its tanh form where the error allows",
    .options = options,
    .run = run,
};
static const nb_pass *const passes[] = {&pass, NULL};

NB_EXPORT const nb_plugin nb_plugin_v1 = {
    .size = sizeof(nb_plugin),
    .abi_major = NB_PASS_ABI_MAJOR,
    .abi_minor = NB_PASS_ABI_MINOR,
    .name = "gelu-tanh",
    .passes = passes,
};
