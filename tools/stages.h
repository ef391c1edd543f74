/* What a pipeline made of a graph on its way to code, for who compares. */
#ifndef NBT_STAGES_H
#define NBT_STAGES_H

#include "passes/pass.h"

/* Copies; a value has one id in all of them. */
typedef struct nbt_stages {
    nb_graph *plain;   /* the last in which nothing is quantized, or NULL */
    nb_graph *rounded; /* the last in which layers are not fused */
    nb_facts facts;    /* what passes chose */
} nbt_stages;

/* Told of the graph before the first pass and after each that changed it. */
void nbt_stages_see(nbt_stages *stages, const nb_graph *g);
void nbt_stages_drop(nbt_stages *stages);

#endif
