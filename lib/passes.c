/* Pipelines over the library's graphs (nibble.h). */
#include "lib/private.h"
#include "lib/stopwatch.h"

#include "passes/presets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct running {
    nibble_graph *graph;
    const char *pipeline, *scheme; /* one of them is NULL */
    nibble_pass_options options;
    char **text;
} running;

const nb_pass *nibble_pass(size_t i) { return nb_builtin_pass(i); }

static nb_status make_registry(const running *r, nb_diags *diags, nb_registry **out) {
    nb_arena *arena = r->graph->arena;
    const nibble_pass_options *o = &r->options;
    *out = nb_registry_create(arena);
    if (o->directory) (*out)->base = nb_strdup(arena, o->directory);
    for (size_t i = 0; o->plugins && o->plugins[i]; i++)
        NB_TRY(nb_registry_load(*out, o->plugins[i], diags));
    for (size_t i = 0; o->in_memory && o->in_memory[i]; i++)
        NB_TRY(nb_registry_add(*out, o->in_memory[i], "memory", diags));
    return NB_OK;
}

static nb_status check_finite(const nb_graph *g, size_t sample, const nb_tensor *inputs,
                              nb_diags *diags) {
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_tensor *t = &inputs[i];
        if (t->elem != NB_F32) continue;
        for (int64_t k = 0, n = nb_tensor_count(t); k < n; k++) {
            if (!isfinite(((const float *)t->data)[k]))
                return nb_error(diags, NB_MALFORMED, NB_NOWHERE,
                                "sample %zu, input \"%s\": element %lld is %g", sample,
                                g->body.params[i]->name, (long long)k,
                                (double)((const float *)t->data)[k]);
        }
    }
    return NB_OK;
}

static nb_status read_samples(const running *r, nb_diags *diags, nb_pass_env *env) {
    const nb_graph *g = r->graph->graph;
    size_t n = r->options.n_samples, each = g->body.n_params;
    if (!n) return NB_OK;
    NB_TRY(nbl_given(r->options.samples, "samples", diags));
    nb_sample *samples = NB_NEW_ARRAY(r->graph->arena, nb_sample, n);
    for (size_t i = 0; i < n; i++) {
        nb_tensor *inputs;
        NB_TRY(nbl_tensors(r->options.samples + i * each, each, each, false, r->graph->arena, diags,
                           &inputs));
        NB_TRY(nbl_check_inputs(g, inputs, r->graph->arena, diags));
        NB_TRY(check_finite(g, i, inputs, diags));
        samples[i].inputs = inputs;
    }
    env->samples = samples;
    env->n_samples = n;
    return NB_OK;
}

static void after_pass(void *user, const nb_pass_event *e) {
    const running *r = user;
    const nibble_pass_event event = {.size = sizeof event,
                                     .index = e->index,
                                     .name = e->name,
                                     .result = e->result,
                                     .seconds = e->seconds};
    r->options.after(r->options.user, &event);
}

static nb_status pipeline_of(const running *r, nb_arena *arena, nb_diags *diags, const char **out) {
    const char *scheme = r->scheme, *budget = r->options.budget;
    nb_preset_options preset = {.group = -1,
                                .calibrated = r->options.n_samples > 0,
                                .own_samples = budget && !r->options.n_samples};
    NB_TRY(nbl_given(scheme, "scheme", diags));
    if (budget) preset.budget = nb_budget_option(budget, arena);
    if (budget && !preset.budget)
        return nb_error(diags, NB_USAGE, NB_NOWHERE,
                        "a budget is bits per weight, like 4.7bpw, or milliseconds of a run, like "
                        "12ms; found '%s'",
                        budget);
    *out = nb_preset(scheme, &preset, arena);
    if (*out) return NB_OK;
    return nb_error(diags, NB_USAGE, NB_NOWHERE, "there is no scheme '%s'; schemes are %s", scheme,
                    nb_preset_names(arena));
}

static nb_status run_passes(void *job, nb_diags *diags) {
    running *r = job;
    NB_TRY(nbl_given(r->graph, "graph", diags));
    nb_arena *arena = r->graph->arena;
    nb_pass_env env = {.diags = diags, .arena = arena};
    nbl_runner runner;
    nbl_stopwatch stopwatch = {.arena = arena, .diags = diags};
    nb_pipeline pipeline;
    const char *text = r->pipeline;
    if (!text) NB_TRY(pipeline_of(r, arena, diags, &text));
    diags->file = r->graph->graph->file ? r->graph->graph->file : "graph";
    diags->file = nb_strdup(diags->arena, diags->file);
    NB_TRY(make_registry(r, diags, &env.registry));
    NB_TRY(nb_pipeline_parse(env.registry, text, arena, diags, &pipeline));
    NB_TRY(read_samples(r, diags, &env));
    stopwatch.given = nbl_first_sample(r->graph->graph, &env, arena);
    env.run_seconds = nbl_run_seconds;
    env.seconds_user = &stopwatch;
    env.verify_each = r->options.verify_each != 0;
    env.check_each = r->options.check_each != 0;
    if (r->options.after) env.after = after_pass;
    env.after_user = r;
    nbl_runner_begin(&runner, NULL, arena, &env);
    nb_status status = nb_pipeline_run(&pipeline, r->graph->graph, &env);
    nbl_runner_end(&runner);
    return status;
}

nibble_status nibble_run_passes(nibble_graph *graph, const char *pipeline,
                                const nibble_pass_options *options, nibble_diags *diags) {
    running r = {.graph = graph, .pipeline = pipeline ? pipeline : ""};
    NBL_TAKE(&r.options, options);
    return nbl_guard(run_passes, &r, diags);
}

nibble_status nibble_run_scheme(nibble_graph *graph, const char *scheme,
                                const nibble_pass_options *options, nibble_diags *diags) {
    running r = {.graph = graph, .scheme = scheme};
    NBL_TAKE(&r.options, options);
    return nbl_guard(run_passes, &r, diags);
}

static nb_status scheme_pipeline(void *job, nb_diags *diags) {
    running *r = job;
    const char *text;
    nb_arena *arena = nb_arena_create(nbl_out_of_memory, NULL);
    nb_status status = pipeline_of(r, arena, diags, &text);
    if (status == NB_OK) *r->text = strdup(text);
    nb_arena_destroy(arena);
    return status == NB_OK && !*r->text ? NB_LIMIT : status;
}

nibble_status nibble_scheme_pipeline(const char *scheme, int calibrated, nibble_diags *diags,
                                     char **out) {
    running r = {.scheme = scheme, .options = {.n_samples = calibrated != 0}, .text = out};
    *out = NULL;
    return nbl_guard(scheme_pipeline, &r, diags);
}
