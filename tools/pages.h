/* The memory that weights lie in: huge pages, or pages of a file as other processes share them. */
#ifndef NBT_PAGES_H
#define NBT_PAGES_H

#include "ir/support/diag.h"

typedef enum nbt_pages {
    NBT_PAGES_USUAL, /* of a model compiled here: huge; of a .so: shared */
    NBT_PAGES_HUGE,
    NBT_PAGES_SHARED
} nbt_pages;

typedef struct nbt_memory {
    void *data; /* 64-byte aligned; NULL: none */
    void *map;  /* what is mapped for it */
    size_t map_size;
} nbt_memory;

/* NB_LIMIT when there is none. */
nb_status nbt_memory_create(nbt_pages pages, size_t size, nb_diags *diags, nbt_memory *out);
void nbt_memory_free(nbt_memory *memory);

/* Which part of these bytes is in huge pages, 0..1, as the kernel says. */
double nbt_huge_share(const void *data, size_t size);

#endif
