/* Entries stand in insertion order; slots is a table of indices into them, probed linearly and at
 * most three quarters full. Its length is a power of two. A slot has some of the hash's bits, so
 * that of entries, which are seldom in a cache, those that another key has are hardly ever looked
 * at. */
#include "ir/support/map.h"

#include "ir/support/vec.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

typedef struct nb_map_slot {
    uint32_t place; /* index + 1 into entries, 0 = free */
    uint32_t tag;
} nb_map_slot;

static uint32_t tag_of(uint64_t hash) { return (uint32_t)(hash >> 32); }

uint64_t nb_hash(const void *bytes, size_t length) { return XXH3_64bits(bytes, length); }

/* The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every input bit moves every output. */
static uint64_t scramble(uint64_t x) {
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t nb_hash_mix(uint64_t a, uint64_t b) {
    return scramble(scramble(a + UINT64_C(0x9e3779b97f4a7c15)) + b);
}

static uint64_t hash_address(const void *key) { return scramble((uint64_t)(uintptr_t)key); }

static void add_slot(nb_map *map, size_t index) {
    const uint64_t hash = map->entries[index].hash;
    size_t at = hash & (map->n_slots - 1);
    while (map->slots[at].place != 0) at = (at + 1) & (map->n_slots - 1);
    map->slots[at] = (nb_map_slot){(uint32_t)(index + 1), tag_of(hash)};
}

void nb_map_reserve(nb_map *map, size_t n) {
    assert(map->count == 0 && n < UINT32_MAX);
    size_t slots = 16;
    while (n > slots / 4 * 3) slots *= 2;
    map->entries = NB_NEW_ARRAY(map->arena, nb_map_entry, n);
    map->capacity = n;
    map->slots = NB_NEW_ARRAY(map->arena, nb_map_slot, slots);
    map->n_slots = slots;
}

static nb_map_entry *append(nb_map *map, const void *key, size_t length, uint64_t hash) {
    assert(map->count < UINT32_MAX);
    if (map->count == map->capacity)
        map->entries = nb_vec_grow(map->arena, map->entries, sizeof *map->entries, &map->capacity);
    size_t index = map->count++;
    map->entries[index] = (nb_map_entry){.key = key, .length = length, .hash = hash};
    if (map->count > map->n_slots / 4 * 3) {
        map->n_slots = map->n_slots == 0 ? 16 : 2 * map->n_slots;
        map->slots = NB_NEW_ARRAY(map->arena, nb_map_slot, map->n_slots);
        for (size_t i = 0; i < map->count; i++) add_slot(map, i);
    } else {
        add_slot(map, index);
    }
    return &map->entries[index];
}

static nb_map_entry *find(const nb_map *map, const void *key) {
    if (map->n_slots == 0) return NULL;
    size_t mask = map->n_slots - 1;
    const uint64_t hash = hash_address(key);
    for (size_t at = hash & mask; map->slots[at].place != 0; at = (at + 1) & mask) {
        if (map->slots[at].tag != tag_of(hash)) continue;
        nb_map_entry *entry = &map->entries[map->slots[at].place - 1];
        if (entry->key == key) return entry;
    }
    return NULL;
}

static nb_map_entry *find_str(const nb_map *map, const char *key, size_t length, uint64_t hash) {
    if (map->n_slots == 0) return NULL;
    size_t mask = map->n_slots - 1;
    for (size_t at = hash & mask; map->slots[at].place != 0; at = (at + 1) & mask) {
        if (map->slots[at].tag != tag_of(hash)) continue;
        nb_map_entry *entry = &map->entries[map->slots[at].place - 1];
        if (entry->hash != hash || entry->length != length) continue;
        if (length == 0 || memcmp(entry->key, key, length) == 0) return entry;
    }
    return NULL;
}

void *nb_map_get(const nb_map *map, const void *key) {
    nb_map_entry *entry = find(map, key);
    return entry == NULL ? NULL : entry->value;
}

void nb_map_set(nb_map *map, const void *key, void *value) {
    nb_map_entry *entry = find(map, key);
    if (entry == NULL) entry = append(map, key, 0, hash_address(key));
    entry->value = value;
}

void *nb_map_get_str(const nb_map *map, const char *key, size_t length) {
    if (map->count == 0) return NULL; /* a hash costs more than most questions are worth */
    nb_map_entry *entry = find_str(map, key, length, nb_hash(key, length));
    return entry == NULL ? NULL : entry->value;
}

nb_map_entry *nb_map_add_str(nb_map *map, const char *key, size_t length) {
    uint64_t hash = nb_hash(key, length);
    nb_map_entry *entry = find_str(map, key, length, hash);
    if (entry) return entry;
    return append(map, nb_strndup(map->keys ? map->keys : map->arena, key, length), length, hash);
}

const char *nb_map_set_str(nb_map *map, const char *key, size_t length, void *value) {
    nb_map_entry *entry = nb_map_add_str(map, key, length);
    entry->value = value;
    return entry->key;
}
