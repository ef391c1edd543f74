/* Shape rules: dispatch, and the rules of elementwise ops and reductions. */
#include "ir/infer.h"

#include <string.h>

/* Characters of C identifiers. */
#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

static nb_status (*const rules[NB_OP_COUNT])(const nb_inferring *) = {
#define OP(name, family, rule, ...) [NB_OP_##name] = nb_infer_##rule,
#include "ir/ops.def"
#undef OP
};

static nb_status report(const nb_inferring *i, nb_status status, const char *message) {
    nb_where where = {.offset = -1, .node = nb_loc_name(i->op->loc), .file = i->g->file};
    return nb_error(i->diags, status, where, "%s: %s", nb_info(i->op)->name, message);
}

nb_status nb_infer_error(const nb_inferring *i, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *message = nb_vformat(i->diags->arena, fmt, args);
    va_end(args);
    return report(i, NB_MALFORMED, message);
}

nb_status nb_infer_limit(const nb_inferring *i, const char *what) {
    const char *why = "is no valid expression: it overflows, divides by 0, or has too many terms";
    return report(i, NB_LIMIT, nb_format(i->diags->arena, "%s %s", what, why));
}

const char *nb_in_text(const nb_inferring *i, size_t n) {
    return nb_type_text(i->g->arena, nb_in_type(i, n));
}

/* The operand's name in the table, for messages. */
static const char *operand_name(const nb_op_info *info, uint32_t n) {
    for (uint32_t k = 0; k < NB_MAX_OPERAND_SPECS; k++) {
        if (k == n || info->operands[k].mode == NB_OPERAND_VAR) return info->operands[k].name;
    }
    return "";
}

/* Operands as the table asks: as many as it says, required ones present, plain unless the op takes
 * codes. */
static nb_status check_operands(const nb_inferring *i) {
    const nb_op_info *info = nb_info(i->op);
    uint32_t slots = 0;
    while (info->operands[slots].mode == NB_OPERAND_IN ||
           info->operands[slots].mode == NB_OPERAND_OPT)
        slots++;
    bool more = info->operands[slots].mode == NB_OPERAND_VAR;
    if (i->op->n_operands < slots || (i->op->n_operands > slots && !more))
        return nb_infer_error(i, "expected %s%u operands, found %u", more ? "at least " : "", slots,
                              i->op->n_operands);
    for (uint32_t n = 0; n < i->op->n_operands; n++) {
        const nb_value *v = nb_in(i->op, n);
        if (!v && (n >= slots || info->operands[n].mode != NB_OPERAND_OPT))
            return nb_infer_error(i, "operand %u %s is missing", n, operand_name(info, n));
        if (v && v->type->quant && !(info->traits & NB_TRAIT_Q_IN))
            return nb_infer_error(i, "takes plain tensors, operand %u is %s", n, nb_in_text(i, n));
    }
    return NB_OK;
}

/* Every dim of a result has a form, and may be 0 or more. */
static nb_status check_dims(const nb_inferring *i, const nb_type *t) {
    for (int d = 0; d < t->rank; d++) {
        int64_t low, high;
        if (nb_dim_is_invalid(t->dims[d]))
            return nb_infer_limit(
                i, nb_format(i->diags->arena, "the size of axis %d of the result", d));
        nb_dim_range(t->dims[d], &low, &high);
        if (high < 0)
            return nb_infer_error(i, "axis %d of the result is negative, %s", d,
                                  nb_dim_text(i->g->arena, t->dims[d]));
    }
    return NB_OK;
}

/* Dims of attributes that are in no result's type too: where a slice starts. */
static nb_status check_attrs(const nb_inferring *i) {
    const nb_op_info *info = nb_info(i->op);
    for (int a = 0; a < NB_MAX_ATTRS && info->attrs[a].kind != NB_ATTR_END; a++) {
        const nb_attr *attr = &i->op->attrs[a];
        for (size_t k = 0; info->attrs[a].kind == NB_ATTR_DIMS && k < attr->dims.count; k++) {
            if (nb_dim_is_invalid(attr->dims.items[k]))
                return nb_infer_limit(
                    i, nb_format(i->diags->arena, "%s[%zu]", info->attrs[a].name, k));
        }
    }
    return NB_OK;
}

nb_status nb_infer(nb_graph *g, const nb_op *op, const nb_type **types, nb_diags *diags) {
    nb_inferring i = {.g = g, .op = op, .types = types, .diags = diags};
    NB_TRY(check_operands(&i));
    NB_TRY(nb_infer_bodies(&i));
    NB_TRY(check_attrs(&i));
    NB_TRY(rules[op->kind](&i));
    const nb_type *first = op->n_operands && nb_in(op, 0) ? nb_in_type(&i, 0) : NULL;
    for (uint32_t r = 0, n = nb_result_count(op); r < n; r++)
        if (types[r] != first)
            NB_TRY(check_dims(&i, types[r])); /* else it was when that was made */
    return NB_OK;
}

const nb_dim *nb_dim_broadcast(nb_graph *g, const nb_dim *a, const nb_dim *b) {
    (void)g;
    if (a == b || nb_dim_is(b, 1)) return a;
    if (nb_dim_is(a, 1)) return b;
    return NULL;
}

bool nb_infer_axes(const nb_inferring *i, const nb_type *a, const nb_type *b, int skip, int *rank,
                   const nb_dim **dims) {
    *rank = (a->rank > b->rank ? a->rank : b->rank) - skip;
    for (int d = 0; d < *rank; d++) {
        int da = d - (*rank - (a->rank - skip)), db = d - (*rank - (b->rank - skip));
        dims[d] = da < 0   ? b->dims[db]
                  : db < 0 ? a->dims[da]
                           : nb_dim_broadcast(i->g, a->dims[da], b->dims[db]);
        if (dims[d]) continue;
        nb_arena *arena = i->g->arena;
        (void)!nb_infer_error(i, "%s and %s do not broadcast: axis %d is %s and axis %d is %s",
                              nb_type_text(arena, a), nb_type_text(arena, b), da,
                              nb_dim_text(arena, a->dims[da]), db, nb_dim_text(arena, b->dims[db]));
        return false;
    }
    return true;
}

/* ---- elementwise --------------------------------------------------------------------------- */

typedef enum domain { NUMBERS, FLOATS, BITS, ANYTHING } domain;

static domain domain_of(nb_op_kind kind) {
    switch (kind) {
    case NB_OP_neg:
    case NB_OP_abs:
    case NB_OP_sign:
    case NB_OP_relu:
    case NB_OP_add:
    case NB_OP_sub:
    case NB_OP_mul:
    case NB_OP_div:
    case NB_OP_pow:
    case NB_OP_min:
    case NB_OP_max:
    case NB_OP_mod:
        return NUMBERS;
    case NB_OP_not:
    case NB_OP_and:
    case NB_OP_or:
    case NB_OP_xor:
        return BITS;
    case NB_OP_eq:
        return ANYTHING;
    case NB_OP_lt:
    case NB_OP_le:
        return NUMBERS;
    default:
        return FLOATS;
    }
}

static bool in_domain(nb_elem e, domain d) {
    switch (d) {
    case NUMBERS:
        return nb_elem_is_float(e) || nb_elem_is_integer(e);
    case FLOATS:
        return nb_elem_is_float(e);
    case BITS:
        return e == NB_BOOL || nb_elem_is_integer(e);
    case ANYTHING:
        break;
    }
    return true;
}

static const char *const domain_text[] = {"numbers", "floats", "bools or integers", "anything"};

nb_status nb_infer_same(const nb_inferring *i) {
    domain d = domain_of(i->op->kind);
    if (!in_domain(nb_in_type(i, 0)->elem, d))
        return nb_infer_error(i, "takes %s, found %s", domain_text[d], nb_in_text(i, 0));
    i->types[0] = nb_in_type(i, 0);
    return NB_OK;
}

static nb_status infer_binary(const nb_inferring *i, bool compare) {
    const nb_type *a = nb_in_type(i, 0), *b = nb_in_type(i, 1);
    domain d = domain_of(i->op->kind);
    if (a->elem != b->elem || !in_domain(a->elem, d))
        return nb_infer_error(i, "takes two tensors of %s of the same type, found %s and %s",
                              domain_text[d], nb_in_text(i, 0), nb_in_text(i, 1));
    if (!compare && (a == b || b->rank == 0)) { /* the usual operands, without a search for it */
        i->types[0] = a;
        return NB_OK;
    }
    const nb_dim *dims[NB_MAX_RANK];
    int rank;
    if (!nb_infer_axes(i, a, b, 0, &rank, dims)) return NB_MALFORMED;
    i->types[0] = nb_type_intern(i->g, compare ? NB_BOOL : a->elem, NULL, rank, dims);
    return NB_OK;
}

nb_status nb_infer_broadcast(const nb_inferring *i) { return infer_binary(i, false); }
nb_status nb_infer_compare(const nb_inferring *i) { return infer_binary(i, true); }

nb_status nb_infer_where(const nb_inferring *i) {
    const nb_type *c = nb_in_type(i, 0), *a = nb_in_type(i, 1), *b = nb_in_type(i, 2);
    if (c->elem != NB_BOOL || a->elem != b->elem)
        return nb_infer_error(i, "takes a bool and two tensors of one type, found %s, %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1), nb_in_text(i, 2));
    const nb_dim *dims[NB_MAX_RANK];
    int rank;
    if (!nb_infer_axes(i, a, b, 0, &rank, dims)) return NB_MALFORMED;
    const nb_type *both = nb_type_intern(i->g, a->elem, NULL, rank, dims);
    if (!nb_infer_axes(i, c, both, 0, &rank, dims)) return NB_MALFORMED;
    i->types[0] = nb_type_intern(i->g, a->elem, NULL, rank, dims);
    return NB_OK;
}

nb_status nb_infer_cast(const nb_inferring *i) {
    const nb_attr *to = nb_attr_of(i->op, "to");
    if (!to->set) return nb_infer_error(i, "needs attribute `to`");
    i->types[0] = nb_type_with_elem(i->g, nb_in_type(i, 0), to->elem);
    return NB_OK;
}

nb_status nb_infer_bitcast(const nb_inferring *i) {
    const nb_attr *to = nb_attr_of(i->op, "to");
    const nb_elem from = nb_in_type(i, 0)->elem;
    if (!to->set) return nb_infer_error(i, "needs attribute `to`");
    if (nb_elems[from].bits != nb_elems[to->elem].bits || nb_elems[from].bits < 8 ||
        from == NB_BOOL || to->elem == NB_BOOL)
        return nb_infer_error(i, "the bits of %s cannot be those of %s", nb_elems[from].text,
                              nb_elems[to->elem].text);
    i->types[0] = nb_type_with_elem(i->g, nb_in_type(i, 0), to->elem);
    return NB_OK;
}

/* The type stands in the attributes, so that a graph can be read without the plug-in. */
nb_status nb_infer_call(const nb_inferring *i) {
    const nb_attr *function = nb_attr_of(i->op, "function"), *to = nb_attr_of(i->op, "to"),
                  *shape = nb_attr_of(i->op, "shape");
    if (!function->set || !to->set || !shape->set)
        return nb_infer_error(i, "needs attributes `function`, `to` and `shape`");
    if (!*function->str || strspn(function->str, WORD) != strlen(function->str))
        return nb_infer_error(i, "`function` is a C identifier, found '%s'", function->str);
    if (nb_elems[to->elem].bits < 8)
        return nb_infer_error(i, "its result cannot be of %s", nb_elems[to->elem].text);
    if (shape->dims.count > NB_MAX_RANK)
        return nb_infer_error(i, "rank %zu is above %d", shape->dims.count, NB_MAX_RANK);
    i->types[0] = nb_type_intern(i->g, to->elem, NULL, (int)shape->dims.count, shape->dims.items);
    return NB_OK;
}

/* ---- reductions and layers over one axis ---------------------------------------------------- */

nb_status nb_infer_reduce(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *axes = nb_attr_of(i->op, "axes");
    bool keep = nb_attr_bool(i->op, "keep"), reduced[NB_MAX_RANK] = {false};
    if (x->elem == NB_BOOL && i->op->kind != NB_OP_reduce_max && i->op->kind != NB_OP_reduce_min)
        return nb_infer_error(i, "takes numbers, found %s", nb_in_text(i, 0));
    for (size_t k = 0; k < axes->ints.count; k++) {
        int64_t a = axes->ints.items[k];
        if (a < 0 || a >= x->rank || reduced[a])
            return nb_infer_error(i, "axis %lld is out of range 0..%d or twice", (long long)a,
                                  x->rank - 1);
        reduced[a] = true;
    }
    const nb_dim *dims[NB_MAX_RANK];
    int rank = 0;
    for (int d = 0; d < x->rank; d++) {
        bool r = reduced[d] || axes->ints.count == 0;
        if (r && keep)
            dims[rank++] = nb_dim_const(i->g, 1);
        else if (!r)
            dims[rank++] = x->dims[d];
    }
    i->types[0] = nb_type_intern(i->g, x->elem, NULL, rank, dims);
    return NB_OK;
}

static nb_status infer_axis(const nb_inferring *i, domain d) {
    const nb_type *x = nb_in_type(i, 0);
    int64_t axis = nb_attr_int(i->op, "axis");
    if (!in_domain(x->elem, d))
        return nb_infer_error(i, "takes %s, found %s", domain_text[d], nb_in_text(i, 0));
    if (axis < 0 || axis >= x->rank)
        return nb_infer_error(i, "axis %lld is out of range 0..%d", (long long)axis, x->rank - 1);
    i->types[0] = x;
    return NB_OK;
}

nb_status nb_infer_softmax(const nb_inferring *i) { return infer_axis(i, FLOATS); }
nb_status nb_infer_numbers(const nb_inferring *i) { return infer_axis(i, NUMBERS); }

nb_status nb_infer_topk(const nb_inferring *i) {
    const nb_attr *count = nb_attr_of(i->op, "count");
    const nb_dim *dims[NB_MAX_RANK];
    NB_TRY(infer_axis(i, NUMBERS));
    if (count->dims.count != 1) return nb_infer_error(i, "count has one value");
    const nb_type *x = nb_in_type(i, 0);
    const nb_dim *k = count->dims.items[0], *n = x->dims[nb_attr_int(i->op, "axis")];
    if (nb_dim_is_const(k) && nb_dim_is_const(n) && k->value > n->value)
        return nb_infer_error(i, "%lld elements of an axis of length %lld", (long long)k->value,
                              (long long)n->value);
    for (int d = 0; d < x->rank; d++) dims[d] = d == nb_attr_int(i->op, "axis") ? k : x->dims[d];
    i->types[0] = nb_type_with_dims(i->g, x, x->rank, dims);
    i->types[1] = nb_type_with_elem(i->g, i->types[0], NB_I64);
    return NB_OK;
}

nb_status nb_infer_norm(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    if (!nb_elem_is_float(x->elem) || x->rank < 1)
        return nb_infer_error(i, "takes floats of rank 1 or more, found %s", nb_in_text(i, 0));
    for (uint32_t k = 1; k < i->op->n_operands; k++) {
        if (!nb_in(i->op, k)) continue;
        const nb_type *g = nb_in_type(i, k);
        if (g->elem != x->elem || g->rank != 1 || g->dims[0] != x->dims[x->rank - 1])
            return nb_infer_error(
                i, "gain and bias are vectors as long as the last axis of %s, found %s",
                nb_in_text(i, 0), nb_in_text(i, k));
    }
    i->types[0] = x;
    return NB_OK;
}
