/* Looking through ops that only rearrange, for the matchers of raise. */
#include "passes/raise.h"

const nb_loc *nb_trail_loc(nb_graph *g, const nb_trail *t) {
    const nb_loc *loc = NULL;
    for (size_t i = t->n; i-- > 0;) loc = nb_loc_merge(g, loc, t->ops[i]->loc);
    return loc;
}

bool nb_fits_f32(const nb_value *v) {
    nb_elem e = v->type->elem;
    return !v->type->quant && (e == NB_F32 || e == NB_F16 || e == NB_BF16);
}

nb_value *nb_widened(nb_builder *b, nb_value *v) {
    return !v || v->type->elem == NB_F32 ? v : nb_cast(b, v, NB_F32);
}

/* Takes one slice off a span; false when the slice cuts another axis. */
static bool through_slice(nb_span *s, const nb_op *slice) {
    nb_value *x = nb_in(slice, 0);
    int last = x->type->rank - 1;
    const nb_attr *start = nb_attr_of(slice, "start"), *count = nb_attr_of(slice, "count"),
                  *step = nb_attr_of(slice, "step");
    for (int d = 0; d < last; d++) {
        if (!nb_dim_is(start->dims.items[d], 0) || count->dims.items[d] != x->type->dims[d] ||
            step->ints.items[d] != 1)
            return false;
    }
    const nb_dim *from = start->dims.items[last];
    int64_t by = step->ints.items[last];
    if (!nb_dim_is_const(from) || !nb_dim_is_const(x->type->dims[last]) || by < 1) return false;
    s->base = x;
    s->start = from->value + s->start * by;
    s->step *= by;
    return true;
}

bool nb_span_of(nb_value *v, nb_span *out) {
    int rank = v->type->rank;
    if (rank < 1 || !nb_dim_is_const(v->type->dims[rank - 1])) return false;
    *out = (nb_span){.base = v, .step = 1, .count = v->type->dims[rank - 1]->value};
    for (nb_op *slice; (slice = nb_made_by(out->base, NB_OP_slice));) {
        if (!through_slice(out, slice)) break;
    }
    return true;
}

bool nb_joins_last(const nb_op *concat) {
    return concat->n_operands == 2 && nb_attr_int(concat, "axis") == nb_out(concat)->type->rank - 1;
}

nb_value *nb_unstacked(const nb_value *v, int64_t rows, int64_t columns) {
    nb_op *reshape = nb_made_by(v, NB_OP_reshape);
    if (!reshape) return NULL;
    nb_value *x = nb_in(reshape, 0);
    const nb_type *t = v->type, *u = x->type;
    if (u->rank != t->rank + 1 || t->rank < 1) return NULL;
    for (int d = 0; d < t->rank - 1; d++) {
        if (t->dims[d] != u->dims[d]) return NULL;
    }
    bool fits = nb_dim_is(u->dims[u->rank - 2], rows) && nb_dim_is(u->dims[u->rank - 1], columns);
    return fits ? x : NULL;
}
