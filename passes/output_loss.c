/* Divergence of a changed model's outputs (output_loss.h). */
#include "passes/output_loss.h"

#include <stdlib.h>
#include <string.h>

bool nb_output_loss_begin(nb_output_loss *l, nb_pass_ctx *ctx, int64_t most_samples) {
    const nb_graph *g = ctx->graph;
    const int64_t n = (int64_t)nb_state_of(ctx)->env->n_samples;
    *l = (nb_output_loss){.ctx = ctx, .n_samples = (size_t)nb_min_i64(n, most_samples)};
    l->wanted = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, nb_tensor, l->n_samples);
    l->counted = nb_output_that_counts(g);
    if (l->counted.output != SIZE_MAX) return true;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                      "no output is of f32: there is nothing to measure");
    return false;
}

void nb_output_loss_end(nb_output_loss *l) {
    for (size_t i = 0; i < l->n_samples; i++) free(l->wanted[i].data);
    *l = (nb_output_loss){0};
}

/* The output of interest on sample i; memory by malloc in *out. */
static bool run_sample(const nb_output_loss *l, size_t i, nb_tensor *out) {
    nb_pass_state *state = nb_state_of(l->ctx);
    nb_pass_env *env = state->env;
    nb_arena *arena = nb_arena_create_like(state->scratch);
    const nb_graph *g = l->ctx->graph;
    nb_tensor *all = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count + 1);
    const nb_tensor *in = env->samples[i].inputs;
    nb_status status = env->run ? env->run(env->run_user, g, in, all, NULL, 0, arena, env->diags)
                                : nb_eval(g, in, all, NULL, 0, arena, env->diags);
    if (status == NB_OK) {
        *out = all[l->counted.output];
        out->data = malloc((size_t)out->bytes + 1);
        if (out->data)
            memcpy(out->data, all[l->counted.output].data, (size_t)out->bytes);
        else
            status = nb_error(env->diags, NB_LIMIT, NB_NOWHERE, "out of memory for outputs");
    }
    nb_arena_destroy(arena);
    return status == NB_OK;
}

bool nb_output_loss_float(nb_output_loss *l) {
    for (size_t i = 0; i < l->n_samples; i++) {
        if (!run_sample(l, i, &l->wanted[i])) return false;
    }
    return true;
}

double nb_output_loss_now(const nb_output_loss *l) {
    double sum = 0;
    for (size_t i = 0; i < l->n_samples; i++) {
        nb_tensor found;
        if (!run_sample(l, i, &found)) return -1;
        sum += nb_divergence(&l->wanted[i], &found, l->counted.probabilities);
        free(found.data);
    }
    return sum / (double)l->n_samples;
}
