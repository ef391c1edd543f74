/* Rotary embeddings in halves:
 *
 *   x * cos + concat(-x[D/2:], x[:D/2]) * sin  ->  rotary(x, cos[:D/2], sin[:D/2])
 *
 * when x is [B,H,S,D] and cos, sin are [B or 1,1,S,D] whose two halves are provably equal: from
 * concat(t, t), or from a constant table with equal halves, through look-ups, reshapes and cos,
 * sin. */
#include "passes/raise.h"

#include <string.h>

#define MAX_DEPTH 16

typedef struct rotary {
    nb_pass_ctx *ctx;
    nb_graph *g;
    nb_map tables; /* constant table -> its half */
} rotary;

/* x[.., from : from + D/2] over the last axis. */
static bool is_half(const nb_value *v, const nb_value *x, bool upper) {
    const nb_op *slice = nb_made_by(v, NB_OP_slice);
    if (!slice || nb_in(slice, 0) != x) return false;
    const nb_attr *start = nb_attr_of(slice, "start"), *count = nb_attr_of(slice, "count"),
                  *step = nb_attr_of(slice, "step");
    int last = x->type->rank - 1;
    for (int d = 0; d < last; d++) {
        if (!nb_dim_is(start->dims.items[d], 0) || count->dims.items[d] != x->type->dims[d] ||
            step->ints.items[d] != 1)
            return false;
    }
    if (!nb_dim_is_const(x->type->dims[last]) || step->ints.items[last] != 1) return false;
    int64_t half = x->type->dims[last]->value / 2;
    return 2 * half == x->type->dims[last]->value &&
           nb_dim_is(start->dims.items[last], upper ? half : 0) &&
           nb_dim_is(count->dims.items[last], half);
}

static bool joins_last(const nb_op *concat) {
    return concat->n_operands == 2 && nb_attr_int(concat, "axis") == nb_out(concat)->type->rank - 1;
}

/* The x that v = concat(-x[D/2:], x[:D/2]) rotates, or NULL. */
static nb_value *rotated(const nb_value *v) {
    const nb_op *concat = nb_made_by(v, NB_OP_concat);
    if (!concat || !joins_last(concat)) return NULL;
    const nb_op *neg = nb_made_by(nb_in(concat, 0), NB_OP_neg),
                *low = nb_made_by(nb_in(concat, 1), NB_OP_slice);
    if (!neg || !low) return NULL;
    nb_value *x = nb_in(low, 0);
    return is_half(nb_in(neg, 0), x, true) && is_half(nb_in(concat, 1), x, false) ? x : NULL;
}

/* ---- the half of a table -------------------------------------------------------------------- */

/* A constant [M,D] with equal halves: the first half as a constant of its own. */
static nb_value *half_table(rotary *r, nb_value *t) {
    nb_value *known = nb_map_get(&r->tables, t);
    if (known || !nb_is_const(t) || t->type->elem != NB_F32 || t->type->quant || t->type->rank < 1)
        return known;
    int last = t->type->rank - 1;
    int64_t width = t->type->dims[last]->value, rows = width ? t->blob->size / 4 / width : 0,
            half = width / 2;
    const float *from = t->blob->data;
    if (width != 2 * half) return NULL;
    for (int64_t i = 0; i < rows; i++) {
        if (memcmp(from + i * width, from + i * width + half, (size_t)half * 4) != 0) return NULL;
    }
    void *data;
    nb_blob *blob = nb_blob_create(rows * half * 4, &data);
    if (!blob) return NULL;
    for (int64_t i = 0; i < rows; i++)
        memcpy((float *)data + i * half, from + i * width, (size_t)half * 4);
    const nb_dim *dims[NB_MAX_RANK];
    memcpy(dims, t->type->dims, sizeof dims);
    dims[last] = nb_dim_const(r->g, half);
    nb_value *v = nb_graph_add_const(r->g, nb_format(r->g->arena, "%s.half", t->name),
                                     nb_type_with_dims(r->g, t->type, t->type->rank, dims), blob,
                                     nb_loc_via(r->g, t->loc, "raise"));
    nb_map_set(&r->tables, t, v);
    return v;
}

static const nb_type *half_type(rotary *r, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK];
    memcpy(dims, t->dims, sizeof dims);
    dims[t->rank - 1] = nb_dim_floordiv(r->g, dims[t->rank - 1], nb_dim_const(r->g, 2));
    return nb_type_with_dims(r->g, t, t->rank, dims);
}

/* A value equal to the first half of v's last axis, made before b's op, given that both halves of v
 * are equal; NULL when that cannot be proved. */
static nb_value *half_of(rotary *r, nb_builder *b, nb_value *v, int depth) {
    if (depth == 0 || v->type->rank < 1) return NULL;
    if (nb_is_const(v)) return half_table(r, v);
    nb_op *op = v->def;
    if (!op) return NULL;
    nb_value *half;
    switch (op->kind) {
    case NB_OP_concat:
        return joins_last(op) && nb_in(op, 0) == nb_in(op, 1) ? nb_in(op, 0) : NULL;
    case NB_OP_gather:
        if (nb_attr_int(op, "axis") == nb_in(op, 0)->type->rank - 1) return NULL;
        half = half_of(r, b, nb_in(op, 0), depth - 1);
        if (!half) return NULL;
        nb_begin(b, NB_OP_gather);
        nb_arg(b, half);
        nb_arg(b, nb_in(op, 1));
        nb_set_int(b, "axis", nb_attr_int(op, "axis"));
        return nb_end(b);
    case NB_OP_reshape:
        /* The last axis must survive as it is. */
        if (nb_in(op, 0)->type->rank < 1 ||
            nb_in(op, 0)->type->dims[nb_in(op, 0)->type->rank - 1] !=
                v->type->dims[v->type->rank - 1])
            return NULL;
        half = half_of(r, b, nb_in(op, 0), depth - 1);
        return half ? nb_reshape(b, half, v->type->rank, half_type(r, v->type)->dims) : NULL;
    case NB_OP_cos:
    case NB_OP_sin:
        half = half_of(r, b, nb_in(op, 0), depth - 1);
        return half ? nb_unary(b, op->kind, half) : NULL;
    case NB_OP_cast:
        half = half_of(r, b, nb_in(op, 0), depth - 1);
        return half ? nb_cast(b, half, v->type->elem) : NULL;
    default:
        return NULL;
    }
}

/* cos or sin as rotary takes it, f32[B or 1,S,D/2], from [B or 1,1,S,D]. */
static nb_value *angles(rotary *r, nb_builder *b, nb_value *v, const nb_type *x) {
    const nb_type *t = v->type;
    if (t->rank != 4 || t->elem != NB_F32 || !nb_dim_is(t->dims[1], 1) ||
        t->dims[2] != x->dims[2] || t->dims[3] != x->dims[3])
        return NULL;
    if (t->dims[0] != x->dims[0] && !nb_dim_is(t->dims[0], 1)) return NULL;
    nb_value *half = half_of(r, b, v, MAX_DEPTH);
    return half ? nb_reshape(b, half, 3,
                             (const nb_dim *[]){t->dims[0], t->dims[2], half->type->dims[3]})
                : NULL;
}

/* ---- the match ------------------------------------------------------------------------------ */

/* Operand of `mul` that is not `v`. */
static nb_value *other(const nb_op *mul, const nb_value *v) {
    return nb_in(mul, 0) == v ? nb_in(mul, 1) : nb_in(mul, 0);
}

static nb_value *try_rotary(rotary *r, nb_op *add) {
    for (size_t side = 0; side < 2; side++) {
        nb_op *turned = nb_made_by(nb_in(add, side), NB_OP_mul),
              *straight = nb_made_by(nb_in(add, 1 - side), NB_OP_mul);
        if (!turned || !straight) return NULL;
        for (size_t i = 0; i < 2; i++) {
            nb_value *x = rotated(nb_in(turned, i));
            if (!x || x->type->rank != 4 || x->type->elem != NB_F32 ||
                (nb_in(straight, 0) != x && nb_in(straight, 1) != x))
                continue;
            const nb_loc *loc =
                nb_loc_merge(r->g, nb_loc_merge(r->g, straight->loc, turned->loc), add->loc);
            nb_builder b = nb_pass_builder(r->ctx, add, loc);
            nb_value *cosine = angles(r, &b, other(straight, x), x->type),
                     *sine = angles(r, &b, nb_in(turned, 1 - i), x->type);
            if (!cosine || !sine) continue;
            nb_begin(&b, NB_OP_rotary);
            nb_arg(&b, x);
            nb_arg(&b, cosine);
            nb_arg(&b, sine);
            return nb_end(&b);
        }
    }
    return NULL;
}

bool nb_raise_rotary(nb_pass_ctx *ctx, bool *changed) {
    rotary r = {.ctx = ctx, .g = ctx->graph, .tables = {.arena = nb_state_of(ctx)->scratch}};
    size_t errors = nb_diags_of(ctx)->errors;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (op->kind != NB_OP_add) continue;
        nb_value *y = try_rotary(&r, op);
        if (nb_diags_of(ctx)->errors != errors) return false;
        if (!y) continue;
        nb_replace_uses(nb_out(op), y);
        *changed = true;
    }
    nb_graph_sweep(ctx->graph);
    return true;
}
