/* Contents of test tensors. */
#include "tests/diff/diff.h"

#include <string.h>

uint64_t diff_seed = 1;
static uint64_t state;

void diff_random_start(const char *name) {
    state = diff_seed;
    for (; *name; name++) state = (state ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
}

/* splitmix64 */
uint64_t diff_random(void) {
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int64_t diff_below(int64_t n) { return (int64_t)(diff_random() % (uint64_t)n); }

static uint32_t random_f32(bool plain) {
    static const uint32_t special[] = {
        0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x00000001,
        0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x3f800000, 0xbf800000,
        0x3f000000, 0x40200000, 0xc0200000, 0x40000000, 0x4b000000, 0x4b7fffff, 0x42b17218,
        0xc2ce8ed0, 0x33800000, 0x477fe000, 0x477ff000, 0x387fc000, 0x33000000, 0x5f000000,
    };
    float x = (float)(diff_below(2000001) - 1000000) * 8e-6F;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (plain || diff_below(3)) return bits;
    return diff_below(2) ? special[diff_below((int64_t)NB_COUNT(special))]
                         : (uint32_t)diff_random();
}

static uint16_t random_16(nb_elem elem, bool plain) {
    static const uint16_t special[] = {0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e00, 0x0001, 0x83ff,
                                       0x0400, 0x7bff, 0x3c00, 0xbc00, 0x7f80, 0xff80, 0x7fc0};
    if (!plain && diff_below(4) == 0) return special[diff_below((int64_t)NB_COUNT(special))];
    if (!plain && diff_below(4) == 0) return (uint16_t)diff_random();
    /* A random sign and mantissa with an exponent near that of 1. */
    uint16_t low = (uint16_t)(diff_random() & (elem == NB_F16 ? 0x83ff : 0x807f));
    uint16_t exponent = (uint16_t)(diff_below(6) + (elem == NB_F16 ? 13 : 125));
    return (uint16_t)(low | exponent << (elem == NB_F16 ? 10 : 7));
}

static double random_f64(bool plain) {
    static const double special[] = {0.0, -0.0, 1e308, -1e-308, 5e-324, 1.0, -1.0, 0.5, 9e18, -3e9};
    if (!plain && diff_below(3) == 0) {
        int64_t i = diff_below((int64_t)NB_COUNT(special) + 3);
        if (i >= (int64_t)NB_COUNT(special)) {
            i -= (int64_t)NB_COUNT(special);
            return i == 0 ? __builtin_nan("") : i == 1 ? __builtin_inf() : -__builtin_inf();
        }
        return special[i];
    }
    return (double)(diff_below(2000001) - 1000000) * 1e-5;
}

static int64_t random_int(nb_elem elem, bool plain) {
    int64_t small = diff_below(21) - 10;
    if (elem == NB_BOOL) return diff_below(2);
    if (plain || diff_below(2)) return small;
    switch (diff_below(4)) {
    case 0:
        return nb_elems[elem].class_ == NB_CLASS_INT ? nb_elem_min(elem) : -1;
    case 1:
        return nb_elems[elem].class_ == NB_CLASS_INT ? nb_elem_max(elem) : -1;
    default:
        return (int64_t)diff_random();
    }
}

void diff_fill(nb_elem elem, int64_t count, bool plain, void *data) {
    unsigned char *at = (unsigned char *)data;
    size_t size = (size_t)nb_elems[elem].bits / 8;
    for (int64_t i = 0; i < count; i++, at += size) {
        if (elem == NB_F32) {
            uint32_t v = random_f32(plain);
            memcpy(at, &v, size);
        } else if (elem == NB_F64) {
            double v = random_f64(plain);
            memcpy(at, &v, size);
        } else if (elem == NB_F16 || elem == NB_BF16) {
            uint16_t v = random_16(elem, plain);
            memcpy(at, &v, size);
        } else {
            int64_t v = random_int(elem, plain);
            memcpy(at, &v, size);
        }
    }
}
