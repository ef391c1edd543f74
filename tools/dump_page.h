/* The page of `--dump`: one file with all it needs, readable without a network. */
#ifndef NBT_DUMP_PAGE_H
#define NBT_DUMP_PAGE_H

#include "ir/support/diag.h"

#include <jansson.h>

/* Writes the page around its data, and drops the reference. What the data means is said in
 * tools/dump/model.js. */
nb_status nbt_write_dump_page(const char *path, const char *title, json_t *data, nb_diags *diags);

#endif
