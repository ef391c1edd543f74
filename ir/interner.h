/* Private to ir/: the tables through which dims, types and quants are shared. */
#ifndef NB_INTERNER_H
#define NB_INTERNER_H

#include "ir/ir.h"

struct nb_interner {
    nb_map dims;    /* bytes of a dim's parts -> nb_dim */
    nb_map types;   /* bytes of a type's parts -> nb_type */
    nb_map symbols; /* name -> nb_symbol */
    nb_map quants;  /* bytes of a descriptor's parts -> nb_quant, NULL when it was swept */
    nb_map values;  /* name -> counter, values */
    nb_map consts;  /* name -> counter, constants */
    nb_map codes;   /* name -> counter, descriptors */
    uint32_t n_dims, n_types;
};

/* a `kind` b, in canonical form; for the kinds with operands. */
const nb_dim *nb_dim_binary(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b);
/* `d` built again, with the bounds that symbols have now. */
const nb_dim *nb_dim_renew(nb_graph *g, const nb_dim *d);

/* The name itself or name_1, name_2 ...: the first that is free in `names`, taken from now on.
 * Constant time on average. */
const char *nb_name_take(nb_map *names, const char *name);
void nb_name_free(nb_map *names, const char *name);

/* A descriptor whose members are known to fit together, under a name made from `hint`. */
const nb_quant *nb_quant_adopt(nb_graph *g, const nb_quant *members, const char *hint);
/* Drops descriptors of the list for which `live`, by position, does not hold. */
void nb_quants_sweep(nb_graph *g, const bool *live);

/* An empty graph with the out-of-memory handler of another. */
nb_graph *nb_graph_create_like(const nb_graph *other, const char *name);

nb_value *nb_value_create(nb_graph *g, const char *name, const nb_type *type, bool constant);
/* Makes the name of a value that is going away free for others. */
void nb_value_forget_name(nb_graph *g, const nb_value *v, bool constant);
/* Appends a parameter, which has a name and a type already. */
void nb_region_add_param(nb_region *region, nb_value *param);
/* An open body is one no more: an op has it, or nobody. */
void nb_region_close(nb_region *region);
/* An op with slots for `n_operands`, unlinked, without operands, results or attributes. */
nb_op *nb_op_create(nb_graph *g, nb_op_kind kind, uint32_t n_operands);
/* Links an op before `before`, or at the end of `region`. */
void nb_op_insert(nb_op *op, nb_region *region, nb_op *before);

#endif
