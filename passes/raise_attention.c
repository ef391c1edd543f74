/* Attention:
 *
 *   softmax(q . transpose(k) * scale + mask) . v  ->  attention(q, k, v, mask){scale}
 *
 * The scale may be multiplied or divided by, after the product or on q or k before it, or absent;
 * masks are any addends that broadcast. Heads of k and v that were repeated for groups of query
 * heads (reshape(expand(reshape(k)))) are taken once. */
#include "passes/raise.h"

#include <string.h>

#define MAX_DEPTH 8

typedef struct attention {
    nb_pass_ctx *ctx;
    nb_graph *g;
    nb_op *product; /* q . k^T */
    double scale;
    nb_value *masks[MAX_DEPTH];
    size_t n_masks;
    const nb_loc *loc;
} attention;

static void seen(attention *a, const nb_op *op) { a->loc = nb_loc_merge(a->g, a->loc, op->loc); }

/* v = x * number or x / number: takes the number into *scale and returns x; else v. */
static nb_value *unscale(attention *a, nb_value *v, double *scale) {
    double number;
    for (int depth = 0; depth < MAX_DEPTH && v->def; depth++) {
        nb_op *op = v->def;
        if (op->kind != NB_OP_mul && op->kind != NB_OP_div) return v;
        size_t at = nb_const_number(nb_in(op, 1), &number) ? 0 : 1;
        if (at == 1 && (op->kind == NB_OP_div || !nb_const_number(nb_in(op, 0), &number))) return v;
        if (nb_in(op, at)->type != v->type || number == 0) return v;
        *scale *= op->kind == NB_OP_mul ? number : 1 / number;
        seen(a, op);
        v = nb_in(op, at);
    }
    return v;
}

/* Follows scores down to the product of q and k, collecting scale and masks. A scale that stands
 * outside of a mask would scale the mask too: then there is no match. */
static bool follow_scores(attention *a, nb_value *v, int depth) {
    if (depth == 0 || !v->def) return false;
    double scale = 1;
    nb_value *x = unscale(a, v, &scale);
    if (nb_made_by(x, NB_OP_matmul)) {
        a->product = x->def;
        a->scale = scale;
        seen(a, x->def);
        return true;
    }
    nb_op *add = nb_made_by(x, NB_OP_add);
    if (!add || scale != 1 || a->n_masks == MAX_DEPTH) return false;
    const nb_loc *loc = a->loc;
    for (size_t i = 0; i < 2; i++) {
        size_t masks = a->n_masks;
        a->loc = loc;
        a->masks[a->n_masks++] = nb_in(add, 1 - i);
        if (nb_in(add, i)->type == x->type && follow_scores(a, nb_in(add, i), depth - 1)) {
            seen(a, add);
            return true;
        }
        a->n_masks = masks;
    }
    a->loc = loc;
    return false;
}

/* Heads that were repeated: [B,G,T,D] behind [B,H,T,D] = reshape(expand(reshape(k))), else v. */
static nb_value *unrepeat(attention *a, nb_value *v) {
    nb_op *flat = nb_made_by(v, NB_OP_reshape),
          *wide = flat ? nb_made_by(nb_in(flat, 0), NB_OP_expand) : NULL;
    nb_op *added = wide ? nb_made_by(nb_in(wide, 0), NB_OP_reshape) : NULL;
    if (!added || v->type->rank != 4) return v;
    const nb_type *k = nb_in(added, 0)->type, *w = nb_out(wide)->type, *t = v->type;
    if (k->rank != 4 || w->rank != 5 || nb_out(added)->type->rank != 5 ||
        !nb_dim_is(nb_out(added)->type->dims[2], 1))
        return v;
    bool same = k->dims[0] == w->dims[0] && k->dims[1] == w->dims[1] && k->dims[2] == w->dims[3] &&
                k->dims[3] == w->dims[4];
    same = same && t->dims[0] == k->dims[0] && t->dims[2] == k->dims[2] && t->dims[3] == k->dims[3];
    if (!same || t->dims[1] != nb_dim_mul(a->g, w->dims[1], w->dims[2])) return v;
    seen(a, flat);
    seen(a, wide);
    return nb_in(added, 0);
}

/* k [B,H,T,D] from the right operand of q . k^T. */
static nb_value *untransposed(attention *a, nb_builder *b, nb_value *kt) {
    static const int64_t swap[4] = {0, 1, 3, 2};
    nb_op *t = nb_made_by(kt, NB_OP_transpose);
    if (t && memcmp(nb_attr_of(t, "perm")->ints.items, swap, sizeof swap) == 0) {
        seen(a, t);
        return nb_in(t, 0);
    }
    return nb_transpose(b, kt, swap); /* simplify merges it with what made kt */
}

static bool fits_mask(const nb_value *m, const nb_type *scores) {
    if (m->type->elem != NB_F32 || m->type->rank > 4) return false;
    for (int i = 1; i <= m->type->rank; i++) {
        const nb_dim *d = m->type->dims[m->type->rank - i];
        if (d != scores->dims[4 - i] && !nb_dim_is(d, 1)) return false;
    }
    return true;
}

static nb_value *sum_of_masks(attention *a, nb_builder *b) {
    nb_value *sum = NULL;
    for (size_t i = 0; i < a->n_masks; i++)
        sum = sum ? nb_binary(b, NB_OP_add, a->masks[i], sum) : a->masks[i];
    return sum;
}

static bool is_rank4_f32(const nb_value *v) {
    return v->type->rank == 4 && v->type->elem == NB_F32 && !v->type->quant;
}

static nb_value *try_attention(attention *a, nb_op *root) {
    nb_op *softmax = nb_made_by(nb_in(root, 0), NB_OP_softmax);
    if (!softmax || !is_rank4_f32(nb_in(root, 0)) || !is_rank4_f32(nb_in(root, 1)) ||
        nb_attr_int(softmax, "axis") != 3)
        return NULL;
    if (!follow_scores(a, nb_in(softmax, 0), MAX_DEPTH)) return NULL;
    const nb_type *scores = nb_out(a->product)->type;
    nb_value *q = nb_in(a->product, 0), *kt = nb_in(a->product, 1);
    if (scores != nb_in(softmax, 0)->type || !is_rank4_f32(q) || !is_rank4_f32(kt)) return NULL;
    for (size_t i = 0; i < a->n_masks; i++) {
        if (!fits_mask(a->masks[i], scores)) return NULL;
    }
    q = unscale(a, q, &a->scale);
    kt = unscale(a, kt, &a->scale);
    seen(a, softmax);
    seen(a, root);
    nb_builder b = nb_pass_builder(a->ctx, root, NULL);
    nb_value *k = untransposed(a, &b, kt);
    k = k ? unscale(a, k, &a->scale) : NULL;
    if (!k) return NULL;
    nb_value *v = nb_in(root, 1), *k1 = unrepeat(a, k), *v1 = unrepeat(a, v);
    if (k1->type->dims[1] == v1->type->dims[1]) {
        k = k1;
        v = v1;
    }
    b.loc = nb_loc_via(a->g, a->loc, "raise");
    nb_value *mask = sum_of_masks(a, &b);
    nb_begin(&b, NB_OP_attention);
    nb_arg(&b, q);
    nb_arg(&b, k);
    nb_arg(&b, v);
    nb_arg(&b, mask);
    nb_set_float(&b, "scale", (float)a->scale);
    return nb_end(&b);
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
