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
static inline const nb_type *nb_in_type(const nb_inferring *i, size_t n) {
    return nb_in(i->op, n)->type;
}
/* Text of operand n's type, for messages. */
const char *nb_in_text(const nb_inferring *i, size_t n);

#define OP(name, family, rule, ...) nb_status nb_infer_##rule(const nb_inferring *i);
#include "ir/ops.def"
#undef OP

#endif
