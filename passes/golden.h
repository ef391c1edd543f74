/* Golden files: a graph, passes, and the whole graph after them, as text.
 *
 *   ; What the case shows.
 *   ; passes: simplify, raise
 *   ; samples: made-up          calibration samples are inputs that the runner makes up
 *   ; fails: TEXT               the pipeline fails with a message that holds TEXT; no second graph
 *   nir 1 ...
 *   ; ----
 *   nir 1 ...
 *
 * Besides the graph after the passes each file checks: both texts print as they were read; the
 * verifier after each pass; a pass keeps the numbers it promises to keep, and says whether it
 * changed the graph; the last pass run again finds nothing to do, unless it is one that promises
 * NB_PASS_RUNS_ONCE. */
#ifndef NB_PASSES_GOLDEN_H
#define NB_PASSES_GOLDEN_H

#include "passes/pass.h"

typedef struct nb_golden_options {
    nb_registry *registry; /* the passes there are */
    bool bless;            /* write what the passes make into the file */
} nb_golden_options;

/* Runs the file at `path`; `name` is for messages. Returns "" when all holds, else what is wrong, a
 * text of lines in memory of `arena`. With `bless` the file's graphs are written anew, whole or not
 * at all, and what is not a matter of text (a pass that fails, numbers that change) is still told.
 */
const char *nb_golden_run(const char *path, const char *name, const nb_golden_options *options,
                          nb_arena *arena);

#endif
