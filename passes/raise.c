/* raise: finds layers in plain operators, by what they compute and never by their names.
 *
 *   requires   simplify before it: no identities, casts to the same type, or run-time shapes
 *   maintains  the function, up to rounding; f16 and bf16 become more exact, since norms, rotary
 *              and attention are computed in f32
 *
 * Norms, SiLU and GELU, codes of activations with a scale for each token or block, rotary
 * embeddings, attention with its mask and repeated heads, and pairs of inputs and outputs that
 * carry a cache from one run to the next.
 *
 *   %s: f32[B,S,64] = sigmoid %g
 *   %a: f32[B,S,64] = mul %g, %s             ->  %a: f32[B,S,64] = silu %g */
#include "passes/raise.h"

static nb_pass_result run(nb_pass_ctx *ctx) {
    bool changed = nb_graph_sweep(ctx->graph) > 0;
    bool ok = nb_raise_layers(ctx, &changed) && nb_raise_codes(ctx, &changed) &&
              nb_raise_rotary(ctx, &changed) && nb_raise_attention(ctx, &changed);
    if (!ok) return NB_PASS_FAILED;
    nb_raise_states(ctx, &changed);
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_raise = {
    .size = sizeof(nb_pass),
    .name = "raise",
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS,
    .summary = "find norms, SiLU, GELU, rotary, attention and state pairs in plain operators",
};
