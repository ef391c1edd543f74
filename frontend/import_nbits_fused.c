/* Products of com.microsoft with weights in blocks that share their input, which may be normed
 * first: MatMulNBitsMlp (a gate and what it multiplies) and MatMulNBitsQkv. */
#include "frontend/quant.h"

#include <string.h>

#define USUAL_EPS 1e-5f

/* Inputs: x, what is added to it, the gain of its norm, then a weight, scales and a bias each. */
enum { X, SKIP, GAIN, FIRST, EACH = 3 };

/* rms_norm(x + skip), each where it is given; *sum is the former. */
static nb_value *normed(nb_importer *im, nb_value **sum) {
    nb_value *x = nb_node_input(im, X);
    if (nb_has_input(im, SKIP) && x) {
        nb_value *skip = nb_node_input(im, SKIP);
        x = skip ? nb_combine(im, NB_OP_add, x, skip) : NULL;
    }
    *sum = x;
    if (!nb_has_input(im, GAIN) || !x) return x;
    return nb_normalized(im, NB_OP_rms_norm, x, nb_node_input(im, GAIN), NULL, USUAL_EPS);
}

/* The product with weight i, which has N outputs. */
static nb_value *product(nb_importer *im, nb_value *x, size_t i, int64_t N) {
    return nb_nbits_product(im, x, FIRST + EACH * i, FIRST + EACH * i + 2, N);
}

nb_status nb_import_nbits_mlp(nb_importer *im) {
    const char *activation = nb_node_string(im, "activation", "");
    const int64_t N = nb_node_int(im, "N", 0);
    nb_value *sum, *x = normed(im, &sum);
    if (strcmp(activation, "silu") != 0)
        return nb_node_error(im, NB_UNSUPPORTED, "activation '%s' is not supported", activation);
    nb_value *gate = product(im, x, 0, N), *up = gate ? product(im, x, 1, N) : NULL;
    gate = up ? nb_swish(im, gate, 1) : NULL;
    NB_TRY(nb_node_output(im, 0, gate ? nb_combine(im, NB_OP_mul, gate, up) : NULL));
    return nb_node_output(im, 1, sum);
}

nb_status nb_import_nbits_qkv(nb_importer *im) {
    nb_value *sum, *x = normed(im, &sum);
    for (size_t i = 0; i < 3; i++)
        NB_TRY(nb_node_output(im, i, product(im, x, i, nb_node_int(im, i ? "Nkv" : "Nq", 0))));
    return nb_node_output(im, 3, sum);
}
