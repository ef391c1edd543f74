/* Quantized values for tests: descriptors, and constants of codes with scales and zero points. */
#ifndef NB_DIFF_QUANTS_H
#define NB_DIFF_QUANTS_H

#include "tests/diff/diff.h"

typedef enum diff_zeros {
    DIFF_SYMMETRIC,
    DIFF_ONE_ZERO,
    DIFF_ZEROS,
    DIFF_ONE_MINIMUM,
    DIFF_MINIMA /* of the kind that scales are */
} diff_zeros;
typedef enum diff_contents {
    DIFF_ANY,  /* random codes, the ends of the range among them */
    DIFF_ENDS, /* nothing but the smallest and largest code */
    DIFF_TOP   /* nothing but the largest */
} diff_contents;

/* How a constant is quantized. */
typedef struct diff_codes {
    nb_elem storage;
    nb_granularity granularity; /* NB_PER_TENSOR, NB_PER_AXIS or NB_PER_GROUP */
    int axis;
    int64_t group;
    diff_zeros zeros;
    diff_contents contents;
    nb_elem scales;   /* a small float or f16; i8: codes of four along the axis by an f16; 0: f32 */
    bool hard_scales; /* from subnormal to huge, instead of about a hundredth */
} diff_codes;

/* For a case's name. */
typedef struct diff_text {
    char text[96];
} diff_text;
diff_text diff_codes_text(const diff_codes *codes);
nb_value *diff_codes_const(diff *d, const diff_codes *codes, int rank, const int64_t *dims);

/* How activations are quantized at run time: a name for the case, and the descriptor. */
typedef struct diff_act {
    const char *name;
    nb_quant quant;
} diff_act;

/* Those that products of codes take, and the group length of their blocks (else 0) inside. */
extern const diff_act diff_acts[];
extern const size_t diff_n_acts;

nb_value *diff_quantize(diff *d, nb_value *x, const nb_quant *quant);
static inline nb_value *diff_dequantize(diff *d, nb_value *x) {
    return nb_unary(&d->b, NB_OP_dequantize, x);
}

#endif
