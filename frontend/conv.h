/* Private to frontend/: convolutions as a node describes them, and those of integers and codes,
 * which are products of patches. */
#ifndef NB_FRONTEND_CONV_H
#define NB_FRONTEND_CONV_H

#include "frontend/import.h"

/* A window that slides over x[B,C,D...]. */
typedef struct nb_window {
    nb_value *x;
    int axes; /* that the kernel slides along */
    const nb_dim *kernel[NB_MAX_RANK];
    int64_t strides[NB_MAX_RANK], dilations[NB_MAX_RANK];
    const nb_dim *before[NB_MAX_RANK], *after[NB_MAX_RANK]; /* of all axes of x */
} nb_window;

/* The node's convolution of x by w[M,C/groups,K...]. */
nb_status nb_conv_read(nb_importer *im, nb_value *x, nb_value *w, nb_window *c);
/* x with the window's border of `value` (NULL: 0). */
nb_value *nb_conv_bordered(nb_importer *im, const nb_window *c, nb_value *x, nb_value *value);
/* The node's convolution of x by w, + bias[M] or NULL. Of dequantized weights, and codes or floats,
 * it is a product of patches, so that integers multiply where they can. NULL after an error. */
nb_value *nb_convolve(nb_importer *im, nb_value *x, nb_value *w, nb_value *bias);
/* What the window sees of x: [B,places...,C*K]. */
nb_value *nb_conv_patches(nb_importer *im, const nb_window *c, nb_value *x);
/* The node's AveragePool of x. */
nb_status nb_average_pool(nb_importer *im, nb_value *x, nb_value **y);

/* import_qconv.c: does nb_convolve take the product? Then it is that. */
bool nb_conv_is_product(const nb_window *c, const nb_value *w, int64_t groups);
nb_value *nb_conv_product(nb_importer *im, const nb_window *c, nb_value *w, nb_value *bias);

#endif
