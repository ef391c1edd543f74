/* Depthwise convolutions of codes: what the kernel (qdepthwise.c) and the packing of its weights
 * share.
 *
 * A run is the part of a kernel that is multiplied in whole words: all of its last axis where that
 * is short and its inputs are neighbours, else a single position. */
#ifndef NB_KERNELS_QDEPTHWISE_H
#define NB_KERNELS_QDEPTHWISE_H

#include "codegen/kernels/dot.h"
#include "codegen/pack.h"

/* Bytes of a word of 16 channels. */
#define NB_QDEPTHWISE_WORD 64

typedef struct nb_qdepthwise_shape {
    int axes;
    int64_t kernel[NB_MAX_RANK];
    int64_t C, panels; /* of 16 channels */
    int64_t each;      /* inputs in a word */
    int64_t run, runs; /* positions in a run; runs of a kernel */
} nb_qdepthwise_shape;

/* Inputs in a word on this kind of CPU. */
int64_t nb_qdepthwise_each(const cg_isa *isa);
/* May `op` take whole rows of its kernel as runs? */
bool nb_qdepthwise_by_runs(const nb_op *op);
/* Of weights w[K...,C]. */
nb_qdepthwise_shape nb_qdepthwise_shape_of(const nb_value *w, int64_t each, bool by_runs);

/* Words that a run takes whose first input is number `phase` of its word. */
int64_t nb_qdepthwise_words(const nb_qdepthwise_shape *s, int64_t phase);
/* A panel: [phase][run][word] words of weights, zeros where a word reaches beyond the run; then the
 * scales of the channels, f32, and the sums of their weights, i32. */
int64_t nb_qdepthwise_code_bytes(const nb_qdepthwise_shape *s);
int64_t nb_qdepthwise_panel_bytes(const nb_qdepthwise_shape *s);
/* Where in a panel the first word of a run is. `known`: the phase; of runs of one position any. */
cg_val nb_qdepthwise_weights_at(cg *g, const nb_qdepthwise_shape *s, cg_val phase, int64_t known,
                                cg_val run);

/* `cpu` NULL: of most. */
const nb_layout *nb_qdepthwise_layout(const nb_op *op, const cg_cpu *cpu);

#endif
