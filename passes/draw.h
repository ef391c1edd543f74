/* Inputs drawn at random: samples for models that nobody gave data for.
 *
 * Behind its first layers a network's activations are made by its weights and biases more than by
 * what it looks at, so that rounding by moments can do with pictures that show nothing (ZeroQ, Cai
 * et al., arXiv 2001.00281, makes its own). They have to be like real ones in what is simplest
 * about those: even areas with sharp edges, of all sizes. Dead leaves, which fall at random and
 * hide each other, are (Lee, Mumford and Huang 2001; Baradad et al., arXiv 2106.05963); noise is
 * not. */
#ifndef NB_PASSES_DRAW_H
#define NB_PASSES_DRAW_H

#include "passes/pass.h"

typedef struct nb_draw {
    int64_t count;  /* samples, at most */
    int64_t places; /* in the planes of all of them together, at most; 2 samples have any number */
    int64_t size;   /* of symbolic axes but the first, which is 1; as far as the symbol can be so */
    float low, high; /* what inputs lie between */
} nb_draw;

/* *n samples of rectangles that lie on each other, along all axes behind the second, or the last;
 * each is of one level, in channels of levels that are near it. The same on every machine. NULL,
 * and *why as a sentence, where an input is no float of 32 bits, has a rank of 0, is a state, or
 * would be too large. Memory is the arena's. */
nb_sample *nb_draw_samples(const nb_graph *g, const nb_draw *how, nb_arena *arena, size_t *n,
                           const char **why);

#endif
