/* What simplify does to ops with bodies (simplify_bodies.c) and to what data count. */
#ifndef NB_SIMPLIFY_H
#define NB_SIMPLIFY_H

#include "passes/pass.h"

/* Constants and sizes are known inside without being handed in, what no body reads is not handed
 * in, and an `if` whose condition is a constant becomes the body that runs. Returns whether
 * anything changed; `op` may have no uses then, but it is still there. */
bool nb_simplify_bodies(nb_pass_ctx *ctx, nb_op *op);

/* Sizes that data were to tell, and do not (simplify_counts.c). Returns whether there were any. */
bool nb_simplify_counts(nb_pass_ctx *ctx);

#endif
