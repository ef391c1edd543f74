/* Objects by the module they were made of, for whoever compiles graphs that differ in their weights
 * alone, or in names: layers that are alike, variants of one model. Making the module takes a
 * hundredth of the time that optimizing it and making code of it takes. */
#ifndef NB_CODEGEN_REUSE_H
#define NB_CODEGEN_REUSE_H

#include "codegen/codegen.h"

/* `like`: an arena that knows what to do when memory is short. */
nb_object_cache *nb_object_cache_create(const nb_arena *like);
void nb_object_cache_free(nb_object_cache *cache); /* NULL: nothing */
/* How many objects there are: each was compiled once. */
size_t nb_object_cache_count(const nb_object_cache *cache);

/* The object of the module with this hash, or NULL. */
const nb_object *nb_object_cache_find(const nb_object_cache *cache, uint64_t module);
/* Keeps a copy of the object's bytes. */
void nb_object_cache_add(nb_object_cache *cache, const nb_object *object);

#endif
