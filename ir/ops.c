/* The op table, built from ops.def. */
#include "ir/ir.h"

#include <stdlib.h>
#include <string.h>

#define NONE \
    { 0 }
#define IN(name) \
    { #name, NB_OPERAND_IN }
#define OPT(name) \
    { #name, NB_OPERAND_OPT }
#define VAR(name) \
    { #name, NB_OPERAND_VAR }
#define A_INT(name) \
    { #name, NB_ATTR_INT }
#define A_FLOAT(name) \
    { #name, NB_ATTR_FLOAT }
#define A_BOOL(name) \
    { #name, NB_ATTR_BOOL }
#define A_INTS(name) \
    { #name, NB_ATTR_INTS }
#define A_DIMS(name) \
    { #name, NB_ATTR_DIMS }
#define A_ELEM(name) \
    { #name, NB_ATTR_ELEM }
#define A_QUANT(name) \
    { #name, NB_ATTR_QUANT }
#define A_STR(name) \
    { #name, NB_ATTR_STR }
#define PURE        NB_TRAIT_PURE
#define COMMUTES    NB_TRAIT_COMMUTES
#define ELEMENTWISE NB_TRAIT_ELEMENTWISE
#define VIEW        NB_TRAIT_VIEW
#define TERMINATOR  NB_TRAIT_TERMINATOR
#define Q_IN        NB_TRAIT_Q_IN
#define UNWRAP(...) __VA_ARGS__
#define ANY         NB_RESULTS_ANY

const nb_op_info nb_ops[NB_OP_COUNT] = {
#define OP(name_, family_, rule_, operands_, attrs_, results_, traits_, summary_) \
    [NB_OP_##name_] = {.name = #name_,                                            \
                       .family = #family_,                                        \
                       .summary = summary_,                                       \
                       .operands = {UNWRAP operands_},                            \
                       .attrs = {UNWRAP attrs_},                                  \
                       .results = results_,                                       \
                       .regions = NB_OP_##name_ == NB_OP_if     ? 2               \
                                  : NB_OP_##name_ == NB_OP_loop ? 1               \
                                                                : 0,              \
                       .traits = traits_},
#include "ir/ops.def"
#undef OP
};

/* Each row fits the table: an end behind the operands, at most so many attributes and results. */
#define COUNT_OF(member, ...) \
    (sizeof((__typeof__(nb_ops[0].member[0])[]){__VA_ARGS__}) / sizeof nb_ops[0].member[0])
#define OP(name_, family_, rule_, operands_, attrs_, results_, traits_, summary_) \
    _Static_assert(COUNT_OF(operands, UNWRAP operands_) < NB_MAX_OPERAND_SPECS,   \
                   #name_ ": NB_MAX_OPERAND_SPECS is too small");                 \
    _Static_assert(COUNT_OF(attrs, UNWRAP attrs_) <= NB_MAX_ATTRS,                \
                   #name_ ": NB_MAX_ATTRS is too small");                         \
    _Static_assert((results_) <= NB_MAX_RESULTS, #name_ ": NB_MAX_RESULTS is too small");
#include "ir/ops.def"
#undef OP

nb_op_kind nb_op_from_name(const char *name, size_t length) {
    for (int k = 0; k < NB_OP_COUNT; k++) {
        if (strlen(nb_ops[k].name) == length && memcmp(nb_ops[k].name, name, length) == 0)
            return (nb_op_kind)k;
    }
    return NB_OP_COUNT;
}

const nb_attr *nb_attr_of(const nb_op *op, const char *name) {
    const nb_op_info *info = nb_info(op);
    for (int i = 0; i < NB_MAX_ATTRS && info->attrs[i].kind != NB_ATTR_END; i++) {
        if (strcmp(info->attrs[i].name, name) == 0) return &op->attrs[i];
    }
    abort(); /* asking for what the table does not have is a bug of the caller */
}

int64_t nb_attr_int(const nb_op *op, const char *name) { return nb_attr_of(op, name)->i; }
float nb_attr_float(const nb_op *op, const char *name) { return nb_attr_of(op, name)->f; }
bool nb_attr_bool(const nb_op *op, const char *name) { return nb_attr_of(op, name)->b; }
