/* The memory that weights lie in: huge pages, or pages of a file as other processes share them. */
#ifndef NBL_PAGES_H
#define NBL_PAGES_H

#include "ir/support/diag.h"

typedef enum nbl_pages {
    NBL_PAGES_USUAL, /* of a model compiled here: huge; of a .so: shared */
    NBL_PAGES_HUGE,
    NBL_PAGES_SHARED
} nbl_pages;

typedef struct nbl_memory {
    void *data; /* 64-byte aligned; NULL: none */
    void *map;  /* what is mapped for it */
    size_t map_size;
} nbl_memory;

/* NB_LIMIT when there is none. */
nb_status nbl_memory_create(nbl_pages pages, size_t size, nb_diags *diags, nbl_memory *out);
void nbl_memory_free(nbl_memory *memory);

/* Which part of these bytes is in huge pages, 0..1, as the kernel says. */
double nbl_huge_share(const void *data, size_t size);

#endif
