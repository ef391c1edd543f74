/* Private to ir/: the tables through which dims, types and quants are shared. */
#ifndef NB_INTERNER_H
#define NB_INTERNER_H

#include "ir/ir.h"

struct nb_interner {
    nb_map dims;    /* bytes of a dim's parts -> nb_dim */
    nb_map types;   /* bytes of a type's parts -> nb_type */
    nb_map symbols; /* name -> nb_symbol */
    nb_map values;  /* name -> counter, values */
    nb_map consts;  /* name -> counter, constants */
    uint32_t n_dims, n_types;
};

nb_value *nb_value_create(nb_graph *g, const char *name, const nb_type *type, bool constant);
/* Makes the name of a value that is going away free for others. */
void nb_value_forget_name(nb_graph *g, const nb_value *v, bool constant);
/* An op with slots for `n_operands`, unlinked, without operands, results or attributes. */
nb_op *nb_op_create(nb_graph *g, nb_op_kind kind, uint32_t n_operands);
/* Links an op before `before`, or at the end of `region`. */
void nb_op_insert(nb_op *op, nb_region *region, nb_op *before);

#endif
