/* Compiling a graph as it would become (draft.h). */
#include "passes/draft.h"

#include "passes/layer_form.h"
#include "passes/linear.h"

#include <string.h>

typedef struct draft {
    nb_graph *graph;
    nb_map layers;        /* op of the copy -> its place in `weights`, behind NULL */
    nb_value **weights;   /* [n] floats, or the codes that took their place */
    const nb_value **was; /* by id: values of the copy */
    nb_wide_choice *wide; /* of drafts that are timed */
} draft;

/* ---- the copy ------------------------------------------------------------------------------- */

static void index_values(draft *d, nb_arena *scratch) {
    const nb_graph *g = d->graph;
    d->was = (const nb_value **)nb_alloc_array(scratch, (size_t)g->n_values + 1, sizeof *d->was);
    for (uint32_t i = 0; i < g->body.n_params; i++)
        d->was[g->body.params[i]->id] = g->body.params[i];
    for (size_t i = 0; i < g->constants.count; i++)
        d->was[g->constants.items[i]->id] = g->constants.items[i];
    for (const nb_op *op = g->body.first; op; op = op->next) {
        for (uint32_t i = 0; i < op->n_results; i++) d->was[op->results[i]->id] = op->results[i];
    }
}

/* What is known of values of the graph, for those of the copy. */
static void take_along(const draft *d, const nb_map *from, nb_map *to) {
    for (size_t i = 0; i < from->count; i++) {
        const nb_value *v = from->entries[i].key;
        if (v->id < d->graph->n_values && d->was[v->id])
            nb_map_set(to, d->was[v->id], from->entries[i].value);
    }
}

/* A copy's ops stand in the order of the graph's. */
static void find_layers(draft *d, const nb_graph *g, nb_op *const *ops, size_t n,
                        nb_arena *scratch) {
    nb_map places = {.arena = scratch};
    d->weights = (nb_value **)nb_alloc_array(scratch, n + 1, sizeof *d->weights);
    d->layers.arena = scratch;
    for (size_t i = 0; i < n; i++) nb_map_set(&places, ops[i], &d->weights[i]);
    nb_op *copy = d->graph->body.first;
    for (const nb_op *op = g->body.first; op; op = op->next, copy = copy->next) {
        void *place = nb_map_get(&places, op);
        if (place) nb_map_set(&d->layers, copy, place);
    }
}

/* Which constants the layers multiply with, as long as they are products of their own. */
static void see_weights(void *user, const nb_pass_event *e) {
    draft *d = user;
    for (const nb_op *op = e->graph->body.first; op; op = op->next) {
        nb_value **place = nb_map_get(&d->layers, op);
        if (place && nb_linear_weight(op)) *place = nb_linear_weight(op);
    }
}

/* ---- the passes behind ---------------------------------------------------------------------- */

/* Options of quantize-weights that choose codes, and neither how many there are nor what stands
 * beside them. */
static const char *const rounding[] = {"method", "search", "search-ends", "importance", "anneal"};

/* The step without them, `plain` being one with no option. Weights that `keep` keeps are found by
 * the method. */
static nb_step round_to_nearest(nb_step step, const nb_step *plain, nb_arena *scratch) {
    size_t n = 0;
    while (step.pass->options[n].name) n++;
    nb_option_value *options = NB_NEW_ARRAY(scratch, nb_option_value, n + 1);
    memcpy(options, step.options, n * sizeof *options);
    for (size_t i = 0; i < n && !nb_step_option(&step, "keep")->given; i++) {
        for (size_t k = 0; k < NB_COUNT(rounding); k++) {
            if (strcmp(step.pass->options[i].name, rounding[k]) == 0)
                options[i] = plain->options[i];
        }
    }
    step.options = options;
    return step;
}

static nb_status steps_behind(const nb_pass_env *env, nb_arena *scratch, nb_pipeline *out) {
    nb_pipeline plain;
    NB_TRY(nb_pipeline_parse(env->registry, "quantize-weights", scratch, env->diags, &plain));
    const nb_step *rounds = &plain.steps.items[0];
    *out = (nb_pipeline){0};
    for (size_t i = 0; i < env->n_behind; i++) {
        nb_step step = env->behind[i];
        if (step.pass == rounds->pass) step = round_to_nearest(step, rounds, scratch);
        nb_vec_push(scratch, &out->steps, step);
    }
    return NB_OK;
}

/* A pipeline may end before that. */
static nb_status plan(nb_graph *g, nb_pass_env *env) {
    nb_pipeline rest;
    if (g->stage == NB_STAGE_PLANNED) return NB_OK;
    NB_TRY(nb_pipeline_parse(env->registry, "fuse-dequant, plan-memory", env->arena, env->diags,
                             &rest));
    return nb_pipeline_run(&rest, g, env);
}

/* What passes have to say they say again when they run on the graph itself, except why they cannot.
 */
static nb_status pass_on(nb_diags *to, const nb_diags *from, nb_status status) {
    for (size_t i = 0; status != NB_OK && i < from->list.count; i++) {
        const nb_diag *d = from->list.items[i];
        if (d->severity != NB_ERROR) continue;
        nb_error(to, d->status, d->where, "%s", d->message);
        for (size_t k = 0; k < d->notes.count; k++) nb_note(to, "%s", d->notes.items[k]);
        if (d->help) nb_help(to, "%s", d->help);
    }
    return status;
}

/* The copy's own environment. */
static nb_pass_env environment(const draft *d, const nb_pass_env *env, nb_arena *scratch) {
    nb_pass_env there = {.registry = env->registry,
                         .diags = nb_diags_create(scratch, env->diags->file),
                         .arena = scratch,
                         .run = env->run,
                         .run_user = env->run_user,
                         .samples = env->samples,
                         .n_samples = env->n_samples,
                         .drawn = env->drawn};
    there.stats.arena = there.layer_forms.arena = scratch;
    take_along(d, &env->stats, &there.stats);
    take_along(d, &env->layer_forms, &there.layer_forms);
    return there;
}

static nb_status make(draft *d, const nb_pass_env *env, nb_arena *scratch) {
    nb_pass_env there = environment(d, env, scratch);
    nb_pipeline behind;
    there.n_samples = (size_t)nb_min_i64(1, (int64_t)env->n_samples);
    there.wide = d->wide;
    there.after = see_weights;
    there.after_user = d;
    NB_TRY(steps_behind(env, scratch, &behind));
    nb_status status = nb_pipeline_run(&behind, d->graph, &there);
    if (status == NB_OK) status = plan(d->graph, &there);
    return pass_on(env->diags, there.diags, status);
}

/* ---- time ----------------------------------------------------------------------------------- */

static bool measure(const draft *d, const nb_pass_env *env, size_t n, nb_arena *scratch,
                    double *seconds, double *all) {
    const nb_graph *g = d->graph;
    nb_map sums = {.arena = scratch};
    size_t n_ops = 0, at = 0;
    for (const nb_op *op = g->body.first; op; op = op->next) n_ops++;
    double *of_ops = NB_NEW_ARRAY(scratch, double, n_ops + 1);
    *all = env->run_seconds(env->seconds_user, g, of_ops);
    if (*all < 0) return false;
    for (size_t i = 0; i < n; i++) {
        seconds[i] = 0;
        nb_map_set(&sums, d->weights[i], &seconds[i]);
    }
    for (const nb_op *op = g->body.first; op; op = op->next, at++) {
        double *sum = nb_linear_weight(op) ? nb_map_get(&sums, nb_linear_weight(op)) : NULL;
        if (sum) *sum += of_ops[at];
    }
    return true;
}

bool nb_draft_seconds(nb_pass_ctx *ctx, nb_op *const *ops, size_t n, nb_wide_choice *wide,
                      double *seconds, double *all) {
    const nb_pass_env *env = nb_state_of(ctx)->env;
    nb_arena *scratch = nb_arena_create_like(nb_state_of(ctx)->scratch);
    draft d = {.graph = nb_graph_clone(ctx->graph), .wide = wide};
    find_layers(&d, ctx->graph, ops, n, scratch);
    index_values(&d, scratch);
    const nb_pass_event begin = {.graph = d.graph};
    see_weights(&d, &begin);
    const bool ok = make(&d, env, scratch) == NB_OK && measure(&d, env, n, scratch, seconds, all);
    nb_graph_destroy(d.graph);
    nb_arena_destroy(scratch);
    return ok;
}

/* ---- loss ----------------------------------------------------------------------------------- */

/* From these on all bits are kept, or inputs and outputs are others than samples have. */
static const char *const ends[] = {"fuse-dequant", "cache-type", "last-logits", "plan-memory"};

static bool is_end(const nb_step *step) {
    for (size_t i = 0; i < NB_COUNT(ends); i++) {
        if (strcmp(step->pass->name, ends[i]) == 0) return true;
    }
    return false;
}

static nb_pipeline steps_that_round(const nb_pass_env *env, nb_arena *scratch) {
    nb_pipeline out = {0};
    for (size_t i = 0; i < env->n_behind && !is_end(&env->behind[i]); i++)
        nb_vec_push(scratch, &out.steps, env->behind[i]);
    return out;
}

bool nb_draft_rounds(const nb_pass_ctx *ctx) {
    const nb_pass_env *env = nb_state_of(ctx)->env;
    for (size_t i = 0; i < env->n_behind && !is_end(&env->behind[i]); i++) {
        if (strcmp(env->behind[i].pass->name, "quantize-weights") == 0) return true;
    }
    return false;
}

double nb_draft_loss(nb_pass_ctx *ctx, const nb_sample *samples, size_t n,
                     const nb_output_loss *model) {
    const nb_pass_env *env = nb_state_of(ctx)->env;
    nb_arena *scratch = nb_arena_create_like(nb_state_of(ctx)->scratch);
    draft d = {.graph = nb_graph_clone(ctx->graph)};
    index_values(&d, scratch);
    nb_pass_env there = environment(&d, env, scratch);
    there.samples = samples;
    there.n_samples = n;
    there.store = env->store;
    there.progress = env->progress;
    there.progress_user = env->progress_user;
    const nb_pipeline steps = steps_that_round(env, scratch);
    const nb_status status = nb_pipeline_run(&steps, d.graph, &there);
    const double loss =
        pass_on(env->diags, there.diags, status) == NB_OK ? nb_output_loss_of(model, d.graph) : -1;
    nb_graph_destroy(d.graph);
    nb_arena_destroy(scratch);
    return loss;
}
