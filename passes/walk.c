/* Walks (walk.h). The ops between two stops become a graph of their own, whose inputs are values
 * that are held and whose outputs are those that later ops read. */
#include "passes/walk.h"

#include "ir/section.h"

#include <stdlib.h>
#include <string.h>

/* A value's tensors, one a sample; NULL once no op needs it any more. */
typedef struct held {
    nb_tensor *tensors;
} held;

typedef NB_VEC(const nb_value *) value_list;

bool nb_walk_samples(nb_pass_ctx *ctx) {
    if (nb_state_of(ctx)->env->n_samples) return true;
    ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "there are no samples to run");
    ctx->host->help(ctx, "give some with --calib FILE.npy");
    return false;
}

void nb_walk_not_finite(nb_pass_ctx *ctx, const nb_op *op, const nb_value *x) {
    ctx->host->report(ctx, NB_LEVEL_ERROR, op,
                      "'%%%s' holds NaN or infinity on the calibration samples", x->name);
    ctx->host->help(ctx, "run the float model on the same samples and check its outputs first");
}

nb_walk nb_walk_begin(nb_pass_ctx *ctx, nb_graph *graph) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    return (nb_walk){.ctx = ctx,
                     .graph = graph,
                     .next = graph->body.first,
                     .done = {.arena = scratch},
                     .held = {.arena = scratch}};
}

static void let_go_of_sample(held *h, size_t i) {
    free(h->tensors[i].data);
    free(h->tensors[i].scales);
    h->tensors[i] = (nb_tensor){.data = NULL};
}

static void let_go(const nb_walk *walk, held *h) {
    for (size_t i = 0; h->tensors && i < nb_state_of(walk->ctx)->env->n_samples; i++)
        let_go_of_sample(h, i);
    free(h->tensors);
    h->tensors = NULL;
}

void nb_walk_end(nb_walk *walk) {
    for (size_t i = 0; i < walk->held.count; i++) let_go(walk, walk->held.entries[i].value);
}

static const nb_tensor *tensors_of(const nb_walk *walk, const nb_value *v) {
    const held *h = nb_map_get(&walk->held, v);
    return h ? h->tensors : NULL;
}

static bool is_done(const nb_walk *walk, const nb_op *op) {
    return nb_map_get(&walk->done, op) != NULL;
}

/* Is v made of constants alone? Such values are computed again where they are read. */
static bool is_fixed(const nb_value *v) {
    if (nb_is_const(v)) return true;
    if (!v->def || v->def->n_regions) return false;
    for (uint32_t i = 0; i < v->def->n_operands; i++) {
        if (nb_in(v->def, i) && !is_fixed(nb_in(v->def, i))) return false;
    }
    return v->def->n_operands > 0;
}

/* Will an op that is not done read v? What only leaves the model is of no interest. */
static bool is_needed(const nb_walk *walk, const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        if (u->user->kind != NB_OP_return && !is_done(walk, u->user)) return true;
    }
    return false;
}

/* The held values from which v follows. */
static void sources_of(const nb_walk *walk, const nb_value *v, nb_map *seen, value_list *in) {
    nb_arena *scratch = nb_state_of(walk->ctx)->scratch;
    if (!v || !v->def || nb_map_get(seen, v)) return;
    nb_map_set(seen, v, (void *)(uintptr_t)v);
    if (tensors_of(walk, v)) {
        nb_vec_push(scratch, in, v);
        return;
    }
    for (uint32_t i = 0; i < v->def->n_operands; i++) sources_of(walk, nb_in(v->def, i), seen, in);
}

static bool no_memory(const nb_walk *walk) {
    nb_error(nb_diags_of(walk->ctx), NB_LIMIT, NB_NOWHERE,
             "out of memory for what the samples become inside the model");
    nb_help(nb_diags_of(walk->ctx), "give fewer samples");
    return false;
}

static void *copy_of(const void *data, int64_t bytes) {
    void *copy = malloc((size_t)bytes + 1);
    if (copy && bytes) memcpy(copy, data, (size_t)bytes);
    return copy;
}

static bool keep(const nb_walk *walk, const nb_value *v, size_t sample, const nb_tensor *t) {
    nb_tensor *to = &((held *)nb_map_get(&walk->held, v))->tensors[sample];
    *to = *t;
    to->scales = NULL; /* values with scales of their own are not held */
    to->data = copy_of(t->data, t->bytes);
    return to->data || no_memory(walk);
}

/* Runs the section on one sample and keeps its outputs. */
static bool run_sample(const nb_walk *walk, const nb_section *s, const value_list *out, size_t i) {
    nb_pass_state *state = nb_state_of(walk->ctx);
    nb_pass_env *env = state->env;
    nb_arena *arena = nb_arena_create_like(state->scratch);
    const nb_region *body = &s->graph->body;
    nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, body->n_params + 1),
              *outputs = NB_NEW_ARRAY(arena, nb_tensor, out->count + 1);
    for (uint32_t p = 0; p < body->n_params; p++) {
        const nb_value *v = s->sources[p];
        inputs[p] = v->def ? tensors_of(walk, v)[i] : env->samples[i].inputs[v->index];
    }
    nb_status status =
        env->run ? env->run(env->run_user, s->graph, inputs, outputs, NULL, 0, arena, env->diags)
                 : nb_eval(s->graph, inputs, outputs, NULL, 0, arena, env->diags);
    bool ok = status == NB_OK;
    for (size_t k = 0; ok && k < out->count; k++) ok = keep(walk, out->items[k], i, &outputs[k]);
    nb_arena_destroy(arena);
    return ok;
}

static bool run_section(nb_walk *walk, const value_list *out) {
    nb_pass_state *state = nb_state_of(walk->ctx);
    const size_t n = state->env->n_samples;
    nb_map seen = {.arena = state->scratch};
    value_list in = {0};
    NB_VEC(held *) last = {0}; /* what no op reads behind this section */
    for (size_t i = 0; i < walk->held.count; i++) {
        held *h = walk->held.entries[i].value;
        if (h->tensors && !is_needed(walk, walk->held.entries[i].key))
            nb_vec_push(state->scratch, &last, h);
    }
    for (size_t i = 0; i < out->count; i++) sources_of(walk, out->items[i], &seen, &in);
    nb_section s = nb_section_create(walk->graph, in.items, in.count, out->items, out->count);
    bool ok = true;
    for (size_t i = 0; ok && i < out->count; i++) {
        held *h = NB_NEW(state->scratch, held);
        h->tensors = calloc(n + 1, sizeof *h->tensors);
        ok = h->tensors || no_memory(walk);
        nb_map_set(&walk->held, out->items[i], h);
    }
    for (size_t i = 0; ok && i < n; i++) {
        ok = run_sample(walk, &s, out, i);
        for (size_t k = 0; k < last.count; k++) let_go_of_sample(last.items[k], i);
    }
    for (size_t k = 0; k < last.count; k++) let_go(walk, last.items[k]);
    nb_graph_rest(s.graph);
    nb_graph_destroy(s.graph);
    return ok;
}

static bool can_hold(const nb_walk *walk, const nb_value *v) {
    if (!v->type->quant) return true;
    walk->ctx->host->report(walk->ctx, NB_LEVEL_ERROR, v->def,
                            "'%%%s' holds codes between two layers", v->name);
    walk->ctx->host->help(walk->ctx, "quantize weights before activations");
    return false;
}

bool nb_walk_to(nb_walk *walk, const nb_value *x) {
    nb_arena *scratch = nb_state_of(walk->ctx)->scratch;
    if (!x->def || tensors_of(walk, x)) return true;
    for (const nb_op *last = x->def; !is_done(walk, last); walk->next = walk->next->next)
        nb_map_set(&walk->done, walk->next, walk->next);
    value_list out = {0};
    for (size_t i = 0; i < walk->done.count; i++) {
        const nb_op *op = walk->done.entries[i].key;
        for (uint32_t r = 0; r < op->n_results; r++) {
            const nb_value *v = op->results[r];
            if (tensors_of(walk, v) || is_fixed(v) || !is_needed(walk, v)) continue;
            if (!can_hold(walk, v)) return false;
            nb_vec_push(scratch, &out, v);
        }
    }
    return run_section(walk, &out);
}

const nb_tensor *nb_walk_sample(const nb_walk *walk, const nb_value *x, size_t i) {
    return x->def ? &tensors_of(walk, x)[i]
                  : &nb_state_of(walk->ctx)->env->samples[i].inputs[x->index];
}

float *nb_walk_data(const nb_walk *walk, const nb_value *x, size_t i) {
    const nb_tensor *t = tensors_of(walk, x);
    return t ? t[i].data : NULL;
}
