/* Work that adds up over the calibration samples: statistics, sums of products.
 *
 * The graph runs on one sample after the other, in order, and taps add to the state. With a store
 * (nb_pass_env) the state is kept from time to time, and at the end. Who comes again with the same
 * graph, samples and taps goes on behind the last sample that was kept, or has all of it at once,
 * with the same bits: the state is all there is. */
#ifndef NB_PASSES_ACCUMULATE_H
#define NB_PASSES_ACCUMULATE_H

#include "passes/pass.h"

typedef struct nb_accumulation {
    uint64_t version;      /* of what taps do to the state; another number, another result */
    NB_VEC(nb_tap) taps;   /* in the order of the graph */
    NB_VEC(nb_part) state; /* all that taps change, of fixed size, plain data */
} nb_accumulation;

/* NB_PASS_FAILED's cause is recorded when this is not NB_OK. */
nb_status nb_accumulate(nb_pass_ctx *ctx, const nb_accumulation *work);

#endif
