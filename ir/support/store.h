/* Bytes that are kept under names from one run of the program to the next; tools/ has a store in
 * files. */
#ifndef NB_STORE_H
#define NB_STORE_H

#include "ir/support/arena.h"
#include "ir/support/base.h"

typedef struct nb_part {
    void *data;
    size_t size;
} nb_part;

typedef struct nb_store {
    void *user;
    double interval; /* seconds until unfinished work is kept again; 0: after each sample */
    /* What is kept under the name, in memory of `arena`; data is NULL when there is nothing. */
    nb_part (*load)(void *user, const char *name, nb_arena *arena);
    /* Keeps the parts in a row, all or nothing, in place of what was there. */
    nb_status (*save)(void *user, const char *name, const nb_part *parts, size_t n);
} nb_store;

#endif
