/* rotate: other coordinates for activations and weights, in which no channel stands out (QuaRot,
 * Ashkboos et al., arXiv 2404.00456; SpinQuant, Liu et al., arXiv 2405.16406).
 *
 *   requires   raise; before calibrate, whose statistics are of the coordinates it saw
 *   maintains  the function, up to rounding; states of keys and values hold rotated ones
 *
 * With a rotation R, H' H = 1, of the stream %x and of blocks of %g:
 *   %n: f32[B,8] = rms_norm %x, @gain        ->  rms_norm %x, @ones      (a layer_norm likewise)
 *   %y: f32[B,4] = matmul %n, @w             ->  matmul %n, R' diag(@gain) @w
 *   %o: f32[B,8] = matmul %g, @v             ->  matmul hadamard(%g), H @v R
 *   %r: f32[B,8] = add %x, %o */
#include "passes/rotate.h"

#include <string.h>

static const nb_option options[] = {
    {.name = "residual",
     .kind = NB_OPTION_BOOL,
     .fallback = "true",
     .summary = "rotate residual streams, in the weights; norms' gains move into the layers behind "
                "them"},
    {.name = "values",
     .kind = NB_OPTION_BOOL,
     .fallback = "true",
     .summary = "rotate each head's values, in the weights"},
    {.name = "gated",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = 1024,
     .summary =
         "rotate inputs of layers behind gated units, at run time, by blocks of so many: 32, "
         "64, 128, or the largest power of two, 4 at least, by which there are whole ones; 0: do "
         "not"},
    {.name = "queries",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "rotate queries and keys, at run time: for caches of few bits"},
    {.name = "seed",
     .kind = NB_OPTION_INT,
     .fallback = "0",
     .min = 0,
     .max = INT32_MAX,
     .summary = "of the random signs"},
    {.name = NULL},
};

void nb_refuse_rotation(nb_refusal *r, const nb_op *op, const char *why) {
    if (r->ctx) nb_refused(r->ctx, op, r->rule, "", "%s", why);
    if (r->count++) return;
    r->op = op;
    r->why = why;
}

void nb_refusal_report(nb_pass_ctx *ctx, const nb_refusal *r, const char *option, const char *what,
                       size_t total) {
    if (!r->count) return;
    ctx->host->report(ctx, NB_LEVEL_WARNING, r->op, "%s: %zu of %zu %s stay as they are: %s",
                      option, r->count, total, what, r->why);
    ctx->host->help(ctx, "rotate{%s=%s} does not try", option,
                    strcmp(option, "gated") == 0 ? "0" : "false");
}

nb_value *nb_hadamard_of(nb_pass_ctx *ctx, nb_value *x, int64_t block) {
    nb_op *before = x->def ? x->def->next : ctx->graph->body.first;
    nb_builder b = nb_pass_builder(ctx, before, x->def ? x->def->loc : NULL);
    nb_begin(&b, NB_OP_hadamard);
    nb_arg(&b, x);
    nb_set_int(&b, "block", block);
    return nb_end(&b);
}

/* Other passes' work that would no longer fit. */
static bool comes_too_late(nb_pass_ctx *ctx) {
    const char *behind = ctx->graph->stage != NB_STAGE_FLOAT       ? "quantize-weights"
                         : nb_state_of(ctx)->env->stats.count != 0 ? "calibrate"
                                                                   : NULL;
    if (!behind) return false;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "runs before %s", behind);
    ctx->host->help(ctx, "\"simplify, raise, simplify, rotate, calibrate, quantize-weights\"");
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const uint64_t seed = (uint64_t)nb_option_of(ctx, "seed")->i;
    const int64_t block = nb_option_of(ctx, "gated")->i;
    nb_turns turns = {.ctx = ctx};
    bool inserted = false;
    if (comes_too_late(ctx)) return NB_PASS_FAILED;
    if (block & (block - 1)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "gated is a power of two, found %lld",
                          (long long)block);
        return NB_PASS_FAILED;
    }
    if (nb_option_of(ctx, "residual")->b) nb_rotate_residual(&turns, nb_hash_mix(seed, 1));
    if (nb_option_of(ctx, "values")->b) nb_rotate_values(&turns, nb_hash_mix(seed, 2));
    if (block) inserted |= nb_rotate_gated(&turns, block);
    if (nb_option_of(ctx, "queries")->b) inserted |= nb_rotate_queries(ctx);
    if (!nb_turns_apply(&turns)) return NB_PASS_FAILED;
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, inserted || turns.list.count);
}

const nb_pass nb_pass_rotate = {
    .size = sizeof(nb_pass),
    .name = "rotate",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS | NB_PASS_MOVES_STATES | NB_PASS_RUNS_ONCE,
    .summary = "spread outlier channels by rotations that cancel (QuaRot, SpinQuant)",
};
