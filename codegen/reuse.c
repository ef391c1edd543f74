/* Objects that are used again (reuse.h). */
#include "codegen/reuse.h"

#include "ir/ir.h"

#include <string.h>

struct nb_object_cache {
    nb_arena *arena;
    const nb_store *store; /* or NULL */
    nb_map objects;        /* hash of the module -> nb_object */
    size_t count;
};

nb_object_cache *nb_object_cache_create(const nb_arena *like, const nb_store *store) {
    nb_arena *arena = nb_arena_create_like(like);
    nb_object_cache *c = NB_NEW(arena, nb_object_cache);
    c->arena = c->objects.arena = arena;
    c->store = store;
    return c;
}

void nb_object_cache_free(nb_object_cache *cache) {
    if (cache) nb_arena_destroy(cache->arena);
}

size_t nb_object_cache_count(const nb_object_cache *cache) { return cache->count; }

/* ---- in the store --------------------------------------------------------------------------- */

/* In front of an object's bytes. */
typedef struct header {
    char magic[8];
    uint64_t module, size, hash;
} header;
#define MAGIC "nbcode1" /* another number when this layout changes */

static const char *name_of(uint64_t module, nb_arena *arena) {
    return nb_format(arena, "code-%016llx", (unsigned long long)module);
}

static header header_of(const nb_object *o) {
    return (header){
        .magic = MAGIC, .module = o->module, .size = o->size, .hash = nb_hash(o->data, o->size)};
}

static const nb_object *put(nb_object_cache *c, const void *data, size_t size, uint64_t module) {
    nb_object *o = NB_NEW(c->arena, nb_object);
    char *copy = nb_alloc(c->arena, size + 1);
    memcpy(copy, data, size);
    *o = (nb_object){.data = copy, .size = size, .module = module};
    nb_map_set_str(&c->objects, (const char *)&o->module, sizeof o->module, o);
    return o;
}

static const nb_object *take_up(nb_object_cache *c, uint64_t module) {
    nb_arena *scratch = nb_arena_create_like(c->arena);
    const nb_part bytes = c->store->load(c->store->user, name_of(module, scratch), scratch);
    const nb_object *found = NULL;
    if (bytes.data && bytes.size > sizeof(header)) {
        const nb_object o = {.data = (const char *)bytes.data + sizeof(header),
                             .size = bytes.size - sizeof(header),
                             .module = module};
        const header expected = header_of(&o);
        if (memcmp(bytes.data, &expected, sizeof expected) == 0)
            found = put(c, o.data, o.size, module);
    }
    nb_arena_destroy(scratch);
    return found;
}

/* ---- objects -------------------------------------------------------------------------------- */

const nb_object *nb_object_cache_find(nb_object_cache *c, uint64_t module) {
    const nb_object *found = nb_map_get_str(&c->objects, (const char *)&module, sizeof module);
    return found || !c->store ? found : take_up(c, module);
}

void nb_object_cache_add(nb_object_cache *c, const nb_object *object) {
    const nb_object *o = put(c, object->data, object->size, object->module);
    c->count++;
    if (!c->store) return;
    nb_arena *scratch = nb_arena_create_like(c->arena);
    header h = header_of(o);
    const nb_part parts[] = {{&h, sizeof h}, {(void *)(uintptr_t)o->data, o->size}};
    nb_status status = c->store->save(c->store->user, name_of(o->module, scratch), parts, 2);
    (void)status;
    nb_arena_destroy(scratch);
}
