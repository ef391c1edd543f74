/* calibrate: watches the inputs of linear layers and convs while the model runs on samples.
 *
 *   requires   samples (--calib)
 *   maintains  the graph, untouched; what was seen is kept for the passes that follow
 *
 * One pass over the samples keeps statistics per channel and a histogram per tensor (observe.h);
 * the method only chooses the tensor's bound `clip` from them:
 *
 *   absmax      the largest |x|
 *   minmax      max(-min, max): the same for symmetric codes
 *   percentile  the |x| that this share of all values does not exceed
 *   mse         the smallest expected squared error of symmetric codes of `bits` bits
 *   entropy     the smallest Kullback-Leibler divergence of such codes
 *   average     the moving average of each sample's largest |x|, 1 % for each new one
 *
 * (percentile and entropy: Migacz 2017, and Wu et al., arXiv 2004.09602; mse: OMSE, Choukroun et
 * al., arXiv 1902.06822; average: Jacob et al., arXiv 1712.05877). */
#include "passes/accumulate.h"
#include "passes/linear.h"
#include "passes/observe.h"

#include <math.h>

static const char *const methods[] = {"absmax",  "minmax",  "percentile", "mse",
                                      "entropy", "average", NULL};
enum { ABSMAX, MINMAX, PERCENTILE, MSE, ENTROPY, AVERAGE };

static const nb_option options[] = {
    {.name = "method",
     .kind = NB_OPTION_ENUM,
     .fallback = "absmax",
     .choices = methods,
     .summary = "how the bound of a whole tensor is chosen"},
    {.name = "percentile",
     .kind = NB_OPTION_FLOAT,
     .fallback = "99.999",
     .min = 50,
     .max = 100,
     .summary = "for method=percentile: values within the bound, in percent"},
    {.name = "bits",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 2,
     .max = 16,
     .summary = "for method=mse and entropy: of the codes that the bound is for"},
    {.name = NULL},
};

static void observe(void *user, const nb_value *value, const nb_tensor *t) {
    (void)value;
    nb_observe(user, t);
}

static double bound_of(const nb_pass_ctx *ctx, const nb_observer *o, double largest) {
    const nb_histogram *h = &o->seen->histogram;
    int64_t levels = (INT64_C(1) << (nb_option_of(ctx, "bits")->i - 1)) - 1;
    switch (nb_option_of(ctx, "method")->i) {
    case PERCENTILE:
        return nb_histogram_percentile(h, nb_option_of(ctx, "percentile")->f);
    case MSE:
        return nb_histogram_mse(h, levels);
    case ENTROPY:
        return nb_histogram_entropy(h, levels);
    case AVERAGE:
        return o->seen->average;
    default:
        return largest;
    }
}

static bool finish(nb_pass_ctx *ctx, const nb_observer *o, const nb_value *value) {
    nb_pass_env *env = nb_state_of(ctx)->env;
    if (o->seen->bad) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, value->def,
                          "'%%%s' holds NaN or infinity on the calibration samples", value->name);
        ctx->host->help(ctx, "run the float model on the same samples and check its outputs first");
        return false;
    }
    nb_stats *s = nb_observer_stats(o, env->arena);
    s->clip = fminf(s->clip, (float)bound_of(ctx, o, (double)s->clip));
    nb_map_set(&env->stats, value, s);
    return true;
}

/* The axis of channels of the op's first operand; -1: it is no layer. */
static int channel_axis(const nb_op *op) {
    if (nb_linear_weight(op)) return nb_in(op, 0)->type->rank - 1;
    if (op->kind == NB_OP_depthwise) return nb_in(op, 0)->type->rank - 1;
    return op->kind == NB_OP_conv ? 1 : -1;
}

static void watch(nb_pass_ctx *ctx, const nb_op *op, nb_map *known, nb_accumulation *work) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    int axis = channel_axis(op);
    nb_value *x = axis < 0 ? NULL : nb_in(op, 0);
    if (!x || x->type->elem != NB_F32 || x->type->quant || nb_is_const(x) || nb_map_get(known, x) ||
        !nb_dim_is_const(x->type->dims[axis]))
        return;
    nb_observer *o =
        nb_observer_create(nb_state_of(ctx)->env->arena, axis, x->type->dims[axis]->value);
    nb_map_set(known, x, o);
    nb_vec_push(scratch, &work->taps, ((nb_tap){x, observe, o}));
    for (size_t i = 0; i < NB_COUNT(o->state); i++) nb_vec_push(scratch, &work->state, o->state[i]);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_map known = {.arena = nb_state_of(ctx)->scratch};
    nb_accumulation work = {.version = 1};
    NB_FOR_OPS(op, &ctx->graph->body) watch(ctx, op, &known, &work);
    if (nb_accumulate(ctx, &work) != NB_OK) return NB_PASS_FAILED;
    for (size_t i = 0; i < work.taps.count; i++) {
        const nb_tap *tap = &work.taps.items[i];
        if (!finish(ctx, tap->user, tap->value)) return NB_PASS_FAILED;
    }
    return nb_pass_end(ctx, false);
}

const nb_pass nb_pass_calibrate = {
    .size = sizeof(nb_pass),
    .name = "calibrate",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "observe the inputs of layers on the calibration samples",
};
