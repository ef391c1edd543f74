/* dequantize of constants: every storage, every place a scale can stand, zero points of both
 * kinds. Several storages share a graph; each result is an output. */
#include "tests/diff/quants.h"

static const nb_elem storages[] = {NB_I2, NB_U2, NB_I3, NB_U3,  NB_I4,  NB_U4,  NB_I5, NB_U6,
                                   NB_I7, NB_I8, NB_U8, NB_I16, NB_U16, NB_I32, NB_U32};
static const nb_elem floats[] = {NB_F8E4M3FN, NB_F8E4M3FNUZ, NB_F8E5M2, NB_NF4, NB_F4E2M1};

static void five_storages(const nb_elem *list, const diff_codes *form, int rank,
                          const int64_t *dims) {
    diff d;
    diff_codes c = *form;
    c.storage = NB_I8;
    diff_begin(&d, "dequantize from %s, %s, rank %d", nb_elems[list[0]].text,
               diff_codes_text(&c).text, rank);
    nb_value *ys[5];
    for (size_t i = 0; i < 5; i++) {
        c.storage = list[i];
        ys[i] = diff_dequantize(&d, diff_codes_const(&d, &c, rank, dims));
    }
    diff_check_all(&d, 5, ys);
}

static void all_storages(const diff_codes *form, int rank, const int64_t *dims) {
    for (size_t first = 0; first < NB_COUNT(storages); first += 5)
        five_storages(&storages[first], form, rank, dims);
    if (form->zeros != DIFF_ONE_ZERO && form->zeros != DIFF_ZEROS)
        five_storages(floats, form, rank, dims);
}

void diff_test_dequantize(void) {
    static const int64_t line[] = {35}, matrix[] = {7, 33}, cube[] = {3, 5, 18};
    static const diff_codes forms[] = {
        {.granularity = NB_PER_TENSOR},
        {.granularity = NB_PER_TENSOR, .zeros = DIFF_ONE_ZERO},
        {.granularity = NB_PER_TENSOR, .zeros = DIFF_ZEROS},
        {.granularity = NB_PER_AXIS, .axis = 0, .zeros = DIFF_ZEROS, .hard_scales = true},
        {.granularity = NB_PER_AXIS, .axis = 1},
        {.granularity = NB_PER_GROUP, .axis = 0, .group = 3, .zeros = DIFF_ZEROS},
        {.granularity = NB_PER_GROUP, .axis = 1, .group = 32, .zeros = DIFF_ONE_ZERO},
        {.granularity = NB_PER_GROUP, .axis = 1, .group = 4, .contents = DIFF_ENDS},
        {.granularity = NB_PER_GROUP, .axis = 0, .group = 3, .scales = NB_F16},
        {.granularity = NB_PER_GROUP, .axis = 1, .group = 2, .scales = NB_I8},
        {.granularity = NB_PER_GROUP, .axis = 0, .group = 1, .scales = NB_I8, .zeros = DIFF_MINIMA},
        {.granularity = NB_PER_GROUP, .axis = 1, .group = 8, .zeros = DIFF_MINIMA},
        {.granularity = NB_PER_AXIS, .axis = 0, .scales = NB_F16, .zeros = DIFF_MINIMA},
        {.granularity = NB_PER_AXIS, .axis = 1, .scales = NB_I8, .zeros = DIFF_ONE_MINIMUM},
        {.granularity = NB_PER_TENSOR, .scales = NB_I8, .zeros = DIFF_MINIMA},
        {.granularity = NB_PER_TENSOR, .zeros = DIFF_ONE_MINIMUM, .contents = DIFF_ENDS},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        all_storages(&forms[i], 2, matrix);
        if (i % 2) all_storages(&forms[i], 3, cube);
    }
    all_storages(&forms[3], 1, line);
}
