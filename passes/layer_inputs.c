/* Layer after layer (layer_inputs.h). */
#include "passes/layer_inputs.h"

#include "passes/shrink.h"

#include <stdlib.h>

static bool no_memory(const nb_layer_inputs *in, const nb_value *x) {
    nb_error(nb_diags_of(in->walk.ctx), NB_LIMIT, NB_NOWHERE,
             "out of memory for the moments of '%%%s'", x->name);
    return false;
}

bool nb_layer_inputs_begin(nb_layer_inputs *in, nb_pass_ctx *ctx, double damp, bool sorted,
                           double correct) {
    *in = (nb_layer_inputs){.damp = damp, .sorted = sorted, .correct = correct};
    if (!nb_walk_samples(ctx)) return false;
    in->walk = nb_walk_begin(ctx, ctx->graph);
    if (correct == 0) return true;
    in->copy = nb_graph_clone(ctx->graph);
    in->original = nb_walk_begin(ctx, in->copy);
    in->originals = (nb_value **)nb_alloc_array(nb_state_of(ctx)->scratch,
                                                (size_t)in->copy->n_values + 1, sizeof(nb_value *));
    NB_FOR_OPS(op, &in->copy->body) {
        for (uint32_t i = 0; i < op->n_results; i++)
            in->originals[op->results[i]->id] = op->results[i];
    }
    return true;
}

static void forget(nb_layer_inputs *in) {
    nb_hessian_free(&in->hessian);
    nb_moments_free(&in->cross);
    nb_moments_free(&in->held);
    in->x = NULL;
}

void nb_layer_inputs_end(nb_layer_inputs *in) {
    forget(in);
    nb_walk_end(&in->walk);
    nb_walk_end(&in->original);
    if (in->copy) nb_graph_destroy(in->copy);
}

/* sum of x' (original x - x) over a sample */
static bool add_difference(nb_moments *cross, const nb_tensor *x, const nb_tensor *original) {
    const int64_t count = nb_tensor_count(x);
    const float *now = x->data, *then = original->data;
    float *difference = malloc(((size_t)count + 1) * sizeof *difference);
    if (!difference) return false;
    for (int64_t i = 0; i < count; i++) difference[i] = then[i] - now[i];
    nb_moments_add(cross, now, difference, count / cross->n);
    free(difference);
    return true;
}

static bool is_held(const nb_layer_inputs *in, size_t sample) {
    return in->hold && sample % NB_HELD_BACK == NB_HELD_BACK - 1;
}

static bool collect(nb_layer_inputs *in, const nb_value *x, nb_moments *own) {
    const nb_dim *last = x->type->dims[x->type->rank - 1];
    const nb_value *original = in->copy && x->def ? in->originals[x->id] : NULL;
    bool ok = nb_moments_create(own, last->value) &&
              (!original || nb_moments_create(&in->cross, last->value)) &&
              (!in->hold || nb_moments_create(&in->held, last->value));
    for (size_t i = 0; ok && i < nb_state_of(in->walk.ctx)->env->n_samples; i++) {
        const nb_tensor *t = nb_walk_sample(&in->walk, x, i);
        const bool held = is_held(in, i);
        nb_moments_add(held ? &in->held : own, t->data, t->data, nb_tensor_count(t) / own->n);
        if (original && !held)
            ok = add_difference(&in->cross, t, nb_walk_sample(&in->original, original, i));
    }
    return ok || no_memory(in, x);
}

/* Weights are brought to other targets by as much as the moments are believed. */
static bool shrink(nb_layer_inputs *in, const nb_value *x, nb_moments *own) {
    nb_shrink s;
    if (in->shrink == 0) return true;
    if (!nb_shrink_begin(&s, own)) return no_memory(in, x);
    for (size_t i = 0; i < nb_state_of(in->walk.ctx)->env->n_samples; i++) {
        const nb_tensor *t = nb_walk_sample(&in->walk, x, i);
        if (!is_held(in, i)) nb_shrink_see(&s, t->data, nb_tensor_count(t) / own->n);
    }
    const double share = nb_shrink_share(&s, in->shrink);
    nb_shrink_end(&s);
    nb_moments_shrink(own, share, false);
    if (in->cross.sum) nb_moments_shrink(&in->cross, share, true);
    return true;
}

static bool make_hessian(nb_layer_inputs *in, const nb_op *op, const nb_moments *own) {
    const nb_value *x = nb_in(op, 0);
    nb_hessian_result result = nb_hessian_create(&in->hessian, own, in->damp, in->sorted);
    if (result == NB_HESSIAN_NO_MEMORY) return no_memory(in, x);
    if (result == NB_HESSIAN_OK) return true;
    nb_walk_not_finite(in->walk.ctx, op, x);
    return false;
}

/* One stop after the other, so that a section's weights are few. */
static bool walk_to(nb_layer_inputs *in, const nb_value *x) {
    return nb_walk_to(&in->walk, x) &&
           (!in->copy || !x->def || nb_walk_to(&in->original, in->originals[x->id]));
}

void nb_layer_inputs_pass(nb_layer_inputs *in, const nb_op *op) {
    const nb_value *x = nb_in(op, 0);
    if (x != in->x && (!in->ahead.count || in->ahead.items[in->ahead.count - 1] != x))
        nb_vec_push(nb_state_of(in->walk.ctx)->scratch, &in->ahead, x);
}

static void count_rows(nb_layer_inputs *in) {
    const int64_t n = in->hessian.n;
    in->layers++;
    if (in->rows >= NB_ROWS_PER_INPUT * n) return;
    if (!in->few_layers++ || in->rows * in->fewest_inputs < in->fewest_rows * n) {
        in->fewest_rows = in->rows;
        in->fewest_inputs = n;
    }
}

static bool renew(nb_layer_inputs *in, const nb_op *op) {
    const nb_value *x = nb_in(op, 0);
    forget(in);
    for (size_t i = 0; i < in->ahead.count; i++) {
        if (!walk_to(in, in->ahead.items[i])) return false;
    }
    in->ahead.count = 0;
    if (!walk_to(in, x)) return false;
    nb_moments own = {0};
    const bool ok = collect(in, x, &own) && shrink(in, x, &own) && make_hessian(in, op, &own);
    in->rows = own.rows;
    nb_moments_free(&own);
    if (ok) in->x = x;
    return ok;
}

bool nb_layer_inputs_to(nb_layer_inputs *in, const nb_op *op) {
    if (nb_in(op, 0) != in->x && !renew(in, op)) return false;
    count_rows(in);
    return true;
}
