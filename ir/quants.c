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
    if (q->narrow && nb_elems[q->storage].class_ != NB_CLASS_INT)
        return "only signed codes can be narrow";
    if (needs_scales != (q->scales != NULL) && q->granularity != NB_PER_TENSOR)
        return needs_scales ? "scales are missing" : "scales are computed at run time";
    if (q->zeros && !q->scales) return "a constant of zero points needs a constant of scales";
    if (q->scales &&
        (!nb_is_const(q->scales) || q->scales->type->elem != NB_F32 || q->scales->type->quant))
        return "scales are not an f32 constant";
    if (q->zeros && (!nb_is_const(q->zeros) || q->zeros->type->elem != q->storage))
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
    if (q->axis < 0 || q->axis >= NB_MAX_RANK) return "the axis is out of range";
    return NULL;
}

static bool same(const nb_quant *a, const nb_quant *b) {
    return a->storage == b->storage && a->narrow == b->narrow && a->granularity == b->granularity &&
           a->axis == b->axis && a->group == b->group &&
           memcmp(&a->scale, &b->scale, sizeof a->scale) == 0 && a->zero == b->zero &&
           a->scales == b->scales && a->zeros == b->zeros && a->amax_code == b->amax_code;
}

static bool name_taken(const nb_graph *g, const char *name) {
    for (size_t i = 0; i < g->quants.count; i++) {
        if (strcmp(g->quants.items[i]->name, name) == 0) return true;
    }
    return false;
}

/* Members that a granularity does not use are 0, so that equal descriptors compare equal. */
static nb_quant normalised(const nb_quant *q) {
    nb_quant n = *q;
    bool dynamic = q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
    if (q->granularity != NB_PER_TENSOR || q->scales) n.scale = 0;
    if (!dynamic) n.amax_code = 0;
    if (q->granularity != NB_PER_AXIS && q->granularity != NB_PER_GROUP) n.axis = 0;
    if (q->zeros) n.zero = 0;
    return n;
}

const nb_quant *nb_quant_intern(nb_graph *g, const nb_quant *q, const char *hint, nb_diags *diags) {
    nb_quant n = normalised(q);
    const char *why = problem(&n);
    if (why) {
        nb_error(diags, NB_MALFORMED, NB_NOWHERE, "quantization '#%s': %s", hint, why);
        return NULL;
    }
    for (size_t i = 0; i < g->quants.count; i++) {
        if (same(g->quants.items[i], &n)) return g->quants.items[i];
    }
    const char *name = hint;
    for (int k = 1; name_taken(g, name); k++) name = nb_format(g->arena, "%s_%d", hint, k);
    nb_quant *fresh = NB_NEW(g->arena, nb_quant);
    *fresh = n;
    fresh->name = nb_strdup(g->arena, name);
    nb_vec_push(g->arena, &g->quants, fresh);
    return fresh;
}
