/* What codes stand for: (code - zero) * scale + minimum, with scales and minima that may be codes
 * themselves (nb_quant). */
#ifndef NB_CODES_H
#define NB_CODES_H

#include "ir/eval.h"

/* A tensor of codes, and where the scales of its elements stand: run = index along the axis /
 * group, spread over the other axes for groups. */
typedef struct nb_codes {
    const nb_quant *q;
    const nb_tensor *codes;
    nb_tensor zeros;
    const float *scales, *minima; /* of all runs when they were written out, or NULL */
    int64_t inner, length, groups;
} nb_codes;

nb_codes nb_codes_of(const nb_quant *q, const nb_tensor *codes);
/* The same with scales and minima written out as floats, for many elements. */
nb_codes nb_codes_expand(const nb_quant *q, const nb_tensor *codes, nb_arena *arena);

/* The run that element i belongs to; its scale and zero point, and what the element stands for. */
int64_t nb_codes_run(const nb_codes *c, int64_t i);
float nb_codes_scale(const nb_codes *c, int64_t i);
int64_t nb_codes_zero(const nb_codes *c, int64_t i);
float nb_codes_real(const nb_codes *c, int64_t i);

/* The constant of codes with axis i what axis perm[i] was, scales and zero points moved along; NULL
 * when its scales are codes themselves, or without memory. */
nb_value *nb_codes_permuted(nb_graph *g, const nb_value *codes, const int64_t *perm,
                            nb_diags *diags);

#endif
