/* What `nibble inspect` finds, as JSON; text is printed from it. */
#ifndef NBT_INSPECT_H
#define NBT_INSPECT_H

#include "tools/bench.h"

/* ---- costs (inspect_costs.c) ---------------------------------------------------------------- */

/* Sizes of the run that work and times are of: --dim, else a --context of cached entries and one of
 * everything else: a decoder's step of one token. */
nb_status nbt_run_sizes(nbt_args *args, const nb_graph *g, int64_t **symbols);
/* {"batch": 1, ...} */
json_t *nbt_sizes_json(nbt_args *args, const nb_graph *g, const int64_t *symbols);
/* Weights and multiply-adds by what layers do, over all blocks: those with most of them first. */
json_t *nbt_parts_json(nbt_args *args, const nb_graph *g, const int64_t *symbols);
/* Limits to predict by: --machine FILE, or measured with --limits. *source says which, NULL: none
 * were asked for. */
nb_status nbt_find_limits(nbt_args *args, nbt_limits *out, const char **source);
/* Seconds of a run of a planned graph: of each op that multiplies or looks up, what reading its
 * matrices takes or computing, whichever is longer. What caches hold is faster. */
double nbt_predict_seconds(nbt_args *args, const nb_graph *planned, const nbt_limits *limits);

/* ---- codes that stay (inspect_qdq.c) -------------------------------------------------------- */

/* Dequantized values that remain behind fuse-dequant, and why; an empty list of a model without. */
nb_status nbt_unfused_json(nbt_args *args, const nb_graph *g, json_t **out);

/* ---- text (inspect_text.c) ------------------------------------------------------------------ */

/* `verbose`: long lists whole. */
void nbt_print_inspection(json_t *all, bool verbose);

#endif
