/* JSON on standard output. */
#ifndef NBT_JSON_H
#define NBT_JSON_H

#include <jansson.h>

/* Prints one line and drops the reference. */
void nbt_print_json(json_t *value);

#endif
