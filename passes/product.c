/* A value as number * factor^power * ... (product.h).
 *
 * Only what holds for all finite values is used: what stands under a root is one factor, and
 * powers of opposite sign are not added up. */
#include "passes/product.h"

#include "passes/rewrite.h"

#include <math.h>

static bool is_number(const nb_value *v, double *out) {
    int64_t count;
    return nb_type_static_count(v->type, &count) && count == 1 && nb_const_number(v, out);
}

static bool is_whole(double power) { return power == rint(power); }

static bool add_factor(nb_product *p, nb_value *v, double power) {
    for (size_t i = 0; i < p->n_factors; i++) {
        double old = p->factors[i].power;
        if (p->factors[i].value != v || !is_whole(old) || !is_whole(power) || old * power < 0)
            continue;
        p->factors[i].power += power;
        return true;
    }
    if (p->n_factors == NB_MAX_FACTORS) return false;
    p->factors[p->n_factors].value = v;
    p->factors[p->n_factors++].power = power;
    return true;
}

static bool take(nb_product *p, nb_value *v, double power, bool shared, bool root);

/* The op's operand to a whole power, or as one factor under a root. */
static bool take_power(nb_product *p, nb_value *base, double exponent, double power, bool shared) {
    if (is_whole(exponent)) return take(p, base, exponent * power, shared, false);
    return add_factor(p, base, exponent * power);
}

/* `power` is whole here. */
static bool take(nb_product *p, nb_value *v, double power, bool shared, bool root) {
    double number;
    if (is_number(v, &number)) {
        p->number *= pow(number, power);
        return true;
    }
    const nb_op *op = v->def;
    bool apart = op && nb_elem_is_float(v->type->elem) && p->n_ops < NB_MAX_PRODUCTS &&
                 (root || shared || nb_has_one_use(v));
    if (apart) p->ops[p->n_ops++] = op;
    switch (apart ? op->kind : NB_OP_COUNT) {
    case NB_OP_mul:
        return take(p, nb_in(op, 0), power, shared, false) &&
               take(p, nb_in(op, 1), power, shared, false);
    case NB_OP_div:
        return take(p, nb_in(op, 0), power, shared, false) &&
               take(p, nb_in(op, 1), -power, shared, false);
    case NB_OP_reciprocal:
        return take(p, nb_in(op, 0), -power, shared, false);
    case NB_OP_neg:
        p->number *= pow(-1, power);
        return take(p, nb_in(op, 0), power, shared, false);
    case NB_OP_sqrt:
        return take_power(p, nb_in(op, 0), 0.5, power, shared);
    case NB_OP_pow:
        if (is_number(nb_in(op, 1), &number))
            return take_power(p, nb_in(op, 0), number, power, shared);
        break;
    default:
        break;
    }
    if (apart) p->n_ops--;
    return add_factor(p, v, power);
}

bool nb_product_of(nb_value *v, bool shared, nb_product *out) {
    *out = (nb_product){.number = 1};
    return take(out, v, 1, shared, true);
}
