/* Rewrites that nearly fired while a pipeline ran (nb_refused, passes/pass.h): what `nibble
 * explain` and `nibble inspect` show. */
#ifndef NBT_NEAR_MISSES_H
#define NBT_NEAR_MISSES_H

#include "tools/model.h"

typedef struct nbt_near_miss {
    const char *pass, *rule, *equation, *why;
    const char *node, *text; /* of the op: its ONNX node and its line of .nir; "" of none */
    uint32_t op;             /* its id; UINT32_MAX: there is none */
} nbt_near_miss;

typedef struct nbt_near_misses {
    nb_arena *arena;
    const char *selector;      /* nodes that are asked about, or NULL: all */
    NB_VEC(nbt_near_miss) now; /* of the pass that runs */
    NB_VEC(nbt_near_miss) all;
    nb_map known; /* of `all`: text of op, pass, rule and reason -> itself; its arena is set */
} nbt_near_misses;

/* For nbt_run_watched; `misses` is what it tells. */
nbt_watch nbt_watch_misses(nbt_near_misses *misses);
/* Is the op of a node that is asked about? */
bool nbt_is_asked(const nbt_near_misses *misses, const nb_op *op);

#endif
