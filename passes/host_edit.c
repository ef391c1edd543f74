/* Editing the graph through the host table (nb_pass.h). */
#include "passes/host.h"

#include "ir/build.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <string.h>

static const nb_dim *parse_dim(nb_pass_ctx *ctx, const char *text) {
    return nb_parse_dim(ctx->graph, text, strlen(text), nb_diags_of(ctx));
}

static bool set_attr(nb_pass_ctx *ctx, nb_builder *b, nb_op_kind kind, const nb_attr_arg *arg) {
    const nb_op_info *info = &nb_ops[kind];
    int i = 0;
    while (i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END &&
           strcmp(info->attrs[i].name, arg->name) != 0)
        i++;
    nb_attr_kind attr = i < NB_MAX_ATTRS ? info->attrs[i].kind : NB_ATTR_END;
    const nb_dim **dims;
    const nb_quant *quant;
    nb_elem elem;
    switch (attr) {
    case NB_ATTR_INT:
        nb_set_int(b, arg->name, arg->i);
        return true;
    case NB_ATTR_FLOAT:
        nb_set_float(b, arg->name, (float)arg->f);
        return true;
    case NB_ATTR_BOOL:
        nb_set_bool(b, arg->name, arg->i != 0);
        return true;
    case NB_ATTR_INTS:
        if (arg->count && !arg->ints) return false;
        nb_set_ints(b, arg->name, arg->count, arg->ints);
        return true;
    case NB_ATTR_DIMS:
        dims = nb_alloc_array(nb_state_of(ctx)->scratch, arg->count + 1, sizeof *dims);
        for (size_t k = 0; k < arg->count; k++) {
            dims[k] = arg->dims && arg->dims[k] ? parse_dim(ctx, arg->dims[k]) : NULL;
            if (!dims[k]) return false;
        }
        nb_set_dims(b, arg->name, arg->count, dims);
        return true;
    case NB_ATTR_ELEM:
        elem = arg->s ? nb_elem_from_text(arg->s, strlen(arg->s)) : NB_ELEM_COUNT;
        if (elem == NB_ELEM_COUNT) return false;
        nb_set_elem(b, arg->name, elem);
        return true;
    case NB_ATTR_QUANT:
        quant = nb_quant_by_name(ctx->graph, arg->s);
        if (quant) nb_set_quant(b, arg->name, quant);
        return quant != NULL;
    case NB_ATTR_STR:
        if (arg->s) nb_set_str(b, arg->name, arg->s);
        return arg->s != NULL;
    case NB_ATTR_END:
        break;
    }
    return false;
}

nb_value *nb_host_build(nb_pass_ctx *ctx, nb_op *before, const char *op, nb_value *const *operands,
                        size_t n_operands, const nb_attr_arg *attrs, size_t n_attrs) {
    return nb_build_op(ctx, "build", before, op, operands, n_operands, attrs, n_attrs, NULL, 0);
}

nb_value *nb_build_op(nb_pass_ctx *ctx, const char *call, nb_op *before, const char *op,
                      nb_value *const *operands, size_t n_operands, const nb_attr_arg *attrs,
                      size_t n_attrs, nb_region *const *bodies, size_t n_bodies) {
    nb_op_kind kind = op ? nb_op_from_name(op, strlen(op)) : NB_OP_COUNT;
    if (kind == NB_OP_COUNT || nb_ops[kind].traits & NB_TRAIT_TERMINATOR || !before ||
        !nb_is_in_graph(before)) {
        nb_misuse(ctx, call,
                  "expected an op of the graph to place before and the name of an op other than "
                  "return, found '%s'",
                  op ? op : "NULL");
        return NULL;
    }
    if (kind == NB_OP_call) {
        nb_misuse(ctx, call, "operations of plug-ins are made by host->call");
        return NULL;
    }
    if ((n_operands && !operands) || (n_attrs && !attrs)) {
        nb_misuse(ctx, call, "expected %zu operands and %zu attributes of '%s', found NULL",
                  n_operands, n_attrs, op);
        return NULL;
    }
    /* The first op on codes takes the graph to the stage in which it is legal. */
    while (!nb_legal_in(kind, ctx->graph->stage) && ctx->graph->stage < NB_STAGE_FUSED)
        ctx->graph->stage++;
    const nb_loc *loc = nb_state_of(ctx)->rewriting;
    nb_builder b = nb_pass_builder(ctx, before, loc ? loc : before->loc);
    nb_begin(&b, kind);
    for (size_t i = 0; i < n_operands; i++) nb_arg(&b, operands[i]);
    for (size_t i = 0; i < n_attrs; i++) {
        if (attrs[i].name && !attrs[i].reserved && set_attr(ctx, &b, kind, &attrs[i])) continue;
        nb_misuse(ctx, call, "attribute '%s' of '%s' is unknown or its value does not fit",
                  attrs[i].name ? attrs[i].name : "NULL", op);
        return NULL;
    }
    for (size_t i = 0; i < n_bodies; i++) nb_set_region(&b, bodies[i]);
    size_t errors = nb_diags_of(ctx)->errors;
    nb_value *v = nb_end(&b);
    if (!v && nb_diags_of(ctx)->errors == errors)
        nb_misuse(ctx, call, "an operand that '%s' requires is NULL", op);
    if (!v) nb_state_of(ctx)->failed = true;
    return v;
}

int nb_host_set_operand(nb_pass_ctx *ctx, nb_op *op, size_t i, nb_value *value) {
    if (!op || i >= op->n_operands || !nb_is_in_graph(op)) {
        NB_MISUSE(ctx, "no operand %zu of an op of the graph", i);
        return 0;
    }
    if (!value || !nb_in(op, i) || value->type != nb_in(op, i)->type) {
        NB_MISUSE(ctx, "operand %zu of '%s' needs a value of the same type", i, nb_info(op)->name);
        return 0;
    }
    nb_set_operand(&op->operands[i], value);
    return 1;
}

int nb_host_replace_uses(nb_pass_ctx *ctx, nb_value *from, nb_value *to) {
    if (!from || !to || from->type != to->type) {
        NB_MISUSE(ctx, "both values must have the same type");
        return 0;
    }
    nb_replace_uses(from, to);
    return 1;
}

int nb_host_remove_op(nb_pass_ctx *ctx, nb_op *op) {
    if (!op || nb_has_trait(op, NB_TRAIT_TERMINATOR) || !nb_is_in_graph(op)) {
        NB_MISUSE(ctx, "expected an op of the graph other than return");
        return 0;
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (!op->results[i]->uses) continue;
        NB_MISUSE(ctx, "result '%s' is still used", op->results[i]->name);
        return 0;
    }
    nb_op_remove(op);
    return 1;
}

size_t nb_host_sweep(nb_pass_ctx *ctx) { return nb_graph_sweep(ctx->graph); }

int nb_host_set_name(nb_pass_ctx *ctx, nb_value *value, const char *name) {
    if (!value || !name || !*name) {
        NB_MISUSE(ctx, "expected a value and a name");
        return 0;
    }
    nb_set_name(ctx->graph, value, name);
    return 1;
}

int nb_host_move_op(nb_pass_ctx *ctx, nb_op *op, nb_op *before) {
    if (!op || !before || !nb_is_in_graph(op) || !nb_is_in_graph(before) ||
        op->parent != before->parent || nb_has_trait(op, NB_TRAIT_TERMINATOR)) {
        NB_MISUSE(ctx, "expected an op other than return, and another of the same body");
        return 0;
    }
    nb_op_move_before(op, before);
    return 1;
}
