/* Small integer tensors as dimension expressions (symbolic.h). */
#include "ir/symbolic.h"

#include "ir/eval.h"

/* Shape arithmetic in real models is a few ops deep; deeper is treated as data. */
#define MAX_DEPTH 48

static const nb_dim *const *follow(nb_graph *g, const nb_value *v, size_t *count, int depth);

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

static const nb_dim *const *of_concat(nb_graph *g, const nb_op *op, size_t n, int depth) {
    const nb_dim **out = list(g, n);
    size_t at = 0, k;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const nb_dim *const *part = follow(g, nb_in(op, i), &k, depth);
        if (!part || at + k > n) return NULL;
        for (size_t j = 0; j < k; j++) out[at++] = part[j];
    }
    return at == n ? out : NULL;
}

static const nb_dim *const *of_gather(nb_graph *g, const nb_op *op, size_t n, int depth) {
    size_t nx, ni;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, depth), *const *index = follow(
                                                                      g, nb_in(op, 1), &ni, depth);
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

static const nb_dim *const *of_slice(nb_graph *g, const nb_op *op, size_t n, int depth) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, depth);
    const nb_dim *start = nb_attr_of(op, "start")->dims.items[0];
    int64_t step = nb_attr_of(op, "step")->ints.items[0];
    if (!x || !nb_dim_is_const(start)) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        int64_t at = start->value + (int64_t)i * step;
        if (at < 0 || at >= (int64_t)nx) return NULL;
        out[i] = x[at];
    }
    return out;
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
        nb_dim_range(a, &low, &high);
        return low >= 0 && nb_dim_is_const(b) && b->value > 0 ? nb_dim_floordiv(g, a, b) : NULL;
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

static const nb_dim *const *of_binary(nb_graph *g, const nb_op *op, size_t n, int depth) {
    size_t na, nb;
    const nb_dim *const *a = follow(g, nb_in(op, 0), &na, depth), *const *b = follow(
                                                                      g, nb_in(op, 1), &nb, depth);
    if (!a || !b) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = combine(g, op->kind, a[na == 1 ? 0 : i], b[nb == 1 ? 0 : i]);
        if (!out[i]) return NULL;
    }
    return out;
}

static const nb_dim *const *of_negative(nb_graph *g, const nb_op *op, size_t n, int depth) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, depth);
    if (!x || nx != n) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) out[i] = nb_dim_sub(g, nb_dim_const(g, 0), x[i]);
    return out;
}

static const nb_dim *const *of_where(nb_graph *g, const nb_op *op, size_t n, int depth) {
    size_t nc, na, nb;
    const nb_dim *const *c = follow(g, nb_in(op, 0), &nc, depth), *const *a = follow(
                                                                      g, nb_in(op, 1), &na, depth);
    const nb_dim *const *b = follow(g, nb_in(op, 2), &nb, depth);
    if (!c || !a || !b) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) {
        const nb_dim *which = c[nc == 1 ? 0 : i];
        if (!nb_dim_is_const(which)) return NULL;
        out[i] = which->value ? a[na == 1 ? 0 : i] : b[nb == 1 ? 0 : i];
    }
    return out;
}

static const nb_dim *const *of_product(nb_graph *g, const nb_op *op, int depth) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, depth);
    if (!x) return NULL;
    const nb_dim **out = list(g, 1);
    out[0] = nb_dim_const(g, op->kind == NB_OP_reduce_prod ? 1 : 0);
    for (size_t i = 0; i < nx; i++)
        out[0] = op->kind == NB_OP_reduce_prod ? nb_dim_mul(g, out[0], x[i])
                                               : nb_dim_add(g, out[0], x[i]);
    return out;
}

static const nb_dim *const *of_iota(nb_graph *g, const nb_op *op, size_t n) {
    const nb_dim *start = nb_attr_of(op, "start")->dims.items[0], **out = list(g, n);
    for (size_t i = 0; i < n; i++)
        out[i] = nb_dim_add(g, start, nb_dim_const(g, (int64_t)i * nb_attr_int(op, "step")));
    return out;
}

static const nb_dim *const *of_expand(nb_graph *g, const nb_op *op, size_t n, int depth) {
    size_t nx;
    const nb_dim *const *x = follow(g, nb_in(op, 0), &nx, depth);
    if (!x || (nx != n && nx != 1)) return NULL;
    const nb_dim **out = list(g, n);
    for (size_t i = 0; i < n; i++) out[i] = x[nx == 1 ? 0 : i];
    return out;
}

static const nb_dim *const *follow(nb_graph *g, const nb_value *v, size_t *count, int depth) {
    size_t n = count_of(v);
    const nb_op *op = v->def;
    if (n == SIZE_MAX || depth == 0) return NULL;
    *count = n;
    if (nb_is_const(v)) return of_const(g, v, n);
    if (!op) return NULL;
    switch (op->kind) {
    case NB_OP_dims:
        return nb_attr_of(op, "values")->dims.items;
    case NB_OP_iota:
        return of_iota(g, op, n);
    case NB_OP_reshape:
        return follow(g, nb_in(op, 0), count, depth - 1);
    case NB_OP_cast: /* dimensions fit every integer type a model would cast them to, except bool */
        return nb_elem_is_integer(v->type->elem) && nb_elems[v->type->elem].bits >= 32 &&
                       nb_in(op, 0)->type->elem != NB_BOOL
                   ? follow(g, nb_in(op, 0), count, depth - 1)
                   : NULL;
    case NB_OP_concat:
        return of_concat(g, op, n, depth - 1);
    case NB_OP_gather:
        return of_gather(g, op, n, depth - 1);
    case NB_OP_slice:
        return v->type->rank == 1 ? of_slice(g, op, n, depth - 1) : NULL;
    case NB_OP_expand:
        return of_expand(g, op, n, depth - 1);
    case NB_OP_where:
        return of_where(g, op, n, depth - 1);
    case NB_OP_reduce_prod:
    case NB_OP_reduce_sum:
        return n == 1 ? of_product(g, op, depth - 1) : NULL;
    case NB_OP_neg:
        return of_negative(g, op, n, depth - 1);
    case NB_OP_add:
    case NB_OP_sub:
    case NB_OP_mul:
    case NB_OP_div:
    case NB_OP_min:
    case NB_OP_max:
    case NB_OP_eq:
    case NB_OP_lt:
    case NB_OP_le:
        return of_binary(g, op, n, depth - 1);
    default:
        return NULL;
    }
}

const nb_dim *const *nb_symbolic(nb_graph *g, const nb_value *v, size_t *count) {
    return follow(g, v, count, MAX_DEPTH);
}
