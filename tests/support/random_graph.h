/* Random graphs: operations drawn from the table with random operands and attributes (kept when the
 * shape rule accepts them), random constants of every element type, odd names, quantizations,
 * locations and storage. What is printed must parse, print the same, and hold the same bytes. */
#ifndef NB_RANDOM_GRAPH_H
#define NB_RANDOM_GRAPH_H

#include "ir/text.h"

/* Makes the graph of that seed, prints it, parses that, and compares. NULL, or what is wrong, in
 * `arena`. Adds to *ops and *bytes how many operations and bytes of text it had. */
const char *nb_random_round_trip(uint64_t seed, nb_arena *arena, size_t *ops, size_t *bytes);

#endif
