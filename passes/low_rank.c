/* low-rank: gives back part of what rounding took, as a branch of low rank beside each layer.
 *
 *   requires   quantize-weights before it in the same pipeline; for method=l2qer calibrate, for
 *              method=eora samples (--calib)
 *   maintains  the quantized weights
 *
 * A [K,r] and B [r,N] are the best for E = W - dequantize(W.q), each method with its own measure:
 * svd   |E - AB|^2                           LoRC, Yao et al., ZeroQuant-V2, arXiv 2303.08302
 * l2qer |diag(s) (E - AB)|^2, s = mean|x|    L2QER, Zhang et al., LQER, arXiv 2402.02446
 * eora  |x (E - AB)|^2 over the samples      EoRA, Liu et al., arXiv 2410.21271
 *
 *   %y: f32[B,N] = matmul %x, %w.d             (%w.d = dequantize @w.q)
 * becomes
 *   %t: f32[B,r] = matmul %x, @w.A
 *   %c: f32[B,N] = matmul %t, @w.B
 *   %z: f32[B,N] = add %y, %c                  (fuse-dequant makes %c the residual of a qmatmul) */
#include "ir/minifloat.h"
#include "ir/support/parallel.h"
#include "passes/branch.h"
#include "passes/factor.h"
#include "passes/layer_inputs.h"
#include "passes/linear.h"
#include "passes/weight_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SVD, L2QER, EORA };
static const char *const methods[] = {"svd", "l2qer", "eora", NULL};
enum { HALF, BYTE, SINGLE };
static const char *const bits[] = {"16", "8", "32", NULL};

static const nb_option options[] = {
    {.name = "rank",
     .kind = NB_OPTION_INT,
     .fallback = "16",
     .min = 1,
     .max = 4096,
     .summary = "columns of A, rows of B; of a small matrix its smaller side"},
    {.name = "method",
     .kind = NB_OPTION_ENUM,
     .fallback = "svd",
     .choices = methods,
     .summary = "which errors count: svd all alike; l2qer those of large inputs (needs calibrate); "
                "eora those that reach the outputs on the samples (needs --calib)"},
    {.name = "bits",
     .kind = NB_OPTION_ENUM,
     .fallback = "16",
     .choices = bits,
     .summary = "of A and B: 16 (f16), 8 (integers, products of codes) or 32 (f32)"},
    {.name = "max-bits",
     .kind = NB_OPTION_INT,
     .fallback = "4",
     .min = 1,
     .max = 8,
     .summary = "layers whose weights have more bits get no branch: little is left to gain"},
    {.name = "skip",
     .kind = NB_OPTION_STRING,
     .fallback = "",
     .summary = "names of layers that get no branch ('*' any text, '|' or)"},
    {.name = NULL},
};

/* One quantized weight. */
typedef struct job {
    nb_pass_ctx *ctx;
    nb_op *op; /* the first layer that has it */
    const nb_value *codes;
    const float *original;
    nb_factoring factoring;
    float *a, *b;
    bool failed;
} job;

/* W - dequantize(codes), in memory of its own; NULL when there is none. */
static float *error_of(const job *j, nb_arena *arena) {
    const nb_op *back = nb_in(j->op, 1)->def;
    nb_tensor in = nb_tensor_of_const(j->codes), out;
    int64_t n = j->factoring.rows * j->factoring.cols;
    float *e = malloc((size_t)n * sizeof *e);
    bool ok = nb_eval_op(back, &in, NULL, &out, arena, nb_diags_of(j->ctx)) == NB_OK;
    for (int64_t i = 0; ok && e && i < n; i++) e[i] = j->original[i] - ((const float *)out.data)[i];
    if (ok) return e;
    free(e);
    return NULL;
}

static void solve(job *j) {
    nb_arena *arena = nb_arena_create_like(nb_state_of(j->ctx)->scratch);
    float *e = error_of(j, arena);
    j->failed = !e || !nb_factor(&j->factoring, e, j->a, j->b);
    free(e);
    nb_arena_destroy(arena);
}

static void work(void *user, int64_t i) { solve(((job **)user)[i]); }

/* For eora, added to the diagonal of the moments, in units of its mean. */
#define DAMPING 0.01

/* By what the layers before, as they are now, make of the samples; one layer after the other, whose
 * moments are in memory at a time. */
static bool solve_by_moments(nb_pass_ctx *ctx, job *const *jobs, size_t n) {
    nb_layer_inputs inputs;
    if (!nb_layer_inputs_begin(&inputs, ctx, DAMPING, false, 0)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        ok = nb_layer_inputs_to(&inputs, jobs[i]->op);
        jobs[i]->factoring.gram = inputs.hessian.h;
        if (ok) solve(jobs[i]);
    }
    nb_layer_inputs_end(&inputs);
    return ok;
}

/* ---- l2qer's scales ------------------------------------------------------------------------- */

/* A channel that was silent on the samples must not be free. */
#define FLOOR 1e-4f

static bool weigh(nb_pass_ctx *ctx, job *j) {
    const int64_t n = j->factoring.rows;
    const nb_stats *stats = nb_layer_stats(ctx, j->op);
    if (!stats) return false;
    if (!stats->mean_abs) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, j->op, "the mean |x| of '%%%s' is not known",
                          nb_in(j->op, 0)->name);
        ctx->host->help(ctx, "run calibrate again behind shift-fold");
        return false;
    }
    float *scale = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, float, (size_t)n), largest = 0;
    for (int64_t k = 0; k < n; k++) largest = fmaxf(largest, stats->mean_abs[k]);
    for (int64_t k = 0; k < n; k++)
        scale[k] = largest > 0 ? fmaxf(stats->mean_abs[k], FLOOR * largest) : 1;
    j->factoring.scale = scale;
    return true;
}

/* ---- factors as constants ------------------------------------------------------------------- */

static nb_value *add_factor(const job *j, const char *suffix, const float *from, int64_t rows,
                            int64_t cols) {
    nb_graph *g = j->ctx->graph;
    bool half = nb_option_of(j->ctx, "bits")->i == HALF;
    int64_t n = rows * cols;
    void *data;
    nb_blob *blob = nb_blob_create(n * (half ? 2 : 4), &data);
    if (!blob) return NULL;
    for (int64_t i = 0; half && i < n; i++)
        ((uint16_t *)data)[i] = (uint16_t)nb_float_encode(NB_F16, from[i]);
    if (!half) memcpy(data, from, (size_t)n * sizeof *from);
    const nb_dim *dims[] = {nb_dim_const(g, rows), nb_dim_const(g, cols)};
    return nb_graph_add_const(g, nb_format(g->arena, "%s%s", j->codes->name, suffix),
                              nb_type_intern(g, half ? NB_F16 : NB_F32, NULL, 2, dims), blob,
                              nb_loc_via(g, NULL, "low-rank"));
}

static bool out_of_memory(const job *j) {
    nb_error(nb_diags_of(j->ctx), NB_LIMIT, NB_NOWHERE, "out of memory for the branch of '@%s'",
             j->codes->name);
    return false;
}

typedef struct pass {
    nb_pass_ctx *ctx;
    nb_map jobs, factors, rounded; /* codes -> job; codes -> nb_value*[2]; for nb_round_weight */
    NB_VEC(job *) list;
    NB_VEC(nb_op *) layers;
    size_t unknown, known; /* layers without their float weight; with a branch already */
} pass;

/* Products of codes need A in the groups of the layer's weight, where activations have blocks. */
static bool round_factors(pass *p, nb_op *layer) {
    const nb_quant *q = nb_linear_weight(layer)->type->quant;
    nb_op *second = nb_branch_find(layer, "low-rank"), *first = nb_in(second, 0)->def;
    int64_t group = q->granularity == NB_PER_GROUP ? q->group : 0;
    return nb_round_weight(p->ctx, &p->rounded, first, 8, group) &&
           nb_round_weight(p->ctx, &p->rounded, second, 8, 0);
}

static bool attach(pass *p, nb_op *layer) {
    const nb_value *codes = nb_linear_weight(layer);
    const job *j = nb_map_get(&p->jobs, codes);
    nb_value **ab = nb_map_get(&p->factors, codes);
    if (!ab) {
        ab = (nb_value **)nb_alloc_array(nb_state_of(p->ctx)->scratch, 2, sizeof *ab);
        nb_map_set(&p->factors, codes, (void *)ab);
        ab[0] = add_factor(j, ".A", j->a, j->factoring.rows, j->factoring.rank);
        ab[1] = add_factor(j, ".B", j->b, j->factoring.rank, j->factoring.cols);
        if (!ab[0] || !ab[1]) return out_of_memory(j);
    }
    if (!nb_branch_add(p->ctx, layer, ab[0], ab[1])) return false;
    return nb_option_of(p->ctx, "bits")->i != BYTE || round_factors(p, layer);
}

/* ---- the pass ------------------------------------------------------------------------------- */

static job *new_job(nb_pass_ctx *ctx, nb_op *op, nb_value *codes) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    job *j = NB_NEW(scratch, job);
    int64_t rows = codes->type->dims[0]->value, cols = codes->type->dims[1]->value;
    int64_t rank = nb_min_i64(nb_option_of(ctx, "rank")->i, nb_min_i64(rows, cols));
    *j = (job){.ctx = ctx, .op = op, .codes = codes, .original = nb_original_of(ctx, codes)};
    j->factoring = (nb_factoring){.rows = rows, .cols = cols, .rank = rank};
    j->a = NB_NEW_ARRAY(scratch, float, (size_t)(rows * rank));
    j->b = NB_NEW_ARRAY(scratch, float, (size_t)(rank * cols));
    return j;
}

/* The layers that get a branch, and a job for each weight; false after an error. */
static bool collect(pass *p) {
    nb_skip skip = {.pattern = nb_option_of(p->ctx, "skip")->s};
    nb_arena *scratch = nb_state_of(p->ctx)->scratch;
    NB_FOR_OPS(op, &p->ctx->graph->body) {
        nb_value *w = op->kind == NB_OP_matmul ? nb_linear_weight(op) : NULL;
        if (!w || !w->type->quant || nb_is_factor(w) ||
            nb_elems[w->type->elem].bits > nb_option_of(p->ctx, "max-bits")->i ||
            nb_skip_op(p->ctx, &skip, op))
            continue;
        if (nb_branch_find(op, "low-rank")) {
            p->known++;
        } else if (!nb_original_of(p->ctx, w)) {
            p->unknown++;
        } else {
            job *j = nb_map_get(&p->jobs, w);
            nb_vec_push(scratch, &p->layers, op);
            if (j) continue;
            j = new_job(p->ctx, op, w);
            nb_map_set(&p->jobs, w, j);
            nb_vec_push(scratch, &p->list, j);
            if (nb_option_of(p->ctx, "method")->i == L2QER && !weigh(p->ctx, j)) return false;
        }
    }
    return nb_skip_end(p->ctx, &skip);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    pass p = {.ctx = ctx};
    p.jobs.arena = p.factors.arena = p.rounded.arena = scratch;
    if (!collect(&p)) return NB_PASS_FAILED;
    if (!nb_originals_end(ctx, p.known + p.list.count, p.unknown)) return NB_PASS_FAILED;
    if (nb_option_of(ctx, "method")->i != EORA)
        nb_parallel((int64_t)p.list.count, work, p.list.items);
    else if (p.list.count && !solve_by_moments(ctx, p.list.items, p.list.count))
        return NB_PASS_FAILED;
    for (size_t i = 0; i < p.list.count; i++) {
        const job *j = p.list.items[i];
        if (!j->failed) continue;
        ctx->host->report(ctx, NB_LEVEL_ERROR, j->op,
                          "the rounding errors of '@%s' have no factors", j->codes->name);
        ctx->host->help(ctx, "memory was short, or the second moments of its inputs are singular");
        return NB_PASS_FAILED;
    }
    for (size_t i = 0; i < p.layers.count; i++) {
        if (!attach(&p, p.layers.items[i])) return NB_PASS_FAILED;
    }
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, p.layers.count > 0);
}

const nb_pass nb_pass_low_rank = {
    .size = sizeof(nb_pass),
    .name = "low-rank",
    .options = options,
    .run = run,
    .needs = NB_PASS_NEEDS_ORIGINALS,
    .summary =
        "approximate the rounding errors of weights by a branch of low rank beside each layer",
};
