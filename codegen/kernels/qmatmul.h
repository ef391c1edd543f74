/* The shape of packed weights of a qmatmul, shared by packing (qpack.c) and the kernel (qmatmul.c).
 *
 * Columns come in panels of 16. Inputs come in groups that share a scale, each padded with zeros to
 * whole units (planes.h). A panel begins at a multiple of 64 bytes and has its groups one after the
 * other, so that all of it is one stream of memory. A group is a multiple of 8 bytes:
 *
 *   its units; 16 scales (f16 where that loses nothing, else f32); 16 zero points, if any; where
 *   the activations have a zero point, 16 sums (i32) of the group's weights, less theirs
 *
 * Zero points take a byte each, or half of one where codes have at most 4 bits: those of the first
 * 8 columns are in the low nibbles.
 *
 * Codes are unsigned: signed ones are stored with `offset` added (half their range), which the
 * kernel takes off again through the sum of the activations. */
#ifndef NB_KERNELS_QMATMUL_H
#define NB_KERNELS_QMATMUL_H

#include "codegen/kernels/planes.h"
#include "codegen/pack.h"

typedef struct nb_qshape {
    int64_t K, N, panels;
    int64_t group, groups; /* inputs in a group (the last may have fewer) */
    int64_t unit;          /* inputs in a unit */
    nb_elem storage;
    int bits;       /* 2 to 8 */
    int64_t offset; /* stored = code + offset */
    bool zeros;     /* zero points differ between columns or groups */
    int64_t zero;   /* the one zero point otherwise */
    bool half;      /* scales are f16 */
    bool sums;      /* with them stands the sum of each column, for activations with a zero point */
} nb_qshape;

/* As they are for activations with a zero point, or for others. */
nb_qshape nb_qshape_of(const nb_value *weight, bool sums);
/* Inputs of group g, and the same padded. */
int64_t nb_qshape_length(const nb_qshape *s, int64_t g);
int64_t nb_qshape_padded(const nb_qshape *s, int64_t g);
/* Bytes of the units of that many padded inputs. */
static inline int64_t nb_qshape_code_bytes(const nb_qshape *s, int64_t padded) {
    return padded * CG_LANES * s->bits / 8;
}
/* Where in a group of `length` inputs its scales and zero points begin, and where it ends. */
int64_t nb_qshape_scales_at(const nb_qshape *s, int64_t length);
int64_t nb_qshape_zeros_at(const nb_qshape *s, int64_t length);
int64_t nb_qshape_sums_at(const nb_qshape *s, int64_t length);
int64_t nb_qshape_group_bytes(const nb_qshape *s, int64_t length);
static inline bool nb_qshape_small_zeros(const nb_qshape *s) { return s->bits <= 4; }
int64_t nb_qshape_panel_bytes(const nb_qshape *s);
/* Inputs of all groups, padded: the length of a prepared row of activations. */
int64_t nb_qshape_row(const nb_qshape *s);

extern const nb_layout nb_qpanels, nb_qpanels_sums;

#endif
