/* Chains of elementwise ops (chain.h). */
#include "ir/chain.h"

bool nb_can_chain(const nb_op *op) {
    return nb_has_trait(op, NB_TRAIT_ELEMENTWISE) && op->kind != NB_OP_cast;
}

static bool are_byte_codes(const nb_quant *q) {
    return q && q->granularity == NB_PER_TENSOR && !q->scales && !q->zeros &&
           !nb_quant_has_minima(q) && (q->storage == NB_I8 || q->storage == NB_U8);
}

bool nb_is_code_step(const nb_op *op) {
    if (op->kind != NB_OP_dequantize && op->kind != NB_OP_quantize) return false;
    const nb_value *codes = op->kind == NB_OP_quantize ? nb_out(op) : nb_in(op, 0);
    return are_byte_codes(codes->type->quant) && codes->type->rank > 0;
}

static bool joins_chains(const nb_op *op) { return nb_can_chain(op) || nb_is_code_step(op); }

/* Are numbers of this element computed as they are stored? */
static bool is_exact(nb_elem e) {
    switch (e) {
    case NB_F64:
    case NB_F32:
    case NB_I64:
    case NB_I32:
    case NB_U64:
    case NB_U32:
    case NB_BOOL:
        return true;
    default:
        return false;
    }
}

/* Elements that a pooling kernel writes out. */
#define MOST_SEEN 64

static bool is_reduction(const nb_op *op) {
    return op->kind == NB_OP_reduce_max || op->kind == NB_OP_reduce_min ||
           op->kind == NB_OP_reduce_sum || op->kind == NB_OP_reduce_mean;
}

/* The op that makes v for a single user, if it is of that kind. */
static const nb_op *made_by(const nb_value *v, nb_op_kind kind) {
    return v->def && v->def->kind == kind && nb_has_one_use(v) ? v->def : NULL;
}

/* Patches of one channel, reduced to a number each; of codes, those that a sum takes as floats. */
const nb_op *nb_pooled(const nb_op *op) {
    if (!is_reduction(op)) return NULL;
    const bool sum = op->kind == NB_OP_reduce_sum || op->kind == NB_OP_reduce_mean;
    const nb_value *v = nb_in(op, 0);
    const nb_op *back = sum ? made_by(v, NB_OP_dequantize) : NULL;
    if (back && nb_is_code_step(back)) {
        const nb_op *codes = made_by(nb_in(back, 0), NB_OP_as_codes);
        if (!codes) return NULL;
        v = nb_in(codes, 0);
    }
    const nb_op *patches = made_by(v, NB_OP_patches);
    if (!patches) return NULL;
    const nb_type *t = v->type, *x = nb_in(patches, 0)->type;
    const nb_attr *axes = nb_attr_of(op, "axes");
    const bool bytes = t->elem == NB_I8 || t->elem == NB_U8;
    if (t->elem != NB_F32 && !bytes) return NULL;
    if (bytes && sum && v == nb_in(op, 0)) return NULL;
    return nb_dim_is(x->dims[1], 1) && t->dims[t->rank - 1]->value <= MOST_SEEN &&
                   t->dims[t->rank - 1]->value > 0 && axes->ints.count == 1 &&
                   axes->ints.items[0] == t->rank - 1
               ? patches
               : NULL;
}

/* Is `v` what a pooling keeps in registers, and `user` what it has behind it? */
static bool is_pooled(const nb_value *v, const nb_op *user) {
    const nb_op *root = user;
    while (root->kind == NB_OP_as_codes || root->kind == NB_OP_dequantize) {
        if (!nb_has_one_use(nb_out(root))) return false;
        root = nb_out(root)->uses->user;
    }
    const nb_op *patches = nb_pooled(root);
    if (!patches) return false;
    const nb_value *between = nb_in(root, 0);
    while (between != v && between->def != patches) between = nb_in(between->def, 0);
    return between == v;
}

/* ---- windows --------------------------------------------------------------------------------- */

/* Vectors that chains compute by; rows of a window should fill them. */
#define LANES 16

static int64_t known_or(const nb_dim *d, int64_t otherwise) {
    return nb_dim_is_const(d) ? d->value : otherwise;
}

/* Does the slice take all of axis `d`? */
static bool takes_all(const nb_op *slice, int d) {
    return nb_dim_is(nb_attr_of(slice, "start")->dims.items[d], 0) &&
           nb_attr_of(slice, "step")->ints.items[d] == 1 &&
           nb_in(slice, 0)->type->dims[d] == nb_out(slice)->type->dims[d];
}

/* Is its part of axis `d` inside, and side by side, for all sizes? */
static bool is_inside(const nb_op *slice, int d) {
    const int64_t start = known_or(nb_attr_of(slice, "start")->dims.items[d], -1),
                  count = known_or(nb_out(slice)->type->dims[d], -1),
                  length = known_or(nb_in(slice, 0)->type->dims[d], -1);
    return start >= 0 && count > 0 && nb_attr_of(slice, "step")->ints.items[d] == 1 &&
           start <= length - count;
}

/* Elements side by side; sizes that are not known count as 1. */
static int64_t row_of(const nb_op *slice) {
    const nb_type *t = nb_out(slice)->type;
    int64_t n = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        if (!nb_mul_i64(n, nb_max_i64(known_or(t->dims[d], 1), 1), &n)) return INT64_MAX;
        if (!takes_all(slice, d)) break;
    }
    return n;
}

bool nb_can_be_window(const nb_value *v) {
    const nb_op *slice = v->def;
    if (!slice || slice->kind != NB_OP_slice || v->type->quant || !v->uses ||
        nb_elems[v->type->elem].bits < 8 || nb_in(slice, 0)->type->quant)
        return false;
    for (int d = 0; d < v->type->rank; d++)
        if (!takes_all(slice, d) && !is_inside(slice, d)) return false;
    const int64_t row = row_of(slice);
    if (row < LANES || (row % LANES && row < 4 * LANES)) return false;
    for (const nb_use *u = v->uses; u; u = u->next)
        if (!nb_can_chain(u->user)) return false;
    return true;
}

/* ---- convolutions of codes ------------------------------------------------------------------ */

/* Products of codes whose sums fit 32 bits: 255 * 128 each. */
#define MOST_INPUTS 65536

/* Codes less their zero points are signed bytes. */
static bool are_byte_weights(const nb_value *w) {
    const nb_quant *q = w->type->quant;
    if (!nb_is_const(w) || !nb_has_one_use(w) || w->type->rank != 2 || !q || q->zeros ||
        nb_quant_has_minima(q) || w->type->dims[0]->value > MOST_INPUTS)
        return false;
    if (q->storage == NB_I8 ? q->zero != 0 : q->storage != NB_U8 || q->zero != 128) return false;
    return q->granularity == NB_PER_TENSOR || (q->granularity == NB_PER_AXIS && q->axis == 1);
}

/* x[B,D...,C] as [B,C,D...]. */
static bool brings_channels_forward(const nb_op *op) {
    if (op->kind != NB_OP_transpose) return false;
    const nb_attr *perm = nb_attr_of(op, "perm");
    const int rank = nb_out(op)->type->rank;
    for (int d = 0; d < rank; d++)
        if (perm->ints.items[d] != (d == 0 ? 0 : d == 1 ? rank - 1 : d - 1)) return false;
    return true;
}

static bool multiplies_bytes(const nb_op *op) {
    return op->kind == NB_OP_qmatmul && are_byte_codes(nb_in(op, 0)->type->quant) &&
           are_byte_weights(nb_in(op, 1));
}

/* The patches that `op`, as a convolution, would multiply, or NULL. */
static const nb_op *multiplied(const nb_op *op) {
    if (!multiplies_bytes(op)) return NULL;
    const nb_value *a = nb_in(op, 0);
    if (!a->def || !nb_has_one_use(a)) return NULL;
    const nb_op *patches = a->def->kind == NB_OP_as_codes ? nb_in(a->def, 0)->def : a->def;
    const nb_op_kind kind = patches == a->def ? NB_OP_qpatches : NB_OP_patches;
    if (!patches || patches->kind != kind || !nb_has_one_use(nb_out(patches))) return NULL;
    return kind == NB_OP_patches || nb_in(patches, 0)->type->elem == NB_F32 ? patches : NULL;
}

/* What a value that stays in registers ends up in, `user` being the first op behind it. */
static const nb_op *convolution_behind(const nb_op *user) {
    while (user->kind == NB_OP_patches || user->kind == NB_OP_qpatches ||
           user->kind == NB_OP_as_codes) {
        if (!nb_has_one_use(nb_out(user))) return NULL;
        user = nb_out(user)->uses->user;
    }
    return user;
}

/* Do convolutions alone use what `turned` makes? */
static bool is_for_convolutions(const nb_op *turned) {
    for (const nb_use *u = nb_out(turned)->uses; u; u = u->next) {
        const nb_op *op = convolution_behind(u->user);
        if (!op || multiplied(op) != u->user) return false;
    }
    return true;
}

bool nb_can_convolve(const nb_op *op, nb_qconv *conv) {
    const nb_op *patches = multiplied(op);
    if (!patches) {
        *conv = (nb_qconv){.x = nb_in(op, 0), .last = true};
        return multiplies_bytes(op) && conv->x->type->rank >= 4 && !nb_is_const(conv->x);
    }
    nb_value *x = nb_in(patches, 0);
    const nb_op *turned =
        x->def && brings_channels_forward(x->def) && is_for_convolutions(x->def) ? x->def : NULL;
    *conv = (nb_qconv){.x = turned ? nb_in(turned, 0) : x,
                       .last = turned != NULL,
                       .turned = turned,
                       .patches = patches};
    return true;
}

bool nb_is_qconv(const nb_op *op) {
    nb_qconv conv;
    return nb_can_convolve(op, &conv) && (!conv.patches || nb_in_registers(nb_in(op, 0)));
}

/* Is `v` what a convolution keeps in registers, and `user` what it has behind it? */
static bool is_convolved(const nb_value *v, const nb_op *user) {
    nb_qconv conv;
    const nb_op *root = convolution_behind(user);
    return root && nb_can_convolve(root, &conv) && conv.patches &&
           (v == nb_in(root, 0) || v->def == conv.patches || v->def == conv.turned);
}

/* What a qmatmul takes, x in place of its patches. */
static nb_chain convolution(nb_arena *arena, const nb_op *root) {
    nb_chain c = {.whole = true};
    nb_qconv conv;
    if (!nb_can_convolve(root, &conv)) return c;
    if (conv.turned) nb_vec_push(arena, &c.ops, conv.turned);
    if (conv.patches) nb_vec_push(arena, &c.ops, conv.patches);
    if (conv.patches && nb_in(root, 0)->def != conv.patches)
        nb_vec_push(arena, &c.ops, nb_in(root, 0)->def);
    nb_vec_push(arena, &c.ops, root);
    for (uint32_t i = 0; i < root->n_operands; i++)
        nb_vec_push(arena, &c.inputs, i ? nb_in(root, i) : conv.x);
    return c;
}

/* ---- chains --------------------------------------------------------------------------------- */

bool nb_chains_into(const nb_value *v, const nb_op *user) {
    if (nb_can_be_window(v)) return nb_can_chain(user);
    if (v->def && is_convolved(v, user)) return true;
    if (v->def && is_pooled(v, user)) return true;
    if (!v->def || !joins_chains(v->def) || !joins_chains(user)) return false;
    const nb_type *t = v->type, *y = nb_out(user)->type;
    if (t->quant || !is_exact(t->elem) || t->rank != y->rank) return false;
    for (int d = 0; d < t->rank; d++)
        if (t->dims[d] != y->dims[d]) return false;
    return true;
}

static bool has_op(const nb_chain *c, const nb_op *op) {
    for (size_t i = 0; i < c->ops.count; i++)
        if (c->ops.items[i] == op) return true;
    return false;
}

static bool has_input(const nb_chain *c, const nb_value *v) {
    for (size_t i = 0; i < c->inputs.count; i++)
        if (c->inputs.items[i] == v) return true;
    return false;
}

/* `depth` ops lie between this one and the root. */
static void collect(nb_arena *arena, nb_chain *c, const nb_op *op, size_t depth) {
    if (depth >= NB_CHAIN_OPS || c->ops.count >= NB_CHAIN_OPS) c->whole = false;
    for (uint32_t i = 0; c->whole && i < op->n_operands; i++) {
        nb_value *v = nb_in(op, i);
        if (nb_in_registers(v) && v->def && !nb_is_window(v)) {
            if (!has_op(c, v->def)) collect(arena, c, v->def, depth + 1);
        } else if (!has_input(c, v)) {
            nb_vec_push(arena, &c->inputs, v);
        }
    }
    nb_vec_push(arena, &c->ops, op);
    if (c->inputs.count > NB_CHAIN_INPUTS) c->whole = false;
}

nb_chain nb_chain_of(nb_arena *arena, const nb_op *root) {
    nb_chain c = {.whole = true};
    if (nb_is_qconv(root)) return convolution(arena, root);
    if (joins_chains(root) || (root->n_operands == 1 && nb_in(root, 0) && is_reduction(root) &&
                               nb_in_registers(nb_in(root, 0)))) {
        collect(arena, &c, root, 0);
        return c;
    }
    for (uint32_t i = 0; i < root->n_operands; i++) nb_vec_push(arena, &c.inputs, nb_in(root, i));
    nb_vec_push(arena, &c.ops, root);
    return c;
}

size_t nb_chain_place(const nb_chain *chain, const nb_value *v) {
    size_t at = 0;
    while (at < chain->inputs.count && chain->inputs.items[at] != v) at++;
    if (at < chain->inputs.count) return at;
    for (size_t i = 0; i < chain->ops.count && chain->ops.items[i] != v->def; i++) at++;
    return at;
}
