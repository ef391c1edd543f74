/* Rotary embeddings. With x1, x2 the halves of x's last axis (or its even and odd elements, then
 * "," stacks instead of joins):
 *
 *   x * cos + (-x2, x1) * sin                  ->  rotary(x, half(cos), half(sin))
 *   (x1 * cos - x2 * sin, x2 * cos + x1 * sin) ->  rotary(x, cos, sin)
 *
 * x is [B,H,S,D] and cos, sin are [B or 1,1,S,D], or x is [B,S,H,D] and they are [B or 1,S,1,D]:
 * then transposes go around. That each angle of the first form stands twice in its row is proved in
 * raise_halves.c. Narrow floats are rotated in f32. */
#include "passes/raise.h"

typedef struct rotary {
    nb_pass_ctx *ctx;
    nb_graph *g;
    nb_halves halves;
} rotary;

/* What rotates, by the parts it is made of. */
typedef struct turn {
    nb_span x;
    bool interleaved;
} turn;

/* ---- parts of x ----------------------------------------------------------------------------- */

static nb_value *negated(const nb_value *v) {
    double number;
    if (nb_made_by(v, NB_OP_neg)) return nb_in(v->def, 0);
    const nb_op *mul = nb_made_by(v, NB_OP_mul);
    for (size_t i = 0; mul && i < 2; i++) {
        if (nb_in(mul, i)->type == v->type && nb_const_number(nb_in(mul, 1 - i), &number) &&
            number == -1)
            return nb_in(mul, i);
    }
    return NULL;
}

/* u [..,n] of v [..,n,1] = reshape(u). */
static nb_value *unsqueezed(const nb_value *v) {
    nb_op *reshape = nb_made_by(v, NB_OP_reshape);
    if (!reshape) return NULL;
    nb_value *u = nb_in(reshape, 0);
    if (v->type->rank != u->type->rank + 1 || !nb_dim_is(v->type->dims[u->type->rank], 1))
        return NULL;
    for (int d = 0; d < u->type->rank; d++) {
        if (u->type->dims[d] != v->type->dims[d]) return NULL;
    }
    return u;
}

/* Are the two the parts 1 and 2 of one x? */
static bool are_parts(nb_value *first, nb_value *second, bool interleaved, turn *t) {
    nb_span a, b;
    if (!nb_span_of(first, &a) || !nb_span_of(second, &b) || a.base != b.base || a.step != b.step ||
        a.count != b.count)
        return false;
    int64_t step = interleaved ? a.step / 2 : a.step;
    if (interleaved && a.step % 2 != 0) return false;
    if (b.start - a.start != (interleaved ? step : step * a.count)) return false;
    *t = (turn){{a.base, a.start, step, 2 * a.count}, interleaved};
    return true;
}

static bool is_span(nb_value *v, const nb_span *wanted) {
    nb_span s;
    return nb_span_of(v, &s) && s.base == wanted->base && s.start == wanted->start &&
           s.step == wanted->step && s.count == wanted->count;
}

/* v = (first, second), joined or stacked; stacked ones without their last axis of length 1. */
static bool is_pair(nb_value *v, nb_value **first, nb_value **second, bool *interleaved) {
    int rank = v->type->rank;
    if (rank < 1 || !nb_dim_is_const(v->type->dims[rank - 1])) return false;
    nb_value *stack = nb_unstacked(v, v->type->dims[rank - 1]->value / 2, 2);
    const nb_op *concat = nb_made_by(stack ? stack : v, NB_OP_concat);
    if (!concat || !nb_joins_last(concat)) return false;
    *interleaved = stack != NULL;
    *first = stack ? unsqueezed(nb_in(concat, 0)) : nb_in(concat, 0);
    *second = stack ? unsqueezed(nb_in(concat, 1)) : nb_in(concat, 1);
    return *first && *second;
}

/* v = (-x2, x1) */
static bool is_turned(nb_value *v, turn *t) {
    nb_value *first, *second;
    bool interleaved;
    if (!is_pair(v, &first, &second, &interleaved)) return false;
    nb_value *x2 = negated(first);
    return x2 && are_parts(second, x2, interleaved, t);
}

/* x itself: the base, or a slice of it before b's op. */
static nb_value *whole(rotary *r, nb_builder *b, const nb_span *s) {
    const nb_type *t = s->base->type;
    if (s->start == 0 && s->step == 1 && nb_dim_is(t->dims[t->rank - 1], s->count)) return s->base;
    const nb_dim *starts[NB_MAX_RANK], *counts[NB_MAX_RANK];
    int64_t steps[NB_MAX_RANK];
    for (int d = 0; d < t->rank; d++) {
        starts[d] = nb_dim_const(r->g, d == t->rank - 1 ? s->start : 0);
        counts[d] = d == t->rank - 1 ? nb_dim_const(r->g, s->count) : t->dims[d];
        steps[d] = d == t->rank - 1 ? s->step : 1;
    }
    nb_begin(b, NB_OP_slice);
    nb_arg(b, s->base);
    nb_set_dims(b, "start", (size_t)t->rank, starts);
    nb_set_dims(b, "count", (size_t)t->rank, counts);
    nb_set_ints(b, "step", (size_t)t->rank, steps);
    return nb_end(b);
}

/* ---- building ------------------------------------------------------------------------------- */

/* cos or sin as rotary takes it, f32[B or 1,S,D/2], or NULL. `heads` is the axis of x that it does
 * not depend on. */
static nb_value *angles(rotary *r, nb_builder *b, nb_value *v, const nb_type *x, int heads,
                        bool doubled, bool interleaved) {
    const nb_type *t = v->type;
    const nb_dim *dims[4];
    if (t->rank < 1 || t->rank > 4 || !nb_fits_f32(v)) return NULL;
    for (int d = 0; d < 4; d++)
        dims[d] = d < 4 - t->rank ? nb_dim_const(r->g, 1) : t->dims[d - (4 - t->rank)];
    if (!nb_dim_is(dims[heads], 1) || dims[3 - heads] != x->dims[3 - heads]) return NULL;
    if (dims[0] != x->dims[0] && !nb_dim_is(dims[0], 1)) return NULL;
    int64_t half = x->dims[3]->value / 2;
    if (!nb_dim_is(dims[3], doubled ? 2 * half : half)) return NULL;
    const nb_loc *loc = b->loc;
    if (v->def) b->loc = nb_loc_via(r->g, v->def->loc, "raise");
    if (doubled) v = nb_half_of(&r->halves, b, v, interleaved ? NB_PAIRS : NB_TWICE);
    v = nb_widened(b, v);
    const nb_dim *shape[3] = {dims[0], dims[3 - heads], nb_dim_const(r->g, half)};
    v = v ? nb_reshape(b, v, 3, shape) : NULL;
    b->loc = loc;
    return v;
}

static nb_value *build(rotary *r, nb_builder *b, nb_value *x, nb_value *cosine, nb_value *sine,
                       bool doubled, bool interleaved) {
    static const int64_t swap[4] = {0, 2, 1, 3};
    if (!x || x->type->rank != 4 || !nb_fits_f32(x)) return NULL;
    for (int heads = 1; heads <= 2; heads++) {
        nb_value *c = angles(r, b, cosine, x->type, heads, doubled, interleaved),
                 *s = c ? angles(r, b, sine, x->type, heads, doubled, interleaved) : NULL;
        if (!s) continue;
        nb_value *y = nb_widened(b, x);
        if (y && heads == 2) y = nb_transpose(b, y, swap);
        nb_begin(b, NB_OP_rotary);
        nb_arg(b, y);
        nb_arg(b, c);
        nb_arg(b, s);
        if (interleaved) nb_set_bool(b, "interleaved", true);
        y = nb_end(b);
        if (y && heads == 2) y = nb_transpose(b, y, swap);
        return y && y->type != x->type ? nb_cast(b, y, x->type->elem) : y;
    }
    return NULL;
}

/* ---- the two forms -------------------------------------------------------------------------- */

/* x * cos + (-x2, x1) * sin */
static nb_value *from_turned(rotary *r, nb_op *add) {
    for (size_t side = 0; side < 2; side++) {
        nb_op *turned = nb_made_by(nb_in(add, side), NB_OP_mul),
              *straight = nb_made_by(nb_in(add, 1 - side), NB_OP_mul);
        if (!turned || !straight) return NULL;
        for (size_t choice = 0; choice < 4; choice++) {
            size_t i = choice % 2, k = choice / 2;
            turn t;
            nb_value *x = nb_in(straight, k);
            if (x->type != nb_out(add)->type || !is_turned(nb_in(turned, i), &t) ||
                !is_span(x, &t.x))
                continue;
            nb_trail trail = {{add, turned, straight, nb_in(turned, i)->def}, 4};
            nb_builder b = nb_pass_builder(r->ctx, add, nb_trail_loc(r->g, &trail));
            nb_value *y =
                build(r, &b, x, nb_in(straight, 1 - k), nb_in(turned, 1 - i), true, t.interleaved);
            if (y) return y;
            nb_refused(r->ctx, add, "rotary", "x * cos + (-x2, x1) * sin  ->  rotary(x, cos, sin)",
                       "'%%%s' and '%%%s' are not [B,1,S,D] or [B,S,1,D] beside x, or it cannot be "
                       "proved that each angle stands twice in its row",
                       nb_in(straight, 1 - k)->name, nb_in(turned, 1 - i)->name);
        }
    }
    return NULL;
}

/* v = x * angle; takes the operands apart in the given order. */
static bool is_scaled(const nb_value *v, size_t order, nb_value **x, nb_value **angle) {
    const nb_op *mul = nb_made_by(v, NB_OP_mul);
    if (!mul) return false;
    *x = nb_in(mul, order);
    *angle = nb_in(mul, 1 - order);
    return true;
}

/* (x1 * cos - x2 * sin, x2 * cos + x1 * sin); the four products may be either way round, the sum
 * too: one bit of `orders` each. */
static nb_value *from_parts(rotary *r, nb_op *root, nb_value *first, nb_value *second,
                            bool interleaved) {
    nb_op *sub = nb_made_by(first, NB_OP_sub), *add = nb_made_by(second, NB_OP_add);
    if (!sub || !add) return NULL;
    for (size_t orders = 0; orders < 32; orders++) {
        nb_value *x1, *x2, *cosine, *sine, *x2_again, *x1_again, *cosine_again, *sine_again;
        size_t left = orders >> 4 & 1;
        turn t;
        bool fits = is_scaled(nb_in(sub, 0), orders & 1, &x1, &cosine) &&
                    is_scaled(nb_in(sub, 1), orders >> 1 & 1, &x2, &sine) &&
                    is_scaled(nb_in(add, left), orders >> 2 & 1, &x2_again, &cosine_again) &&
                    is_scaled(nb_in(add, 1 - left), orders >> 3 & 1, &x1_again, &sine_again);
        if (!fits || x1 != x1_again || x2 != x2_again || cosine != cosine_again ||
            sine != sine_again || !are_parts(x1, x2, interleaved, &t))
            continue;
        nb_trail trail = {{root, add, sub}, 3};
        nb_builder b = nb_pass_builder(r->ctx, root, nb_trail_loc(r->g, &trail));
        if (t.x.base->type->rank != 4 || !nb_fits_f32(t.x.base)) continue;
        nb_value *y = build(r, &b, whole(r, &b, &t.x), cosine, sine, false, interleaved);
        if (y) return y;
        nb_refused(r->ctx, root, "rotary",
                   "(x1 * cos - x2 * sin, x2 * cos + x1 * sin)  ->  rotary(x, cos, sin)",
                   "'%%%s' and '%%%s' are not [B,1,S,D/2] or [B,S,1,D/2] beside x", cosine->name,
                   sine->name);
    }
    return NULL;
}

static nb_value *try_rotary(rotary *r, nb_op *op) {
    nb_value *first, *second;
    bool interleaved;
    if (op->kind == NB_OP_add) return from_turned(r, op);
    if (op->kind != NB_OP_concat && op->kind != NB_OP_reshape) return NULL;
    return is_pair(nb_out(op), &first, &second, &interleaved)
               ? from_parts(r, op, first, second, interleaved)
               : NULL;
}

bool nb_raise_rotary(nb_pass_ctx *ctx, bool *changed) {
    nb_arena *scratch = nb_state_of(ctx)->scratch;
    rotary r = {.ctx = ctx,
                .g = ctx->graph,
                .halves = {.graph = ctx->graph, .known = {{.arena = scratch}, {.arena = scratch}}}};
    size_t errors = nb_diags_of(ctx)->errors;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (op->n_results != 1) continue;
        nb_value *y = try_rotary(&r, op);
        if (nb_diags_of(ctx)->errors != errors) return false;
        if (!y || y->type != nb_out(op)->type) continue;
        nb_replace_uses(nb_out(op), y);
        *changed = true;
    }
    nb_graph_sweep(ctx->graph);
    return true;
}
