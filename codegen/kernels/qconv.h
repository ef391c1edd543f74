/* Convolutions of codes without patches in memory (qconv.c): what kernel, packing and qmatmul.c
 * share.
 *
 * Inputs that a place sees are taken channels first, then along the last axis: where that moves by
 * one they lie side by side, as one run, else each of its positions is a run. A run is padded to
 * whole words of 4 bytes, by weights of 0. */
#ifndef NB_KERNELS_QCONV_H
#define NB_KERNELS_QCONV_H

#include "codegen/kernels/dot.h"
#include "codegen/pack.h"

typedef struct nb_qconv_shape {
    int axes;
    int64_t channels, positions; /* of the kernel */
    int64_t run, runs;           /* inputs in a run; runs of a place */
    int64_t each, words;         /* inputs in a word; words of a run */
    int64_t N, panels;           /* of 16 columns */
} nb_qconv_shape;

/* Of a qmatmul that is a convolution (nb_can_convolve). `act_bytes`: of an input, 1 or 2. */
nb_qconv_shape nb_qconv_shape_of(const nb_op *op, int act_bytes);

/* A panel: [run][word][column][input] signed bytes, the columns' scales f32, their sums i32. */
int64_t nb_qconv_word_bytes(const nb_qconv_shape *s);
int64_t nb_qconv_code_bytes(const nb_qconv_shape *s);
int64_t nb_qconv_panel_bytes(const nb_qconv_shape *s);

/* `cpu` NULL: of most. */
const nb_layout *nb_qconv_layout(const cg_cpu *cpu);

cg_val nb_qconv_scratch(nb_lower *l);
cg_val nb_qconv_items(nb_lower *l, int phase);
cg_val nb_qconv_work(nb_lower *l, int phase);
void nb_qconv_body(nb_lower *l, int phase, cg_val begin, cg_val end);

#endif
