/* What conv, depthwise and the patches of poolings share: the loops over a kernel's positions, and
 * where rows of outputs lie. */
#ifndef NB_KERNELS_CONV_H
#define NB_KERNELS_CONV_H

#include "codegen/lower.h"

/* How far `index` along an axis that the kernel slides along is from 0 in x, in elements: an index
 * of outputs moves by "strides", one of the kernel by "dilations". */
cg_val nb_conv_offset(cg *g, const nb_op *op, const cg_buf *x, int axis, cg_val index,
                      const char *step);

/* One product: `x` is the input's offset from that of the first product, in elements, `w` the
 * number of the weight in an output's kernel. */
typedef void nb_conv_step_fn(void *user, cg_val x, cg_val w);
/* Emits all products of an output, in order. */
void nb_conv_factors(nb_lower *l, nb_conv_step_fn *step, void *user);
/* Those of one channel; `x` and `w` are those of the first. */
void nb_conv_positions(nb_lower *l, cg_val x, cg_val w, nb_conv_step_fn *step, void *user);

/* Row number `row` of outputs y[B,D...,..]: batch and all axes that the kernel slides along but the
 * last. *from, *to: the offsets of its first input and output, in elements. */
void nb_conv_row(cg *g, const nb_op *op, const cg_buf *x, const cg_buf *y, cg_val row, cg_val *from,
                 cg_val *to);

/* How many they are (i64). */
cg_val nb_conv_work(nb_lower *l);

/* 16 elements from `at` on, `stride` apart, or `n` of them. */
cg_val nb_conv_load(cg *g, const cg_buf *x, cg_val at, cg_val stride, cg_val n);

/* pool.c: a reduction of patches that stay in registers. */
bool nb_is_pool(const nb_lower *l);
cg_val nb_pool_items(nb_lower *l);
cg_val nb_pool_work(nb_lower *l);
void nb_pool_body(nb_lower *l, cg_val begin, cg_val end);

/* qpatches.c: patches of elements of 8 bits. */
cg_val nb_byte_patches_items(nb_lower *l);
cg_val nb_byte_patches_work(nb_lower *l);
void nb_byte_patches_body(nb_lower *l, cg_val begin, cg_val end);

/* conv_panels.c: 16 output channels at a time, for ops that have their weights in panels. */
extern const struct nb_layout nb_conv_panels;
bool nb_conv_has_panels(const nb_op *op);
cg_val nb_conv_panel_items(nb_lower *l);
cg_val nb_conv_panel_work(nb_lower *l);
void nb_conv_panel_body(nb_lower *l, cg_val begin, cg_val end);

#endif
