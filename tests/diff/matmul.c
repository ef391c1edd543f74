/* matmul: element types, batches, strides, right operands in panels and in place. */
#include "tests/diff/quants.h"

static const int64_t rows[] = {1, 2, 3, 5, 17, 64, 0, 131};

static void rows_of(nb_elem elem, const int64_t *lengths, int64_t K, int64_t N, bool constant,
                    bool plain) {
    diff d;
    diff_begin(&d, "matmul %s, K %lld, N %lld%s%s, %lld rows", nb_elems[elem].text, (long long)K,
               (long long)N, constant ? ", constant" : "", plain ? "" : ", any bits",
               (long long)lengths[0]);
    d.lengths = lengths;
    d.n_lengths = DIFF_MAX_LENGTHS;
    d.plain = plain;
    d.wide = elem == NB_F32;
    nb_value *a = diff_input(&d, elem, 2, (int64_t[]){-1, K});
    nb_value *b = constant ? diff_const(&d, elem, 2, (int64_t[]){K, N})
                           : diff_input(&d, elem, 2, (int64_t[]){K, N});
    diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, b));
}

/* Any number of rows; K and N next to and between multiples of 16. */
static void any_rows(nb_elem elem, int64_t K, int64_t N, bool constant, bool plain) {
    rows_of(elem, rows, K, N, constant, plain);
}

static void sizes(void) {
    static const int64_t sides[][2] = {{1, 1}, {33, 21}, {16, 16}, {0, 5}, {7, 32}, {100, 47}};
    for (size_t i = 0; i < NB_COUNT(sides); i++) {
        any_rows(NB_F32, sides[i][0], sides[i][1], true, i % 2);
        any_rows(NB_F32, sides[i][0], sides[i][1], false, i % 2 == 0);
    }
}

/* f32 by f16 and bf16, which are converted. */
static void halves(void) {
    static const nb_elem elems[] = {NB_F16, NB_BF16};
    static const int64_t sides[][2] = {{33, 21}, {16, 64}, {300, 16}, {5, 300}};
    for (size_t i = 0; i < NB_COUNT(elems) * NB_COUNT(sides); i++) {
        const int64_t *side = sides[i / 2];
        diff d;
        diff_begin(&d, "matmul f32 by %s, K %lld, N %lld", nb_elems[elems[i % 2]].text,
                   (long long)side[0], (long long)side[1]);
        d.lengths = rows;
        d.n_lengths = DIFF_MAX_LENGTHS;
        d.plain = i / 2 % 2;
        nb_value *a = diff_input(&d, NB_F32, 2, (int64_t[]){-1, side[0]});
        nb_value *b =
            i < 6 ? diff_const(&d, elems[i % 2], 2, side) : diff_input(&d, elems[i % 2], 2, side);
        diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, b));
    }
}

/* Weights that are codes, integers and floats. */
static void codes(void) {
    static const diff_codes forms[] = {
        {.storage = NB_NF4, .granularity = NB_PER_GROUP, .group = 64},
        {.storage = NB_F8E4M3FN, .granularity = NB_PER_AXIS, .axis = 1},
        {.storage = NB_F8E5M2, .granularity = NB_PER_AXIS, .axis = 0},
        {.storage = NB_F4E2M1, .granularity = NB_PER_GROUP, .axis = 1, .group = 8},
        {.storage = NB_F4E2M1, .granularity = NB_PER_GROUP, .group = 32, .scales = NB_F8E8M0},
        {.storage = NB_F4E2M1, .granularity = NB_PER_GROUP, .group = 16, .scales = NB_F8E4M3FN},
        {.storage = NB_U3, .granularity = NB_PER_GROUP, .group = 32, .zeros = DIFF_ZEROS},
        {.storage = NB_I8, .granularity = NB_PER_TENSOR, .zeros = DIFF_ONE_ZERO},
        {.storage = NB_I6, .granularity = NB_PER_GROUP, .group = 16, .scales = NB_I8},
        {.storage = NB_U4,
         .granularity = NB_PER_GROUP,
         .group = 32,
         .scales = NB_I8,
         .zeros = DIFF_MINIMA},
        {.storage = NB_NF4,
         .granularity = NB_PER_GROUP,
         .group = 64,
         .scales = NB_I8,
         .zeros = DIFF_ONE_MINIMUM},
        {.storage = NB_I4, .granularity = NB_PER_GROUP, .group = 32, .scales = NB_F16},
    };
    static const int64_t sides[][2] = {{130, 21}, {33, 64}, {0, 5}};
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        const int64_t K = sides[i % 3][0], N = sides[i % 3][1];
        diff d;
        diff_begin(&d, "matmul by codes, %s, K %lld, N %lld", diff_codes_text(&forms[i]).text,
                   (long long)K, (long long)N);
        d.lengths = rows;
        d.n_lengths = DIFF_MAX_LENGTHS;
        nb_value *a = diff_input(&d, NB_F32, 3, (int64_t[]){2, -1, K});
        nb_value *w = diff_codes_const(&d, &forms[i], 2, (int64_t[]){K, N});
        diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, w));
    }
}

static void types(void) {
    static const nb_elem elems[] = {NB_F16, NB_BF16, NB_I64, NB_I32, NB_I16,
                                    NB_I8,  NB_U8,   NB_U16, NB_U32, NB_U64};
    for (size_t e = 0; e < NB_COUNT(elems); e++)
        any_rows(elems[e], 33, 21, e % 2, nb_elem_is_float(elems[e]));
    any_rows(NB_F16, 18, 5, false, false);
    any_rows(NB_BF16, 18, 5, false, false);
    /* Several matrices: each is converted to its own place. */
    for (size_t e = 0; e < NB_COUNT(elems); e++) {
        diff d;
        diff_begin(&d, "matmul %s of batches", nb_elems[elems[e]].text);
        nb_value *a = diff_input(&d, elems[e], 4, (int64_t[]){2, 3, 4, 8});
        nb_value *b = diff_input(&d, elems[e], 4, (int64_t[]){2, 1, 8, 6});
        diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, b));
    }
}

typedef struct form {
    int a_rank, b_rank;
    int64_t a[4], b[4];
} form;

static void batches(void) {
    static const form forms[] = {
        {3, 2, {2, 5, 33}, {33, 21}},       {2, 3, {5, 9}, {3, 9, 17}},
        {3, 3, {3, 1, 18}, {3, 18, 40}},    {4, 4, {2, 1, 4, 7}, {1, 3, 7, 16}},
        {4, 3, {2, 3, 2, 16}, {1, 16, 15}}, {3, 3, {-1, 3, -2}, {1, -2, 5}},
        {3, 3, {-1, -2, 8}, {-1, 8, -2}},   {3, 3, {0, 2, 4}, {1, 4, 3}},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        const form *f = &forms[i];
        for (int constant = 0; constant < (i < 5 ? 2 : 1); constant++) {
            diff d;
            diff_begin(&d, "matmul, batch form %zu%s", i, constant ? ", constant" : "");
            d.symbols[0] = 4;
            d.symbols[1] = 6;
            d.plain = i % 2;
            nb_value *a = diff_input(&d, NB_F32, f->a_rank, f->a);
            nb_value *b = constant ? diff_const(&d, NB_F32, f->b_rank, f->b)
                                   : diff_input(&d, NB_F32, f->b_rank, f->b);
            diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, b));
        }
    }
}

/* Rows known when compiling: whole tiles, a rest, both. */
static void known_rows(void) {
    for (size_t i = 0; i < NB_COUNT(rows); i += 2) {
        diff d;
        diff_begin(&d, "matmul, %lld known rows", (long long)rows[i]);
        d.plain = true;
        d.wide = true;
        nb_value *a = diff_input(&d, NB_F32, 2, (int64_t[]){rows[i], 19});
        nb_value *b = diff_const(&d, NB_F32, 2, (int64_t[]){19, 35});
        diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, b));
    }
}

/* Every number of rows up to two of the widest tiles and one more, and those around blocks of rows;
 * K around its blocks, so that sums wait between them; N with and without whole panels. */
static void tiles(void) {
    static const int64_t all[][8] = {{1, 2, 3, 4, 5, 6, 7, 8},
                                     {9, 10, 11, 12, 13, 14, 15, 16},
                                     {17, 18, 19, 20, 21, 22, 23, 24},
                                     {25, 26, 48, 49, 64, 127, 130, 1}},
                         around[] = {1, 2, 5, 13, 130, 260, 0, 28};
    for (size_t i = 0; i < NB_COUNT(all); i++) rows_of(NB_F32, all[i], 31, 45, true, true);
    rows_of(NB_F32, all[3], 13, 9, false, true);
    static const int64_t sides[][2] = {{64, 33}, {127, 80}, {256, 48}, {257, 37}, {515, 100}};
    for (size_t i = 0; i < NB_COUNT(sides); i++) {
        rows_of(NB_F32, around, sides[i][0], sides[i][1], true, true);
        rows_of(NB_F32, around, sides[i][0], sides[i][1], false, true);
    }
    /* Many panels: their chunks, and the larger blocks of rows. */
    rows_of(NB_F32, around, 300, 273, true, true);
    rows_of(NB_F32, around, 300, 273, false, true);
    rows_of(NB_I64, around, 259, 35, true, true);
    rows_of(NB_I8, around, 300, 35, false, true);
    rows_of(NB_F16, around, 300, 35, true, true);
}

void diff_test_matmul(void) {
    codes();
    sizes();
    tiles();
    types();
    halves();
    batches();
    known_rows();
}
