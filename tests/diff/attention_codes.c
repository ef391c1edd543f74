/* attention to keys and values of codes: sizes around 16 rows and 16 keys, scales of any bits, and
 * codes on one side with floats on the other; and how codes of 4 bits are made. */
#include "tests/diff/diff.h"

/* Elements of keys and values; scales come with those of i8, minima too with those of u8, which
 * hold two codes of 4 bits. */
typedef struct form {
    int64_t H, G, S, T, D, E;
    nb_elem k, v;
    bool masked;
    int64_t group;
} form;

static const form forms[] = {
    {1, 1, 1, 1, 1, 1, NB_I8, NB_I8, false, 0},
    {4, 2, 5, 37, 24, 24, NB_I8, NB_I8, true, 0},
    {6, 1, 17, 16, 8, 8, NB_I8, NB_F32, false, 0},
    {4, 4, 16, 33, 16, 16, NB_F32, NB_I8, true, 0},
    {2, 1, 3, 0, 4, 4, NB_I8, NB_I8, false, 0},
    {2, 2, 33, 17, 32, 5, NB_I8, NB_F16, true, 0},
    {3, 3, 2, 15, 18, 40, NB_BF16, NB_I8, true, 0},
    {8, 2, 1, 64, 64, 64, NB_I8, NB_I8, true, 0},
    {2, 1, 4, 20, 0, 8, NB_I8, NB_I8, false, 0},
    {8, 2, 1, 100, 128, 128, NB_I8, NB_I8, false, 0},
    {1, 1, 1, 600, 64, 64, NB_I8, NB_I8, false, 0},
    {2, 1, 1, 33, 33, 65, NB_I8, NB_I8, true, 0},
    {4, 1, 1, 530, 20, 96, NB_I8, NB_I8, true, 0},
    {5, 1, 13, 290, 130, 130, NB_I8, NB_I8, true, 0},
    {2, 2, 1, 70, 130, 130, NB_I8, NB_I8, true, 0},
    {3, 3, 1, 47, 96, 96, NB_I8, NB_I8, false, 0},
    {2, 2, 1, 33, 128, 33, NB_I8, NB_F16, false, 0},
    {12, 1, 1, 300, 36, 64, NB_I8, NB_I8, true, 0},
    {4, 2, 1, 20, 1024, 16, NB_I8, NB_I8, false, 0},
    {6, 1, 1, 170, 32, 40, NB_F16, NB_F16, true, 0},
    {1, 1, 1, 1, 2, 2, NB_U8, NB_U8, false, 32},
    {4, 2, 5, 37, 24, 24, NB_U8, NB_U8, true, 16},
    {6, 1, 17, 16, 8, 8, NB_U8, NB_F32, false, 32},
    {4, 4, 16, 33, 16, 16, NB_F16, NB_U8, true, 16},
    {2, 1, 3, 0, 4, 4, NB_U8, NB_U8, false, 16},
    {2, 2, 33, 17, 32, 6, NB_U8, NB_I8, true, 32},
    {3, 3, 2, 15, 18, 40, NB_BF16, NB_U8, true, 32},
    {8, 2, 1, 64, 64, 64, NB_U8, NB_U8, true, 32},
    {2, 1, 4, 20, 0, 8, NB_U8, NB_U8, false, 32},
    {8, 2, 1, 100, 128, 128, NB_U8, NB_U8, false, 64},
    {2, 2, 40, 90, 130, 66, NB_U8, NB_U8, true, 16},
};

static nb_value *keys(diff *d, nb_elem elem, const form *f, int64_t size) {
    int64_t width = elem == NB_U8 ? size / 2 : size;
    return diff_input(d, elem, 4, (int64_t[]){2, f->G, f->T, width});
}

/* What stands beside such keys or values: scales, or (which = 1) minima; NULL for none. */
static nb_value *scales(diff *d, nb_elem elem, const form *f, int64_t size, int which) {
    if (elem == NB_U8)
        return diff_input(d, NB_F16, 4, (int64_t[]){2, f->G, nb_ceildiv(size, f->group), f->T});
    if (elem != NB_I8 || which) return NULL;
    return diff_input(d, NB_F32, 4, (int64_t[]){2, f->G, f->T, 1});
}

static void attends_to(diff *d, const form *f) {
    nb_value *q = diff_input(d, NB_F32, 4, (int64_t[]){2, f->H, f->S, f->D}),
             *k = keys(d, f->k, f, f->D), *v = keys(d, f->v, f, f->E),
             *mask = f->masked ? diff_input(d, NB_F32, 2, (int64_t[]){f->S, f->T}) : NULL,
             *beside[4];
    for (int i = 0; i < 4; i++)
        beside[i] = i % 2 ? scales(d, f->v, f, f->E, i / 2) : scales(d, f->k, f, f->D, i / 2);
    nb_begin(&d->b, NB_OP_attention);
    nb_arg(&d->b, q);
    nb_arg(&d->b, k);
    nb_arg(&d->b, v);
    nb_arg(&d->b, mask);
    for (int i = 0; i < 4; i++) nb_arg(&d->b, beside[i]);
    if (f->group) nb_set_int(&d->b, "group", f->group);
    nb_set_float(&d->b, "scale", 0.125F);
    diff_check(d, nb_end(&d->b));
}

static void attends(const form *f, bool plain) {
    diff d;
    diff_begin(&d, "attention to %s and %s, %lld keys of %lld, groups of %lld%s",
               nb_elems[f->k].text, nb_elems[f->v].text, (long long)f->T, (long long)f->D,
               (long long)f->group, plain ? "" : ", any bits");
    d.plain = plain;
    d.wide = f->T > 64 && f->v == NB_I8;
    attends_to(&d, f);
}

/* Groups that are not whole, heads of no elements, and rows that are hard in one way each. */
static void makes_codes(bool feeds) {
    static const int64_t sizes[][2] = {{0, 16},  {2, 16},  {8, 32},   {16, 16},  {18, 16},
                                       {40, 32}, {64, 32}, {128, 64}, {130, 128}};
    for (size_t i = 0; i < 3 * NB_COUNT(sizes); i++) {
        const int64_t *n = sizes[i / 3];
        diff d;
        diff_begin(&d, "quantize_u4 %lld by %lld%s, %s", (long long)n[0], (long long)n[1],
                   feeds ? " with feedback" : "",
                   i % 3 == 0   ? "any bits"
                   : i % 3 == 1 ? "plain"
                                : "hard rows");
        d.plain = i % 3 == 1;
        d.rows = i % 3 == 2;
        nb_value *x = diff_input(&d, NB_F32, 4, (int64_t[]){2, 3, 7, n[0]});
        d.plain = true;
        nb_value *feedback = feeds ? diff_const(&d, NB_F32, 3, (int64_t[]){3, n[0], n[0]}) : NULL;
        d.plain = i % 3 == 1;
        nb_begin(&d.b, NB_OP_quantize_u4);
        nb_arg(&d.b, x);
        nb_arg(&d.b, feedback);
        nb_set_int(&d.b, "group", n[1]);
        nb_end(&d.b);
        diff_check_all(&d, 3, d.b.op->results);
    }
}

/* Codes of 8 bits of any number of tokens, for every number of rows in a tile and more. */
static void any_length(void) {
    static const int64_t lengths[] = {0, 1, 15, 17, 31, 40, 63, 97};
    for (int64_t rows = 1; rows < 12; rows++) {
        const form f = {rows, 1, 1, -1, 40, 72, NB_I8, NB_I8, false, 0};
        diff d;
        diff_begin(&d, "attention to codes, lengths at run time, %lld rows", (long long)rows);
        d.wide = true;
        d.plain = rows % 2;
        d.lengths = lengths;
        d.n_lengths = NB_COUNT(lengths);
        attends_to(&d, &f);
    }
}

void diff_test_attention_codes(void) {
    makes_codes(false);
    makes_codes(true);
    any_length();
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        attends(&forms[i], true);
        if (i % 2) attends(&forms[i], false);
    }
}
