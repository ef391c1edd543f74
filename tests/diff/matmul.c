/* matmul: element types, batches, strides, right operands in panels and in place. */
#include "tests/diff/diff.h"

static const int64_t rows[] = {1, 2, 3, 5, 17, 64};

/* Any number of rows; K and N next to and between multiples of 16. */
static void any_rows(nb_elem elem, int64_t K, int64_t N, bool constant, bool plain) {
    diff d;
    diff_begin(&d, "matmul %s, K %lld, N %lld%s%s", nb_elems[elem].text, (long long)K, (long long)N,
               constant ? ", constant" : "", plain ? "" : ", any bits");
    d.lengths = rows;
    d.n_lengths = NB_COUNT(rows);
    d.plain = plain;
    d.wide = elem == NB_F32;
    nb_value *a = diff_input(&d, elem, 2, (int64_t[]){-1, K});
    nb_value *b = constant ? diff_const(&d, elem, 2, (int64_t[]){K, N})
                           : diff_input(&d, elem, 2, (int64_t[]){K, N});
    diff_check(&d, nb_binary(&d.b, NB_OP_matmul, a, b));
}

static void sizes(void) {
    static const int64_t sides[][2] = {{1, 1}, {33, 21}, {16, 16}, {0, 5}, {7, 32}, {100, 47}};
    for (size_t i = 0; i < NB_COUNT(sides); i++) {
        any_rows(NB_F32, sides[i][0], sides[i][1], true, i % 2);
        any_rows(NB_F32, sides[i][0], sides[i][1], false, i % 2 == 0);
    }
}

static void types(void) {
    static const nb_elem elems[] = {NB_F16, NB_BF16, NB_I64, NB_I32, NB_I16,
                                    NB_I8,  NB_U8,   NB_U16, NB_U32, NB_U64};
    for (size_t e = 0; e < NB_COUNT(elems); e++)
        any_rows(elems[e], 33, 21, e % 2, nb_elem_is_float(elems[e]));
    any_rows(NB_F16, 18, 5, false, false);
    any_rows(NB_BF16, 18, 5, false, false);
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

void diff_test_matmul(void) {
    sizes();
    types();
    batches();
    known_rows();
}
