/* draw-samples: where none were given, samples are drawn at random (draw.h), so that passes behind
 * it that need some need no data.
 *
 *   requires   inputs of f32, or a language model; does nothing where there are samples
 *   maintains  everything: the graph does not change
 *
 * A language model gets tokens at random, and then, in each of `rounds`, those that it would have
 * put behind the ones before them, all at once (Jacobi iteration, as in arXiv 2305.10427, but drawn
 * by the same chances each round). Two runs so make text that shows where keys and activations lie
 * nearly as well as one written token by token, which takes as many runs as there are tokens.
 *
 * The model runs on the first of them. If it refuses its shape, or puts out what is no number,
 * there are none, and `info` says why: passes that can do without then do. */
#include "passes/draw.h"
#include "passes/linear.h"
#include "passes/sampling.h"
#include "passes/windows.h"

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
     .summary = "of symbolic axes but the first, which is 1; tokens of a sample"},
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
    {.name = "rounds",
     .kind = NB_OPTION_INT,
     .fallback = "2",
     .min = 0,
     .max = 1024,
     .summary = "of tokens: how often the model redraws them"},
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

/* What the model makes of the inputs. NULL: these are its outputs; else why there are none. */
static const char *run_model(nb_pass_ctx *ctx, const nb_tensor *inputs, nb_arena *arena,
                             const nb_tensor **outputs) {
    const nb_pass_env *env = nb_state_of(ctx)->env;
    nb_diags *diags = nb_diags_create(arena, env->diags->file);
    const nb_graph *g = ctx->graph;
    nb_tensor *out = NB_NEW_ARRAY(arena, nb_tensor, g->outputs.count + 1);
    *outputs = out;
    const nb_status status = env->run
                                 ? env->run(env->run_user, g, inputs, out, NULL, 0, arena, diags)
                                 : nb_eval(g, inputs, out, NULL, 0, arena, diags);
    if (status != NB_OK)
        return diags->list.count
                   ? nb_strdup(nb_state_of(ctx)->scratch, diags->list.items[0]->message)
                   : "the model does not run";
    for (size_t i = 0; i < g->outputs.count; i++) {
        if (!is_finite(&out[i]))
            return nb_format(nb_state_of(ctx)->scratch, "output \"%s\" is no number",
                             g->outputs.items[i]);
    }
    return NULL;
}

/* NULL: the model takes the sample; else why not. */
static const char *refusal(nb_pass_ctx *ctx, const nb_sample *sample) {
    nb_arena *arena = nb_arena_create_like(nb_state_of(ctx)->scratch);
    const nb_tensor *outputs;
    const char *why = run_model(ctx, sample->inputs, arena, &outputs);
    nb_arena_destroy(arena);
    return why;
}

/* ---- tokens --------------------------------------------------------------------------------- */

/* The same chances for a place of a sample in all rounds, so that a text that the model would write
 * by them stays as it is. */
static uint64_t chance(size_t sample, int64_t at) {
    return nb_hash_mix(nb_hash_mix(1, sample), (uint64_t)at);
}

/* Each but the first, by what the model says of those before it. NULL, or why that cannot be. */
static const char *redraw(nb_pass_ctx *ctx, const nb_language *l, size_t sample, int64_t n,
                          int64_t *tokens) {
    nb_arena *arena = nb_arena_create_like(nb_state_of(ctx)->scratch);
    nb_tensor *inputs;
    const nb_tensor *outputs, *t;
    const char *why = "the model takes no tokens alone";
    if (nb_window_inputs(ctx->graph, tokens, 1, n, arena, nb_diags_create(arena, NULL), &inputs) ==
        NB_OK)
        why = run_model(ctx, inputs, arena, &outputs);
    if (!why) {
        t = &outputs[l->logits];
        const float *logits = t->data;
        if (t->elem != NB_F32 || nb_tensor_count(t) != n * l->vocab)
            why = "there are no logits of f32 for each token";
        for (int64_t i = 1; i < n && !why; i++) {
            uint64_t state = chance(sample, i);
            tokens[i] = nb_choose_token(logits + (i - 1) * l->vocab, (int)l->vocab, 1, &state);
        }
    }
    nb_arena_destroy(arena);
    return why;
}

/* *n samples of a language model. NULL, and *why, where the model does not take them. */
static const nb_sample *write_samples(nb_pass_ctx *ctx, const nb_language *l, size_t *n,
                                      const char **why) {
    const nb_pass_env *env = nb_state_of(ctx)->env;
    const int64_t size = nb_option_of(ctx, "size")->i, rounds = nb_option_of(ctx, "rounds")->i;
    *n = (size_t)nb_option_of(ctx, "count")->i;
    nb_sample *samples = NB_NEW_ARRAY(env->arena, nb_sample, *n);
    int64_t *tokens = NB_NEW_ARRAY(nb_state_of(ctx)->scratch, int64_t, (size_t)size);
    *why = NULL;
    for (size_t s = 0; s < *n && !*why; s++) {
        for (int64_t i = 0; i < size; i++) {
            uint64_t state = chance(s, -1 - i);
            tokens[i] = (int64_t)(nb_uniform(&state) * (double)l->vocab);
        }
        for (int64_t k = 0; k < rounds && !*why; k++) *why = redraw(ctx, l, s, size, tokens);
        nb_tensor *inputs = NULL;
        if (!*why &&
            nb_window_inputs(ctx->graph, tokens, 1, size, env->arena,
                             nb_diags_create(nb_state_of(ctx)->scratch, NULL), &inputs) != NB_OK)
            *why = "the model takes no tokens alone";
        samples[s].inputs = inputs;
    }
    return *why ? NULL : samples;
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
    const nb_language language = nb_language_of(ctx->graph);
    const bool text = language.tokens >= 0 && language.vocab > 0 && language.vocab <= INT32_MAX;
    const nb_sample *samples = text ? write_samples(ctx, &language, &n, &why)
                                    : nb_draw_samples(ctx->graph, &how, env->arena, &n, &why);
    if (samples && !(text && nb_option_of(ctx, "rounds")->i)) why = refusal(ctx, samples);
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
