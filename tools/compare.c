/* Errors of layers (compare.h).
 *
 * Three graphs run on each sample: the float one, as it was before weights were rounded (smoothed
 * and rotated already, so that values have one basis); the one with quantize and dequantize around
 * each layer, whose bits are those of the fused one; and that one cut at the inputs of its layers,
 * which are given the float values: each layer alone. A value keeps its id from pass to pass; what
 * stands in its place in the other graph is what the same user reads there, so that biases and
 * branches that passes added count as the layer's. */
#include "tools/compare.h"

#include "ir/section.h"
#include "passes/branch.h"
#include "passes/linear.h"
#include "tools/bench.h"
#include "tools/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double nbt_relative_error(nbt_error e) { return nbt_is_exact(e) ? 0 : sqrt(e.noise / e.signal); }
double nbt_sqnr(nbt_error e) {
    return nbt_is_exact(e) ? (double)INFINITY : 10 * log10(e.signal / e.noise);
}

/* ---- schemes of the command line ------------------------------------------------------------ */

size_t nbt_scheme_count(const nbt_args *args) {
    const size_t n = nbt_all(args, "scheme")->count;
    return n ? n : 1;
}

nbt_args nbt_scheme_args(const nbt_args *args, size_t i) {
    const nbt_strings *all = nbt_all(args, "scheme");
    return all->count > 1 ? nbt_args_with(args, "scheme", all->items[i]) : *args;
}

/* ---- which values correspond ---------------------------------------------------------------- */

/* The ops of a graph by the ids of their results. */
typedef struct by_id {
    const nb_graph *graph;
    nb_op **ops;
    size_t n;
} by_id;

static by_id index_of(const nb_graph *g, nb_arena *arena) {
    by_id out = {g, (nb_op **)nb_alloc_array(arena, (size_t)g->n_values + 1, sizeof(nb_op *)),
                 g->n_values};
    NB_FOR_OPS(op, &g->body) {
        for (uint32_t i = 0; i < op->n_results; i++) out.ops[op->results[i]->id] = op;
    }
    return out;
}

static nb_op *op_of(const by_id *index, const nb_value *v) {
    return v->id < index->n ? index->ops[v->id] : NULL;
}

static nb_value *result_with(nb_op *op, uint32_t id) {
    for (uint32_t i = 0; op && i < op->n_results; i++) {
        if (op->results[i]->id == id) return op->results[i];
    }
    return NULL;
}

static nb_value *before_codes(nb_value *v) {
    if (!v->def || v->def->kind != NB_OP_dequantize) return v;
    const nb_value *q = nb_in(v->def, 0);
    return q->def && q->def->kind == NB_OP_quantize ? nb_in(q->def, 0) : v;
}

/* What stands in the other graph where v stands: what the users of v read there. */
static nb_value *in_place_of(const by_id *other, const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        const bool leaves = u->user->kind == NB_OP_return;
        const nb_op *user = leaves ? other->graph->body.last : op_of(other, u->user->results[0]);
        if (!user || user->kind != u->user->kind || u->index >= user->n_operands) continue;
        nb_value *found = before_codes(nb_in(user, u->index));
        if (found->type->rank == v->type->rank && !found->type->quant) return found;
    }
    return result_with(op_of(other, v), v->id);
}

/* ---- what is compared ----------------------------------------------------------------------- */

#define NOWHERE SIZE_MAX

typedef NB_VEC(const nb_value *) values;

/* A part of a graph and, of its last run, the values that it computes. */
typedef struct part {
    nb_section section;
    values in, out;
    const nb_sample *samples;
    nbl_runner runner;
    nb_tensor *results;
} part;

/* A float value, and what it is measured against. */
typedef struct pair {
    size_t plain, rounded; /* in the parts of those names */
    size_t group, alone;   /* of the layer cut off */
} pair;

typedef struct compared {
    nbt_args *args;
    nb_arena *arena;
    const nbt_model *model;
    by_id rounded_ops;
    part plain, rounded;
    NB_VEC(part) alone; /* groups of layers of which none takes what another makes */
    NB_VEC(pair) layers;
    NB_VEC(pair) stream;
    NB_VEC(nbt_layer_error) found;
    NB_VEC(nbt_input) inputs;
    NB_VEC(size_t) input_slots; /* of `inputs`, in `plain` */
    NB_VEC(nbt_place) places;
} compared;

static size_t position(const values *list, const nb_value *v) {
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i] == v) return i;
    }
    return NOWHERE;
}

static size_t slot(compared *c, values *list, const nb_value *v) {
    const size_t at = position(list, v);
    if (at == NOWHERE) nb_vec_push(c->arena, list, v);
    return at == NOWHERE ? list->count - 1 : at;
}

/* ---- layers --------------------------------------------------------------------------------- */

/* The constant as the compiled model has it, with the use that says how it is packed. */
static const nb_use *final_use(const compared *c, const nb_value *constant, const char *node) {
    const nb_graph *g = c->model->graph;
    const nb_use *found = NULL;
    for (size_t i = 0; i < g->constants.count; i++) {
        if (g->constants.items[i]->id != constant->id) continue;
        for (const nb_use *u = g->constants.items[i]->uses; u; u = u->next) {
            if (!found || strcmp(nb_loc_name(u->user->loc), node) == 0) found = u;
        }
    }
    return found;
}

static const nb_value *weight_of(const nb_op *op) {
    if (!nb_is_embedding(op)) return nb_linear_weight(op);
    const nb_value *table = nb_in(op, 0);
    return nb_is_const(table) ? table : nb_in(table->def, 0);
}

static size_t input_of(compared *c, const nb_value *x, const char *layer) {
    const nb_dim *last = x->type->dims[x->type->rank - 1];
    if (!x->def || !nb_dim_is_const(last)) return NOWHERE;
    const size_t at = slot(c, &c->plain.out, x);
    for (size_t i = 0; i < c->inputs.count; i++) {
        if (c->input_slots.items[i] == at) return i;
    }
    nbt_input in = {.layer = layer, .channels = last->value};
    in.amax = NB_NEW_ARRAY(c->arena, float, (size_t)in.channels + 1);
    nb_vec_push(c->arena, &c->inputs, in);
    nb_vec_push(c->arena, &c->input_slots, at);
    return c->inputs.count - 1;
}

/* Puts the layer into the first group whose layers neither make its input nor take its result. */
static void cut_off(compared *c, pair *p, const nb_value *x, const nb_value *y) {
    for (p->group = 0; p->group < c->alone.count; p->group++) {
        const part *g = &c->alone.items[p->group];
        if (position(&g->in, y) == NOWHERE && position(&g->out, x) == NOWHERE) break;
    }
    if (p->group == c->alone.count) nb_vec_push(c->arena, &c->alone, (part){0});
    part *g = &c->alone.items[p->group];
    if (x->def && position(&g->in, x) == NOWHERE) nb_vec_push(c->arena, &g->in, x);
    p->alone = slot(c, &g->out, y);
}

static void add_layer(compared *c, nb_op *op) {
    const nb_value *y = nb_bias_add(op) ? nb_out(nb_bias_add(op)) : nb_out(op),
                   *there = in_place_of(&c->rounded_ops, y);
    const nb_op *layer = op_of(&c->rounded_ops, nb_out(op));
    const nb_value *w = layer ? weight_of(layer) : NULL;
    if (!w || !there || nb_is_factor(w)) return;
    const bool looks_up = nb_is_embedding(op);
    const nb_value *x = nb_in(op, looks_up ? 1 : 0),
                   *x_there = result_with(op_of(&c->rounded_ops, x), x->id);
    if (x->def && !x_there) return;
    if (x->def) slot(c, &c->plain.out, x);
    if (!x->def) x_there = x;
    nbt_layer_error l = {
        .name = nb_strdup(c->arena, nb_loc_name(op->loc)), .detail = "", .op = op, .there = there};
    if (!*l.name) l.name = nb_strdup(c->arena, nb_out(op)->name);
    const nb_use *use = final_use(c, w, nb_loc_name(op->loc));
    if (use) l.detail = nbt_layer_detail(c->arena, use->user);
    if (use) l.bytes = nbt_packed_bytes(use, use->value);
    nb_type_static_count(w->type, &l.weights);
    nbt_name_parts(c->arena, l.name, &l.role, &l.block);
    pair p = {.plain = slot(c, &c->plain.out, y), .rounded = slot(c, &c->rounded.out, there)};
    cut_off(c, &p, x_there, there);
    l.input = looks_up ? NOWHERE : input_of(c, x, l.name);
    nb_vec_push(c->arena, &c->layers, p);
    nb_vec_push(c->arena, &c->found, l);
}

/* ---- the residual stream -------------------------------------------------------------------- */

/* Does v follow from `from`? Ops before `from` are not looked at. */
static bool follows(const nb_value *v, const nb_value *from, nb_map *order, nb_map *seen) {
    if (v == from) return true;
    if (!v->def || nb_map_get(seen, v) ||
        (uintptr_t)nb_map_get(order, v->def) <= (uintptr_t)nb_map_get(order, from->def))
        return false;
    nb_map_set(seen, v, (void *)(uintptr_t)v);
    for (uint32_t i = 0; i < v->def->n_operands; i++) {
        if (nb_in(v->def, i) && follows(nb_in(v->def, i), from, order, seen)) return true;
    }
    return false;
}

/* h where op is h + f(h), else NULL. */
static const nb_value *stream_before(const nb_op *op, nb_map *order, nb_arena *arena) {
    if (!op || op->kind != NB_OP_add) return NULL;
    const nb_value *a = nb_in(op, 0), *b = nb_in(op, 1);
    if (a == b || !a->def || !b->def || a->type != b->type || a->type != nb_out(op)->type)
        return NULL;
    if ((uintptr_t)nb_map_get(order, a->def) > (uintptr_t)nb_map_get(order, b->def)) {
        const nb_value *t = a;
        a = b;
        b = t;
    }
    nb_map seen = {.arena = arena};
    return follows(b, a, order, &seen) ? a : NULL;
}

static const nb_value *before_norm(const nb_value *v) {
    const nb_op *op = v->def;
    return op && (op->kind == NB_OP_layer_norm || op->kind == NB_OP_rms_norm) ? nb_in(op, 0) : v;
}

/* From the last sum back to where the stream begins, then in order of execution. */
static void find_stream(compared *c, const nb_graph *g) {
    nb_map order = {.arena = c->arena};
    uintptr_t n = 0;
    const nb_op *last = NULL;
    values found = {0};
    NB_FOR_OPS(op, &g->body) nb_map_set(&order, op, (void *)++n);
    NB_FOR_OPS(op, &g->body) {
        if (stream_before(op, &order, c->arena)) last = op;
    }
    const nb_value *h = last ? nb_out(last) : NULL;
    while (h && h->def) {
        nb_vec_push(c->arena, &found, h);
        const nb_value *before = stream_before(h->def, &order, c->arena);
        h = before ? before_norm(before) : NULL;
    }
    for (size_t i = found.count; i-- > 0;) {
        const nb_value *v = found.items[i], *there = in_place_of(&c->rounded_ops, v);
        if (!there) continue;
        const char *name = nb_loc_name(v->def->loc);
        nbt_place place = {.name = nb_strdup(c->arena, *name ? name : v->name)};
        pair p = {.plain = slot(c, &c->plain.out, v), .rounded = slot(c, &c->rounded.out, there)};
        nb_vec_push(c->arena, &c->stream, p);
        nb_vec_push(c->arena, &c->places, place);
    }
}

/* ---- running -------------------------------------------------------------------------------- */

static void cut(compared *c, part *p, const nb_graph *whole, const nb_sample *samples,
                const cg_cpu *cpu) {
    p->section = nb_section_create(whole, p->in.items, p->in.count, p->out.items, p->out.count);
    p->samples = samples;
    p->runner = (nbl_runner){.cpu = cpu, .threads = c->model->threads, .arena = c->arena};
}

/* The float value of an input of a section that cuts layers off. */
static const nb_tensor *float_value(const compared *c, const nb_value *v) {
    for (size_t i = 0; i < c->plain.out.count; i++) {
        if (c->plain.out.items[i]->id == v->id) return &c->plain.results[i];
    }
    return NULL;
}

static nb_status run_part(compared *c, part *p, size_t sample, nb_arena *arena) {
    const nb_graph *g = p->section.graph;
    nb_tensor *inputs = NB_NEW_ARRAY(arena, nb_tensor, g->body.n_params + 1);
    p->results = NB_NEW_ARRAY(arena, nb_tensor, p->out.count + 1);
    for (uint32_t i = 0; i < g->body.n_params; i++) {
        const nb_value *v = p->section.sources[i];
        inputs[i] = v->def ? *float_value(c, v) : p->samples[sample].inputs[v->index];
    }
    if (c->model->interpret) return nb_eval(g, inputs, p->results, NULL, 0, arena, c->args->diags);
    return nbl_run_compiled(&p->runner, g, inputs, p->results, NULL, 0, arena, c->args->diags);
}

void nbt_error_add(nbt_error *e, const nb_tensor *ref, const nb_tensor *got) {
    const int64_t n = nb_tensor_count(ref);
    for (int64_t i = 0; i < n; i++) {
        const double r = nb_tensor_get(ref, i), d = nb_tensor_get(got, i) - r;
        e->signal += r * r;
        e->noise += d * d;
    }
}

static void add_range(nbt_input *in, const nb_tensor *x) {
    const int64_t n = nb_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        float *amax = &in->amax[i % in->channels];
        *amax = fmaxf(*amax, fabsf((float)nb_tensor_get(x, i)));
    }
}

static nb_status run_sample(compared *c, size_t sample, nb_arena *arena) {
    NB_TRY(run_part(c, &c->plain, sample, arena));
    NB_TRY(run_part(c, &c->rounded, sample, arena));
    for (size_t i = 0; i < c->alone.count; i++)
        NB_TRY(run_part(c, &c->alone.items[i], sample, arena));
    for (size_t i = 0; i < c->layers.count; i++) {
        const pair *p = &c->layers.items[i];
        const nb_tensor *ref = &c->plain.results[p->plain];
        nbt_error_add(&c->found.items[i].whole, ref, &c->rounded.results[p->rounded]);
        nbt_error_add(&c->found.items[i].alone, ref, &c->alone.items[p->group].results[p->alone]);
    }
    for (size_t i = 0; i < c->stream.count; i++) {
        const pair *p = &c->stream.items[i];
        nbt_error_add(&c->places.items[i].whole, &c->plain.results[p->plain],
                      &c->rounded.results[p->rounded]);
    }
    for (size_t i = 0; i < c->inputs.count; i++)
        add_range(&c->inputs.items[i], &c->plain.results[c->input_slots.items[i]]);
    return NB_OK;
}

static nb_status run_all(compared *c, size_t n) {
    nbt_progress progress = {.quiet = nbt_has(c->args, "quiet")};
    nb_status status = NB_OK;
    for (size_t i = 0; i < n && status == NB_OK; i++) {
        nb_arena *arena = nb_arena_create_like(c->arena);
        status = run_sample(c, i, arena);
        nb_arena_destroy(arena);
        nbt_show_progress(&progress, "errors of layers", i + 1, n);
    }
    nbt_end_progress(&progress);
    return status;
}

static void find_outliers(compared *c, nbt_input *in) {
    in->ranges = nb_outliers_of(in->amax, in->channels, c->arena);
    in->outliers = NB_NEW_ARRAY(c->arena, int64_t, (size_t)in->ranges.count + 1);
    int64_t n = 0;
    for (int64_t i = 0; i < in->channels; i++) {
        if (in->amax[i] > in->amax[in->largest]) in->largest = i;
        if (in->ranges.count && in->amax[i] > NB_OUTLIER * in->ranges.median) in->outliers[n++] = i;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static nb_status refuse(nbt_args *args, const nbt_model *m) {
    nb_error(args->diags, NB_USAGE, (nb_where){.file = m->path, .offset = -1},
             "there is no float form of this model to compare its layers with");
    nb_help(args->diags, "give the .onnx or .nir it was made of, with the same options");
    return NB_USAGE;
}

static const char *label_of(const nbt_args *args) {
    if (nbt_has(args, "passes")) return "passes";
    if (nbt_has(args, "recipe")) return nbt_get(args, "recipe");
    return nbt_has(args, "scheme") ? nbt_get(args, "scheme") : "f32";
}

static void end_part(part *p) {
    nbl_runner_end(&p->runner);
    nb_graph_destroy(p->section.graph);
}

static void hand_over(compared *c, nbt_comparison *out) {
    for (size_t i = 0; i < c->inputs.count; i++) find_outliers(c, &c->inputs.items[i]);
    *out = (nbt_comparison){.scheme = label_of(c->args),
                            .layers = c->found.items,
                            .n_layers = c->found.count,
                            .inputs = c->inputs.items,
                            .n_inputs = c->inputs.count,
                            .stream = c->places.items,
                            .n_stream = c->places.count,
                            .n_samples = out->n_samples,
                            .facts = c->model->stages.facts,
                            .size = nbt_measure_size(c->model->graph)};
}

nb_status nbt_compare_on(nbt_args *args, const nbt_model *model, const nbt_samples *samples,
                         nbt_comparison *out) {
    const nb_graph *plain = model->stages.plain, *rounded = model->stages.rounded;
    if (!plain || !rounded) return refuse(args, model);
    compared c = {.args = args, .arena = args->arena, .model = model};
    nbt_samples of_plain, of_rounded;
    const cg_cpu *cpu;
    NB_TRY(nbt_choose_cpu(args, "native", &cpu));
    NB_TRY(nbt_samples_like(args, samples, plain, &of_plain));
    NB_TRY(nbt_samples_like(args, samples, rounded, &of_rounded));
    c.rounded_ops = index_of(rounded, c.arena);
    NB_FOR_OPS(op, &plain->body) {
        const nb_value *w = nb_is_embedding(op) ? nb_in(op, 0) : nb_linear_weight(op);
        if (w && !nb_is_factor(w)) add_layer(&c, op);
    }
    find_stream(&c, plain);
    cut(&c, &c.plain, plain, of_plain.items, cpu);
    cut(&c, &c.rounded, rounded, of_rounded.items, cpu);
    for (size_t i = 0; i < c.alone.count; i++)
        cut(&c, &c.alone.items[i], rounded, of_rounded.items, cpu);
    nb_status status = run_all(&c, samples->count);
    out->n_samples = samples->count;
    hand_over(&c, out);
    end_part(&c.plain);
    end_part(&c.rounded);
    for (size_t i = 0; i < c.alone.count; i++) end_part(&c.alone.items[i]);
    return status;
}

nb_status nbt_compare(nbt_args *args, const nbt_model *model, nbt_comparison *out) {
    nbt_samples samples = {.graph = model->stages.plain};
    if (!samples.graph) return refuse(args, model);
    NB_TRY(nbt_read_samples(args, &nbt_held_out, samples.graph, &samples.items, &samples.count));
    return nbt_compare_on(args, model, &samples, out);
}
