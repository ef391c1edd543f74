/* See test_data.h. */
#include "tests/support/test_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

char *nb_test_data(const char *path) {
    const char *folder = getenv("NIBBLE_DATA");
    if (folder == NULL || folder[0] == '\0') folder = NIBBLE_SOURCE_DIR "/../shared/data";
    char *full = NULL;
    if (asprintf(&full, "%s/%s", folder, path) < 0) return NULL;
    if (access(full, R_OK) == 0) return full;
    free(full);
    return NULL;
}
