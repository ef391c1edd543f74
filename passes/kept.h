/* What a pass found and a later run may take up: bytes in the store of nb_pass_env under a name
 * that follows from all they depend on, read whole or not at all. */
#ifndef NB_PASSES_KEPT_H
#define NB_PASSES_KEPT_H

#include "passes/pass.h"

typedef struct nb_kept {
    const nb_store *store; /* NULL: nothing is kept */
    const char *name;
    uint64_t key;
} nb_kept;

/* A hash of the graph with its weights, of the samples, and of `version`: that of what the pass
 * does with them. 0 without a store. */
uint64_t nb_kept_key(const nb_pass_ctx *ctx, uint64_t version);

/* The same, and of the values of the pass' options. */
uint64_t nb_kept_key_of_options(const nb_pass_ctx *ctx, uint64_t key);
/* The same, and of a text: what a pass keeps in several parts has a name for each. */
uint64_t nb_kept_key_of_text(uint64_t key, const char *text);

/* The name is made of the pass and the key. */
nb_kept nb_kept_as(const nb_pass_ctx *ctx, uint64_t key);

/* Keeps the parts with the number `done` (> 0). */
nb_status nb_kept_save(const nb_pass_ctx *ctx, const nb_kept *kept, uint64_t done,
                       const nb_part *parts, size_t n);

/* Fills the parts, of known sizes, with what was kept, and returns its number; 0, and the parts
 * untouched, when there is nothing, or, with a warning, when it is damaged. */
uint64_t nb_kept_load(nb_pass_ctx *ctx, const nb_kept *kept, const nb_part *parts, size_t n);

#endif
