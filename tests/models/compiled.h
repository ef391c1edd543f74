/* A model compiled in memory and loaded, for the tests of whole models. */
#ifndef NB_TEST_COMPILED_H
#define NB_TEST_COMPILED_H

#include "codegen/codegen.h"
#include "runtime/nb_runtime.h"

typedef struct compiled {
    nb_arena *arena;
    nb_diags *diags;
    nb_graph *graph; /* planned */
    nb_jit *jit;
    void *weights;
    nb_loaded *loaded;
    const nb_model *model;
    int tokens, mask, positions; /* a decoder's inputs, or -1 */
} compiled;

/* Each in turn; false with diagnostics. */
bool compiled_plan(compiled *c, const char *path, const char *passes);
bool compiled_load(compiled *c, const char *cpu);
void compiled_complain(const compiled *c);
void compiled_unload(compiled *c);
/* The graph too. */
void compiled_discard(compiled *c);

/* voice.c */
void test_voice(void (*verdict)(bool ok, const char *model, const char *scheme, const char *what),
                int *skipped);

#endif
