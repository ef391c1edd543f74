/* Hash maps in an arena: open addressing, no removal. Iteration order is insertion order, so that
 * nothing in the compiler's output depends on addresses. */
#ifndef NB_MAP_H
#define NB_MAP_H

#include "ir/support/arena.h"

typedef struct nb_map_entry {
    const void *key; /* an address, or the bytes of a string key (owned by the arena) */
    size_t length;   /* length of a string key, 0 for an address */
    uint64_t hash;
    void *value;
} nb_map_entry;

/* Zero-initialise with the arena set: nb_map m = {.arena = a}. */
typedef struct nb_map {
    nb_arena *arena;
    nb_arena *keys;        /* of copies of string keys; NULL: `arena` */
    nb_map_entry *entries; /* in insertion order */
    size_t count, capacity;
    struct nb_map_slot *slots;
    size_t n_slots;
} nb_map;

/* Room for `n` entries of a map that is empty: growing to that would cost as much again. */
void nb_map_reserve(nb_map *map, size_t n);

/* The value stored under an address, or NULL. */
void *nb_map_get(const nb_map *map, const void *key);
void nb_map_set(nb_map *map, const void *key, void *value);

/* The same for string keys; the map copies the bytes. One map holds one kind of key. */
void *nb_map_get_str(const nb_map *map, const char *key, size_t length);
/* Returns the map's own NUL-terminated copy of the key. */
const char *nb_map_set_str(nb_map *map, const char *key, size_t length, void *value);
/* The key's entry, made with value NULL if there was none, until another is made. */
nb_map_entry *nb_map_add_str(nb_map *map, const char *key, size_t length);

/* Stable 64-bit hash of bytes (XXH3), the same on every machine. */
uint64_t nb_hash(const void *bytes, size_t length);
/* Mixes two hashes, order matters. */
uint64_t nb_hash_mix(uint64_t a, uint64_t b);

#endif
