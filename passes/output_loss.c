/* Divergence of a changed model's outputs (output_loss.h). */
#include "passes/output_loss.h"

#include <stdlib.h>
#include <string.h>

bool nb_output_loss_begin(nb_output_loss *l, nb_pass_ctx *ctx, int64_t most_samples) {
    const nb_graph *g = ctx->graph;
    const int64_t n = (int64_t)nb_state_of(ctx)->env->n_samples;
    *l = (nb_output_loss){.ctx = ctx, .n_samples = (size_t)nb_min_i64(n, most_samples)};
    l->samples = nb_state_of(ctx)->env->samples;
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

/* g's output of interest on sample i; memory by malloc in *out. */
static bool run_sample(const nb_output_loss *l, const nb_graph *g, size_t i, nb_tensor *out) {
    nb_pass_state *state = nb_state_of(l->ctx);
    nb_pass_env *env = state->env;
    nb_arena *arena = nb_arena_create_like(state->scratch);
    nb_tensor *all = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count + 1);
    const nb_tensor *in = l->samples[i].inputs;
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
        if (!run_sample(l, l->ctx->graph, i, &l->wanted[i])) return false;
    }
    return true;
}

static bool takes_the_same(const nb_graph *g, const nb_graph *as) {
    bool same = g->body.n_params == as->body.n_params && g->outputs.count == as->outputs.count;
    for (uint32_t i = 0; same && i < g->body.n_params; i++) {
        const nb_type *a = g->body.params[i]->type, *b = as->body.params[i]->type;
        same = a->elem == b->elem && a->rank == b->rank;
    }
    return same;
}

static bool has_shape_of(const nb_tensor *t, const nb_tensor *wanted) {
    return t->elem == wanted->elem && t->rank == wanted->rank &&
           memcmp(t->dims, wanted->dims, (size_t)t->rank * sizeof *t->dims) == 0;
}

/* Negative after an error. */
static double loss_of_sample(const nb_output_loss *l, const nb_graph *g, size_t i) {
    nb_tensor found;
    if (!run_sample(l, g, i, &found)) return -1;
    const bool same = has_shape_of(&found, &l->wanted[i]);
    const double loss = same ? nb_divergence(&l->wanted[i], &found, l->counted.kind) : -1;
    free(found.data);
    if (!same)
        l->ctx->host->report(l->ctx, NB_LEVEL_ERROR, NULL,
                             "passes behind change the shape of output '%s', which is measured",
                             g->outputs.items[l->counted.output]);
    return loss;
}

double nb_output_loss_of(const nb_output_loss *l, const nb_graph *g) {
    double sum = 0;
    if (!takes_the_same(g, l->ctx->graph)) {
        l->ctx->host->report(l->ctx, NB_LEVEL_ERROR, NULL,
                             "passes behind change the model's inputs, for which samples are");
        return -1;
    }
    for (size_t i = 0; i < l->n_samples && sum >= 0; i++) {
        const double loss = loss_of_sample(l, g, i);
        sum = loss < 0 ? -1 : sum + loss;
    }
    return sum < 0 ? -1 : sum / (double)l->n_samples;
}

double nb_output_loss_now(const nb_output_loss *l) { return nb_output_loss_of(l, l->ctx->graph); }
