/* A store of passes (passes/pass.h) in a folder: one file for each name. */
#ifndef NBT_STORE_H
#define NBT_STORE_H

#include "passes/pass.h"

typedef struct nbt_folder {
    const char *path;
    nb_diags *diags;
    nb_store store;
} nbt_folder;

/* Makes the folder if it is not there. */
nb_status nbt_open_folder(const char *path, nb_diags *diags, nbt_folder *out);

#endif
