/* Quantization descriptors: checked, named and interned. */
#include "ir/interner.h"

#include <math.h>
#include <string.h>

/* 16-bit codes end here, so that both bytes of 256*h + l are signed. */
#define WIDE_MAX 32639

bool nb_is_scale(float scale) { return scale != 0 && isfinite(scale); }

bool nb_quant_has_small_scales(const nb_quant *q) {
    return q->scales && q->scales->type->elem != NB_F32;
}

bool nb_quant_takes_scale(const nb_quant *q, float scale) {
    const nb_type *t = q->scales ? q->scales->type : NULL;
    return nb_is_scale(scale) || (scale == 0 && t && (t->quant || t->elem == NB_F16));
}

int64_t nb_quant_min(const nb_quant *q) { return nb_elem_min(q->storage) + (q->narrow ? 1 : 0); }

int64_t nb_quant_max(const nb_quant *q) {
    return q->storage == NB_I16 ? WIDE_MAX : nb_elem_max(q->storage);
}

/* Longest group whose integer sums are exact in 32 bits: 65536 * 128 * 255 < 2^31. */
#define MAX_GROUP 65536

int64_t nb_quant_offset(const nb_quant *q) { return q->zero - (q->storage == NB_U8 ? 128 : 0); }

const char *nb_product_obstacle(const nb_quant *a, const nb_quant *b, int64_t K) {
    if (a->storage != NB_I8 && a->storage != NB_U8 && a->storage != NB_I16)
        return "the activations are not i8, u8 or i16";
    if (a->storage == NB_U8 && a->granularity != NB_PER_TENSOR)
        return "the activations are u8 and not quantized per tensor";
    if (a->zeros || (a->zero && a->storage == NB_I16)) return "the activations have a zero point";
    if (a->granularity == NB_PER_AXIS || a->granularity == NB_PER_GROUP)
        return "the activations are quantized along an axis";
    if (!nb_elem_is_integer(b->storage)) return "the weights are codes of floats";
    if (nb_elems[b->storage].bits > 8) return "the weights have more than 8 bits";
    if (nb_quant_has_minima(a) || nb_quant_has_minima(b)) return "the codes have minima";
    bool groups = b->granularity == NB_PER_GROUP && b->axis == 0;
    if (a->granularity == NB_PER_BLOCK && !(groups && b->group == a->group))
        return "the blocks of the activations are not the groups of the weights";
    bool columns = b->granularity == NB_PER_AXIS && b->axis == 1;
    if (!groups && !columns && b->granularity != NB_PER_TENSOR)
        return "the scales of the weights lie along the axis that is summed over";
    const int64_t most = nb_quant_offset(a) ? MAX_GROUP / 2 : MAX_GROUP;
    if (K > most && !(groups && b->group <= most))
        return most == MAX_GROUP ? "a group of more than 65536 inputs is not exact in 32 bits"
                                 : "a group of more than 32768 inputs is not exact in 32 bits, the "
                                   "activations having a zero point";
    return NULL;
}

const char *nb_depthwise_obstacle(const nb_quant *x, const nb_quant *w, int channels,
                                  int64_t positions) {
    if (x->storage != NB_I8 && x->storage != NB_U8) return "the activations are not i8 or u8";
    if (x->granularity != NB_PER_TENSOR || x->scales || x->zeros || nb_quant_has_minima(x))
        return "the activations have no one scale";
    if (!nb_elem_is_integer(w->storage)) return "the weights are codes of floats";
    if (nb_elems[w->storage].bits > 8) return "the weights have more than 8 bits";
    if (w->zeros || nb_quant_has_minima(w))
        return "the weights have zero points or minima of their own";
    if (nb_quant_min(w) - w->zero < -128 || nb_quant_max(w) - w->zero > 127)
        return "the weights, less their zero point, are not signed bytes";
    if (w->granularity != NB_PER_TENSOR && !(w->granularity == NB_PER_AXIS && w->axis == channels))
        return "the scales of the weights do not lie along the channels";
    return positions > MAX_GROUP / 2
               ? "a kernel of more than 32768 positions is not exact in 32 bits"
               : NULL;
}

/* A constant of floats, or of codes whose own scales are floats. */
static bool are_numbers(nb_graph *g, const nb_value *v) {
    if (!nb_is_const(v)) return false;
    const nb_quant *q = v->type->quant;
    if (!q) return v->type->elem == NB_F32 || v->type->elem == NB_F16;
    return q->granularity != NB_PER_TOKEN && q->granularity != NB_PER_BLOCK &&
           !(q->scales && q->scales->type->quant) && !(q->minima && q->minima->type->quant) &&
           !nb_quant_misfit(g, q, v->type);
}

static bool may_be_scales(nb_graph *g, nb_elem storage, const nb_value *v) {
    if (are_numbers(g, v)) return true;
    return nb_is_const(v) && !v->type->quant && nb_elem_is_float(storage) &&
           (v->type->elem == NB_F8E8M0 || nb_elem_is_code(v->type->elem));
}

static bool same_shape(const nb_value *a, const nb_value *b) {
    return a->type->rank == b->type->rank &&
           memcmp(a->type->dims, b->type->dims, sizeof a->type->dims) == 0;
}

static const char *problem_of_minima(nb_graph *g, const nb_quant *q, bool dynamic) {
    if (!nb_quant_has_minima(q)) return NULL;
    if (dynamic) return "dynamic scales have no minimum";
    if (q->zero || q->zeros) return "zero points and minima exclude each other";
    if (!isfinite(q->minimum)) return "the minimum is not finite";
    if (!q->minima) return NULL;
    if (!q->scales) return "a constant of minima needs a constant of scales";
    if (!are_numbers(g, q->minima)) return "minima are not a constant of f32, f16 or codes";
    return same_shape(q->minima, q->scales) ? NULL : "minima and scales have different shapes";
}

static const char *problem(nb_graph *g, const nb_quant *q) {
    bool dynamic = q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
    bool needs_scales = q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP;
    bool needs_group = q->granularity == NB_PER_GROUP || q->granularity == NB_PER_BLOCK;
    if (!nb_elem_is_integer(q->storage) && !nb_elem_is_code(q->storage))
        return "the storage is neither an integer nor a small float type";
    if (nb_elems[q->storage].bits > 32) return "the storage has more than 32 bits";
    if (nb_elem_is_float(q->storage) && (dynamic || q->zero || q->zeros))
        return "codes of floats have neither zero points nor dynamic scales";
    if (q->narrow && nb_elems[q->storage].class_ != NB_CLASS_INT)
        return "only signed codes can be narrow";
    if (needs_scales != (q->scales != NULL) && q->granularity != NB_PER_TENSOR)
        return needs_scales ? "scales are missing" : "scales are computed at run time";
    if (q->zeros && !q->scales) return "a constant of zero points needs a constant of scales";
    if (q->scales && !may_be_scales(g, q->storage, q->scales))
        return nb_elem_is_float(q->storage)
                   ? "scales are not a constant of f32, f16, small floats or codes"
                   : "scales are not a constant of f32, f16 or codes";
    if (nb_quant_has_small_scales(q) && !nb_is_scale(q->scale))
        return "what multiplies the scales is 0 or not finite";
    if (q->zeros &&
        (!nb_is_const(q->zeros) || q->zeros->type->elem != q->storage || q->zeros->type->quant))
        return "zero points are not a constant of the storage's type";
    if (q->zeros && !same_shape(q->zeros, q->scales))
        return "zero points and scales have different shapes";
    if (needs_group && q->group < 1) return "the group's length is not positive";
    if (!needs_group && q->group) return "a group's length without groups";
    if (q->granularity == NB_PER_TENSOR && !q->scales && !nb_is_scale(q->scale))
        return "the scale is 0 or not finite";
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
    return problem_of_minima(g, q, dynamic);
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
    const bool single = q->granularity == NB_PER_TENSOR && !q->scales;
    n.scale = single || nb_quant_has_small_scales(q) ? q->scale : 0;
    n.zero = q->zeros ? 0 : q->zero;
    n.scales = q->scales;
    n.zeros = q->zeros;
    n.minimum = q->minima || q->minimum == 0 ? 0 : q->minimum; /* -0 is 0 */
    n.minima = q->minima;
    n.amax_code = dynamic ? q->amax_code : 0;
    return n;
}

const nb_quant *nb_quant_adopt(nb_graph *g, const nb_quant *members, const char *hint) {
    nb_quant key = normalised(members), *fresh = NB_NEW(g->arena, nb_quant);
    *fresh = key;
    fresh->name = nb_name_take(&g->interner->codes, hint, strlen(hint))->text;
    nb_map_set_str(&g->interner->quants, (const char *)&key, sizeof key, fresh);
    nb_vec_push(g->arena, &g->quants, fresh);
    return fresh;
}

const nb_quant *nb_quant_intern(nb_graph *g, const nb_quant *q, const char *hint, nb_diags *diags) {
    nb_quant n = normalised(q);
    const char *why = problem(g, &n);
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
        nb_name_free(nb_map_get_str(&g->interner->codes, q->name, strlen(q->name)));
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
