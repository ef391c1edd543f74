/* A part of a graph as a graph of its own. */
#ifndef NB_SECTION_H
#define NB_SECTION_H

#include "ir/ir.h"

typedef struct nb_section {
    nb_graph *graph;
    /* Where each input of `graph` comes from: an input of the whole graph, or one of `in`. */
    const nb_value **sources;
} nb_section;

/* A copy of `whole` that computes the values `out` from its inputs and the values `in`, without
 * states. Inputs of the whole that are not needed are left out, unless their sizes are all that
 * tells a symbol. The copy shares the constants' bytes: destroy it before the whole. */
nb_section nb_section_create(const nb_graph *whole, const nb_value *const *in, size_t n_in,
                             const nb_value *const *out, size_t n_out);

#endif
