/* channels-last: where products of patches have their results with channels last, what follows
 * computes in that order too.
 *
 *   requires   a stage before PLANNED; behind conv-to-matmul, whose transposes it moves, and once
 *              more behind move-codes, when codes stand between products
 *   maintains  every bit of the result
 *
 *   %t: f32[B,8,H,W] = transpose %m {perm=[0,3,1,2]}            (%m: f32[B,H,W,8], of a product)
 *   %s: f32[B,8,H,W] = silu %t
 *   %c: f32[B,8,H',W'] = conv %s, @k {groups=8}                  (@k: f32[8,1,3,3])
 *   %p: f32[B,H',W',8] = patches %c {kernel=[1,1]}
 * becomes
 *   %s: f32[B,H,W,8] = silu %m
 *   %p: f32[B,H',W',8] = depthwise %s, @k.last                   (@k.last: f32[3,3,8])
 *
 * A transpose moves behind an elementwise op when all its operands come from such transposes, are
 * one number, or are constants of one number for each channel; behind pad, slice, concat, a
 * reduction, a pooling, and a depthwise convolution, which becomes `depthwise`. Codes with one
 * scale for the tensor it follows as their plain integers, from quantize to dequantize. In front of
 * patches of a kernel of one element it ends; convolutions of codes read their input either way
 * (ir/chain.h). What else reads the transposed value gets it where it did: one transpose later. */
#include "passes/linear.h"

#include "ir/build.h"
#include "ir/chain.h"
#include "ir/conv.h"

#include <string.h>

/* Axis d of what has channels second, in what has them last. */
static int last_axis(int rank, int d) { return d == 0 ? 0 : d == 1 ? rank - 1 : d - 1; }

/* What a transpose makes into channels second, or NULL. */
static nb_value *source_of(const nb_value *v) {
    if (!v || !v->def || v->def->kind != NB_OP_transpose) return NULL;
    const nb_attr *perm = nb_attr_of(v->def, "perm");
    const int rank = v->type->rank;
    if (rank < 3) return NULL;
    for (int d = 0; d < rank; d++)
        if (perm->ints.items[d] != last_axis(rank, d)) return NULL;
    return nb_in(v->def, 0);
}

/* Is it one number, whatever its rank? */
static bool is_number(const nb_type *t) {
    for (int d = 0; d < t->rank; d++)
        if (!nb_dim_is(t->dims[d], 1)) return false;
    return true;
}

/* A constant of one number for each channel of a result of `rank`: broadcast, its axis 1 alone. */
static bool is_by_channel(const nb_value *v, int rank) {
    const nb_type *t = v->type;
    if (!nb_is_const(v) || t->rank > rank) return false;
    for (int d = 0; d < t->rank; d++)
        if (d != 1 - (rank - t->rank) && !nb_dim_is(t->dims[d], 1)) return false;
    return true;
}

/* `v` as an operand of an elementwise op whose result has channels last; NULL: it is none. */
static nb_value *operand_of(nb_builder *b, nb_value *v, int rank, bool build) {
    nb_value *source = v->type->rank == rank ? source_of(v) : NULL;
    if (source) return source;
    if (is_number(v->type)) return v->type->rank <= rank ? v : NULL;
    if (!is_by_channel(v, rank)) return NULL;
    const nb_dim *channels = v->type->dims[1 - (rank - v->type->rank)];
    return build ? nb_reshape(b, v, 1, &channels) : v;
}

static void copy_attrs(nb_op *to, const nb_op *from) {
    memcpy(to->attrs, from->attrs, sizeof to->attrs);
}

static nb_value *elementwise(nb_builder *b, const nb_op *op) {
    const int rank = nb_out(op)->type->rank;
    bool any = false;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        nb_value *v = nb_in(op, i);
        if (!operand_of(b, v, rank, false)) return NULL;
        any = any || (v->type->rank == rank && source_of(v));
    }
    if (!any) return NULL;
    nb_value *operands[3];
    for (uint32_t i = 0; i < op->n_operands; i++)
        operands[i] = operand_of(b, nb_in(op, i), rank, true);
    nb_begin(b, op->kind);
    for (uint32_t i = 0; i < op->n_operands; i++) nb_arg(b, operands[i]);
    copy_attrs(b->op, op);
    return nb_end(b);
}

/* Sets what has a dimension for each axis of `op`'s result, in the new order. */
static void set_moved_dims(nb_builder *b, const nb_op *op, const char *name) {
    const nb_dim *dims[NB_MAX_RANK];
    const nb_attr *a = nb_attr_of(op, name);
    const int rank = (int)a->dims.count;
    for (int d = 0; d < rank; d++) dims[last_axis(rank, d)] = a->dims.items[d];
    nb_set_dims(b, name, (size_t)rank, dims);
}

static nb_value *pad(nb_builder *b, const nb_op *op) {
    nb_value *x = source_of(nb_in(op, 0));
    if (!x) return NULL;
    nb_begin(b, NB_OP_pad);
    nb_arg(b, x);
    nb_arg(b, nb_in(op, 1));
    set_moved_dims(b, op, "before");
    set_moved_dims(b, op, "after");
    return nb_end(b);
}

static nb_value *slice(nb_builder *b, const nb_op *op) {
    nb_value *x = source_of(nb_in(op, 0));
    if (!x) return NULL;
    const nb_attr *step = nb_attr_of(op, "step");
    const int rank = x->type->rank;
    int64_t moved[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) moved[last_axis(rank, d)] = step->ints.items[d];
    nb_begin(b, NB_OP_slice);
    nb_arg(b, x);
    set_moved_dims(b, op, "start");
    set_moved_dims(b, op, "count");
    nb_set_ints(b, "step", (size_t)rank, moved);
    return nb_end(b);
}

static nb_value *concat(nb_builder *b, const nb_op *op) {
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (!source_of(nb_in(op, i))) return NULL;
    nb_begin(b, NB_OP_concat);
    for (uint32_t i = 0; i < op->n_operands; i++) nb_arg(b, source_of(nb_in(op, i)));
    nb_set_int(b, "axis", last_axis(nb_out(op)->type->rank, (int)nb_attr_int(op, "axis")));
    return nb_end(b);
}

/* Of axes that stay in order, so that sums do. */
static nb_value *reduction(nb_builder *b, const nb_op *op) {
    nb_value *x = source_of(nb_in(op, 0));
    const nb_attr *axes = nb_attr_of(op, "axes");
    if (!x || !axes->ints.count || !nb_attr_bool(op, "keep")) return NULL;
    const int rank = x->type->rank;
    int64_t moved[NB_MAX_RANK];
    for (size_t i = 0; i < axes->ints.count; i++) {
        if (axes->ints.items[i] == 1) return NULL;
        moved[i] = last_axis(rank, (int)axes->ints.items[i]);
    }
    nb_begin(b, op->kind);
    nb_arg(b, x);
    copy_attrs(b->op, op);
    nb_set_ints(b, "axes", axes->ints.count, moved);
    return nb_end(b);
}

/* w[C,1,K...] as [K...,C]. */
static nb_value *kernel_of(nb_pass_ctx *ctx, nb_value *w) {
    nb_graph *g = ctx->graph;
    const int rank = w->type->rank;
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 2; d < rank; d++) dims[d - 2] = w->type->dims[d];
    dims[rank - 2] = w->type->dims[0];
    void *data;
    nb_blob *blob = nb_blob_create(w->blob->size, &data);
    if (!blob) {
        ctx->host->report(ctx, NB_LEVEL_ERROR, NULL, "no memory for '@%s' with channels last",
                          w->name);
        return NULL;
    }
    const int64_t C = w->type->dims[0]->value, K = w->blob->size / 4 / C;
    const float *from = w->blob->data;
    for (int64_t c = 0; c < C; c++)
        for (int64_t k = 0; k < K; k++) ((float *)data)[k * C + c] = from[c * K + k];
    return nb_graph_add_const(g, nb_format(g->arena, "%s.last", w->name),
                              nb_type_intern(g, NB_F32, NULL, rank - 1, dims), blob, NULL);
}

static nb_value *depthwise(nb_pass_ctx *ctx, nb_builder *b, const nb_op *op) {
    static const char *const names[] = {"strides", "dilations"};
    nb_value *x = source_of(nb_in(op, 0)), *w = nb_in(op, 1);
    if (!x || !nb_is_const(w) || w->type->elem != NB_F32 || w->blob->size == 0 ||
        !nb_dim_is(w->type->dims[1], 1) || nb_conv_groups(op) != w->type->dims[0]->value)
        return NULL;
    nb_value *kernel = kernel_of(ctx, w);
    nb_begin(b, NB_OP_depthwise);
    nb_arg(b, x);
    nb_arg(b, kernel);
    nb_arg(b, nb_in(op, 2));
    for (size_t i = 0; i < NB_COUNT(names); i++) {
        const nb_attr *a = nb_attr_of(op, names[i]);
        if (a->set) nb_set_ints(b, names[i], a->ints.count, a->ints.items);
    }
    return nb_end(b);
}

/* Patches of one element are their inputs with channels last. */
static nb_value *patches(const nb_op *op) {
    nb_value *x = source_of(nb_in(op, 0));
    return x && x->type == nb_out(op)->type ? x : NULL;
}

/* ---- codes ---------------------------------------------------------------------------------- */

/* The transposed integers that codes are, or NULL. */
static nb_value *integers_of(const nb_value *v) {
    const nb_op *op = v->def;
    if (!op || op->kind != NB_OP_as_codes || !source_of(nb_in(op, 0))) return NULL;
    return v->type->quant->granularity == NB_PER_TENSOR ? nb_in(op, 0) : NULL;
}

/* Does a product of codes read them through `op`? A transpose between would part the two. */
static bool is_of_product(const nb_op *op) {
    for (const nb_use *u = nb_out(op)->uses; u; u = u->next)
        if (u->user->kind == NB_OP_matmul || u->user->kind == NB_OP_depthwise) return true;
    return false;
}

static nb_value *dequantize(nb_builder *b, const nb_op *op) {
    nb_value *integers = integers_of(nb_in(op, 0));
    if (!integers || is_of_product(op)) return NULL;
    nb_value *codes = nb_as_codes(b, source_of(integers), nb_in(op, 0)->type->quant);
    return nb_unary(b, NB_OP_dequantize, codes);
}

/* The integers, which a transpose and as_codes make the result again. */
static nb_value *quantize(nb_builder *b, const nb_op *op) {
    nb_value *x = source_of(nb_in(op, 0));
    const nb_quant *to = nb_attr_of(op, "to")->quant;
    if (!x || to->granularity != NB_PER_TENSOR || to->scales) return NULL;
    nb_begin(b, NB_OP_quantize);
    nb_arg(b, x);
    nb_set_quant(b, "to", to);
    return nb_unary(b, NB_OP_codes, nb_end(b));
}

/* ---- pooling -------------------------------------------------------------------------------- */

/* x[B,C,D...] with channels second, reduced to a number for each channel and place:
 *
 *   %r: [B*C,1,D...] = reshape %x    %p: [B*C,D'...,K] = patches %r    %m: [B*C,D'...] = reduce %p
 *   %y: [B,C,D'...] = reshape %m */
typedef struct pooling {
    const nb_op *patches, *reduce;
    nb_value *x; /* [B,D...,C] */
} pooling;

/* Ends in `op`, a reshape. */
static bool find_pooling(const nb_op *op, pooling *p) {
    const nb_op *reduce = nb_in(op, 0)->def;
    const nb_op *patches = reduce ? nb_pooled(reduce) : NULL;
    const nb_op *view = patches ? nb_in(patches, 0)->def : NULL;
    if (!view || view->kind != NB_OP_reshape || nb_attr_bool(reduce, "keep")) return false;
    const nb_type *y = nb_out(op)->type, *of = nb_in(view, 0)->type, *r = nb_out(view)->type;
    nb_value *x = source_of(nb_in(view, 0));
    if (!x || of->rank != r->rank || y->rank != r->rank || y->dims[0] != of->dims[0] ||
        y->dims[1] != of->dims[1] || !nb_dim_is_const(y->dims[1]))
        return false;
    for (int d = 2; d < y->rank; d++)
        if (r->dims[d] != of->dims[d] || nb_out(reduce)->type->dims[d - 1] != y->dims[d])
            return false;
    *p = (pooling){.patches = patches, .reduce = reduce, .x = x};
    return true;
}

static nb_value *slide(nb_builder *b, const pooling *p, nb_value *x, int64_t channels) {
    const nb_attr *kernel = nb_attr_of(p->patches, "kernel");
    const int axes = (int)kernel->ints.count;
    int64_t strides[NB_MAX_RANK], dilations[NB_MAX_RANK];
    for (int d = 0; d < axes; d++) {
        strides[d] = d < axes - 1 ? nb_conv_stride(p->patches, d) : 1;
        dilations[d] = nb_conv_dilation(p->patches, d) * (d < axes - 1 ? 1 : channels);
    }
    nb_begin(b, NB_OP_patches);
    nb_arg(b, x);
    nb_set_ints(b, "kernel", kernel->ints.count, kernel->ints.items);
    nb_set_ints(b, "strides", kernel->ints.count, strides);
    nb_set_ints(b, "dilations", kernel->ints.count, dilations);
    return nb_end(b);
}

/* Along the last axis and its channels, taken as one axis, the same channel of the next place is
 * `C` positions further: the kernel is dilated by that and moves by one, and of the places that it
 * comes to, those remain that the pooling has. */
static nb_value *pool(nb_builder *b, const nb_op *op) {
    pooling p;
    if (!find_pooling(op, &p)) return NULL;
    nb_graph *g = b->graph;
    const nb_type *x = p.x->type, *y = nb_out(op)->type;
    const int axes = x->rank - 2;
    const int64_t C = y->dims[1]->value, step = nb_conv_stride(p.patches, axes - 1),
                  seen = nb_attr_of(p.patches, "kernel")->ints.items[axes - 1] - 1,
                  behind = seen * nb_conv_dilation(p.patches, axes - 1);
    const nb_dim *dims[NB_MAX_RANK] = {x->dims[0], nb_dim_const(g, 1)};
    for (int d = 0; d < axes; d++) dims[d + 2] = x->dims[d + 1];
    dims[axes + 1] = nb_dim_mul(g, x->dims[axes], x->dims[axes + 1]);
    nb_value *v = slide(b, &p, nb_reshape(b, p.x, x->rank, dims), C);
    if (nb_in(p.reduce, 0)->def->kind == NB_OP_dequantize) {
        const nb_quant *q = nb_in(nb_in(p.reduce, 0)->def, 0)->type->quant;
        v = nb_unary(b, NB_OP_dequantize, nb_as_codes(b, v, q));
    }
    nb_begin(b, p.reduce->kind);
    nb_arg(b, v);
    copy_attrs(b->op, p.reduce);
    v = nb_end(b);
    if (!v) return NULL;
    dims[0] = x->dims[0];
    for (int d = 0; d < axes - 1; d++) dims[d + 1] = y->dims[d + 2];
    dims[axes] = nb_dim_sub(g, x->dims[axes], nb_dim_const(g, behind));
    dims[axes + 1] = x->dims[axes + 1];
    if (v->type->dims[axes] != nb_dim_mul(g, dims[axes], dims[axes + 1])) return NULL;
    v = nb_reshape(b, v, x->rank, dims);
    if (step == 1) return v;
    const nb_dim *start[NB_MAX_RANK];
    int64_t steps[NB_MAX_RANK];
    for (int d = 0; d < x->rank; d++) {
        start[d] = nb_dim_const(g, 0);
        steps[d] = d == axes ? step : 1;
    }
    dims[axes] = y->dims[axes + 1];
    nb_begin(b, NB_OP_slice);
    nb_arg(b, v);
    nb_set_dims(b, "start", (size_t)x->rank, start);
    nb_set_dims(b, "count", (size_t)x->rank, dims);
    nb_set_ints(b, "step", (size_t)x->rank, steps);
    return nb_end(b);
}

/* ---- the pass ------------------------------------------------------------------------------- */

/* What an op is that needs no transpose any more, or NULL. */
static nb_value *without(const nb_op *op) {
    if (op->kind == NB_OP_patches) return patches(op);
    return op->kind == NB_OP_codes ? integers_of(nb_in(op, 0)) : NULL;
}

/* The same with channels last, or NULL. */
static nb_value *moved(nb_pass_ctx *ctx, nb_builder *b, const nb_op *op) {
    switch (op->kind) {
    case NB_OP_pad:
        return pad(b, op);
    case NB_OP_slice:
        return slice(b, op);
    case NB_OP_concat:
        return concat(b, op);
    case NB_OP_reduce_sum:
    case NB_OP_reduce_mean:
    case NB_OP_reduce_max:
    case NB_OP_reduce_min:
        return reduction(b, op);
    case NB_OP_reshape:
        return pool(b, op);
    case NB_OP_conv:
        return depthwise(ctx, b, op);
    case NB_OP_quantize:
        return quantize(b, op);
    case NB_OP_dequantize:
        return dequantize(b, op);
    default:
        return nb_can_chain(op) ? elementwise(b, op) : NULL;
    }
}

/* `y`, with channels last, as `op` has them. */
static nb_value *forward(nb_builder *b, const nb_op *op, nb_value *y) {
    int64_t perm[NB_MAX_RANK];
    for (int d = 0; d < y->type->rank; d++) perm[d] = last_axis(y->type->rank, d);
    y = nb_transpose(b, y, perm);
    return op->kind == NB_OP_quantize ? nb_as_codes(b, y, nb_attr_of(op, "to")->quant) : y;
}

/* In order, in bodies too; false after an error. */
static bool move_in(nb_pass_ctx *ctx, nb_region *region, bool *changed) {
    const size_t errors = nb_diags_of(ctx)->errors;
    nb_op *next;
    for (nb_op *op = region->first; op; op = next) {
        next = op->next;
        for (uint32_t r = 0; r < op->n_regions; r++)
            if (!move_in(ctx, op->regions[r], changed)) return false;
        if (op->n_results != 1) continue;
        nb_builder b = nb_pass_builder(ctx, op, op->loc);
        nb_value *y = without(op);
        if (!y) {
            y = moved(ctx, &b, op);
            if (y) y = forward(&b, op, y);
        }
        if (nb_diags_of(ctx)->errors > errors) return false;
        if (!y) continue;
        nb_replace_uses(nb_out(op), y);
        *changed = true;
    }
    return true;
}

static nb_pass_result run(nb_pass_ctx *ctx) {
    bool changed = false;
    if (ctx->graph->stage == NB_STAGE_PLANNED) return nb_pass_end(ctx, false);
    if (!move_in(ctx, &ctx->graph->body, &changed)) return NB_PASS_FAILED;
    if (changed) nb_graph_sweep(ctx->graph);
    return nb_pass_end(ctx, changed);
}

const nb_pass nb_pass_channels_last = {
    .size = sizeof(nb_pass),
    .name = "channels-last",
    .run = run,
    .promises = NB_PASS_KEEPS_BITS,
    .summary = "activations between products of patches have their channels last",
};
