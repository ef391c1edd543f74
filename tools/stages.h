/* What a pipeline made of a graph on its way to code, for who compares. */
#ifndef NBT_STAGES_H
#define NBT_STAGES_H

#include "passes/pass.h"

/* A graph as a pass left it. */
typedef struct nbt_stage {
    size_t index; /* of the pass in the pipeline */
    const char *pass;
    nb_graph *graph;
} nbt_stage;

/* Copies; a value has one id in all of them. */
typedef struct nbt_stages {
    nb_arena *arena;       /* for `all`; NULL: those are not kept */
    NB_VEC(nbt_stage) all; /* behind each pass that changed something, and "" before the first */
    nb_graph *plain;       /* the last in which nothing is quantized, or NULL */
    nb_graph *rounded;     /* the last in which layers are not fused */
    nb_facts facts;        /* what passes chose */
} nbt_stages;

/* Told of the graph before the first pass and after each that changed it. */
void nbt_stages_see(nbt_stages *stages, size_t index, const char *pass, const nb_graph *g);
void nbt_stages_drop(nbt_stages *stages);
/* Is any value of the graph quantized? */
bool nbt_has_codes(const nb_graph *g);

#endif
