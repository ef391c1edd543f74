/* The innermost code of a qmatmul (qtile.c): some rows by some panels of 16 columns. It is a
 * function of its own, which all products of a model share whose numbers are alike, whatever their
 * sizes.
 *
 * What it adds to lies in memory, a state for each row and, within it, each panel:
 *
 *   f32 [16]          the result so far, a sum over groups; of exact sums i32, the sum
 *   i32 or f64 [16]   sum of the spans of a group, where groups have several (nb_qproduct.spans) */
#ifndef NB_KERNELS_QTILE_H
#define NB_KERNELS_QTILE_H

#include "codegen/kernels/qproduct.h"

#define NB_QTILE_ROWS 12 /* at most */
#define NB_QTILE_SUMS 28 /* rows by panels, at most */

/* Where it all lies, of the first row (or panel) and from the first group, or span, at hand on. */
typedef struct nb_qtile {
    cg_val states;
    cg_val codes;      /* prepared activations */
    cg_val sums;       /* of them (nb_qproduct_sum) */
    cg_val source;     /* weights: unpacked (of several rows), or as they lie in the panel */
    cg_val scales;     /* of groups; centered ones are with the weights */
    cg_val zeros;      /* their zero points */
    cg_val act_scales; /* of blocks of activations; NULL: rows are scaled in the end */
    cg_val count;      /* groups; of spans: units in this one */
    cg_val apart;      /* from panel to panel, in bytes; unpacked ones lie between each other */
} nb_qtile;

int64_t nb_qtile_state_bytes(const nb_qproduct *p);
/* The second part of a state, a vector. */
cg_type nb_qtile_total_type(const nb_qproduct *p);
/* Panels of a tile of several rows. */
int nb_qtile_panels(const nb_qproduct *p);
/* Rows whose integer sums by so many panels stay in registers, at most NB_QTILE_ROWS. */
int nb_qtile_most(const nb_qproduct *p);
/* Does a tile take weights as they are packed, or unpacked (qunpack.h)? */
bool nb_qtile_is_packed(const nb_qproduct *p);

/* Where groups are one span each: adds groups [0, count) of `length` inputs each to the results.
 * Else: adds one span to the totals; `length` is not used. */
void nb_qtile_run(const nb_qproduct *p, int rows, int panels, int64_t length, const nb_qtile *t);
/* result + scale(s) of the group * sum, 16 lanes of i32 or f64; of exact sums their bits. */
cg_val nb_qtile_add_group(cg *g, const nb_qproduct *p, cg_val result, cg_val sum, cg_val scales,
                          cg_val act_scale);
/* Scales of a group; its zero points, <16 x i32>. */
cg_val nb_qtile_scales(cg *g, const nb_qproduct *p, cg_val at);
cg_val nb_qtile_zeros(cg *g, const nb_qproduct *p, cg_val at);
/* What the activations' zero point takes off the sums of the group whose scales are at `at`: <16 x
 * i32>, to be added; NULL when they have none. */
cg_val nb_qtile_columns(cg *g, const nb_qproduct *p, cg_val at);

#endif
