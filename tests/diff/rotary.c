/* rotary: halves and neighbours, tables for all rows or each, any length, any bits. */
#include "tests/diff/diff.h"

static const int64_t lengths[] = {1, 2, 3, 5, 17};

static nb_value *rotary(diff *d, nb_value *x, nb_value *c, nb_value *s, bool interleaved) {
    nb_begin(&d->b, NB_OP_rotary);
    nb_arg(&d->b, x);
    nb_arg(&d->b, c);
    nb_arg(&d->b, s);
    nb_set_bool(&d->b, "interleaved", interleaved);
    return nb_end(&d->b);
}

static void width(int64_t D, int form, bool plain) {
    diff d;
    diff_begin(&d, "rotary form %d, D = %lld%s", form, (long long)D, plain ? "" : ", any bits");
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    d.plain = plain;
    int64_t batch = form & 1 ? 2 : 1;
    nb_value *x = diff_input(&d, NB_F32, 4, (int64_t[]){2, 3, -1, D});
    nb_value *c = diff_input(&d, NB_F32, 3, (int64_t[]){batch, -1, D / 2});
    nb_value *s = diff_input(&d, NB_F32, 3, (int64_t[]){batch, -1, D / 2});
    diff_check(&d, rotary(&d, x, c, s, form >= 2));
}

/* Tables of the model, one row of them picked by position; cos and sin of different batch. */
static void tables(bool interleaved) {
    static const int64_t positions[] = {3, 0, -1};
    diff d;
    diff_begin(&d, "rotary of gathered tables%s", interleaved ? ", interleaved" : "");
    d.indices = positions;
    d.n_indices = NB_COUNT(positions);
    nb_value *x = diff_input(&d, NB_F32, 4, (int64_t[]){2, 1, 3, 40});
    nb_value *index = diff_input(&d, NB_I64, 2, (int64_t[]){1, 3}), *parts[2];
    for (int i = 0; i < 2; i++) {
        nb_begin(&d.b, NB_OP_gather);
        nb_arg(&d.b, diff_const(&d, NB_F32, 2, (int64_t[]){5, 20}));
        nb_arg(&d.b, index);
        parts[i] = nb_end(&d.b);
    }
    nb_value *each = diff_input(&d, NB_F32, 3, (int64_t[]){2, 3, 20});
    diff_check_all(&d, 2,
                   (nb_value *[]){rotary(&d, x, parts[0], parts[1], interleaved),
                                  rotary(&d, x, parts[0], each, interleaved)});
}

void diff_test_rotary(void) {
    static const int64_t widths[] = {2, 6, 32, 34, 128};
    for (size_t i = 0; i < NB_COUNT(widths); i++)
        for (int form = 0; form < 4; form++) width(widths[i], form, (i + (size_t)form) % 2);
    tables(false);
    tables(true);
}
