/* Attributes of a conv with their defaults; `axis` counts the axes that the kernel slides along. */
#ifndef NB_CONV_H
#define NB_CONV_H

#include "ir/ir.h"

static inline int64_t nb_conv_step(const nb_op *op, const char *name, int axis) {
    const nb_attr *a = nb_attr_of(op, name);
    return a->ints.count ? a->ints.items[axis] : 1;
}
static inline int64_t nb_conv_stride(const nb_op *op, int axis) {
    return nb_conv_step(op, "strides", axis);
}
static inline int64_t nb_conv_dilation(const nb_op *op, int axis) {
    return nb_conv_step(op, "dilations", axis);
}
static inline int64_t nb_conv_groups(const nb_op *op) {
    const nb_attr *a = nb_attr_of(op, "groups");
    return a->set ? a->i : 1;
}

#endif
