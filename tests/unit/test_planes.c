/* Packed units: where a code's bits are, worked by hand. */
#include "codegen/kernels/planes.h"
#include "ir/support/base.h"
#include "tests/unit/unit.h"

#include <string.h>

/* One code in a unit, and the bytes that are not 0. */
typedef struct placed {
    int bits, input, column;
    uint8_t code;
    int size; /* of the unit */
    struct {
        int at;
        uint8_t byte;
    } bytes[NB_UNIT_PLANES];
} placed;

START_TEST(one_code) {
    static const placed cases[] = {
        /* byte 4*9+2 of part 1, which is byte 102 of both: the upper two bits in field 3 (102/32)
         * of byte 102%32, the last in field 6 (102/16) of byte 102%16 */
        {3, 6, 9, 5, 48, {{6, 2 << 6}, {32 + 6, 1 << 6}}},
        {2, 6, 9, 3, 32, {{6, 3 << 6}}},
        {4, 5, 1, 11, 64, {{5, 11 << 4}}},
        {4, 2, 15, 11, 64, {{62, 11}}},
        /* byte 4*4+3 of part 0 */
        {5, 3, 4, 27, 80, {{19, 13}, {64 + 3, 1 << 1}}},
        {6, 3, 4, 45, 96, {{19, 11}, {64 + 19, 1}}},
        {7, 7, 15, 0x6a, 112, {{63, 13 << 4}, {64 + 31, 1 << 6}, {0, 0}}},
        {8, 1, 2, 0xa5, 64, {{9, 0xa5}}},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const placed *p = &cases[i];
        uint8_t codes[NB_UNIT_INPUTS][CG_LANES] = {{0}}, out[NB_UNIT_BYTES], want[NB_UNIT_BYTES];
        memset(want, 0, sizeof want);
        for (int k = 0; k < NB_UNIT_PLANES; k++)
            if (p->bytes[k].byte) want[p->bytes[k].at] = p->bytes[k].byte;
        codes[p->input][p->column] = p->code;
        ck_assert_int_eq(nb_unit_bytes(p->bits), p->size);
        nb_unit_pack(p->bits, codes, out);
        for (int k = 0; k < p->size; k++)
            ck_assert_msg(out[k] == want[k], "%d bits: byte %d is %d", p->bits, k, out[k]);
    }
}
END_TEST

/* Units have no room to spare: all ones fill them. */
START_TEST(all_ones) {
    for (int bits = 2; bits <= 8; bits++) {
        uint8_t codes[NB_UNIT_INPUTS][CG_LANES], out[NB_UNIT_BYTES];
        memset(codes, (1 << bits) - 1, sizeof codes);
        nb_unit_pack(bits, codes, out);
        ck_assert_int_eq(8 * nb_unit_bytes(bits), CG_LANES * nb_unit_inputs(bits) * bits);
        for (int i = 0; i < nb_unit_bytes(bits); i++) ck_assert_int_eq(out[i], 0xff);
    }
}
END_TEST

Suite *nb_suite_planes(void) {
    Suite *s = suite_create("planes");
    TCase *c = tcase_create("planes");
    tcase_add_test(c, one_code);
    tcase_add_test(c, all_ones);
    suite_add_tcase(s, c);
    return s;
}
