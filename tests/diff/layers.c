/* softmax and norms. */
#include "tests/diff/diff.h"

static const nb_elem elems[] = {NB_F32, NB_F16, NB_BF16, NB_F64};

static void softmaxes(void) {
    static const int64_t shapes[][3] = {{2, 3, 1},   {2, 3, 15}, {3, 16, 2}, {2, 17, 3},
                                        {1, 1, 100}, {40, 2, 2}, {2, 0, 3}};
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        for (int64_t axis = 0; axis < 3; axis++) {
            /* Other types than f32 where tails and strides meet. */
            for (size_t e = 0; e < (i == 3 ? NB_COUNT(elems) : 1); e++) {
                diff d;
                diff_begin(&d, "softmax %s shape %zu axis %lld", nb_elems[elems[e]].text, i,
                           (long long)axis);
                d.plain = i % 2;
                nb_value *x = diff_input(&d, elems[e], 3, shapes[i]);
                nb_begin(&d.b, NB_OP_softmax);
                nb_arg(&d.b, x);
                nb_set_int(&d.b, "axis", axis);
                /* Once into an output, once into a slot. */
                nb_value *y = nb_end(&d.b);
                diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_neg, y)});
            }
        }
    }
}

static void norm(int form, nb_elem elem, int64_t length) {
    static const int64_t lengths[] = {1, 3, 15, 16, 17, 33, 48, 300};
    diff d;
    diff_begin(&d, "norm form %d %s[%lld]", form, nb_elems[elem].text, (long long)length);
    d.lengths = lengths;
    d.n_lengths = length < 0 ? NB_COUNT(lengths) : 0;
    d.symbols[1] = 3;
    d.plain = length == 48;
    nb_value *x = diff_input(&d, elem, 3, (int64_t[]){2, -2, length});
    nb_value *gain =
        length < 0 ? diff_input(&d, elem, 1, &length) : diff_const(&d, elem, 1, &length);
    nb_value *bias = diff_input(&d, elem, 1, &length);
    nb_begin(&d.b, form ? NB_OP_layer_norm : NB_OP_rms_norm);
    nb_arg(&d.b, x);
    nb_arg(&d.b, gain);
    if (form) nb_arg(&d.b, form == 2 ? bias : NULL);
    nb_set_float(&d.b, "eps", 1e-5F);
    diff_check(&d, nb_end(&d.b));
}

static void norms(void) {
    for (int form = 0; form < 3; form++) {
        for (size_t e = 0; e < NB_COUNT(elems); e++) norm(form, elems[e], -1);
        norm(form, NB_F32, 1);
        norm(form, NB_F32, 48);
        norm(form, NB_F32, 17);
    }
}

void diff_test_layers(void) {
    softmaxes();
    norms();
}
