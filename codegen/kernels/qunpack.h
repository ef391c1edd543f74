/* Weights of a block of inputs, unpacked once for all tiles of rows (qunpack.c). Groups follow each
 * other, panels lie between each other:
 *
 *   of centered ones: start of the sums, i32 [panels][16]; scales, f32 [panels][16]
 *   64 bytes [units][parts of a unit][panels]
 *
 * Centered weights are codes less their zero points, so that a sum needs no correction that differs
 * from row to row. Where bytes are multiplied, that makes the weights the signed ones and the
 * activations the unsigned ones: 128 too large, which the start of the sums takes off for all rows.
 * Of activations of 16 bits it is that of the high plane; once it is multiplied by 256, the low one
 * needs none. */
#ifndef NB_KERNELS_QUNPACK_H
#define NB_KERNELS_QUNPACK_H

#include "codegen/kernels/qproduct.h"

#define NB_QUNPACKED_HEAD 128 /* bytes for each panel, of centered ones */

/* Bytes of a group of so many units. */
int64_t nb_qunpacked_bytes(const nb_qproduct *p, int panels, int64_t units);
/* Unpacks `units` units from `from` on. `group`: where the scales and zero points of the group lie,
 * which has `length` inputs; both of the first panel. */
void nb_qunpack(const nb_qproduct *p, int panels, cg_val from, cg_val units, cg_val group,
                int64_t length, cg_val to);

#endif
