/* A planned graph with one product of codes. */
#ifndef NB_TEST_PRODUCTS_H
#define NB_TEST_PRODUCTS_H

#include "ir/ir.h"

/* f32[5,64] quantized per token to i8, times constant codes of `weights` [64,32] in groups of 32.
 * NULL after a recorded error. */
nb_graph *product_graph(nb_elem weights, nb_arena *arena, nb_diags *diags);

#endif
