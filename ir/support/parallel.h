/* Loops of the compiler itself whose turns do not depend on each other. */
#ifndef NB_PARALLEL_H
#define NB_PARALLEL_H

#include "ir/support/base.h"

/* Calls turn(user, i) for each i in [0, n), in any order, on as many threads as this process may
 * use processors, and returns when all are done. A turn must write nothing that another one reads
 * or writes. Without further threads the caller does it all, so it cannot fail. */
void nb_parallel(int64_t n, void (*turn)(void *user, int64_t i), void *user);

#endif
