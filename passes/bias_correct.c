/* bias-correct: takes back the mean of what rounding a layer's weight adds to its results (Nagel et
 * al., Data-Free Quantization, arXiv 1906.04721).
 *
 *   requires   calibrate; quantize-weights before it in the same pipeline
 *   maintains  the quantized weights; low-rank's branches, which must stand already
 *
 * For output n: bias_n += sum over k of mean(x_k) * (W_kn - dequantize(W.q)_kn - (A B)_kn)
 *
 *   %y: f32[B,N] = matmul %x, %w.d             (%w.d = dequantize @w.q)
 *   %z: f32[B,N] = add %y, @b
 * becomes
 *   %z: f32[B,N] = add %y, @b.c                (without @b: add %y, @w.q.bias) */
#include "passes/branch.h"
#include "passes/linear.h"

static const nb_option options[] = {
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of layers that keep their bias ('*' any text, '|' or)"},
    {.name = NULL},
};

/* x [rows] times the weight of a product as it counts, added to y [cols] with a sign. */
static bool add_product(nb_pass_ctx *ctx, const nb_op *product, const double *x, double sign,
                        double *y) {
    nb_arena *arena = nb_arena_create_like(nb_state_of(ctx)->scratch);
    const nb_value *w = nb_linear_weight(product);
    nb_tensor codes = nb_tensor_of_const(w), values = codes;
    bool ok = !w->type->quant || nb_eval_op(nb_in(product, 1)->def, &codes, NULL, &values, arena,
                                            nb_diags_of(ctx)) == NB_OK;
    int64_t rows = codes.dims[0], cols = codes.dims[1];
    for (int64_t k = 0; ok && k < rows; k++) {
        for (int64_t n = 0; n < cols; n++)
            y[n] += sign * x[k] * nb_tensor_get(&values, k * cols + n);
    }
    nb_arena_destroy(arena);
    return ok;
}

/* What is missing from the mean result; NULL after an error. */
static double *missing_mean(nb_pass_ctx *ctx, const nb_op *op, const float *mean) {
    const nb_value *w = nb_linear_weight(op);
    const float *original = nb_original_of(ctx, w);
    int64_t rows = w->type->dims[0]->value, cols = w->type->dims[1]->value;
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    double *x = NB_NEW_ARRAY(scratch, double, (size_t)rows + 1),
           *missing = NB_NEW_ARRAY(scratch, double, (size_t)cols + 1);
    for (int64_t k = 0; k < rows; k++) {
        x[k] = (double)mean[k];
        for (int64_t n = 0; n < cols; n++) missing[n] += x[k] * (double)original[k * cols + n];
    }
    bool ok = add_product(ctx, op, x, -1, missing);
    const nb_op *second = nb_branch_find(op, "low-rank");
    if (ok && second) {
        const nb_op *first = nb_in(second, 0)->def;
        int64_t rank = nb_linear_weight(second)->type->dims[0]->value;
        double *t = NB_NEW_ARRAY(scratch, double, (size_t)rank + 1);
        ok = add_product(ctx, first, x, 1, t) && add_product(ctx, second, t, -1, missing);
    }
    return ok ? missing : NULL;
}

static bool correct(nb_pass_ctx *ctx, nb_op *op, const nb_stats *stats) {
    const double *missing = missing_mean(ctx, op, stats->mean);
    return missing && nb_bias_more(ctx, op, missing);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_skip skip = {.pattern = nb_option_of(ctx, "skip")->s};
    size_t known = 0, unknown = 0;
    NB_FOR_OPS(op, &ctx->graph->body) {
        const nb_value *w = op->kind == NB_OP_matmul ? nb_linear_weight(op) : NULL;
        if (!w || !w->type->quant || nb_is_factor(w) || nb_skip_op(ctx, &skip, op)) continue;
        if (!nb_original_of(ctx, w)) {
            unknown++;
            continue;
        }
        const nb_stats *stats = nb_layer_stats(ctx, op);
        if (!stats || !correct(ctx, op, stats)) return NB_PASS_FAILED;
        known++;
    }
    if (!nb_skip_end(ctx, &skip) || !nb_originals_end(ctx, known, unknown)) return NB_PASS_FAILED;
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, known > 0);
}

const nb_pass nb_pass_bias_correct = {
    .size = sizeof(nb_pass),
    .name = "bias-correct",
    .options = options,
    .run = run,
    .needs = NB_PASS_NEEDS_ORIGINALS,
    .promises = NB_PASS_RUNS_ONCE,
    .summary = "add to biases what rounding the weights takes from the mean results",
};
