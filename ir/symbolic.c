/* Small integer tensors as dimension expressions (symbolic.h). */
#include "ir/symbolic.h"

#include "ir/eval.h"

/* Shape arithmetic in real models is a few ops deep; deeper is treated as data. */
#define MAX_DEPTH 48

/* Ops looked at for one question; a value that is used twice counts twice. */
#define MAX_STEPS 4096
/* Nodes of an expression, shared ones counted at each use. */
#define MAX_NODES 512

/* What is left of both. */
typedef struct limits {
    int depth, steps;
} limits;

static const nb_dim *const *follow(nb_graph *g, const nb_value *v, size_t *count, limits *left);

/* The walk ends with the budget, so its depth is bounded too. */
static void spend(const nb_dim *d, int *nodes) {
    for (; --*nodes >= 0 && d->kind > NB_DIM_SYMBOL; d = d->a) spend(d->b, nodes);
}

bool nb_dim_is_simple(const nb_dim *d) {
    int nodes = MAX_NODES;
    spend(d, &nodes);
    return nodes >= 0;
}

static size_t count_of(const nb_value *v) {
    int64_t n;
    if (v->type->quant || v->type->rank > 1 ||
        (!nb_elem_is_integer(v->type->elem) && v->type->elem != NB_BOOL))
        return SIZE_MAX;
    return nb_type_static_count(v->type, &n) && n <= NB_SYMBOLIC_MAX ? (size_t)n : SIZE_MAX;
}

static const nb_dim **list(nb_graph *g, size_t n) {
    return (const nb_dim **)nb_alloc_array(g->arena, n + 1, sizeof(nb_dim *));
}

static const nb_dim *const *of_const(nb_graph *g, const nb_value *v, size_t n) {
    nb_tensor t = nb_tensor_of_const(v);
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) out[i] = nb_dim_const(g, nb_tensor_get_int(&t, (int64_t)i));
    return out;
}

static const nb_dim *const *of_concat(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    const nb_dim **out = list(g, n);
    size_t at = 0, k;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_dim *const *part = follow(g, nb_in(op, i), &k, left);
        if (!part || at + k > n) return NULL;
        for (size_t j = 0; j < k; j++) out[at++] = part[j];
    }
    return at == n ? out : NULL;
}

static const nb_dim *const *of_gather(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    size_t nx, ni;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, left), *const *index = follow(
                                                                     g, nb_in(op, 1), &ni, left);
    if (!x || !index || ni != n) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        if (!nb_dim_is_const(index[i])) return NULL;
        int64_t at = index[i]->value < 0 ? index[i]->value + (int64_t)nx : index[i]->value;
        if (at < 0 || at >= (int64_t)nx) return NULL;
        out[i] = x[at];
    }
    return out;
}

static const nb_dim *const *of_slice(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, left);
    const nb_dim *start = nb_attr_of(op, "start")->dims.items[0];
    int64_t step = nb_attr_of(op, "step")->ints.items[0];
    if (!x || !nb_dim_is_const(start)) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        int64_t at;
        if (!nb_mul_i64((int64_t)i, step, &at) || !nb_add_i64(start->value, at, &at) || at < 0 ||
            at >= (int64_t)nx)
            return NULL;
        out[i] = x[at];
    }
    return out;
}

static bool is_positive(const nb_dim *d) {
    int64_t low, high;
    nb_dim_range(d, &low, &high);
    return low > 0;
}

static const nb_dim *combine(nb_graph *g, nb_op_kind kind, const nb_dim *a, const nb_dim *b) {
    int64_t low, high;
    switch (kind) {
    case NB_OP_add:
        return nb_dim_add(g, a, b);
    case NB_OP_sub:
        return nb_dim_sub(g, a, b);
    case NB_OP_mul:
        return nb_dim_mul(g, a, b);
    case NB_OP_min:
        return nb_dim_min(g, a, b);
    case NB_OP_max:
        return nb_dim_max(g, a, b);
    case NB_OP_div: /* truncating: floor when nothing is negative */
        if (nb_dim_is_const(a) && nb_dim_is_const(b) && b->value > 0)
            return nb_dim_const(g, a->value / b->value);
        nb_dim_range(a, &low, &high);
        return low >= 0 && is_positive(b) ? nb_dim_floordiv(g, a, b) : NULL;
    case NB_OP_mod: /* sign of b */
        return is_positive(b) ? nb_dim_sub(g, a, nb_dim_mul(g, nb_dim_floordiv(g, a, b), b)) : NULL;
    case NB_OP_and:
    case NB_OP_or:
    case NB_OP_xor:
        if (!nb_dim_is_const(a) || !nb_dim_is_const(b)) return NULL;
        return nb_dim_const(g, kind == NB_OP_and  ? a->value & b->value
                               : kind == NB_OP_or ? a->value | b->value
                                                  : a->value ^ b->value);
    case NB_OP_eq:
        nb_dim_range(nb_dim_sub(g, a, b), &low, &high);
        return low == 0 && high == 0 ? nb_dim_const(g, 1)
               : low > 0 || high < 0 ? nb_dim_const(g, 0)
                                     : NULL;
    case NB_OP_lt:
        nb_dim_range(nb_dim_sub(g, a, b), &low, &high);
        return high < 0 ? nb_dim_const(g, 1) : low >= 0 ? nb_dim_const(g, 0) : NULL;
    case NB_OP_le:
        nb_dim_range(nb_dim_sub(g, a, b), &low, &high);
        return high <= 0 ? nb_dim_const(g, 1) : low > 0 ? nb_dim_const(g, 0) : NULL;
    default:
        return NULL;
    }
}

static const nb_dim *const *of_binary(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    size_t na, nb;
    const nb_dim *const *a = follow(g, nb_in(op, 0), &na, left), *const *b = follow(g, nb_in(op, 1),
                                                                                    &nb, left);
    if (!a || !b) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = combine(g, op->kind, a[na == 1 ? 0 : i], b[nb == 1 ? 0 : i]);
        if (!out[i] || !nb_dim_is_simple(out[i])) return NULL;
    }
    return out;
}

static const nb_dim *const *of_unary(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, left), *zero = nb_dim_const(g, 0);
    if (!x) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        if (op->kind == NB_OP_not && !nb_dim_is_const(x[i])) return NULL;
        const nb_dim *minus = nb_dim_sub(g, zero, x[i]);
        out[i] = op->kind == NB_OP_neg   ? minus
                 : op->kind == NB_OP_abs ? nb_dim_max(g, x[i], minus)
                                         : nb_dim_const(g, x[i]->value == 0);
    }
    return out;
}

static const nb_dim *const *of_where(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    size_t nc, na, nb;
    const nb_dim *const *c = follow(g, nb_in(op, 0), &nc, left), *const *a = follow(g, nb_in(op, 1),
                                                                                    &na, left);
    const nb_dim *const *b = follow(g, nb_in(op, 2), &nb, left);
    if (!c || !a || !b) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        const nb_dim *which = c[nc == 1 ? 0 : i];
        if (!nb_dim_is_const(which)) return NULL;
        out[i] = which->value ? a[na == 1 ? 0 : i] : b[nb == 1 ? 0 : i];
    }
    return out;
}

static const nb_dim *const *of_product(nb_graph *g, const nb_op *op, limits *left) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, left);
    if (!x) return NULL;
    const nb_dim **out = list(g, 1);
    out[0] = nb_dim_const(g, op->kind == NB_OP_reduce_prod ? 1 : 0);
    for (size_t i = 0; i < nx; i++)
        out[0] = op->kind == NB_OP_reduce_prod ? nb_dim_mul(g, out[0], x[i])
                                               : nb_dim_add(g, out[0], x[i]);
    return nb_dim_is_simple(out[0]) ? out : NULL;
}

static const nb_dim *const *of_iota(nb_graph *g, const nb_op *op, size_t n) {
    const nb_dim *start = nb_attr_of(op, "start")->dims.items[0], **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        int64_t offset;
        if (!nb_mul_i64((int64_t)i, nb_attr_int(op, "step"), &offset)) return NULL;
        out[i] = nb_dim_add(g, start, nb_dim_const(g, offset));
    }
    return out;
}

static const nb_dim *const *of_expand(nb_graph *g, const nb_op *op, size_t n, limits *left) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, left);
    if (!x || (nx != n && nx != 1)) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) out[i] = x[nx == 1 ? 0 : i];
    return out;
}

static const nb_dim *const *of_op(nb_graph *g, const nb_value *v, size_t n, size_t *count,
                                  limits *left) {
    const nb_op *op = v->def;
    switch (op->kind) {
    case NB_OP_dims:
        return nb_attr_of(op, "values")->dims.items;
    case NB_OP_iota:
        return of_iota(g, op, n);
    case NB_OP_reshape:
        return follow(g, nb_in(op, 0), count, left);
    case NB_OP_cast: /* dimensions fit every integer type a model would cast them to, except bool */
        return nb_elem_is_integer(v->type->elem) && nb_elems[v->type->elem].bits >= 32 &&
                       nb_in(op, 0)->type->elem != NB_BOOL
                   ? follow(g, nb_in(op, 0), count, left)
                   : NULL;
    case NB_OP_concat:
        return of_concat(g, op, n, left);
    case NB_OP_gather:
        return of_gather(g, op, n, left);
    case NB_OP_slice:
        return v->type->rank == 1 ? of_slice(g, op, n, left) : NULL;
    case NB_OP_expand:
        return of_expand(g, op, n, left);
    case NB_OP_where:
        return of_where(g, op, n, left);
    case NB_OP_reduce_prod:
    case NB_OP_reduce_sum:
        return n == 1 ? of_product(g, op, left) : NULL;
    case NB_OP_neg:
    case NB_OP_abs:
    case NB_OP_not:
        return of_unary(g, op, n, left);
    case NB_OP_add:
    case NB_OP_sub:
    case NB_OP_mul:
    case NB_OP_div:
    case NB_OP_mod:
    case NB_OP_min:
    case NB_OP_max:
    case NB_OP_and:
    case NB_OP_or:
    case NB_OP_xor:
    case NB_OP_eq:
    case NB_OP_lt:
    case NB_OP_le:
        return of_binary(g, op, n, left);
    default:
        return NULL;
    }
}

static const nb_dim *const *follow(nb_graph *g, const nb_value *v, size_t *count, limits *left) {
    size_t n = count_of(v);
    if (n == SIZE_MAX || left->depth == 0 || --left->steps < 0) return NULL;
    *count = n;
    if (nb_is_const(v)) return of_const(g, v, n);
    if (!v->def) return NULL;
    left->depth--;
    const nb_dim *const *dims = of_op(g, v, n, count, left);
    left->depth++;
    return dims;
}

const nb_dim *const *nb_symbolic(nb_graph *g, const nb_value *v, size_t *count) {
    limits left = {.depth = MAX_DEPTH, .steps = MAX_STEPS};
    return follow(g, v, count, &left);
}
