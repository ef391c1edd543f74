/* The distance between names (distance.h). */
#include "ir/support/distance.h"

#include <stdint.h>

#define LONGEST 128

size_t nb_edit_distance(const char *a, size_t n, const char *b, size_t m) {
    size_t row[LONGEST + 1]; /* to the first characters of b */
    if (n > LONGEST || m > LONGEST) return SIZE_MAX;
    for (size_t k = 0; k <= m; k++) row[k] = k;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= m; k++) {
            size_t best = diagonal + (a[i - 1] != b[k - 1]);
            diagonal = row[k];
            if (row[k] + 1 < best) best = row[k] + 1;
            if (row[k - 1] + 1 < best) best = row[k - 1] + 1;
            row[k] = best;
        }
    }
    return row[m];
}
