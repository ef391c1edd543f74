/* attention to keys and values of codes: sizes around 16 rows and 16 keys, scales of any bits, and
 * codes on one side with floats on the other. */
#include "tests/diff/diff.h"

/* Elements of keys and values; scales come with those of i8. */
typedef struct form {
    int64_t H, G, S, T, D, E;
    nb_elem k, v;
    bool masked;
} form;

static const form forms[] = {
    {1, 1, 1, 1, 1, 1, NB_I8, NB_I8, false},     {4, 2, 5, 37, 24, 24, NB_I8, NB_I8, true},
    {6, 1, 17, 16, 8, 8, NB_I8, NB_F32, false},  {4, 4, 16, 33, 16, 16, NB_F32, NB_I8, true},
    {2, 1, 3, 0, 4, 4, NB_I8, NB_I8, false},     {2, 2, 33, 17, 32, 5, NB_I8, NB_F16, true},
    {3, 3, 2, 15, 18, 40, NB_BF16, NB_I8, true}, {8, 2, 1, 64, 64, 64, NB_I8, NB_I8, true},
    {2, 1, 4, 20, 0, 8, NB_I8, NB_I8, false},    {8, 2, 1, 100, 128, 128, NB_I8, NB_I8, false},
};

static void attends(const form *f, bool plain) {
    diff d;
    diff_begin(&d, "attention to %s and %s, %lld keys of %lld%s", nb_elems[f->k].text,
               nb_elems[f->v].text, (long long)f->T, (long long)f->D, plain ? "" : ", any bits");
    d.plain = plain;
    nb_value *q = diff_input(&d, NB_F32, 4, (int64_t[]){2, f->H, f->S, f->D}),
             *k = diff_input(&d, f->k, 4, (int64_t[]){2, f->G, f->T, f->D}),
             *v = diff_input(&d, f->v, 4, (int64_t[]){2, f->G, f->T, f->E}),
             *mask = diff_input(&d, NB_F32, 2, (int64_t[]){f->S, f->T}), *scales[2] = {NULL};
    for (int i = 0; i < 2; i++)
        if ((i ? f->v : f->k) == NB_I8)
            scales[i] = diff_input(&d, NB_F32, 4, (int64_t[]){2, f->G, f->T, 1});
    nb_begin(&d.b, NB_OP_attention);
    nb_arg(&d.b, q);
    nb_arg(&d.b, k);
    nb_arg(&d.b, v);
    nb_arg(&d.b, f->masked ? mask : NULL);
    nb_arg(&d.b, scales[0]);
    nb_arg(&d.b, scales[1]);
    nb_set_float(&d.b, "scale", 0.125F);
    diff_check(&d, nb_end(&d.b));
}

void diff_test_attention_codes(void) {
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        attends(&forms[i], true);
        if (i % 2) attends(&forms[i], false);
    }
}
