/* Small integer tensors as dimension expressions (symbolic.h).
 *
 * A value is followed once in each call, however many ways lead to it, and not deeper than
 * MAX_DEPTH: models may be deep, shape arithmetic is not. What the bounds of symbols do not decide,
 * and numbers that do not fit the element type, count as data. */
#include "ir/symbolic.h"

#include "ir/eval.h"

#include <string.h>

#define MAX_DEPTH 64

typedef struct elements {
    size_t count;
    const nb_dim **items; /* NULL: depends on data */
} elements;

typedef struct follower {
    nb_graph *g;
    nb_arena *scratch;
    nb_map known; /* nb_value -> elements */
    int depth;
} follower;

static const elements *follow(follower *f, const nb_value *v);

static const nb_dim *number(follower *f, int64_t value) { return nb_dim_const(f->g, value); }

/* The i-th of n elements that were broadcast. */
static const nb_dim *at(const elements *e, size_t i) { return e->items[e->count == 1 ? 0 : i]; }

static bool of_const(follower *f, const nb_value *v, elements *out) {
    nb_tensor t = nb_tensor_of_const(v);
    for (size_t i = 0; i < out->count; i++)
        out->items[i] = number(f, nb_tensor_get_int(&t, (int64_t)i));
    return true;
}

static bool of_dims(const nb_op *op, elements *out) {
    const nb_attr *values = nb_attr_of(op, "values");
    if (out->count) memcpy(out->items, values->dims.items, out->count * sizeof *out->items);
    return true;
}

static bool of_iota(follower *f, const nb_op *op, elements *out) {
    const nb_dim *start = nb_attr_of(op, "start")->dims.items[0],
                 *step = number(f, nb_attr_int(op, "step"));
    for (size_t i = 0; i < out->count; i++)
        out->items[i] = nb_dim_add(f->g, start, nb_dim_mul(f->g, step, number(f, (int64_t)i)));
    return true;
}

/* The operand's elements, or its only one for all of them. */
static bool of_operand(follower *f, const nb_op *op, elements *out) {
    const elements *x = follow(f, nb_in(op, 0));
    if (!x || (x->count != out->count && x->count != 1)) return false;
    for (size_t i = 0; i < out->count; i++) out->items[i] = at(x, i);
    return true;
}

static bool of_concat(follower *f, const nb_op *op, elements *out) {
    size_t n = 0;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const elements *x = follow(f, nb_in(op, i));
        if (!x || n + x->count > out->count) return false;
        for (size_t k = 0; k < x->count; k++) out->items[n++] = x->items[k];
    }
    return n == out->count;
}

static bool of_gather(follower *f, const nb_op *op, elements *out) {
    const elements *x = follow(f, nb_in(op, 0)), *index = x ? follow(f, nb_in(op, 1)) : NULL;
    if (!index || index->count != out->count) return false;
    for (size_t i = 0; i < out->count; i++) {
        if (!nb_dim_is_const(index->items[i])) return false;
        int64_t k = index->items[i]->value, n = (int64_t)x->count;
        if (k < -n || k >= n) return false;
        out->items[i] = x->items[k < 0 ? k + n : k];
    }
    return true;
}

static bool of_slice(follower *f, const nb_op *op, elements *out) {
    const elements *x = follow(f, nb_in(op, 0));
    const nb_dim *start = nb_attr_of(op, "start")->dims.items[0];
    int64_t step = nb_attr_of(op, "step")->ints.items[0], span, k;
    if (!x || !nb_dim_is_const(start)) return false;
    for (size_t i = 0; i < out->count; i++) {
        if (!nb_mul_i64((int64_t)i, step, &span) || !nb_add_i64(start->value, span, &k) || k < 0 ||
            k >= (int64_t)x->count)
            return false;
        out->items[i] = x->items[k];
    }
    return true;
}

/* Sizes fit every type of integers that a model would cast them to; a condition is decided. */
static bool of_cast(follower *f, const nb_op *op, elements *out) {
    const nb_elem to = nb_out(op)->type->elem;
    if (nb_elem_is_integer(to) && nb_elems[to].bits >= 32) return of_operand(f, op, out);
    if (to != NB_BOOL || !of_operand(f, op, out)) return false;
    for (size_t i = 0; i < out->count; i++) {
        int64_t low, high;
        nb_dim_range(out->items[i], &low, &high);
        if (low <= 0 && high >= 0 && low != high) return false;
        out->items[i] = number(f, low != 0 || high != 0);
    }
    return true;
}

/* Is a-b decided to be at least, or at most, 0? 1 yes, 0 no, -1 unknown. */
static int is_below(follower *f, const nb_dim *a, const nb_dim *b, bool or_equal) {
    int64_t low, high;
    nb_dim_range(nb_dim_sub(f->g, a, b), &low, &high);
    if (or_equal ? high <= 0 : high < 0) return 1;
    return (or_equal ? low > 0 : low >= 0) ? 0 : -1;
}

static int is_equal(follower *f, const nb_dim *a, const nb_dim *b) {
    int below = is_below(f, a, b, false), above = is_below(f, b, a, false);
    return below == 1 || above == 1 ? 0 : below == 0 && above == 0 ? 1 : -1;
}

static const nb_dim *verdict(follower *f, int decided) {
    return decided < 0 ? NULL : number(f, decided);
}

static bool is_positive(const nb_dim *d) {
    int64_t low, high;
    nb_dim_range(d, &low, &high);
    return low > 0;
}

/* Division truncates: that is floordiv where nothing is negative. */
static const nb_dim *quotient(follower *f, const nb_dim *a, const nb_dim *b) {
    int64_t low, high;
    if (!is_positive(b)) return NULL;
    if (nb_dim_is_const(a) && nb_dim_is_const(b)) return number(f, a->value / b->value);
    nb_dim_range(a, &low, &high);
    return low >= 0 ? nb_dim_floordiv(f->g, a, b) : NULL;
}

/* With the sign of b. */
static const nb_dim *remainder_of(follower *f, const nb_dim *a, const nb_dim *b) {
    if (!is_positive(b)) return NULL;
    return nb_dim_sub(f->g, a, nb_dim_mul(f->g, nb_dim_floordiv(f->g, a, b), b));
}

/* Conditions are 0 or 1. */
static const nb_dim *logical(follower *f, nb_op_kind kind, const nb_dim *a, const nb_dim *b) {
    if (!nb_dim_is_const(a) || !nb_dim_is_const(b)) return NULL;
    return number(f, kind == NB_OP_and  ? a->value & b->value
                     : kind == NB_OP_or ? a->value | b->value
                                        : a->value ^ b->value);
}

static const nb_dim *combine(follower *f, nb_op_kind kind, const nb_dim *a, const nb_dim *b) {
    switch (kind) {
    case NB_OP_add:
        return nb_dim_add(f->g, a, b);
    case NB_OP_sub:
        return nb_dim_sub(f->g, a, b);
    case NB_OP_mul:
        return nb_dim_mul(f->g, a, b);
    case NB_OP_div:
        return quotient(f, a, b);
    case NB_OP_mod:
        return remainder_of(f, a, b);
    case NB_OP_min:
        return nb_dim_min(f->g, a, b);
    case NB_OP_max:
        return nb_dim_max(f->g, a, b);
    case NB_OP_eq:
        return verdict(f, is_equal(f, a, b));
    case NB_OP_lt:
        return verdict(f, is_below(f, a, b, false));
    case NB_OP_le:
        return verdict(f, is_below(f, a, b, true));
    default:
        return logical(f, kind, a, b);
    }
}

static bool of_binary(follower *f, const nb_op *op, elements *out) {
    const elements *a = follow(f, nb_in(op, 0)), *b = a ? follow(f, nb_in(op, 1)) : NULL;
    if (!b) return false;
    for (size_t i = 0; i < out->count; i++) {
        out->items[i] = combine(f, op->kind, at(a, i), at(b, i));
        if (!out->items[i]) return false;
    }
    return true;
}

static bool of_unary(follower *f, const nb_op *op, elements *out) {
    const nb_dim *zero = number(f, 0);
    if (!of_operand(f, op, out)) return false;
    for (size_t i = 0; i < out->count; i++) {
        const nb_dim *x = out->items[i], *minus = nb_dim_sub(f->g, zero, x);
        out->items[i] = op->kind == NB_OP_neg   ? minus
                        : op->kind == NB_OP_abs ? nb_dim_max(f->g, x, minus)
                                                : number(f, x->value ^ 1); /* 0 or 1 */
    }
    return true;
}

/* Only the side that is chosen must be known. */
static bool of_where(follower *f, const nb_op *op, elements *out) {
    const elements *c = follow(f, nb_in(op, 0)), *side[2] = {NULL, NULL};
    if (!c) return false;
    for (size_t i = 0; i < out->count; i++) {
        if (!nb_dim_is_const(at(c, i))) return false;
        int which = at(c, i)->value ? 0 : 1;
        if (!side[which]) side[which] = follow(f, nb_in(op, (size_t)which + 1));
        if (!side[which]) return false;
        out->items[i] = at(side[which], i);
    }
    return true;
}

static bool of_reduce(follower *f, const nb_op *op, elements *out) {
    const elements *x = follow(f, nb_in(op, 0));
    bool product = op->kind == NB_OP_reduce_prod;
    if (!x || out->count != 1) return false;
    out->items[0] = number(f, product ? 1 : 0);
    for (size_t i = 0; i < x->count; i++)
        out->items[0] = product ? nb_dim_mul(f->g, out->items[0], x->items[i])
                                : nb_dim_add(f->g, out->items[0], x->items[i]);
    return true;
}

static bool of_op(follower *f, const nb_op *op, elements *out) {
    switch (op->kind) {
    case NB_OP_dims:
        return of_dims(op, out);
    case NB_OP_iota:
        return of_iota(f, op, out);
    case NB_OP_reshape:
    case NB_OP_expand:
        return of_operand(f, op, out);
    case NB_OP_cast:
        return of_cast(f, op, out);
    case NB_OP_concat:
        return of_concat(f, op, out);
    case NB_OP_gather:
        return of_gather(f, op, out);
    case NB_OP_slice:
        return nb_out(op)->type->rank == 1 && of_slice(f, op, out);
    case NB_OP_where:
        return of_where(f, op, out);
    case NB_OP_reduce_prod:
    case NB_OP_reduce_sum:
        return of_reduce(f, op, out);
    case NB_OP_neg:
    case NB_OP_abs:
    case NB_OP_not:
        return of_unary(f, op, out);
    case NB_OP_add:
    case NB_OP_sub:
    case NB_OP_mul:
    case NB_OP_div:
    case NB_OP_mod:
    case NB_OP_min:
    case NB_OP_max:
    case NB_OP_eq:
    case NB_OP_lt:
    case NB_OP_le:
    case NB_OP_and:
    case NB_OP_or:
    case NB_OP_xor:
        return of_binary(f, op, out);
    default:
        return false;
    }
}

/* A number that does not fit would wrap, which expressions do not; conditions are decided. */
static bool fits(const nb_dim *d, nb_elem elem) {
    if (nb_dim_is_invalid(d)) return false;
    if (!nb_dim_is_const(d)) return elem != NB_BOOL;
    return d->value >= nb_elem_min(elem) && d->value <= nb_elem_max(elem);
}

static bool is_followed(const nb_value *v, size_t *count) {
    int64_t n;
    nb_elem elem = v->type->elem;
    if (v->type->quant || v->type->rank > 1 || (!nb_elem_is_integer(elem) && elem != NB_BOOL) ||
        !nb_type_static_count(v->type, &n) || n > NB_SYMBOLIC_MAX)
        return false;
    *count = (size_t)n;
    return true;
}

/* NULL when some element depends on data. */
static const elements *follow(follower *f, const nb_value *v) {
    elements *e = nb_map_get(&f->known, v);
    size_t n;
    if (e) return e->items ? e : NULL;
    if (f->depth == MAX_DEPTH || !is_followed(v, &n)) return NULL;
    e = NB_NEW(f->scratch, elements);
    elements out = {n, (const nb_dim **)nb_alloc_array(f->scratch, n + 1, sizeof *out.items)};
    f->depth++;
    bool ok = nb_is_const(v) ? of_const(f, v, &out) : v->def && of_op(f, v->def, &out);
    f->depth--;
    for (size_t i = 0; ok && i < n; i++) ok = fits(out.items[i], v->type->elem);
    if (ok) *e = out;
    nb_map_set(&f->known, v, e);
    return ok ? e : NULL;
}

const nb_dim *const *nb_symbolic(nb_graph *g, const nb_value *v, size_t *count) {
    nb_arena *scratch = nb_arena_create_like(g->arena);
    follower f = {.g = g, .scratch = scratch, .known = {.arena = scratch}};
    const elements *e = follow(&f, v);
    const nb_dim **out = NULL;
    if (e) {
        out = (const nb_dim **)nb_alloc_array(g->arena, e->count + 1, sizeof *out);
        if (e->count) memcpy(out, e->items, e->count * sizeof *out);
        *count = e->count;
    }
    nb_arena_destroy(scratch);
    return out;
}
