/* Elements of tensors: the small float types against a search for the nearest value, and packed
 * integers. */
#include "ir/eval_private.h"
#include "ir/minifloat.h"
#include "ir/scalar.h"
#include "ir/support/map.h"
#include "tests/unit/unit.h"

#include <math.h>

/* largest: the biggest finite value; infinite: does it have infinities, and do casts give them? */
static const struct format {
    double largest, smallest;
    nb_elem elem;
    bool infinite;
} formats[] = {
    {65504, 0x1p-24, NB_F16, true},     {0x1.fep127, 0x1p-133, NB_BF16, true},
    {448, 0x1p-9, NB_F8E4M3FN, false},  {240, 0x1p-10, NB_F8E4M3FNUZ, false},
    {57344, 0x1p-16, NB_F8E5M2, false}, {57344, 0x1p-17, NB_F8E5M2FNUZ, false},
    {6, 0.5, NB_F4E2M1, false},         {0x1p127, 0x1p-127, NB_F8E8M0, false},
};

static uint32_t codes_of(nb_elem e) { return 1u << nb_elems[e].bits; }

START_TEST(every_code_survives) {
    const struct format *f = &formats[_i];
    double largest = 0, smallest = HUGE_VAL;
    for (uint32_t code = 0; code < codes_of(f->elem); code++) {
        float x = nb_float_decode(f->elem, code);
        if (isfinite(x) && (double)fabsf(x) > largest) largest = (double)fabsf(x);
        if (x > 0 && (double)x < smallest) smallest = (double)x;
        if (isnan(x))
            ck_assert(isnan(nb_float_decode(f->elem, nb_float_encode(f->elem, x))));
        else if (!isinf(x) || f->infinite)
            ck_assert_uint_eq(nb_float_encode(f->elem, x), code);
    }
    ck_assert(largest == f->largest && smallest == f->smallest);
}
END_TEST

/* Positive finite values grow with their codes; between two neighbours the nearer one is right,
 * and half way the even code. */
static void check_between(const struct format *f, uint32_t code) {
    double a = (double)nb_float_decode(f->elem, code),
           b = (double)nb_float_decode(f->elem, code + 1);
    if (!(b > a) || isinf(b)) return;
    float middle = (float)((a + b) / 2);
    if ((double)middle != (a + b) / 2) return; /* below the smallest f32 */
    ck_assert_uint_eq(nb_float_encode(f->elem, middle), code + (code & 1));
    ck_assert_uint_eq(nb_float_encode(f->elem, nextafterf(middle, 0)), code);
    ck_assert_uint_eq(nb_float_encode(f->elem, nextafterf(middle, HUGE_VALF)), code + 1);
    if (f->elem == NB_F8E8M0) return;
    uint32_t minus = 1u << (nb_elems[f->elem].bits - 1);
    ck_assert_uint_eq(nb_float_encode(f->elem, -nextafterf(middle, HUGE_VALF)), minus | (code + 1));
}

START_TEST(rounds_to_nearest_even) {
    const struct format *f = &formats[_i];
    uint32_t positive = f->elem == NB_F8E8M0 ? 255 : codes_of(f->elem) / 2;
    for (uint32_t code = 0; code + 1 < positive; code++) check_between(f, code);
}
END_TEST

START_TEST(ends_of_the_range) {
    const struct format *f = &formats[_i];
    float over = nb_float_decode(f->elem, nb_float_encode(f->elem, 3.4028235e38f));
    float infinite = nb_float_decode(f->elem, nb_float_encode(f->elem, HUGE_VALF));
    ck_assert(f->infinite ? isinf(over) : (double)over == f->largest);
    ck_assert(f->infinite ? isinf(infinite) : (double)infinite == f->largest);
    bool has_nan = f->elem != NB_F4E2M1;
    ck_assert_int_eq(isnan(nb_float_decode(f->elem, nb_float_encode(f->elem, NAN))) != 0, has_nan);
    if (f->elem == NB_F8E8M0) {
        ck_assert_uint_eq(nb_float_encode(f->elem, -1.0f), 0);
        ck_assert_uint_eq(nb_float_encode(f->elem, 0.0f), 0);
        return;
    }
    float zero = nb_float_decode(f->elem, nb_float_encode(f->elem, -0.0f));
    bool no_minus = f->elem == NB_F8E4M3FNUZ || f->elem == NB_F8E5M2FNUZ;
    ck_assert(zero == 0 && (signbit(zero) != 0) == !no_minus);
}
END_TEST

START_TEST(packed_low_first) {
    uint8_t bytes[2] = {0};
    nb_tensor t = {.elem = NB_I4, .rank = 1, .dims = {3}, .data = bytes, .bytes = 2};
    nb_tensor_set_int(&t, 0, 1);
    nb_tensor_set_int(&t, 1, -8);
    nb_tensor_set_int(&t, 2, 23); /* wraps to 7 */
    ck_assert(bytes[0] == 0x81 && bytes[1] == 0x07);
    ck_assert(nb_tensor_get_int(&t, 1) == -8 && nb_tensor_get_int(&t, 2) == 7);
    t.elem = NB_U2;
    ck_assert(nb_tensor_get_int(&t, 0) == 1 && nb_tensor_get_int(&t, 3) == 2);
    nb_tensor_set_int(&t, 3, 3);
    ck_assert(bytes[0] == 0xc1);
    t.elem = NB_I2;
    ck_assert(nb_tensor_get_int(&t, 3) == -1 && nb_tensor_get(&t, 0) == 1);
}
END_TEST

Suite *nb_suite_eval_elements(void) {
    Suite *suite = suite_create("eval_elements");
    TCase *tests = tcase_create("eval_elements");
    tcase_add_loop_test(tests, every_code_survives, 0, (int)NB_COUNT(formats));
    tcase_add_loop_test(tests, rounds_to_nearest_even, 0, (int)NB_COUNT(formats));
    tcase_add_loop_test(tests, ends_of_the_range, 0, (int)NB_COUNT(formats));
    tcase_add_test(tests, packed_low_first);
    suite_add_tcase(suite, tests);
    return suite;
}
