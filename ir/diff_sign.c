/* Signatures: hashes of what dims, types, attributes and constants mean, whatever graph they are in
 * (diff.h). A descriptor's constants are left out of its own signature, so that other scales make
 * a constant differ and not every op that it passes through. */
#include "ir/diff.h"

#include <string.h>

/* Sums and products have no order here: what they are made of is added up. */
static uint64_t sign_terms(const nb_dim *d, nb_dim_kind kind, const uint64_t *symbols) {
    if (d->kind != kind) return nb_sign_dim(d, symbols);
    return sign_terms(d->a, kind, symbols) + sign_terms(d->b, kind, symbols);
}

uint64_t nb_sign_dim(const nb_dim *d, const uint64_t *symbols) {
    const uint64_t kind = (uint64_t)d->kind;
    switch (d->kind) {
    case NB_DIM_CONST:
        return nb_hash_mix(kind, (uint64_t)d->value);
    case NB_DIM_SYMBOL:
        return nb_hash_mix(kind, symbols[d->symbol->index]);
    case NB_DIM_ADD:
    case NB_DIM_MUL:
    case NB_DIM_MIN:
    case NB_DIM_MAX:
        return nb_hash_mix(kind, sign_terms(d, d->kind, symbols));
    case NB_DIM_FLOORDIV:
    case NB_DIM_CEILDIV:
        break;
    }
    return nb_hash_mix(nb_hash_mix(kind, nb_sign_dim(d->a, symbols)), nb_sign_dim(d->b, symbols));
}

static uint64_t sign_dims(size_t n, const nb_dim *const *dims, const uint64_t *symbols) {
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = nb_hash_mix(h, nb_sign_dim(dims[i], symbols));
    return h;
}

static uint64_t sign_float(float f) { return nb_hash(&f, sizeof f); }

uint64_t nb_sign_quant(const nb_quant *q) {
    if (!q) return 0;
    const bool scaled = !q->scales || nb_quant_has_small_scales(q);
    const uint64_t parts[] = {(uint64_t)q->storage,
                              q->narrow,
                              (uint64_t)q->granularity,
                              (uint64_t)q->axis,
                              (uint64_t)q->group,
                              scaled ? sign_float(q->scale) : 0,
                              q->minima ? 0 : sign_float(q->minimum),
                              q->zeros ? 0 : (uint64_t)q->zero,
                              (uint64_t)q->amax_code,
                              q->scales != NULL,
                              q->zeros != NULL,
                              q->minima != NULL};
    return nb_hash(parts, sizeof parts);
}

uint64_t nb_sign_type(const nb_type *t, const uint64_t *symbols) {
    uint64_t h = nb_hash_mix((uint64_t)t->elem, nb_sign_quant(t->quant));
    return nb_hash_mix(h, sign_dims((size_t)t->rank, t->dims, symbols));
}

/* What is not set reads as 0, false or empty, and says the same. */
uint64_t nb_sign_attr(const nb_attr *a, nb_attr_kind kind, const uint64_t *symbols) {
    if (!a->set) return 0;
    switch (kind) {
    case NB_ATTR_INT:
        return a->i ? nb_hash_mix(1, (uint64_t)a->i) : 0;
    case NB_ATTR_FLOAT:
        return a->f != 0 ? sign_float(a->f) : 0;
    case NB_ATTR_BOOL:
        return a->b;
    case NB_ATTR_INTS:
        return a->ints.count ? nb_hash(a->ints.items, a->ints.count * sizeof *a->ints.items) : 0;
    case NB_ATTR_DIMS:
        return a->dims.count ? sign_dims(a->dims.count, a->dims.items, symbols) : 0;
    case NB_ATTR_ELEM:
        return nb_hash_mix(1, (uint64_t)a->elem);
    case NB_ATTR_QUANT:
        return nb_hash_mix(1, nb_sign_quant(a->quant));
    case NB_ATTR_STR:
        return a->str && *a->str ? nb_hash(a->str, strlen(a->str)) : 0;
    case NB_ATTR_END:
        break;
    }
    return 0;
}

uint64_t nb_sign_const(const nb_value *v) {
    const nb_quant *q = v->type->quant;
    /* Constants have no symbols in their types. */
    uint64_t h = nb_hash_mix(nb_sign_type(v->type, NULL), nb_blob_hash(v->blob));
    if (!q) return h;
    const nb_value *parts[] = {q->scales, q->zeros, q->minima};
    for (size_t i = 0; i < NB_COUNT(parts); i++)
        h = nb_hash_mix(h, parts[i] ? nb_sign_const(parts[i]) : 0);
    return h;
}
