/* Quantization descriptors: checked, named and interned. */
#include "ir/interner.h"

#include <math.h>
#include <string.h>

/* 16-bit codes end here, so that both bytes of 256*h + l are signed. */
#define WIDE_MAX 32639

int64_t nb_quant_min(const nb_quant *q) { return nb_elem_min(q->storage) + (q->narrow ? 1 : 0); }

int64_t nb_quant_max(const nb_quant *q) {
    return q->storage == NB_I16 ? WIDE_MAX : nb_elem_max(q->storage);
}

/* Longest group whose integer sums are exact in 32 bits: 65536 * 128 * 255 < 2^31. */
#define MAX_GROUP 65536

const char *nb_product_obstacle(const nb_quant *a, const nb_quant *b, int64_t K) {
    if (a->storage != NB_I8 && a->storage != NB_I16) return "the activations are not i8 or i16";
    if (a->zero || a->zeros) return "the activations have a zero point";
    if (a->granularity == NB_PER_AXIS || a->granularity == NB_PER_GROUP)
        return "the activations are quantized along an axis";
    if (nb_elems[b->storage].bits > 8) return "the weights have more than 8 bits";
    bool groups = b->granularity == NB_PER_GROUP && b->axis == 0;
    if (a->granularity == NB_PER_BLOCK && !(groups && b->group == a->group))
        return "the blocks of the activations are not the groups of the weights";
    bool columns = b->granularity == NB_PER_AXIS && b->axis == 1;
    if (!groups && !columns && b->granularity != NB_PER_TENSOR)
        return "the scales of the weights lie along the axis that is summed over";
    if (K > MAX_GROUP && !(groups && b->group <= MAX_GROUP))
        return "a group of more than 65536 inputs is not exact in 32 bits";
    return NULL;
}

static const char *problem(const nb_quant *q) {
    bool dynamic = q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
    bool needs_scales = q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP;
    bool needs_group = q->granularity == NB_PER_GROUP || q->granularity == NB_PER_BLOCK;
    if (!nb_elem_is_integer(q->storage)) return "the storage is not an integer type";
    if (nb_elems[q->storage].bits > 32) return "the storage has more than 32 bits";
    if (q->narrow && nb_elems[q->storage].class_ != NB_CLASS_INT)
        return "only signed codes can be narrow";
    if (needs_scales != (q->scales != NULL) && q->granularity != NB_PER_TENSOR)
        return needs_scales ? "scales are missing" : "scales are computed at run time";
    if (q->zeros && !q->scales) return "a constant of zero points needs a constant of scales";
    if (q->scales &&
        (!nb_is_const(q->scales) || q->scales->type->elem != NB_F32 || q->scales->type->quant))
        return "scales are not an f32 constant";
    if (q->zeros &&
        (!nb_is_const(q->zeros) || q->zeros->type->elem != q->storage || q->zeros->type->quant))
        return "zero points are not a constant of the storage's type";
    if (q->zeros &&
        (q->zeros->type->rank != q->scales->type->rank ||
         memcmp(q->zeros->type->dims, q->scales->type->dims, sizeof q->zeros->type->dims) != 0))
        return "zero points and scales have different shapes";
    if (needs_group && q->group < 1) return "the group's length is not positive";
    if (!needs_group && q->group) return "a group's length without groups";
    if (q->granularity == NB_PER_TENSOR && !q->scales && !(q->scale > 0 && isfinite(q->scale)))
        return "the scale is not positive and finite";
    if (dynamic && (q->zero || q->zeros)) return "dynamic scales have no zero point";
    if (dynamic && (q->amax_code < 1 || q->amax_code > nb_quant_max(q)))
        return "the largest code is out of the storage's range";
    if (q->zero < nb_quant_min(q) || q->zero > nb_quant_max(q))
        return "the zero point is out of the storage's range";
    if (q->scales && q->granularity == NB_PER_AXIS && q->scales->type->rank != 1)
        return "scales along an axis are not a vector";
    if (q->scales && q->granularity == NB_PER_TENSOR && q->scales->type->rank != 0)
        return "the scale of a tensor is not a scalar";
    if (q->axis < 0 || q->axis >= NB_MAX_RANK) return "the axis is out of range";
    return NULL;
}

/* Members that a granularity does not use are 0, so that equal descriptors have equal bytes; so are
 * the name and what lies between members. */
static nb_quant normalised(const nb_quant *q) {
    nb_quant n;
    bool dynamic = q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
    bool along = q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP;
    memset(&n, 0, sizeof n);
    n.storage = q->storage;
    n.narrow = q->narrow;
    n.granularity = q->granularity;
    n.axis = along ? q->axis : 0;
    n.group = q->group;
    n.scale = q->granularity == NB_PER_TENSOR && !q->scales ? q->scale : 0;
    n.zero = q->zeros ? 0 : q->zero;
    n.scales = q->scales;
    n.zeros = q->zeros;
    n.amax_code = dynamic ? q->amax_code : 0;
    return n;
}

const nb_quant *nb_quant_adopt(nb_graph *g, const nb_quant *members, const char *hint) {
    nb_quant key = normalised(members), *fresh = NB_NEW(g->arena, nb_quant);
    *fresh = key;
    fresh->name = nb_name_take(&g->interner->codes, hint);
    nb_map_set_str(&g->interner->quants, (const char *)&key, sizeof key, fresh);
    nb_vec_push(g->arena, &g->quants, fresh);
    return fresh;
}

const nb_quant *nb_quant_intern(nb_graph *g, const nb_quant *q, const char *hint, nb_diags *diags) {
    nb_quant n = normalised(q);
    const char *why = problem(&n);
    if (why) {
        nb_error(diags, NB_MALFORMED, NB_NOWHERE, "quantization '#%s': %s", hint, why);
        return NULL;
    }
    const nb_quant *known = nb_map_get_str(&g->interner->quants, (const char *)&n, sizeof n);
    return known ? known : nb_quant_adopt(g, &n, hint);
}

void nb_quants_sweep(nb_graph *g, const bool *live) {
    size_t kept = 0;
    for (size_t i = 0; i < g->quants.count; i++) {
        const nb_quant *q = g->quants.items[i];
        if (live[i]) {
            g->quants.items[kept++] = q;
            continue;
        }
        nb_quant key = normalised(q);
        nb_map_set_str(&g->interner->quants, (const char *)&key, sizeof key, NULL);
        nb_name_free(&g->interner->codes, q->name);
    }
    g->quants.count = kept;
}

const char *nb_quant_misfit(nb_graph *g, const nb_quant *q, const nb_type *t) {
    if (q->granularity == NB_PER_TENSOR) return NULL;
    if (q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK)
        return t->rank >= 1 ? NULL
                            : nb_format(g->arena, "#%s is per token, a scalar has none", q->name);
    const nb_type *s = q->scales->type;
    if (q->axis >= t->rank)
        return nb_format(g->arena, "#%s has axis %d, the tensor has rank %d", q->name, q->axis,
                         t->rank);
    const nb_dim *along = t->dims[q->axis];
    if (q->granularity == NB_PER_AXIS)
        return s->dims[0] == along ? NULL
                                   : nb_format(g->arena, "#%s needs %s scales, '@%s' has %s",
                                               q->name, nb_dim_text(g->arena, along),
                                               q->scales->name, nb_dim_text(g->arena, s->dims[0]));
    bool fits = s->rank == t->rank;
    for (int d = 0; fits && d < t->rank; d++)
        fits = s->dims[d] ==
               (d == q->axis ? nb_dim_ceildiv(g, along, nb_dim_const(g, q->group)) : t->dims[d]);
    return fits ? NULL
                : nb_format(g->arena,
                            "the scales of #%s, %s, do not fit groups of %lld along axis %d",
                            q->name, nb_type_text(g->arena, s), (long long)q->group, q->axis);
}
