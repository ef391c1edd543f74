/* The loop of a chain (ir/chain.h), for families whose ops end one now and then: quantize. */
#ifndef NB_KERNELS_ELEMENTWISE_H
#define NB_KERNELS_ELEMENTWISE_H

#include "codegen/lower.h"

cg_val nb_chain_items(nb_lower *l, int phase);
cg_val nb_chain_work(nb_lower *l, int phase);
void nb_chain_body(nb_lower *l, int phase, cg_val begin, cg_val end);

#endif
