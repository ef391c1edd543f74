/* draw-samples: where none were given, samples are drawn at random (draw.h), so that passes behind
 * it that need some need no data.
 *
 *   requires   inputs of f32; does nothing where there are samples
 *   maintains  everything: the graph does not change
 *
 * The model runs on the first of them. If it refuses its shape, or puts out what is no number,
 * there are none, and `info` says why: passes that can do without then do. */
#include "passes/draw.h"
#include "passes/linear.h"

#include <math.h>

static const nb_option options[] = {
    {.name = "count",
     .kind = NB_OPTION_INT,
     .fallback = "8",
     .min = 1,
     .max = 1 << 20,
     .summary = "samples, at most"},
    {.name = "places",
     .kind = NB_OPTION_INT,
     .fallback = "131072",
     .min = 1,
     .max = INT32_MAX,
     .summary = "fewer samples, but 2, where they would have more places than so many together"},
    {.name = "size",
     .kind = NB_OPTION_INT,
     .fallback = "256",
     .min = 1,
     .max = 1 << 20,
     .summary = "of symbolic axes but the first, which is 1"},
    {.name = "low",
     .kind = NB_OPTION_FLOAT,
     .fallback = "-1",
     .min = -1e30,
     .max = 1e30,
     .summary = "the smallest that inputs are"},
    {.name = "high",
     .kind = NB_OPTION_FLOAT,
     .fallback = "1",
     .min = -1e30,
     .max = 1e30,
     .summary = "the largest"},
    {.name = "convolutions",
     .kind = NB_OPTION_BOOL,
     .fallback = "false",
     .summary = "only for graphs that have convolutions"},
    {.name = NULL},
};

static bool is_finite(const nb_tensor *t) {
    for (int64_t i = 0, n = nb_tensor_count(t); i < n && nb_elem_is_float(t->elem); i++) {
        if (!isfinite(nb_tensor_get(t, i))) return false;
    }
    return true;
}

/* NULL: the model takes the sample; else why not. */
static const char *refusal(nb_pass_ctx *ctx, const nb_sample *sample) {
    nb_pass_env *env = nb_state_of(ctx)->env;
    nb_arena *arena = nb_state_of(ctx)->scratch;
    nb_diags *diags = nb_diags_create(arena, env->diags->file);
    const nb_graph *g = ctx->graph;
    nb_tensor *outputs = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count + 1);
    const nb_status status =
        env->run ? env->run(env->run_user, g, sample->inputs, outputs, NULL, 0, arena, diags)
                 : nb_eval(g, sample->inputs, outputs, NULL, 0, arena, diags);
    if (status != NB_OK)
        return diags->list.count ? diags->list.items[0]->message : "the model does not run";
    for (size_t i = 0; i < g->outputs.count; i++) {
        if (!is_finite(&outputs[i]))
            return nb_format(arena, "output \"%s\" is no number", g->outputs.items[i]);
    }
    return NULL;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    nb_pass_env *env = nb_state_of(ctx)->env;
    if (env->n_samples || env->estimating ||
        (nb_option_of(ctx, "convolutions")->b && !nb_has_convolutions(ctx->graph)))
        return nb_pass_end(ctx, false);
    const nb_draw how = {.count = nb_option_of(ctx, "count")->i,
                         .places = nb_option_of(ctx, "places")->i,
                         .size = nb_option_of(ctx, "size")->i,
                         .low = (float)nb_option_of(ctx, "low")->f,
                         .high = (float)nb_option_of(ctx, "high")->f};
    if (!(how.low < how.high)) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL,
                          "expected low below high, found low=%g high=%g", (double)how.low,
                          (double)how.high);
        return NB_PASS_FAILED;
    }
    const char *why;
    size_t n;
    const nb_sample *samples = nb_draw_samples(ctx->graph, &how, env->arena, &n, &why);
    if (samples) why = refusal(ctx, samples);
    if (why) {
        ctx->host->report(ctx, NB_LEVEL_INFO, NULL, "no samples are drawn: %s", why);
        return nb_pass_end(ctx, false);
    }
    env->samples = samples;
    env->n_samples = n;
    env->drawn = true;
    return nb_pass_end(ctx, false);
}

const nb_pass nb_pass_draw_samples = {
    .size = sizeof(nb_pass),
    .name = "draw-samples",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "samples at random, where none were given, for the passes behind",
};
