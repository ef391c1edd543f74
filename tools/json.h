/* JSON on standard output. */
#ifndef NBT_JSON_H
#define NBT_JSON_H

#include <jansson.h>

/* JSON has no infinities and no NaN: null then. */
json_t *nbt_json_number(double value);
/* Prints one line and drops the reference. */
void nbt_print_json(json_t *value);

#endif
