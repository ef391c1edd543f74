/* JSON on standard output (json.h). */
#include "tools/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

json_t *nbt_json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

void nbt_print_json(json_t *value) {
    char *text = json_dumps(value, JSON_REAL_PRECISION(9));
    if (text) puts(text);
    free(text);
    json_decref(value);
}
