/* channels-last: where products of patches have their results with channels last, what follows
 * computes in that order too.
 *
 *   requires   stage FLOAT; behind conv-to-matmul, whose transposes it moves
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
 * one number, or are constants of one number for each channel; behind pad, a reduction, and a
 * depthwise convolution, which becomes `depthwise`. In front of patches of a kernel of one element
 * it ends. What else reads the transposed value gets it where it did: one transpose later. */
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

static nb_value *pad(nb_builder *b, const nb_op *op) {
    static const char *const names[] = {"before", "after"};
    nb_value *x = source_of(nb_in(op, 0));
    if (!x) return NULL;
    const int rank = x->type->rank;
    nb_begin(b, NB_OP_pad);
    nb_arg(b, x);
    nb_arg(b, nb_in(op, 1));
    for (size_t i = 0; i < NB_COUNT(names); i++) {
        const nb_dim *dims[NB_MAX_RANK];
        const nb_attr *a = nb_attr_of(op, names[i]);
        for (int d = 0; d < rank; d++) dims[last_axis(rank, d)] = a->dims.items[d];
        nb_set_dims(b, names[i], (size_t)rank, dims);
    }
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

/* The same with channels last, or NULL. */
static nb_value *moved(nb_pass_ctx *ctx, nb_builder *b, const nb_op *op) {
    switch (op->kind) {
    case NB_OP_pad:
        return pad(b, op);
    case NB_OP_reduce_sum:
    case NB_OP_reduce_mean:
    case NB_OP_reduce_max:
    case NB_OP_reduce_min:
        return reduction(b, op);
    case NB_OP_conv:
        return depthwise(ctx, b, op);
    default:
        return nb_can_chain(op) ? elementwise(b, op) : NULL;
    }
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
        nb_value *y = op->kind == NB_OP_patches ? patches(op) : moved(ctx, &b, op);
        if (y && op->kind != NB_OP_patches) {
            const int rank = y->type->rank;
            int64_t perm[NB_MAX_RANK];
            for (int d = 0; d < rank; d++) perm[d] = last_axis(rank, d);
            y = nb_transpose(&b, y, perm);
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
