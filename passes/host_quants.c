/* Quantizations and constants of codes through the host table (nb_pass.h). */
#include "passes/host.h"

#include <string.h>

const nb_quant *nb_quant_by_name(const nb_graph *g, const char *name) {
    for (size_t k = 0; name && k < g->quants.count; k++)
        if (strcmp(g->quants.items[k]->name, name) == 0) return g->quants.items[k];
    return NULL;
}

static bool is_dynamic(const nb_quant *q) {
    return q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
}

static nb_granularity granularity_of(const nb_quant_arg *a) {
    if (a->amax) return a->group ? NB_PER_BLOCK : NB_PER_TOKEN;
    if (a->axis < 0) return NB_PER_TENSOR;
    return a->group ? NB_PER_GROUP : NB_PER_AXIS;
}

/* Constants are told apart from other values by nb_quant_intern, which takes none of those. */
static nb_value *constant(const nb_value *v) { return (nb_value *)(uintptr_t)v; }

const char *nb_host_make_quant(nb_pass_ctx *ctx, const nb_quant_arg *quant) {
    nb_quant_arg a = {0};
    if (quant && quant->size >= NB_SIZE_TO(nb_quant_arg, amax))
        nb_take_sized(&a, sizeof a, quant, quant->size);
    const nb_elem storage =
        a.name && a.storage ? nb_elem_from_text(a.storage, strlen(a.storage)) : NB_ELEM_COUNT;
    if (storage == NB_ELEM_COUNT || a.axis < -1 || a.axis >= NB_MAX_RANK ||
        (a.axis < 0 && a.group && !a.amax) || (a.axis >= 0 && a.amax)) {
        NB_MISUSE(ctx,
                  "expected size, name, an element of codes (\"i8\"), an axis from -1 to %d, with "
                  "amax -1, and groups along one or with amax",
                  NB_MAX_RANK - 1);
        return NULL;
    }
    const bool multiplies = a.scales && a.scales->type->elem != NB_F32;
    const nb_quant q = {.storage = storage,
                        .narrow = a.narrow != 0,
                        .granularity = granularity_of(&a),
                        .axis = a.axis < 0 ? 0 : (int)a.axis,
                        .group = a.group,
                        .scale = multiplies && a.scale == 0 ? 1 : (float)a.scale,
                        .minimum = (float)a.minimum,
                        .zero = a.zero,
                        .scales = constant(a.scales),
                        .zeros = constant(a.zeros),
                        .minima = constant(a.minima),
                        .amax_code = a.amax};
    const nb_quant *made = nb_quant_intern(ctx->graph, &q, a.name, nb_diags_of(ctx));
    if (!made) nb_state_of(ctx)->failed = true;
    return made ? made->name : NULL;
}

int nb_host_quant(const nb_graph *graph, const char *name, nb_quant_arg *out) {
    const nb_quant *q = graph ? nb_quant_by_name(graph, name) : NULL;
    if (!q || !out) return 0;
    const bool along = q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP;
    const nb_quant_arg a = {.name = q->name,
                            .storage = nb_elems[q->storage].text,
                            .axis = along ? q->axis : -1,
                            .group = q->group,
                            .scales = q->scales,
                            .zeros = q->zeros,
                            .narrow = q->narrow,
                            .scale = (double)q->scale,
                            .zero = q->zero,
                            .minima = q->minima,
                            .minimum = (double)q->minimum,
                            .amax = is_dynamic(q) ? q->amax_code : 0};
    nb_give_sized(out, &a, sizeof a);
    return 1;
}

nb_value *nb_host_make_codes(nb_pass_ctx *ctx, const char *name, const nb_array *codes,
                             const char *quant) {
    const nb_quant *q = nb_quant_by_name(ctx->graph, quant);
    if (!q || is_dynamic(q)) {
        NB_MISUSE(ctx, "expected a quantization whose scales are constants, found '%s'",
                  quant ? quant : "NULL");
        return NULL;
    }
    return nb_const_of_array(ctx, "make_codes", name, codes, q);
}
