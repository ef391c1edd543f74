/* Making ops (build.h): operands and attributes are collected, then checked and typed at once. */
#include "ir/build.h"
#include "ir/interner.h"

#include <stdlib.h>
#include <string.h>

void nb_begin(nb_builder *b, nb_op_kind kind) {
    b->op = nb_op_create(b->graph, kind, 0);
    b->op->loc = b->loc;
    b->n_args = 0;
    b->poisoned = false;
}

static nb_operand_mode mode_of(const nb_op_info *info, size_t i) {
    for (size_t k = 0; k < NB_MAX_OPERAND_SPECS; k++) {
        if (info->operands[k].mode == NB_OPERAND_END) return NB_OPERAND_END;
        if (info->operands[k].mode == NB_OPERAND_VAR || k == i) return info->operands[k].mode;
    }
    return NB_OPERAND_END;
}

void nb_arg(nb_builder *b, nb_value *v) {
    nb_op *op = b->op;
    if (!v && mode_of(nb_info(op), b->n_args) != NB_OPERAND_OPT) b->poisoned = true;
    /* Slots double in place of a list that is filled once; uses are linked at the end. */
    if ((op->n_operands & (op->n_operands + 1)) == 0) {
        nb_use *grown = NB_NEW_ARRAY(b->graph->arena, nb_use, 2 * ((size_t)op->n_operands + 1));
        if (op->n_operands) memcpy(grown, op->operands, op->n_operands * sizeof *grown);
        op->operands = grown;
    }
    op->operands[op->n_operands++].value = v;
    b->n_args++;
}

static nb_attr *attr_slot(nb_builder *b, const char *name, nb_attr_kind kind) {
    const nb_op_info *info = nb_info(b->op);
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        if (strcmp(info->attrs[i].name, name) != 0 || info->attrs[i].kind != kind) continue;
        b->op->attrs[i].set = true;
        return &b->op->attrs[i];
    }
    abort(); /* not in ops.def: a bug of the caller */
}

void nb_set_int(nb_builder *b, const char *name, int64_t value) {
    attr_slot(b, name, NB_ATTR_INT)->i = value;
}
void nb_set_float(nb_builder *b, const char *name, float value) {
    attr_slot(b, name, NB_ATTR_FLOAT)->f = value;
}
void nb_set_elem(nb_builder *b, const char *name, nb_elem value) {
    attr_slot(b, name, NB_ATTR_ELEM)->elem = value;
}
void nb_set_quant(nb_builder *b, const char *name, const nb_quant *value) {
    attr_slot(b, name, NB_ATTR_QUANT)->quant = value;
}
void nb_set_str(nb_builder *b, const char *name, const char *value) {
    attr_slot(b, name, NB_ATTR_STR)->str = nb_strdup(b->graph->arena, value);
}

void nb_set_bool(nb_builder *b, const char *name, bool value) {
    nb_attr *a = attr_slot(b, name, NB_ATTR_BOOL);
    a->b = value;
    a->set = value; /* false is the same as not set, and there is one form of each op */
}

void nb_set_ints(nb_builder *b, const char *name, size_t n, const int64_t *values) {
    nb_attr *a = attr_slot(b, name, NB_ATTR_INTS);
    int64_t *copy = NB_NEW_ARRAY(b->graph->arena, int64_t, n + 1);
    if (n) memcpy(copy, values, n * sizeof *copy);
    a->ints.items = copy;
    a->ints.count = n;
}

void nb_set_dims(nb_builder *b, const char *name, size_t n, const nb_dim *const *values) {
    nb_attr *a = attr_slot(b, name, NB_ATTR_DIMS);
    const nb_dim **copy = (const nb_dim **)nb_alloc_array(b->graph->arena, n + 1, sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        copy[i] = values[i];
        if (!values[i]) b->poisoned = true;
    }
    a->dims.items = copy;
    a->dims.count = n;
}

void nb_set_region(nb_builder *b, nb_region *region) {
    nb_op *op = b->op;
    nb_region **grown =
        (nb_region **)nb_alloc_array(b->graph->arena, (size_t)op->n_regions + 1, sizeof *grown);
    if (op->n_regions) memcpy(grown, op->regions, op->n_regions * sizeof *grown);
    op->regions = grown;
    op->regions[op->n_regions++] = region;
    region->parent = op;
    nb_region_close(region);
}

/* Pads the optional operands that were not given, then links every slot as a use. */
static bool link_operands(nb_builder *b) {
    nb_op *op = b->op;
    const nb_op_info *info = nb_info(op);
    while (mode_of(info, op->n_operands) == NB_OPERAND_OPT) nb_arg(b, NULL);
    bool fits = op->n_operands == 0 || mode_of(info, op->n_operands - 1) != NB_OPERAND_END;
    if (mode_of(info, op->n_operands) == NB_OPERAND_IN) fits = false;
    nb_use *slots = op->operands;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        nb_value *v = slots[i].value;
        slots[i] = (nb_use){.user = op, .index = i};
        nb_set_operand(&slots[i], v);
    }
    return fits;
}

static void unlink_operands(nb_op *op) {
    for (uint32_t i = 0; i < op->n_operands; i++) nb_set_operand(&op->operands[i], NULL);
}

nb_value *nb_end(nb_builder *b) {
    nb_op *op = b->op;
    if (b->poisoned) return NULL;
    op->parent = b->before ? b->before->parent : b->region ? b->region : &b->graph->body;
    if (!link_operands(b)) {
        nb_error(b->diags, NB_INTERNAL, (nb_where){.node = nb_loc_name(op->loc), .offset = -1},
                 "%s: wrong number of operands (%u)", nb_info(op)->name, op->n_operands);
        unlink_operands(op);
        return NULL;
    }
    const uint32_t n = nb_result_count(op);
    const nb_type *types[NB_MAX_RESULTS] = {NULL};
    if (nb_infer(b->graph, op, types, b->diags) != NB_OK) {
        unlink_operands(op);
        return NULL;
    }
    op->n_results = n;
    op->results = (nb_value **)nb_alloc_array(b->graph->arena, (size_t)n + 1, sizeof *op->results);
    for (uint32_t i = 0; i < n; i++) {
        op->results[i] = nb_value_create(b->graph, nb_info(op)->name, types[i], false);
        op->results[i]->def = op;
        op->results[i]->index = i;
    }
    nb_region *region = op->parent;
    nb_op *before = b->before;
    /* Appending to a region that has its terminator means: in front of it. */
    if (!before && region->last && nb_has_trait(region->last, NB_TRAIT_TERMINATOR))
        before = region->last;
    nb_op_insert(op, region, before);
    return n ? op->results[0] : NULL;
}

nb_value *nb_unary(nb_builder *b, nb_op_kind kind, nb_value *x) {
    nb_begin(b, kind);
    nb_arg(b, x);
    return nb_end(b);
}

nb_value *nb_binary(nb_builder *b, nb_op_kind kind, nb_value *x, nb_value *y) {
    nb_begin(b, kind);
    nb_arg(b, x);
    nb_arg(b, y);
    return nb_end(b);
}

nb_value *nb_reshape(nb_builder *b, nb_value *x, int rank, const nb_dim *const *dims) {
    nb_begin(b, NB_OP_reshape);
    nb_arg(b, x);
    nb_set_dims(b, "shape", (size_t)rank, dims);
    return nb_end(b);
}

nb_value *nb_transpose(nb_builder *b, nb_value *x, const int64_t *perm) {
    nb_begin(b, NB_OP_transpose);
    nb_arg(b, x);
    if (x) nb_set_ints(b, "perm", (size_t)x->type->rank, perm);
    return nb_end(b);
}

nb_value *nb_cast(nb_builder *b, nb_value *x, nb_elem to) {
    nb_begin(b, NB_OP_cast);
    nb_arg(b, x);
    nb_set_elem(b, "to", to);
    return nb_end(b);
}
