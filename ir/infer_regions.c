/* Shape rules of ops with bodies: what goes in fits the parameters, what the bodies return fits
 * the results. */
#include "ir/infer.h"

nb_status nb_infer_bodies(const nb_inferring *i) {
    const nb_op *op = i->op;
    const uint32_t expected = nb_info(op)->regions;
    if (op->n_regions != expected)
        return nb_infer_error(i, "expected %u bodies, found %u", expected, op->n_regions);
    for (uint32_t r = 0; r < expected; r++) {
        const nb_op *ret = op->regions[r]->last;
        if (!ret || ret->kind != NB_OP_return) return nb_infer_error(i, "body %u has no return", r);
        for (uint32_t k = 0; k < ret->n_operands; k++)
            if (!nb_in(ret, k) || nb_in(ret, k)->type->quant)
                return nb_infer_error(i, "body %u returns a quantized tensor", r);
    }
    if (expected && (nb_result_count(op) == 0 || nb_result_count(op) > NB_MAX_RESULTS))
        return nb_infer_error(i, "expected 1 to %d results, found %u", NB_MAX_RESULTS,
                              nb_result_count(op));
    return NB_OK;
}

static const char *text(const nb_inferring *i, const nb_type *t) {
    return nb_type_text(i->g->arena, t);
}

static bool is_scalar(const nb_type *t, nb_elem elem) {
    return t->elem == elem && t->rank == 0 && !t->quant;
}

/* What a body sees of a value outside: the sizes may be written otherwise (ops.def). */
static nb_status check_capture(const nb_inferring *i, const nb_value *param, size_t operand) {
    const nb_type *p = param->type, *t = nb_in_type(i, operand);
    if (p->elem == t->elem && p->rank == t->rank && !p->quant) return NB_OK;
    return nb_infer_error(i, "operand %zu is %s, the body takes %s", operand,
                          nb_in_text(i, operand), text(i, p));
}

static nb_status check_params(const nb_inferring *i, const nb_region *body, size_t expected) {
    if (body->n_params == expected) return NB_OK;
    return nb_infer_error(i, "the body takes %u values, expected %zu", body->n_params, expected);
}

/* ---- if ------------------------------------------------------------------------------------ */

/* The result types: elements and ranks of the first body's, dimensions from `shapes`. */
static nb_status types_of_if(const nb_inferring *i) {
    const nb_op *op = i->op, *ret = op->regions[0]->last;
    const nb_attr *shapes = nb_attr_of(op, "shapes");
    size_t at = 0;
    for (uint32_t k = 0; k < ret->n_operands; k++) {
        const nb_type *t = nb_in(ret, k)->type;
        i->types[k] = t;
        if (!shapes->set) continue;
        if (at + (size_t)t->rank > shapes->dims.count)
            return nb_infer_error(i, "shapes has %zu sizes, too few", shapes->dims.count);
        i->types[k] = nb_type_intern(i->g, t->elem, NULL, t->rank, shapes->dims.items + at);
        at += (size_t)t->rank;
    }
    if (at != shapes->dims.count)
        return nb_infer_error(i, "shapes has %zu sizes, expected %zu", shapes->dims.count, at);
    return NB_OK;
}

nb_status nb_infer_if(const nb_inferring *i) {
    const nb_op *op = i->op;
    if (!is_scalar(nb_in_type(i, 0), NB_BOOL))
        return nb_infer_error(i, "the condition is %s, expected bool[]", nb_in_text(i, 0));
    for (uint32_t r = 0; r < 2; r++) {
        NB_TRY(check_params(i, op->regions[r], op->n_operands - 1));
        for (uint32_t k = 0; k + 1 < op->n_operands; k++)
            NB_TRY(check_capture(i, op->regions[r]->params[k], k + 1));
    }
    NB_TRY(types_of_if(i));
    const nb_op *a = op->regions[0]->last, *b = op->regions[1]->last;
    if (a->n_operands != b->n_operands)
        return nb_infer_error(i, "one body returns %u values, the other %u", a->n_operands,
                              b->n_operands);
    const bool written = nb_attr_of(op, "shapes")->set;
    for (uint32_t k = 0; k < a->n_operands; k++) {
        const nb_type *t = nb_in(a, k)->type, *u = nb_in(b, k)->type;
        if (t->elem != u->elem || t->rank != u->rank || (!written && t != u))
            return nb_infer_error(i, "value %u is %s in one body and %s in the other", k,
                                  text(i, t), text(i, u));
    }
    return NB_OK;
}

/* ---- loop ---------------------------------------------------------------------------------- */

typedef struct looping {
    const nb_inferring *i;
    const nb_op *op;
    const nb_region *body;
    const nb_dim *count; /* NULL: no bound */
    uint32_t carried, sliced, conditions;
} looping;

static nb_status check_numbers(looping *l) {
    const nb_inferring *i = l->i;
    const nb_attr *count = nb_attr_of(l->op, "count");
    const int64_t carried = nb_attr_int(l->op, "carried"), sliced = nb_attr_int(l->op, "sliced");
    const int64_t listed = (int64_t)l->op->n_operands - NB_LOOP_OPERANDS;
    if (count->set && count->dims.count != 1)
        return nb_infer_error(i, "count has %zu sizes, expected 1", count->dims.count);
    l->count = count->set ? count->dims.items[0] : NULL;
    if (carried < 0 || sliced < 0 || carried > listed || sliced > listed - carried)
        return nb_infer_error(i, "carries %lld and slices %lld of %lld values", (long long)carried,
                              (long long)sliced, (long long)listed);
    l->carried = (uint32_t)carried;
    l->sliced = (uint32_t)sliced;
    l->conditions = nb_in(l->op, 1) != NULL;
    if (nb_in(l->op, 0) && !is_scalar(nb_in_type(i, 0), NB_I64))
        return nb_infer_error(i, "the limit is %s, expected i64[]", nb_in_text(i, 0));
    if (l->conditions && !is_scalar(nb_in_type(i, 1), NB_BOOL))
        return nb_infer_error(i, "the condition is %s, expected bool[]", nb_in_text(i, 1));
    NB_TRY(check_params(i, l->body, (size_t)listed + NB_LOOP_PARAMS));
    if (is_scalar(l->body->params[0]->type, NB_I64)) return NB_OK;
    return nb_infer_error(i, "the body takes the step as %s, expected i64[]",
                          text(i, l->body->params[0]->type));
}

static bool can_be_sliced(const nb_type *t) { return nb_elems[t->elem].bits >= 8; }

static nb_status check_slice(const looping *l, uint32_t operand, const nb_type *slice) {
    const nb_inferring *i = l->i;
    const nb_type *t = nb_in_type(i, operand);
    bool fits = t->elem == slice->elem && t->rank == slice->rank + 1 && l->count &&
                t->dims[0] == l->count && can_be_sliced(t);
    for (int d = 0; fits && d < slice->rank; d++) fits = t->dims[d + 1] == slice->dims[d];
    if (fits) return NB_OK;
    return nb_infer_error(i, "operand %u is %s, which has no %s slices of %s along axis 0", operand,
                          text(i, t), l->count ? nb_dim_text(i->g->arena, l->count) : "counted",
                          text(i, slice));
}

static nb_status check_inputs(const looping *l) {
    for (uint32_t k = 0; k + NB_LOOP_OPERANDS < l->op->n_operands; k++) {
        const uint32_t operand = k + NB_LOOP_OPERANDS;
        const nb_type *p = l->body->params[k + NB_LOOP_PARAMS]->type,
                      *t = nb_in_type(l->i, operand);
        if (k < l->carried && p != t)
            return nb_infer_error(l->i, "operand %u is %s, the body takes %s", operand,
                                  nb_in_text(l->i, operand), text(l->i, p));
        if (k >= l->carried && k < l->carried + l->sliced) NB_TRY(check_slice(l, operand, p));
        if (k >= l->carried + l->sliced)
            NB_TRY(check_capture(l->i, l->body->params[k + NB_LOOP_PARAMS], operand));
    }
    return NB_OK;
}

/* A stack of `count` tensors of that type. */
static nb_status stack(const looping *l, const nb_type *t, const nb_type **out) {
    const nb_dim *dims[NB_MAX_RANK];
    if (!l->count || t->rank == NB_MAX_RANK || !can_be_sliced(t))
        return nb_infer_error(l->i, "%s of each step cannot be stacked%s", text(l->i, t),
                              l->count ? "" : " without a count");
    dims[0] = l->count;
    for (int d = 0; d < t->rank; d++) dims[d + 1] = t->dims[d];
    *out = nb_type_intern(l->i->g, t->elem, NULL, t->rank + 1, dims);
    return NB_OK;
}

static nb_status check_outputs(const looping *l) {
    const nb_op *ret = l->body->last;
    const uint32_t least = l->conditions + l->carried;
    if (ret->n_operands < least)
        return nb_infer_error(l->i, "the body returns %u values, expected at least %u",
                              ret->n_operands, least);
    if (l->conditions && !is_scalar(nb_in(ret, 0)->type, NB_BOOL))
        return nb_infer_error(l->i, "the body returns the condition as %s, expected bool[]",
                              text(l->i, nb_in(ret, 0)->type));
    for (uint32_t k = 0; k + l->conditions < ret->n_operands; k++) {
        const nb_type *t = nb_in(ret, k + l->conditions)->type;
        if (k >= l->carried) {
            NB_TRY(stack(l, t, &l->i->types[k]));
            continue;
        }
        const nb_type *p = l->body->params[k + NB_LOOP_PARAMS]->type;
        if (t != p)
            return nb_infer_error(l->i, "value %u is %s in one step and %s in the next", k,
                                  text(l->i, p), text(l->i, t));
        l->i->types[k] = t;
    }
    const size_t sides = nb_attr_of(l->op, "reverse")->ints.count;
    if (sides && sides != l->sliced + nb_result_count(l->op) - l->carried)
        return nb_infer_error(l->i, "reverse has %zu entries, expected one for each slice", sides);
    return NB_OK;
}

nb_status nb_infer_loop(const nb_inferring *i) {
    looping l = {.i = i, .op = i->op, .body = i->op->regions[0]};
    NB_TRY(check_numbers(&l));
    NB_TRY(check_inputs(&l));
    return check_outputs(&l);
}
