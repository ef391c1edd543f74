/* Runs a pipeline: after each pass verify, check numbers, tell the observer. */
#include "passes/pass.h"

#include "ir/build.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/check.h"
#include "passes/host.h"
#include "passes/select.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const nb_option_value *value_of(const nb_pass *pass, const nb_option_value *values,
                                       const char *name) {
    for (size_t i = 0; pass->options && pass->options[i].name; i++) {
        if (strcmp(pass->options[i].name, name) == 0) return &values[i];
    }
    abort();
}

const nb_option_value *nb_option_of(const nb_pass_ctx *ctx, const char *name) {
    return value_of(nb_state_of(ctx)->pass, ctx->options, name);
}

const nb_option_value *nb_step_option(const nb_step *step, const char *name) {
    return value_of(step->pass, step->options, name);
}

nb_pass_result nb_pass_end(const nb_pass_ctx *ctx, bool changed) {
    if (nb_state_of(ctx)->failed) return NB_PASS_FAILED;
    return changed ? NB_PASS_CHANGED : NB_PASS_UNCHANGED;
}

void nb_refused(const nb_pass_ctx *ctx, const nb_op *op, const char *rule, const char *equation,
                const char *fmt, ...) {
    const nb_pass_state *s = nb_state_of(ctx);
    if (!s->env->near_miss) return;
    va_list args;
    va_start(args, fmt);
    const nb_near_miss miss = {.pass = s->pass->name,
                               .rule = rule,
                               .equation = equation,
                               .op = op,
                               .why = nb_vformat(s->scratch, fmt, args)};
    va_end(args);
    s->env->near_miss(s->env->near_miss_user, &miss);
}

nb_builder nb_pass_builder(nb_pass_ctx *ctx, nb_op *before, const nb_loc *loc) {
    nb_graph *g = ctx->graph;
    return (nb_builder){.graph = g,
                        .before = before,
                        .region = before ? before->parent : NULL,
                        .loc = nb_loc_via(g, loc, nb_state_of(ctx)->pass->name),
                        .diags = nb_diags_of(ctx)};
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A failed pass that said nothing still gets a message with its name. */
static nb_status failure(const nb_pass_env *env, const nb_pass *pass, size_t errors_before) {
    if (env->diags->errors == errors_before)
        return nb_error(env->diags, NB_INTERNAL, NB_NOWHERE,
                        "pass '%s' failed without giving a reason", pass->name);
    nb_note(env->diags, "pass '%s' stopped here", pass->name);
    for (size_t i = env->diags->list.count; i-- > 0;) { /* warnings may follow the error */
        if (env->diags->list.items[i]->severity == NB_ERROR)
            return env->diags->list.items[i]->status;
    }
    return NB_INTERNAL;
}

static nb_status run_step(const nb_step *step, size_t index, nb_graph *graph, nb_pass_env *env) {
    nb_pass_state state = {
        .env = env, .pass = step->pass, .scratch = nb_arena_create_like(env->arena)};
    nb_pass_ctx ctx = {.size = sizeof ctx,
                       .host = &nb_host,
                       .host_data = &state,
                       .graph = graph,
                       .options = step->options,
                       .user = step->pass->user};
    nb_graph *before = env->check_each ? nb_graph_clone(graph) : NULL;
    size_t errors = env->diags->errors;
    double start = now();
    nb_pass_result result = step->pass->run(&ctx);
    if (state.failed || env->diags->errors != errors)
        result = NB_PASS_FAILED;
    else if ((unsigned)result > NB_PASS_UNCHANGED || !nb_selectors_end(&ctx) ||
             !nb_drop_bodies(&ctx))
        result = NB_PASS_FAILED;
    double seconds = now() - start;
    nb_arena_destroy(state.scratch);
    nb_graph_rest(graph);
    nb_status status = NB_OK;
    if (result == NB_PASS_FAILED) status = failure(env, step->pass, errors);
    /* The host table cannot see all that a pass may get wrong, such as an order of ops. */
    if (status == NB_OK && (env->verify_each || nb_registry_is_loaded(env->registry, step->pass))) {
        status = (env->verify_each ? nb_verify : nb_verify_form)(graph, env->diags);
        if (status == NB_OK && env->verify_each) status = nb_check_text(graph, env->diags);
        if (status != NB_OK) nb_note(env->diags, "after pass '%s'", step->pass->name);
    }
    if (status == NB_OK && before && result == NB_PASS_CHANGED)
        status = nb_check_pass(step->pass, before, graph, env);
    if (before) nb_graph_destroy(before);
    if (env->after) {
        nb_pass_event event = {.index = index,
                               .name = step->pass->name,
                               .result = result,
                               .seconds = seconds,
                               .graph = graph};
        env->after(env->after_user, &event);
    }
    return status;
}

static bool originals_are_needed(const nb_pipeline *pipeline, size_t from) {
    for (size_t i = from; i < pipeline->steps.count; i++) {
        if (pipeline->steps.items[i].pass->needs & NB_PASS_NEEDS_ORIGINALS) return true;
    }
    return false;
}

static void drop_originals(nb_pass_env *env) {
    for (size_t i = 0; i < env->originals.count; i++)
        nb_blob_release(env->originals.entries[i].value);
    env->originals = (nb_map){.arena = env->arena};
}

nb_status nb_pipeline_run(const nb_pipeline *pipeline, nb_graph *graph, nb_pass_env *env) {
    if (!env->stats.arena) env->stats.arena = env->arena;
    nb_status status = nb_check_calls(graph, env);
    if (status == NB_OK && env->verify_each) status = nb_check_text(graph, env->diags);
    drop_originals(env);
    for (size_t i = 0; i < pipeline->steps.count && status == NB_OK; i++) {
        env->keep_originals = originals_are_needed(pipeline, i + 1);
        env->behind = &pipeline->steps.items[i] + 1;
        env->n_behind = pipeline->steps.count - i - 1;
        status = run_step(&pipeline->steps.items[i], i, graph, env);
        if (status != NB_OK || !env->keep_originals) drop_originals(env);
    }
    return status;
}
