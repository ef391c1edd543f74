/* Blocks of weights as GGUF has them: Q8_0, Q4_0, Q6_K, Q4_K and Q5_K, rounded without data to the
 * bits of llama.cpp's reference quantizer (ggml-quants.c), for the same order of each f32 step.
 *
 *            weights            a scale for   which is
 *   Q8_0   code * scale         32            f16, amax/127
 *   Q4_0   code * scale         32            f16, w/-8 for the first w of amax
 *   Q6_K   code * scale         16            i8 * an f16 for 256
 *   Q4_K   code * scale + min   32            u6 * an f16 for 256, and so are minima, of 0 or below
 *   Q5_K   the same with codes of 5 bits
 *
 * Q6_K tries 19 scales around w/-32 for the w of amax and takes the one of the smallest squared
 * error weighted by w^2, with the factor that is best for its codes; Q4_K 21 scales around
 * range/15 (Q5_K 16 around range/31), weighted by rms + |w|, with scale and minimum by least
 * squares. Then the scales are rounded, and codes chosen again for what they became. The last block
 * of a column may be shorter, which GGUF does not know. */
#ifndef NB_PASSES_BLOCK_CODES_H
#define NB_PASSES_BLOCK_CODES_H

#include "ir/types.h"

#define NB_BLOCK_MAX   256 /* weights in a block */
#define NB_BLOCK_PARTS 16  /* runs in a block that share a scale */

/* What a block of weights becomes. */
typedef struct nb_block {
    int8_t codes[NB_BLOCK_MAX];
    int8_t scales[NB_BLOCK_PARTS], minima[NB_BLOCK_PARTS]; /* codes of them */
    uint16_t scale, minimum;                               /* f16: of the block, or of the codes */
} nb_block;

typedef struct nb_block_form {
    nb_elem codes;
    int64_t size, part; /* weights in a block, and of them those that share a scale */
    nb_elem scales;     /* codes of scales; f16: a block has one scale, no codes */
    bool minima;        /* has minima like the scales */
    void (*round)(const float *w, int64_t n, nb_block *out); /* n <= size weights */
} nb_block_form;

extern const nb_block_form nb_block_q8_0, nb_block_q4_0, nb_block_q6_k, nb_block_q4_k,
    nb_block_q5_k;

#endif
