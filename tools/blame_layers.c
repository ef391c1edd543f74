/* What each layer's rounding does to the model's output (blame.h).
 *
 * One graph is both models: beside each layer with rounded weights and inputs stands the float one,
 * which takes the same input, and an input of the graph chooses between their results:
 *
 *   %y: f32[B,8] = matmul %x.d, %w.d         (dequantize of codes)
 * becomes
 *   %y.float: f32[B,8] = matmul %x, @w
 *   %y.used: f32[B,8] = where %y.in_float, %y.float, %y
 *
 * So it is compiled once, whatever layers are rounded in a run. */
#include "ir/build.h"
#include "passes/branch.h"
#include "passes/linear.h"
#include "tools/blame.h"
#include "tools/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct both {
    const nbt_reference *ref;
    nb_arena *arena;
    nbt_blamed_layers *out;
    nb_graph *graph;
    nb_value **now; /* by ids of the float graph: what stands for that value */
    nbt_samples samples;
    uint32_t n_inputs; /* of the model; those of the layers follow, in order of execution */
    bool *in_float;    /* by layer */
    nbt_progress progress;
} both;

/* ---- the graph ------------------------------------------------------------------------------ */

static void find_values(both *b) {
    nb_graph *g = b->graph;
    b->now = (nb_value **)nb_alloc_array(b->arena, (size_t)g->n_values + 1, sizeof *b->now);
    for (uint32_t i = 0; i < g->body.n_params; i++)
        b->now[g->body.params[i]->id] = g->body.params[i];
    NB_FOR_OPS(op, &g->body) {
        for (uint32_t i = 0; i < op->n_results; i++) b->now[op->results[i]->id] = op->results[i];
    }
}

/* A weight or bias of the float graph. */
static nb_value *copied(both *b, const nb_value *constant) {
    const nb_type *from = constant->type;
    const nb_dim *dims[NB_MAX_RANK];
    for (int i = 0; i < from->rank; i++) dims[i] = nb_dim_const(b->graph, from->dims[i]->value);
    return nb_graph_add_const(b->graph, constant->name,
                              nb_type_intern(b->graph, from->elem, NULL, from->rank, dims),
                              nb_blob_retain(constant->blob), NULL);
}

/* The float layer on the value that the rounded one takes. */
static nb_value *float_layer(both *b, nb_builder *build, const nbt_layer_error *l) {
    const bool looks_up = nb_is_embedding(l->op);
    nb_value *x = b->now[nb_in(l->op, looks_up)->id], *w = copied(b, nb_in(l->op, !looks_up));
    const nb_op *sum = nb_bias_add(l->op);
    nb_begin(build, l->op->kind);
    nb_arg(build, looks_up ? w : x);
    nb_arg(build, looks_up ? x : w);
    if (looks_up) nb_set_int(build, "axis", 0);
    nb_value *y = nb_end(build);
    if (!sum || !y) return y;
    const bool swapped = nb_in(sum, 1) == nb_out(l->op);
    nb_value *bias = copied(b, nb_in(sum, !swapped));
    return nb_binary(build, NB_OP_add, swapped ? bias : y, swapped ? y : bias);
}

/* Returns false after an error. */
static bool add_switch(both *b, const nbt_layer_error *l) {
    nb_graph *g = b->graph;
    nb_value *there = b->now[l->there->id];
    nb_builder build = {.graph = g,
                        .before = there->def->next,
                        .region = there->def->parent,
                        .loc = there->def->loc,
                        .diags = b->ref->args->diags};
    nb_value *y = float_layer(b, &build, l),
             *in_float =
                 nb_graph_add_input(g, "in_float", nb_type_intern(g, NB_BOOL, NULL, 0, NULL));
    nb_begin(&build, NB_OP_where);
    nb_arg(&build, in_float);
    nb_arg(&build, y);
    nb_arg(&build, there);
    nb_value *used = nb_end(&build);
    if (!used) return false;
    nb_replace_uses(there, used);
    nb_set_operand(&used->def->operands[2], there);
    const nb_op *sum = nb_bias_add(l->op);
    b->now[l->there->id] = b->now[nb_out(sum ? sum : l->op)->id] = used;
    return true;
}

/* Only the output that counts. */
static void set_output(both *b) {
    nb_graph *g = b->graph;
    size_t i = 0;
    while (strcmp(g->outputs.items[i], b->ref->output) != 0) i++;
    nb_value *v = nb_in(g->body.last, i);
    const char *name = g->outputs.items[i];
    g->states.count = 0;
    nb_graph_set_outputs(g, 1, &v, &name);
}

static nb_status build_both(both *b, const nb_graph *rounded) {
    const nbt_comparison *errors = &b->out->errors;
    b->graph = nb_graph_clone(rounded);
    b->n_inputs = b->graph->body.n_params;
    find_values(b);
    for (size_t i = 0; i < errors->n_layers; i++) {
        if (!add_switch(b, &errors->layers[i])) return NB_INTERNAL;
    }
    set_output(b);
    return nbt_samples_like(b->ref->args, &b->ref->samples, rounded, &b->samples);
}

/* ---- runs ----------------------------------------------------------------------------------- */

static nb_status run(both *b, size_t sample, nb_arena *arena, nb_tensor *out) {
    const size_t n = b->out->errors.n_layers;
    nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, b->n_inputs + n + 1);
    memcpy(inputs, b->samples.items[sample].inputs, b->n_inputs * sizeof *inputs);
    for (size_t i = 0; i < n; i++)
        inputs[b->n_inputs + i] =
            (nb_tensor){.elem = NB_BOOL, .data = &b->in_float[i], .bytes = sizeof(bool)};
    return nbl_run_compiled(b->ref->runner, b->graph, inputs, out, NULL, 0, arena,
                            b->ref->args->diags);
}

static void set_all(both *b, bool in_float) {
    memset(b->in_float, in_float, b->out->errors.n_layers * sizeof(bool));
}

/* Each layer alone. */
static nb_status measure_layers(both *b) {
    const size_t n = b->out->errors.n_layers, n_samples = b->samples.count;
    nbt_loss *losses = NB_NEW_ARRAY(b->arena, nbt_loss, n + 1);
    nb_status status = NB_OK;
    for (size_t s = 0; s < n_samples && status == NB_OK; s++) {
        nb_arena *arena = nb_arena_create_like(b->arena);
        nb_tensor wanted, found;
        set_all(b, true);
        status = run(b, s, arena, &wanted);
        for (size_t i = 0; i < n && status == NB_OK; i++) {
            b->in_float[i] = false;
            status = run(b, s, arena, &found);
            b->in_float[i] = true;
            if (status == NB_OK) nbt_loss_add(&losses[i], &wanted, &found, b->ref->counted.kind);
            nbt_show_progress(&b->progress, "losses of layers", s * n + i + 1, n_samples * n);
        }
        nb_arena_destroy(arena);
    }
    for (size_t i = 0; i < n; i++) {
        nbt_loss_end(&losses[i], n_samples);
        b->out->items[i] = (nbt_blamed_layer){&b->out->errors.layers[i], losses[i].kld};
    }
    return status;
}

/* The loss of all but the `k` worst. */
static nb_status measure_without(both *b, size_t k, double *out) {
    nbt_loss loss = {0};
    nb_status status = NB_OK;
    for (size_t s = 0; s < b->samples.count && status == NB_OK; s++) {
        nb_arena *arena = nb_arena_create_like(b->arena);
        nb_tensor wanted, found;
        set_all(b, true);
        status = run(b, s, arena, &wanted);
        for (size_t i = k; i < b->out->count; i++)
            b->in_float[b->out->items[i].error - b->out->errors.layers] = false;
        if (status == NB_OK) status = run(b, s, arena, &found);
        if (status == NB_OK) nbt_loss_add(&loss, &wanted, &found, b->ref->counted.kind);
        nb_arena_destroy(arena);
    }
    nbt_loss_end(&loss, b->samples.count);
    *out = loss.kld;
    return status;
}

static bool is_half(const nbt_blamed_layers *l, double kld) {
    return isinf(l->kld) ? !isinf(kld) : kld <= l->kld / 2;
}

/* Doubles, then halves; without all layers nothing is lost. */
static nb_status find_blamed(both *b) {
    nbt_blamed_layers *l = b->out;
    size_t low = 0, high = 1;
    double kld;
    NB_TRY(measure_without(b, 0, &l->kld));
    if (l->kld < NBT_NO_LOSS) return NB_OK;
    NB_TRY(measure_without(b, 1, &l->without));
    while (!is_half(l, l->without) && high < l->count) {
        low = high;
        high = high * 2 < l->count ? high * 2 : l->count;
        NB_TRY(measure_without(b, high, &l->without));
    }
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        NB_TRY(measure_without(b, middle, &kld));
        if (is_half(l, kld)) {
            high = middle;
            l->without = kld;
        } else {
            low = middle;
        }
    }
    l->n_blamed = high;
    return NB_OK;
}

/* By what they do to the output; where that says nothing, by their own error. */
static int worst_first(const void *a, const void *b) {
    const nbt_blamed_layer *x = a, *y = b;
    if (x->kld != y->kld) return x->kld > y->kld ? -1 : 1;
    const double p = nbt_relative_error(x->error->alone), q = nbt_relative_error(y->error->alone);
    if (p == q || (isnan(p) && isnan(q))) return x->error < y->error ? -1 : 1;
    return isnan(p) || p > q ? -1 : 1;
}

nb_status nbt_blame_layers(const nbt_reference *ref, const nbt_model *model,
                           nbt_blamed_layers *out) {
    both b = {.ref = ref, .arena = ref->args->arena, .out = out};
    b.progress.quiet = nbt_has(ref->args, "quiet");
    *out = (nbt_blamed_layers){0};
    NB_TRY(nbt_compare_on(ref->args, model, &ref->samples, &out->errors));
    out->count = out->errors.n_layers;
    out->items = NB_NEW_ARRAY(b.arena, nbt_blamed_layer, out->count + 1);
    b.in_float = NB_NEW_ARRAY(b.arena, bool, out->count + 1);
    if (!out->count) return NB_OK;
    nb_status status = build_both(&b, model->stages.rounded);
    if (status == NB_OK) status = measure_layers(&b);
    nbt_end_progress(&b.progress);
    if (status == NB_OK) {
        qsort(out->items, out->count, sizeof *out->items, worst_first);
        status = find_blamed(&b);
    }
    nb_graph_destroy(b.graph);
    return status;
}
