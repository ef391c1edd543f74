/* Objects by the module they were made of, for whoever compiles graphs that differ in their weights
 * alone, or in names: layers that are alike, variants of one model. Making the module takes a
 * hundredth of the time that optimizing it and making code of it takes. */
#ifndef NB_CODEGEN_REUSE_H
#define NB_CODEGEN_REUSE_H

#include "codegen/codegen.h"
#include "ir/support/store.h"

/* `like`: an arena that knows what to do when memory is short. `store`, NULL or outliving the
 * cache, keeps objects from run to run; what comes out of it is run, so it must be the user's own.
 */
nb_object_cache *nb_object_cache_create(const nb_arena *like, const nb_store *store);
void nb_object_cache_free(nb_object_cache *cache); /* NULL: nothing */
/* How many objects were compiled: each once. */
size_t nb_object_cache_count(const nb_object_cache *cache);

/* The object of the module with this hash, or NULL. What the store has is taken if it is whole. */
const nb_object *nb_object_cache_find(nb_object_cache *cache, uint64_t module);
/* Keeps a copy of the object's bytes. A store that fails has said so, and changes nothing else. */
void nb_object_cache_add(nb_object_cache *cache, const nb_object *object);

#endif
