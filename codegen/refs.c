/* Lists an op's memory, and makes the key under which ops share a kernel. */
#include "codegen/refs.h"

const nb_value *nb_root_of(const nb_value *v) {
    while (v->def && nb_has_trait(v->def, NB_TRAIT_VIEW)) v = nb_in(v->def, 0);
    return v;
}

bool nb_is_immediate(const nb_value *v) {
    int64_t count;
    const nb_value *root = nb_root_of(v);
    return nb_is_const(root) && !root->type->quant && nb_elems[root->type->elem].bits >= 8 &&
           nb_type_static_count(root->type, &count) && count == 1;
}

bool nb_emits_nothing(const nb_op *op) {
    return nb_has_trait(op, NB_TRAIT_VIEW | NB_TRAIT_TERMINATOR) ||
           (op->n_results == 1 && nb_in_registers(op->results[0]));
}

static void add(nb_arena *arena, nb_refs *refs, nb_value *of, bool result, uint32_t index,
                const nb_layout *layout) {
    const nb_value *v = result ? of : nb_chain_source(of);
    const nb_value *root = nb_root_of(v);
    bool constant = nb_is_const(root);
    nb_ref r = {.result = result, .index = index, .value = v};
    if (!nb_is_immediate(v)) {
        if (constant) {
            r.value = root;
            r.layout = layout ? layout : &nb_layout_plain;
        }
        nb_vec_push(arena, refs, r);
    }
    const nb_quant *q = v->type->quant;
    if (!q || (constant && r.layout && r.layout->holds_scales)) return;
    const nb_value *parts[] = {
        [NB_REF_SCALES] = q->scales, [NB_REF_ZEROS] = q->zeros, [NB_REF_MINIMA] = q->minima};
    for (nb_ref_part part = NB_REF_SCALES; part <= NB_REF_MINIMA; part++) {
        if (!parts[part]) continue;
        r.part = part;
        r.value = parts[part];
        r.layout = r.value->type->quant ? &nb_layout_floats : &nb_layout_plain;
        nb_vec_push(arena, refs, r);
    }
}

nb_refs nb_refs_of(nb_arena *arena, const nb_op *op, const cg_cpu *cpu) {
    nb_refs refs = {.count = 0};
    if (nb_emits_nothing(op) || op->n_regions) return refs; /* the ops inside have their own */
    const nb_lowering *lowering = nb_lowering_of(op->kind);
    const nb_chain chain = nb_chain_of(arena, op);
    for (uint32_t i = 0; i < chain.inputs.count; i++) {
        if (!chain.inputs.items[i]) continue;
        const nb_layout *layout = lowering->layout ? lowering->layout(op, i, cpu) : NULL;
        add(arena, &refs, chain.inputs.items[i], false, i, layout);
    }
    for (uint32_t i = 0; i < op->n_results; i++) add(arena, &refs, op->results[i], true, i, NULL);
    return refs;
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* How kernels find a constant of scales or minima: codes as what they stand for. */
static const char *numbers_key(const nb_value *v) {
    return !v ? "-" : v->type->quant ? "codes" : nb_elems[v->type->elem].text;
}

const char *nb_quant_key(nb_arena *arena, const nb_quant *q) {
    if (!q) return "-";
    bool inline_scale =
        (q->granularity == NB_PER_TENSOR && !q->scales) || nb_quant_has_small_scales(q);
    return nb_format(arena, "q%d.%d.%d.%d.%lld.%a.%lld.%s.%d.%a.%s.%lld", (int)q->storage,
                     q->narrow, (int)q->granularity, q->axis, (long long)q->group,
                     inline_scale ? (double)q->scale : 0, (long long)(q->zeros ? 0 : q->zero),
                     numbers_key(q->scales), q->zeros != NULL, (double)q->minimum,
                     numbers_key(q->minima), (long long)q->amax_code);
}

static const char *attr_key(nb_arena *arena, nb_attr_kind kind, const nb_attr *a) {
    const char *text = "";
    switch (kind) {
    case NB_ATTR_INT:
        return nb_format(arena, "%lld", (long long)a->i);
    case NB_ATTR_FLOAT:
        return nb_format(arena, "%a", (double)a->f);
    case NB_ATTR_BOOL:
        return a->b ? "1" : "0";
    case NB_ATTR_ELEM:
        return nb_elems[a->elem].text;
    case NB_ATTR_QUANT:
        return nb_quant_key(arena, a->quant);
    case NB_ATTR_STR:
        return a->str ? a->str : "";
    case NB_ATTR_INTS:
        for (size_t i = 0; i < a->ints.count; i++)
            text = nb_format(arena, "%s,%lld", text, (long long)a->ints.items[i]);
        return text;
    case NB_ATTR_DIMS:
        for (size_t i = 0; i < a->dims.count; i++)
            text = nb_format(arena, "%s,d%u", text, a->dims.items[i]->id);
        return text;
    case NB_ATTR_END:
        break;
    }
    return text;
}

static const char *attrs_key(nb_arena *arena, const nb_op *op) {
    const nb_op_info *info = nb_info(op);
    const char *text = "";
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++)
        text =
            nb_format(arena, "%s {%s}", text, attr_key(arena, info->attrs[i].kind, &op->attrs[i]));
    return text;
}

/* States are told apart, but not named: those of all layers share kernels. */
static uint32_t first_use_of_state(const nb_chain *chain, const nb_op *op, const nb_value *state) {
    for (uint32_t i = 0; i < chain->inputs.count; i++) {
        const nb_value *v = chain->inputs.items[i];
        if (v && v->storage.kind == NB_STORE_STATE && v->storage.index == state->storage.index)
            return i;
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        const nb_storage s = op->results[i]->storage;
        if (s.kind == NB_STORE_STATE && s.index == state->storage.index)
            return (uint32_t)chain->inputs.count + i;
    }
    return 0;
}

static const char *value_key(nb_arena *arena, const nb_chain *chain, const nb_op *op,
                             const nb_value *v, const nb_graph *g, const nb_layout *layout) {
    if (!v) return "absent";
    if (nb_is_window(v))
        return nb_format(arena, "window%s of %s", attrs_key(arena, v->def),
                         value_key(arena, chain, op, nb_in(v->def, 0), g, layout));
    const nb_type *t = v->type;
    const char *text =
        nb_format(arena, "%s %s", nb_elems[t->elem].text, nb_quant_key(arena, t->quant));
    for (int i = 0; i < t->rank; i++) text = nb_format(arena, "%s,d%u", text, t->dims[i]->id);
    const nb_value *root = nb_root_of(v);
    if (nb_is_immediate(v)) {
        const unsigned char *bytes = (const unsigned char *)root->blob->data;
        text = nb_format(arena, "%s =", text);
        for (int64_t i = 0; i < root->blob->size; i++)
            text = nb_format(arena, "%s%02x", text, bytes[i]);
    } else if (nb_is_const(root)) {
        text = nb_format(arena, "%s const %s", text, layout ? layout->name : nb_layout_plain.name);
    } else if (v->storage.kind == NB_STORE_STATE) {
        text = nb_format(arena, "%s state%u.%d", text, first_use_of_state(chain, op, v),
                         g->states.items[v->storage.index].axis);
    } else {
        text = nb_format(arena, "%s store%d", text, (int)v->storage.kind);
    }
    return text;
}

/* What each op of a chain computes of what: of inputs, and of ops before it. */
static const char *chain_key(nb_arena *arena, const nb_chain *chain, const char *text) {
    for (size_t i = 0; i < chain->ops.count; i++) {
        const nb_op *op = chain->ops.items[i];
        text = nb_format(arena, "%s [%s %s%s", text, nb_info(op)->name,
                         nb_elems[nb_out(op)->type->elem].text, attrs_key(arena, op));
        for (uint32_t k = 0; k < op->n_operands; k++)
            text = nb_format(arena, "%s %zu", text, nb_chain_place(chain, nb_in(op, k)));
        text = nb_format(arena, "%s]", text);
    }
    return text;
}

const char *nb_kernel_key(nb_arena *arena, const nb_op *op, const nb_graph *g, const cg_cpu *cpu) {
    const nb_lowering *lowering = nb_lowering_of(op->kind);
    const char *text = nb_format(arena, "%s%s", nb_info(op)->name, attrs_key(arena, op));
    const nb_chain chain = nb_chain_of(arena, op);
    if (nb_can_chain(op) || chain.ops.count > 1) text = chain_key(arena, &chain, text);
    for (uint32_t i = 0; i < chain.inputs.count; i++) {
        const nb_value *v = chain.inputs.items[i];
        const nb_layout *layout = v && lowering->layout ? lowering->layout(op, i, cpu) : NULL;
        text = nb_format(arena, "%s (%s)", text, value_key(arena, &chain, op, v, g, layout));
    }
    for (uint32_t i = 0; i < op->n_results; i++)
        text = nb_format(arena, "%s -> (%s)", text,
                         value_key(arena, &chain, op, op->results[i], g, NULL));
    if (lowering->key) text = nb_format(arena, "%s %s", text, lowering->key(arena, op));
    return text;
}
