/* Conditions per node: patterns of ONNX nodes' names, as options of passes have them. */
#ifndef NB_PASSES_SELECT_H
#define NB_PASSES_SELECT_H

#include "passes/pass.h"

/* Does the ONNX node's name match `pattern` ('*' any run, '?' one character; alternatives are
 * separated by '|')? "" matches nothing. */
bool nb_match_name(const char *pattern, const char *name);
/* The fewest characters to insert, remove or replace in `name` until it matches; 0: it does. */
size_t nb_match_distance(nb_arena *scratch, const char *pattern, const char *name);

/* What a `skip="..."` option selects. Every pattern must select something: nb_skip_end records an
 * error with the nearest names otherwise and returns false. */
typedef struct nb_skip {
    const char *pattern;
    size_t matched;
    NB_VEC(const char *) seen; /* names that were asked about */
} nb_skip;
bool nb_skip_op(nb_pass_ctx *ctx, nb_skip *skip, const nb_op *op);
bool nb_skip_end(nb_pass_ctx *ctx, const nb_skip *skip);
/* The error that `option`'s pattern matches none of the layers of these names. */
void nb_no_match(nb_pass_ctx *ctx, const char *option, const char *pattern,
                 const char *const *names, size_t count);
/* The same for the options of kind NB_OPTION_SELECTOR, when a pass has ended. */
bool nb_selectors_end(nb_pass_ctx *ctx);

#endif
