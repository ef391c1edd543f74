/* Private to ir/: shape rules. Each rule of ops.def is a function nb_infer_<rule>; a missing one is
 * a link error that names it. A rule gets an op whose operands are present as the table asks and
 * plain where the op does not take quantized ones. */
#ifndef NB_INFER_H
#define NB_INFER_H

#include "ir/build.h"

typedef struct nb_inferring {
    nb_graph *g;
    const nb_op *op;
    const nb_type **types; /* results, to be filled */
    nb_diags *diags;
} nb_inferring;

/* "op: what was expected, what was found", at the op's location. */
nb_status nb_infer_error(const nb_inferring *i, const char *fmt, ...) NB_PRINTF(2, 3);
/* The same for an invalid dim, NB_LIMIT. */
nb_status nb_infer_limit(const nb_inferring *i, const char *what);
static inline const nb_type *nb_in_type(const nb_inferring *i, size_t n) {
    return nb_in(i->op, n)->type;
}
/* Text of operand n's type, for messages. */
const char *nb_in_text(const nb_inferring *i, size_t n);
/* The broadcast of two shapes without their last `skip` axes: *rank and dims[0..*rank-1]. False
 * after an error that names the two sizes that do not fit. */
bool nb_infer_axes(const nb_inferring *i, const nb_type *a, const nb_type *b, int skip, int *rank,
                   const nb_dim **dims);

/* Has the op as many bodies as its row says, all ended, with results that fit? */
nb_status nb_infer_bodies(const nb_inferring *i);

#define OP(name, family, rule, ...) nb_status nb_infer_##rule(const nb_inferring *i);
#include "ir/ops.def"
#undef OP

#endif
