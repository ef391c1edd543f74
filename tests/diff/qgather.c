/* qgather: rows of quantized tables, good and bad indices. */
#include "tests/diff/quants.h"

static nb_value *qgather(diff *d, nb_value *table, nb_value *index) {
    nb_begin(&d->b, NB_OP_qgather);
    nb_arg(&d->b, table);
    nb_arg(&d->b, index);
    return nb_end(&d->b);
}

static void tables(void) {
    static const int64_t good[] = {0, 8, -1, 2, -9, 3, 5};
    static const diff_codes forms[] = {
        {.storage = NB_I8, .granularity = NB_PER_TENSOR, .zeros = DIFF_ONE_ZERO},
        {.storage = NB_I8, .granularity = NB_PER_AXIS, .axis = 0},
        {.storage = NB_U8, .granularity = NB_PER_AXIS, .axis = 0, .zeros = DIFF_ZEROS},
        {.storage = NB_I4, .granularity = NB_PER_GROUP, .axis = 1, .group = 32},
        {.storage = NB_U4,
         .granularity = NB_PER_GROUP,
         .axis = 1,
         .group = 16,
         .zeros = DIFF_ZEROS},
        {.storage = NB_I4, .granularity = NB_PER_AXIS, .axis = 0, .hard_scales = true},
        {.storage = NB_U2, .granularity = NB_PER_GROUP, .axis = 1, .group = 7, .zeros = DIFF_ZEROS},
        {.storage = NB_I16, .granularity = NB_PER_AXIS, .axis = 0, .contents = DIFF_ENDS},
        {.storage = NB_NF4, .granularity = NB_PER_GROUP, .axis = 1, .group = 32},
        {.storage = NB_I3, .granularity = NB_PER_GROUP, .axis = 1, .group = 32},
        {.storage = NB_U5, .granularity = NB_PER_AXIS, .axis = 0, .zeros = DIFF_ZEROS},
        {.storage = NB_U6, .granularity = NB_PER_AXIS, .axis = 0, .zeros = DIFF_ONE_ZERO},
        {.storage = NB_U4,
         .granularity = NB_PER_GROUP,
         .axis = 1,
         .group = 16,
         .scales = NB_I8,
         .zeros = DIFF_MINIMA},
    };
    static const int64_t counts[] = {0, 1, 2, 5, 17};
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        diff d;
        diff_begin(&d, "qgather %s", diff_codes_text(&forms[i]).text);
        d.indices = good;
        d.n_indices = NB_COUNT(good);
        d.lengths = counts;
        d.n_lengths = NB_COUNT(counts);
        nb_value *table = diff_codes_const(&d, &forms[i], 2, (int64_t[]){9, 71});
        nb_value *index = diff_input(&d, NB_I64, 2, (int64_t[]){2, -1});
        diff_check(&d, qgather(&d, table, index));
    }
}

/* A scalar index, one that is known, a table of matrices. */
static void forms_of_index(void) {
    static const diff_codes rows = {
        .storage = NB_U4, .granularity = NB_PER_GROUP, .axis = 2, .group = 4, .zeros = DIFF_ZEROS};
    for (int rank = 0; rank < 3; rank++) {
        static const int64_t good[] = {-5, 4, 1};
        diff d;
        diff_begin(&d, "qgather of matrices, index of rank %d", rank);
        d.indices = good;
        d.n_indices = NB_COUNT(good);
        nb_value *table = diff_codes_const(&d, &rows, 3, (int64_t[]){5, 3, 9});
        diff_check(&d, qgather(&d, table, diff_input(&d, NB_I64, rank, (int64_t[]){2, 3})));
    }
    diff d;
    diff_begin(&d, "qgather with a known index");
    nb_value *table = diff_codes_const(&d, &rows, 3, (int64_t[]){5, 3, 9});
    static const int64_t index[] = {-2};
    diff_check(&d, qgather(&d, table, nb_const_i64(d.graph, "i", 1, (int64_t[]){1}, index)));
}

static void bad_indices(void) {
    static const int64_t bad[][2] = {{0, 9}, {-10, 0}, {INT64_MAX, 1}, {1, INT64_MIN}};
    static const diff_codes rows = {.storage = NB_I4, .granularity = NB_PER_AXIS};
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        diff d;
        diff_begin(&d, "qgather with an index out of range (%zu)", i);
        d.indices = bad[i];
        d.n_indices = 2;
        d.result = 2;
        nb_value *table = diff_codes_const(&d, &rows, 2, (int64_t[]){9, 8});
        diff_check(&d, qgather(&d, table, diff_input(&d, NB_I64, 1, (int64_t[]){2})));
    }
}

void diff_test_qgather(void) {
    tables();
    forms_of_index();
    bad_indices();
}
