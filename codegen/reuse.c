/* Objects that are used again (reuse.h). */
#include "codegen/reuse.h"

#include <string.h>

struct nb_object_cache {
    nb_arena *arena;
    nb_map objects; /* hash of the module -> nb_object */
    size_t count;
};

nb_object_cache *nb_object_cache_create(const nb_arena *like) {
    nb_arena *arena = nb_arena_create_like(like);
    nb_object_cache *c = NB_NEW(arena, nb_object_cache);
    c->arena = c->objects.arena = arena;
    return c;
}

void nb_object_cache_free(nb_object_cache *cache) {
    if (cache) nb_arena_destroy(cache->arena);
}

size_t nb_object_cache_count(const nb_object_cache *cache) { return cache->count; }

const nb_object *nb_object_cache_find(const nb_object_cache *cache, uint64_t module) {
    return nb_map_get_str(&cache->objects, (const char *)&module, sizeof module);
}

void nb_object_cache_add(nb_object_cache *cache, const nb_object *object) {
    nb_object *copy = NB_NEW(cache->arena, nb_object);
    char *data = nb_alloc(cache->arena, object->size + 1);
    memcpy(data, object->data, object->size);
    *copy = (nb_object){.data = data, .size = object->size, .module = object->module};
    nb_map_set_str(&cache->objects, (const char *)&copy->module, sizeof copy->module, copy);
    cache->count++;
}
