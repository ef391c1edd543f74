/* Private to the matcher: a value seen as a product of powers. */
#ifndef NB_PASSES_PRODUCT_H
#define NB_PASSES_PRODUCT_H

#include "ir/ir.h"

#define NB_MAX_FACTORS  8
#define NB_MAX_PRODUCTS 16

typedef struct nb_product {
    double number;
    struct {
        nb_value *value;
        double power;
    } factors[NB_MAX_FACTORS];
    size_t n_factors;
    const nb_op *ops[NB_MAX_PRODUCTS]; /* what was taken apart, root first */
    size_t n_ops;
} nb_product;

/* Takes `v` apart: constants of one element go into `number`, mul, div, reciprocal, neg, sqrt and
 * pow by a constant into factors; x * x is x to the power 2. With `shared`, values that have other
 * uses are taken apart too. False when there are too many parts. */
bool nb_product_of(nb_value *v, bool shared, nb_product *out);

#endif
