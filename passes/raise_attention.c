/* Attention:
 *
 *   softmax(q . transpose(k) * scale + mask) . v  ->  attention(q, k, v, mask){scale}
 *
 * The scale is numbers multiplied or divided by, after the product or on q or k before it. Masks
 * are any addends that broadcast, and where(c, scores, lowest), which adds where(c, 0, lowest).
 * A row all of whose scores were replaced by -inf is the mean of v then, not NaN. k and v may be
 * transposed and have their heads repeated (raise_heads.c). Narrow floats are computed in f32, with
 * casts around. */
#include "passes/raise.h"

#include <float.h>
#include <math.h>

#define MAX_DEPTH 8
/* A score replaced by this or less has no weight: exp(-1e4) is 0. */
#define MASKING -1e4

/* Something added to the scores. */
typedef struct masking {
    nb_op *op;    /* add or where */
    size_t other; /* add: which operand is the mask; where: which one is the fill, 1 or 2 */
} masking;

typedef struct attention {
    nb_pass_ctx *ctx;
    nb_graph *g;
    nb_op *product; /* q . k^T */
    double scale;
    masking masks[MAX_DEPTH]; /* outermost first */
    size_t n_masks;
    nb_trail trail;
    const char *why; /* the first thing about the scores that does not fit; NULL: nothing yet */
} attention;

#define EQUATION "softmax(q . transpose(k) * scale + mask) . v  ->  attention(q, k, v, mask)"

/* Behind a softmax something else than attention is worth a word. */
static nb_value *refused(const attention *a, const nb_op *root, const char *why) {
    nb_refused(a->ctx, root, "attention", EQUATION, "%s", why);
    return NULL;
}

/* Notes why the scores cannot be followed further; returns false. */
static bool stop(attention *a, const char *why) {
    if (!a->why) a->why = why;
    return false;
}

/* ---- scores --------------------------------------------------------------------------------- */

/* Behind casts between floats that f32 holds. */
static nb_value *uncast(attention *a, nb_value *v) {
    for (nb_op *op; (op = nb_made_by(v, NB_OP_cast)) && nb_fits_f32(v) && nb_fits_f32(nb_in(op, 0));
         v = nb_in(op, 0))
        nb_trail_add(&a->trail, op);
    return v;
}

/* v = x * number or x / number: takes the number into *scale and returns x; else v. */
static nb_value *unscale(attention *a, nb_value *v, double *scale) {
    double number;
    for (int depth = 0; depth < MAX_DEPTH && v->def; depth++) {
        nb_op *op = v->def;
        if (op->kind != NB_OP_mul && op->kind != NB_OP_div) return v;
        size_t at = nb_const_number(nb_in(op, 1), &number) ? 0 : 1;
        if (at == 1 && (op->kind == NB_OP_div || !nb_const_number(nb_in(op, 0), &number))) return v;
        double by = op->kind == NB_OP_mul ? number : 1 / number;
        if (nb_in(op, at)->type != v->type || by == 0 || !isfinite(by)) return v;
        *scale *= by;
        nb_trail_add(&a->trail, op);
        v = nb_in(op, at);
    }
    return v;
}

static bool is_same_shape(const nb_type *a, const nb_type *b) {
    return a->rank == 4 && b->rank == 4 && a->dims[0] == b->dims[0] && a->dims[1] == b->dims[1] &&
           a->dims[2] == b->dims[2] && a->dims[3] == b->dims[3];
}

static bool broadcasts(const nb_value *m, const nb_type *scores) {
    if (m->type->rank > 4) return false;
    for (int i = 1; i <= m->type->rank; i++) {
        const nb_dim *d = m->type->dims[m->type->rank - i];
        if (d != scores->dims[4 - i] && !nb_dim_is(d, 1)) return false;
    }
    return true;
}

static bool follow_scores(attention *a, nb_value *v, int depth);

/* Operand `scores` of x's op holds the scores, the op masks them. */
static bool follow_mask(attention *a, nb_value *x, size_t scores, size_t other, int depth) {
    nb_op *op = x->def;
    attention saved = *a;
    if (a->n_masks == MAX_DEPTH || !is_same_shape(nb_in(op, scores)->type, x->type)) return false;
    a->masks[a->n_masks++] = (masking){op, other};
    nb_trail_add(&a->trail, op);
    if (follow_scores(a, nb_in(op, scores), depth - 1)) return true;
    const char *why = a->why;
    *a = saved;
    a->why = why;
    return false;
}

static bool follow_add(attention *a, nb_value *x, int depth) {
    for (size_t i = 0; i < 2; i++) {
        const nb_value *mask = nb_in(x->def, 1 - i);
        if (nb_fits_f32(mask) && broadcasts(mask, x->type) && follow_mask(a, x, i, 1 - i, depth))
            return true;
    }
    return false;
}

static bool follow_where(attention *a, nb_value *x, int depth) {
    double fill;
    for (size_t other = 1; other <= 2; other++) {
        if (nb_const_number(nb_in(x->def, other), &fill) && fill <= MASKING &&
            broadcasts(nb_in(x->def, 0), x->type) && follow_mask(a, x, 3 - other, other, depth))
            return true;
    }
    return false;
}

/* Follows scores down to the product of q and k, collecting scale and masks. A scale that stands
 * outside of a mask would scale the mask too: then there is no match. */
static bool follow_scores(attention *a, nb_value *v, int depth) {
    if (depth == 0) return stop(a, "more masks than are looked through");
    if (!nb_fits_f32(v) || v->type->rank != 4)
        return stop(a, "the scores are not floats of rank 4");
    double scale = 1;
    nb_value *x = uncast(a, unscale(a, uncast(a, v), &scale));
    if (nb_made_by(x, NB_OP_matmul)) {
        a->product = x->def;
        a->scale = scale;
        nb_trail_add(&a->trail, x->def);
        return is_same_shape(x->type, v->type) || stop(a, "the scale changes the scores' shape");
    }
    if (scale != 1) return stop(a, "a scale stands outside of a mask, which it would scale, too");
    if (nb_made_by(x, NB_OP_add))
        return follow_add(a, x, depth) ||
               stop(a, "what is added to the scores is no mask of theirs");
    if (nb_made_by(x, NB_OP_where))
        return follow_where(a, x, depth) ||
               stop(a, "where does not replace scores by a number that masks them");
    return stop(a, "the scores are no product of queries and keys");
}

/* All masks as one addend, from the innermost out; NULL when there is none. */
static nb_value *build_mask(attention *a, nb_builder *b) {
    static const float numbers[2] = {0, -FLT_MAX};
    nb_value *mask = NULL;
    const nb_loc *loc = b->loc;
    for (size_t i = a->n_masks; i-- > 0;) {
        const masking *m = &a->masks[i];
        b->loc = nb_loc_via(a->g, m->op->loc, "raise");
        if (m->op->kind == NB_OP_add) {
            nb_value *addend = nb_widened(b, nb_in(m->op, m->other));
            mask = mask ? nb_binary(b, NB_OP_add, mask, addend) : addend;
            continue;
        }
        nb_value *lowest = nb_const_f32(a->g, "lowest", 0, NULL, &numbers[1]);
        nb_value *inner = mask ? mask : nb_const_f32(a->g, "zero", 0, NULL, &numbers[0]);
        nb_begin(b, NB_OP_where);
        nb_arg(b, nb_in(m->op, 0));
        nb_arg(b, m->other == 1 ? lowest : inner);
        nb_arg(b, m->other == 1 ? inner : lowest);
        mask = nb_end(b);
    }
    b->loc = loc;
    return mask;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static bool is_rank4(const nb_value *v) { return v->type->rank == 4 && nb_fits_f32(v); }

/* Do the operands fit together, with H a multiple of G? */
static bool fit(const nb_type *q, const nb_type *k, const nb_type *v) {
    return nb_dim_is_const(q->dims[1]) && nb_dim_is_const(k->dims[1]) && k->dims[1]->value > 0 &&
           q->dims[1]->value % k->dims[1]->value == 0 && k->dims[1] == v->dims[1] &&
           q->dims[0] == k->dims[0] && q->dims[0] == v->dims[0] && k->dims[2] == v->dims[2] &&
           q->dims[3] == k->dims[3];
}

/* k as a view behind k^T, its transposes, casts and scale. */
static nb_heads keys(attention *a, nb_value *kt) {
    nb_heads k = {.base = kt, .perm = {0, 1, 3, 2}};
    for (const nb_value *old = NULL; old != k.base;) {
        old = k.base;
        k.base = uncast(a, unscale(a, k.base, &a->scale));
        nb_heads_untranspose(&k, &a->trail);
    }
    return k;
}

static nb_value *try_attention(attention *a, nb_op *root) {
    nb_trail_add(&a->trail, root);
    nb_value *weights = uncast(a, nb_in(root, 0)), *v = nb_in(root, 1);
    nb_op *softmax = nb_made_by(weights, NB_OP_softmax);
    if (!softmax) return NULL;
    if (!is_rank4(weights) || !is_rank4(v))
        return refused(a, root, "weights and values are not floats of rank 4");
    if (nb_attr_int(softmax, "axis") != 3 && nb_attr_int(softmax, "axis") != -1)
        return refused(a, root, "softmax is not along the last axis");
    nb_trail_add(&a->trail, softmax);
    if (!follow_scores(a, nb_in(softmax, 0), MAX_DEPTH)) return refused(a, root, a->why);
    nb_value *q = nb_in(a->product, 0), *kt = nb_in(a->product, 1);
    if (!is_rank4(q) || !is_rank4(kt))
        return refused(a, root, "queries and keys are not floats of rank 4");
    nb_heads values = {.base = v, .perm = {0, 1, 2, 3}};
    nb_heads_untranspose(&values, &a->trail);
    nb_heads k = keys(a, kt);
    q = uncast(a, unscale(a, uncast(a, q), &a->scale));
    nb_builder b = nb_pass_builder(a->ctx, root, nb_trail_loc(a->g, &a->trail));
    nb_heads few_k = k, few_v = values;
    nb_trail trail = a->trail;
    if (nb_heads_unrepeat(&few_v, &b, &trail) && nb_heads_unrepeat(&few_k, &b, &trail) &&
        fit(q->type, nb_heads_type(&few_k, a->g), nb_heads_type(&few_v, a->g))) {
        k = few_k;
        values = few_v;
        b.loc = nb_loc_via(a->g, nb_trail_loc(a->g, &trail), "raise");
    }
    if (!fit(q->type, nb_heads_type(&k, a->g), nb_heads_type(&values, a->g)))
        return refused(
            a, root, "queries [B,H,S,D], keys [B,G,T,D] and values [B,G,T,E] do not fit together");
    q = nb_widened(&b, q);
    nb_value *key = nb_widened(&b, nb_heads_build(&k, &b)),
             *value = nb_widened(&b, nb_heads_build(&values, &b)), *mask = build_mask(a, &b);
    nb_begin(&b, NB_OP_attention);
    nb_arg(&b, q);
    nb_arg(&b, key);
    nb_arg(&b, value);
    nb_arg(&b, mask);
    nb_set_float(&b, "scale", (float)a->scale);
    nb_value *y = nb_end(&b);
    return y && y->type->elem != nb_out(root)->type->elem ? nb_cast(&b, y, nb_out(root)->type->elem)
                                                          : y;
}

bool nb_raise_attention(nb_pass_ctx *ctx, bool *changed) {
    size_t errors = nb_diags_of(ctx)->errors;
    NB_FOR_OPS(op, &ctx->graph->body) {
        if (op->kind != NB_OP_matmul) continue;
        attention a = {.ctx = ctx, .g = ctx->graph};
        nb_value *y = try_attention(&a, op);
        if (nb_diags_of(ctx)->errors != errors) return false;
        if (!y || y->type != nb_out(op)->type) continue;
        nb_replace_uses(nb_out(op), y);
        *changed = true;
    }
    nb_graph_sweep(ctx->graph);
    return true;
}
