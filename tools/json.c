/* JSON on standard output (json.h). */
#include "tools/json.h"

#include <stdio.h>
#include <stdlib.h>

void nbt_print_json(json_t *value) {
    char *text = json_dumps(value, JSON_REAL_PRECISION(9));
    if (text) puts(text);
    free(text);
    json_decref(value);
}
