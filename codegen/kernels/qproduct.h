/* What the two phases of a qmatmul share (qmatmul.c): prepared activations and how to find them.
 *
 * A prepared row has the codes in the form the CPU's dot product takes (dot.h), padded with zeros
 * as the weights' groups are. The integer sum of a group is made in spans short enough for 32
 * bits; of each span there is the sum of the activations, times what takes the weights' offset and
 * zero point off again. Centered weights need no such sums; where the dot product takes bytes, they
 * are the signed ones, and the activations are unsigned: 128 more, or of 16 bits 32768 more.
 *
 * Scratch memory: the codes, then on the next 64 bytes the sums, both in the order in which tiles
 * (rows.h) take them. Codes come in words of 4 bytes:
 *
 *   i32 [tile][word][plane][row of the tile]; i32 [tile][span][plane][row of the tile] */
#ifndef NB_KERNELS_QPRODUCT_H
#define NB_KERNELS_QPRODUCT_H

#include "codegen/kernels/dot.h"
#include "codegen/kernels/qmatmul.h"
#include "codegen/kernels/rows.h"
#include "codegen/lower.h"

typedef struct nb_qproduct {
    nb_lower *l;
    nb_qshape s;
    bool single; /* of one row */
    const nb_dot *dot;
    int parts;         /* of a unit */
    int planes;        /* of the codes: 1, or 2 (high, then low) */
    bool wide;         /* activations have 16 bits */
    bool centered;     /* unpacked weights are less their zero points (qunpack.h) */
    bool exact;        /* the result is the sums themselves, i32, of one group */
    int64_t offset;    /* what is taken off each of them (nb_quant_offset), of 8 bits */
    int64_t row_words; /* of a prepared row's plane */
    int64_t block;     /* inputs whose unpacked weights fit the first-level cache beside others */
    int64_t span;      /* inputs of a sum at most, whole units, not more than a block */
    int64_t spans;     /* of a whole group; sums of a row are numbered group * spans + span */
    int64_t row_spans;
    bool large; /* the sums of a span's planes fit 32 bits each, but not together */
    cg_val rows;
    nb_rows cut;        /* of them into tiles */
    cg_val codes, sums; /* of row 0; NULL without scratch */
} nb_qproduct;

/* As it is for one row, or for several. */
nb_qproduct nb_qproduct_of(nb_lower *l, bool single);
/* What the sums of the activations are multiplied with: zero point and offset where they are one
 * number, negative. */
int64_t nb_qproduct_factor(const nb_qproduct *p);

/* A row, and the tile it is in. */
typedef struct nb_qrow {
    cg_val row, first, rows;
} nb_qrow;

/* Addresses of a word of the row's codes, of the sum of a span; in plane 0: those of the others
 * follow 4 * rows bytes apart. */
cg_val nb_qproduct_word(const nb_qproduct *p, const nb_qrow *r, cg_val word);
cg_val nb_qproduct_sum(const nb_qproduct *p, const nb_qrow *r, cg_val span);

/* Calls body for each span of a group of `length` inputs: its number in the group, its inputs. */
void nb_each_span(const nb_qproduct *p, int64_t length,
                  void (*body)(void *user, cg_val span, int64_t length), void *user);

/* Phase 0: tiles [begin, end). */
void nb_qproduct_prepare(const nb_qproduct *p, cg_val begin, cg_val end);
/* Phase 1: panels [begin, end). */
void nb_qproduct_multiply(const nb_qproduct *p, cg_val begin, cg_val end);
/* Ends 16 columns of row `row` of a qmatmul or qdepthwise, those of panel `number`: v, f32 (i32 of
 * `sums`), times the activations' scale (NULL: it is in v), plus bias and residual, goes into
 * memory, as codes where the result is codes. `streams`, an i1: past the caches (NULL: not). */
void nb_qproduct_store(nb_lower *l, cg_val v, cg_val scale, cg_val row, cg_val number,
                       cg_val streams);

#endif
