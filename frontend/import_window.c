/* What convolutions, pooling and transposed convolutions say alike of the window that they slide:
 * numbers for each of its axes, padding, auto_pad. */
#include "frontend/import.h"

#include <string.h>

nb_status nb_window_numbers(nb_importer *im, const char *name, int axes, int64_t usual,
                            int64_t *out) {
    size_t n;
    const int64_t *given = nb_node_ints(im, name, &n);
    if (given && n != (size_t)axes)
        return nb_node_error(im, NB_MALFORMED, "%zu %s for %d axes", n, name, axes);
    for (int d = 0; d < axes; d++) out[d] = given ? given[d] : usual;
    return NB_OK;
}

nb_status nb_window_pads(nb_importer *im, int axes, int64_t *before, int64_t *after) {
    size_t n;
    const int64_t *pads = nb_node_ints(im, "pads", &n);
    if (pads && n != 2 * (size_t)axes)
        return nb_node_error(im, NB_MALFORMED, "%zu pads for %d axes", n, axes);
    for (int d = 0; d < axes; d++) {
        const int64_t low = pads ? pads[d] : 0, high = pads ? pads[axes + d] : 0;
        if (low < 0 || low > INT32_MAX || high < 0 || high > INT32_MAX)
            return nb_node_error(im, NB_MALFORMED, "pads %lld and %lld, expected 0 .. 2^31-1",
                                 (long long)low, (long long)high);
        before[d] = low;
        after[d] = high;
    }
    return NB_OK;
}

nb_status nb_window_auto_pad(nb_importer *im, nb_auto_pad *out) {
    static const char *const names[] = {[NB_AUTO_PAD_NOT_SET] = "NOTSET",
                                        [NB_AUTO_PAD_VALID] = "VALID",
                                        [NB_AUTO_PAD_UPPER] = "SAME_UPPER",
                                        [NB_AUTO_PAD_LOWER] = "SAME_LOWER"};
    const char *mode = nb_node_string(im, "auto_pad", "NOTSET");
    for (int i = 0; i < (int)NB_COUNT(names); i++) {
        if (strcmp(mode, names[i]) != 0) continue;
        *out = (nb_auto_pad)i;
        return NB_OK;
    }
    return nb_node_error(im, NB_MALFORMED,
                         "auto_pad is '%s', expected NOTSET, SAME_UPPER, SAME_LOWER or VALID",
                         mode);
}
