/* Language models by the conventions of their exporters: what an input is by its name, and inputs
 * of windows of tokens. */
#ifndef NB_PASSES_WINDOWS_H
#define NB_PASSES_WINDOWS_H

#include "ir/eval.h"

/* BRANCH chooses whether caches are read; caches are recognised by shape. */
typedef enum nb_role { NB_TOKEN_IDS, NB_MASK, NB_POSITIONS, NB_BRANCH, NB_OTHER_INPUT } nb_role;

nb_role nb_role_of(const char *name);
bool nb_is_logits(const char *output);
/* What tokens, mask and positions can be given to. */
bool nb_takes_integers(nb_elem elem, int rank);

/* The input that takes tokens and the output that is logits, -1 where there is none. */
typedef struct nb_language {
    int tokens, logits;
    int64_t vocab; /* 0 when the shape of the logits does not say */
} nb_language;
nb_language nb_language_of(const nb_graph *g);

/* Tokens [batch,n], or the mask or positions that go with them behind `past` others. */
void nb_fill_window(nb_role role, const int64_t *tokens, int64_t batch, int64_t n, int64_t past,
                    nb_elem elem, nb_arena *arena, nb_tensor *out);
/* Inputs of one batch of windows for a graph: tokens, mask of ones, positions 0.., empty caches. */
nb_status nb_window_inputs(const nb_graph *g, const int64_t *tokens, int64_t batch, int64_t length,
                           nb_arena *arena, nb_diags *diags, nb_tensor **out);

#endif
