/* Rows of floats, each hard in one way: what finds a scale for a row, or sums one up, meets them
 * all without every row holding a NaN. */
#include "tests/diff/diff.h"

#include <math.h>

typedef enum style {
    SMALL, /* random, and three times as likely as the others */
    SMALL_AGAIN,
    SMALL_MORE,
    ZEROS,      /* of both signs */
    EQUAL,      /* one value throughout: every code is at the end of its range */
    ALTERNATE,  /* the same, with both signs */
    TIES,       /* half way between codes when 127 is the largest */
    ONE_NAN,    /* small otherwise */
    ONE_INF,    /* likewise */
    SUBNORMAL,  /* the inverse of the scale overflows */
    TINY,       /* about where it does not */
    HUGE_,      /* near the largest float */
    WIDE_RANGE, /* exponents all over */
    OUTLIER,    /* one value far above the others */
    STYLES
} style;

static float small(void) { return (float)(diff_below(2000001) - 1000000) * 8e-6F; }

static float element(style s, int64_t i, int64_t at, float base) {
    bool odd = i % 2;
    switch (s) {
    case ZEROS:
        return diff_below(2) ? -0.0F : 0.0F;
    case EQUAL:
        return base;
    case ALTERNATE:
        return odd ? -base : base;
    case TIES:
        return i == at ? 127 : (float)(diff_below(253) - 126) + 0.5F;
    case ONE_NAN:
        return i == at ? __builtin_nanf("") : small();
    case ONE_INF:
        return i != at ? small() : base < 0 ? -__builtin_inff() : __builtin_inff();
    case SUBNORMAL:
        return ldexpf((float)(diff_below(2001) - 1000), -149);
    case TINY:
        return ldexpf((float)(diff_below(2001) - 1000), -131);
    case HUGE_:
        return small() / 8 * 0x1.fffffep+127F;
    case WIDE_RANGE:
        return ldexpf(small(), (int)diff_below(60) - 30);
    case OUTLIER:
        return i == at ? base * 1e6F : small();
    default:
        return small();
    }
}

void diff_fill_rows(int64_t rows, int64_t length, float *data) {
    /* The first rows, of which there are always some, in turn from a random start. */
    int64_t start = diff_below(STYLES);
    for (int64_t r = 0; r < rows; r++) {
        style s = (style)((start + r) % STYLES);
        int64_t at = diff_below(length + 1);
        float base = r / STYLES % 2 ? -fabsf(small()) : fabsf(small());
        for (int64_t i = 0; i < length; i++) data[r * length + i] = element(s, i, at, base);
    }
}
