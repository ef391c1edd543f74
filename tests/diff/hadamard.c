/* hadamard: blocks shorter and longer than a vector, rows that end within one, any bits. */
#include "tests/diff/diff.h"

static void transform(int64_t block, int64_t size, bool plain) {
    static const int64_t lengths[] = {1, 5, 17};
    diff d;
    diff_begin(&d, "hadamard of %lld by blocks of %lld%s", (long long)size, (long long)block,
               plain ? "" : ", any bits");
    d.lengths = lengths;
    d.n_lengths = NB_COUNT(lengths);
    d.plain = plain;
    nb_value *x = diff_input(&d, NB_F32, 3, (int64_t[]){2, -1, size});
    nb_begin(&d.b, NB_OP_hadamard);
    nb_arg(&d.b, x);
    nb_set_int(&d.b, "block", block);
    /* Once into an output, once into a slot. */
    nb_value *y = nb_end(&d.b);
    diff_check_all(&d, 2, (nb_value *[]){y, nb_unary(&d.b, NB_OP_neg, y)});
}

void diff_test_hadamard(void) {
    static const int64_t blocks[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024};
    for (size_t i = 0; i < NB_COUNT(blocks); i++) {
        transform(blocks[i], 3 * blocks[i], true);
        transform(blocks[i], blocks[i] < 16 ? 21 * blocks[i] : blocks[i], false);
        transform(blocks[i], 2 * blocks[i] + 172 % blocks[i], false);
        transform(blocks[i], blocks[i] - 1 ? blocks[i] - 1 : 1, true);
    }
}
