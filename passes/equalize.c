/* equalize: the channels between two convolutions get alike ranges on both sides (cross-layer
 * equalization, Nagel et al., arXiv 1906.04721, section 4.1).
 *
 *   requires   before conv-to-matmul and calibrate
 *   maintains  the function, up to rounding
 *
 * relu(s x) = s relu(x) for s > 0, so channel i between two convolutions can be made s_i times
 * smaller by the first one's weights and bias and s_i times larger by the second one's weights.
 * With r1_i and r2_i the largest magnitudes of the weights that make channel i and of those that
 * read it,
 *
 *   s_i = sqrt(r1_i / r2_i)
 *
 * makes both sqrt(r1_i r2_i). In a chain of convolutions each pair disturbs its neighbours; sweeps
 * over all pairs follow until nothing moves.
 *
 *   %a: f32[B,2,S] = conv %x, @w1, bias=@b1              (@w1: {8, 0.5})
 *   %r: f32[B,2,S] = relu %a
 *   %y: f32[B,1,S] = conv %r, @w2                        (@w2: {0.5, 2})
 * becomes, with s = {4, 0.5},
 *   %a: f32[B,2,S] = conv %x, @w1.eq, bias=@b1.eq        (@w1.eq: {2, 1})
 *   %r: f32[B,2,S] = relu %a
 *   %y: f32[B,1,S] = conv %r, @w2.eq                     (@w2.eq: {2, 1}) */
#include "passes/pass.h"

#include "ir/conv.h"

#include <math.h>
#include <string.h>

static const nb_option options[] = {
    {.name = "sweeps",
     .kind = NB_OPTION_INT,
     .fallback = "20",
     .min = 1,
     .max = 10000,
     .summary = "over all pairs of convolutions, at most"},
    {.name = NULL},
};

/* Factors this close to 1 move nothing. */
#define STILL 1e-3

/* A convolution whose weights may change: they are a constant of its own. */
typedef struct layer {
    nb_op *op;
    nb_value *bias; /* or NULL */
    const float *weights;
    int64_t outputs, inputs, positions; /* inputs: of a group */
    int64_t per_group;                  /* outputs of a group */
    double *made, *read;                /* what outputs and inputs of all groups are divided by */
} layer;

/* The channels between two of them. */
typedef struct pair {
    layer *first, *second;
} pair;

typedef NB_VEC(pair) pairs;

/* ---- finding pairs -------------------------------------------------------------------------- */

static bool is_own(const nb_value *v) {
    return nb_is_const(v) && v->type->elem == NB_F32 && v->uses && !v->uses->next;
}

static layer *layer_of(nb_pass_ctx *ctx, nb_map *layers, nb_op *op) {
    layer *l = nb_map_get(layers, op);
    if (l || op->kind != NB_OP_conv || !is_own(nb_in(op, 1))) return l;
    if (nb_in(op, 2) && !is_own(nb_in(op, 2))) return NULL;
    nb_arena *arena = nb_state_of(ctx)->scratch;
    const nb_type *w = nb_in(op, 1)->type;
    const int64_t groups = nb_conv_groups(op);
    l = NB_NEW(arena, layer);
    *l = (layer){.op = op,
                 .bias = nb_in(op, 2),
                 .weights = nb_in(op, 1)->blob->data,
                 .outputs = w->dims[0]->value,
                 .inputs = w->dims[1]->value,
                 .positions = 1};
    for (int d = 2; d < w->rank; d++) l->positions *= w->dims[d]->value;
    l->per_group = l->outputs / groups;
    l->made = NB_NEW_ARRAY(arena, double, (size_t)l->outputs + 1);
    l->read = NB_NEW_ARRAY(arena, double, (size_t)(l->inputs * groups) + 1);
    for (int64_t i = 0; i < l->outputs; i++) l->made[i] = 1;
    for (int64_t i = 0; i < l->inputs * groups; i++) l->read[i] = 1;
    nb_map_set(layers, op, l);
    return l;
}

/* A border of zeros that adds no channel. */
static bool is_border(const nb_op *op) {
    if (op->kind != NB_OP_pad) return false;
    const nb_value *value = nb_in(op, 1);
    const nb_attr *before = nb_attr_of(op, "before"), *after = nb_attr_of(op, "after");
    float number = 0;
    if (value && (!nb_is_const(value) || value->type->elem != NB_F32)) return false;
    if (value) memcpy(&number, value->blob->data, sizeof number);
    return number == 0 && nb_dim_is(before->dims.items[1], 0) && nb_dim_is(after->dims.items[1], 0);
}

/* The convolution that alone reads what `op` makes, behind relu and borders. */
static nb_op *reader_of(const nb_op *op) {
    for (;;) {
        const nb_use *use = nb_out(op)->uses;
        if (!use || use->next || use->index != 0) return NULL;
        op = use->user;
        if (op->kind == NB_OP_conv) return use->user;
        if (op->kind != NB_OP_relu && !is_border(op)) return NULL;
    }
}

static pairs find_pairs(nb_pass_ctx *ctx) {
    nb_map layers = {.arena = nb_state_of(ctx)->scratch};
    pairs found = {0};
    NB_FOR_OPS(op, &ctx->graph->body) {
        nb_op *next = op->kind == NB_OP_conv ? reader_of(op) : NULL;
        if (!next) continue;
        const pair p = {layer_of(ctx, &layers, op), layer_of(ctx, &layers, next)};
        if (p.first && p.second) nb_vec_push(nb_state_of(ctx)->scratch, &found, p);
    }
    return found;
}

/* ---- factors -------------------------------------------------------------------------------- */

/* The weight as it is now: output m, input i of its group, position k. */
static double weight(const layer *l, int64_t m, int64_t i, int64_t k) {
    const int64_t channel = m / l->per_group * l->inputs + i;
    return (double)l->weights[(m * l->inputs + i) * l->positions + k] / l->made[m] /
           l->read[channel];
}

/* The largest magnitude of the weights that make output m. */
static double range_made(const layer *l, int64_t m) {
    double most = 0;
    for (int64_t i = 0; i < l->inputs; i++) {
        for (int64_t k = 0; k < l->positions; k++) most = fmax(most, fabs(weight(l, m, i, k)));
    }
    return most;
}

/* Of those that read input `channel`. */
static double range_read(const layer *l, int64_t channel) {
    const int64_t group = channel / l->inputs;
    double most = 0;
    for (int64_t m = group * l->per_group; m < (group + 1) * l->per_group; m++) {
        for (int64_t k = 0; k < l->positions; k++)
            most = fmax(most, fabs(weight(l, m, channel % l->inputs, k)));
    }
    return most;
}

/* How far the channels were from being alike: the largest |s - 1|. */
static double even_out(const pair *p) {
    double moved = 0;
    for (int64_t i = 0; i < p->first->outputs; i++) {
        const double made = range_made(p->first, i), read = range_read(p->second, i);
        const double s = sqrt(made / read);
        /* Not where a side is all zeros, or not finite. */
        if (!(made > 0) || !(read > 0) || !isnormal(s)) continue;
        moved = fmax(moved, fabs(s - 1));
        if (fabs(s - 1) <= STILL) continue;
        p->first->made[i] *= s;
        p->second->read[i] /= s;
    }
    return moved;
}

/* ---- constants ------------------------------------------------------------------------------ */

static bool replace(nb_pass_ctx *ctx, nb_use *use, float *data) {
    const nb_value *old = use->value;
    if (memcmp(old->blob->data, data, (size_t)old->blob->size) == 0) return true;
    void *bytes;
    nb_blob *blob = nb_blob_create(old->blob->size, &bytes);
    if (!blob) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "no memory for another '@%s'", old->name);
        return false;
    }
    memcpy(bytes, data, (size_t)old->blob->size);
    nb_set_operand(use,
                   nb_graph_add_const(ctx->graph, nb_format(ctx->graph->arena, "%s.eq", old->name),
                                      old->type, blob, NULL));
    return true;
}

static bool write_layer(nb_pass_ctx *ctx, layer *l) {
    nb_arena *arena = nb_state_of(ctx)->scratch;
    const int64_t each = l->inputs * l->positions;
    float *w = NB_NEW_ARRAY(arena, float, (size_t)(l->outputs * each) + 1);
    for (int64_t j = 0; j < l->outputs * each; j++)
        w[j] = (float)weight(l, j / each, j % each / l->positions, j % l->positions);
    if (!replace(ctx, &l->op->operands[1], w)) return false;
    if (!l->bias) return true;
    float *b = NB_NEW_ARRAY(arena, float, (size_t)l->outputs + 1);
    for (int64_t m = 0; m < l->outputs; m++)
        b[m] = (float)((double)((const float *)l->bias->blob->data)[m] / l->made[m]);
    return replace(ctx, &l->op->operands[2], b);
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    const pairs found = find_pairs(ctx);
    bool changed = false, moves = found.count > 0;
    for (int64_t sweep = 0; moves && sweep < nb_option_of(ctx, "sweeps")->i; sweep++) {
        moves = false;
        for (size_t i = 0; i < found.count; i++) moves |= even_out(&found.items[i]) > STILL;
        changed |= moves;
    }
    if (!changed) return nb_pass_end(ctx, false);
    nb_map written = {.arena = nb_state_of(ctx)->scratch};
    for (size_t i = 0; i < found.count; i++) {
        layer *both[] = {found.items[i].first, found.items[i].second};
        for (size_t k = 0; k < 2; k++) {
            if (nb_map_get(&written, both[k])) continue;
            nb_map_set(&written, both[k], both[k]);
            if (!write_layer(ctx, both[k])) return NB_PASS_FAILED;
        }
    }
    nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, true);
}

const nb_pass nb_pass_equalize = {
    .size = sizeof(nb_pass),
    .name = "equalize",
    .options = options,
    .run = run,
    .promises = NB_PASS_KEEPS_NUMBERS,
    .summary = "even out the channels between two convolutions by their weights alone",
};
