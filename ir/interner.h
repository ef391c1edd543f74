/* Private to ir/: the tables through which dims, types and quants are shared. */
#ifndef NB_INTERNER_H
#define NB_INTERNER_H

#include "ir/ir.h"

struct nb_interner {
    nb_map dims;    /* bytes of a dim's parts -> nb_dim */
    nb_map types;   /* bytes of a type's parts -> nb_type */
    nb_map symbols; /* name -> nb_symbol */
    nb_map quants;  /* bytes of a descriptor's parts -> nb_quant, NULL when it was swept */
    nb_map values;  /* name -> nb_name, values */
    nb_map consts;  /* name -> nb_name, constants */
    nb_map codes;   /* name -> nb_name, descriptors */
    uint32_t n_dims, n_types;
};

/* a `kind` b, in canonical form; for the kinds with operands. */
const nb_dim *nb_dim_binary(nb_graph *g, nb_dim_kind kind, const nb_dim *a, const nb_dim *b);
/* `d` built again, with the bounds that symbols have now. */
const nb_dim *nb_dim_renew(nb_graph *g, const nb_dim *d);

/* A name that something has or had. */
typedef struct nb_name {
    const char *text;
    nb_value *value; /* that has it; NULL: none, or a descriptor */
    bool taken;
    uint32_t next; /* number to try next behind this name */
} nb_name;

/* The name itself or name_1, name_2 ...: the first that is free in `names`, taken from now on.
 * Constant time on average. */
nb_name *nb_name_take(nb_map *names, const char *name, size_t length);
void nb_name_free(nb_name *name);

/* A descriptor whose members are known to fit together, under a name made from `hint`. */
const nb_quant *nb_quant_adopt(nb_graph *g, const nb_quant *members, const char *hint);
/* Drops descriptors of the list for which `live`, by position, does not hold. */
void nb_quants_sweep(nb_graph *g, const bool *live);

/* An empty graph with the out-of-memory handler of another. */
nb_graph *nb_graph_create_like(const nb_graph *other, const char *name);

nb_value *nb_value_create(nb_graph *g, const char *name, const nb_type *type, bool constant);
/* The same with a name of `length` bytes that need not end with NUL. */
nb_value *nb_value_create_named(nb_graph *g, const char *name, size_t length, const nb_type *type,
                                bool constant);
/* nb_graph_add_const with such a name. */
nb_value *nb_graph_add_const_named(nb_graph *g, const char *name, size_t length,
                                   const nb_type *type, nb_blob *blob, const nb_loc *loc);
/* The value, or constant, of that name; NULL when there is none. */
nb_value *nb_value_named(const nb_graph *g, const char *name, size_t length, bool constant);
/* Makes the name of a value that is going away free for others. */
void nb_value_forget_name(nb_value *v);
/* Appends a parameter, which has a name and a type already. */
void nb_region_add_param(nb_region *region, nb_value *param);
/* An open body is one no more: an op has it, or nobody. */
void nb_region_close(nb_region *region);
/* An op with slots for `n_operands`, unlinked, without operands, results or attributes. */
nb_op *nb_op_create(nb_graph *g, nb_op_kind kind, uint32_t n_operands);
/* Links an op before `before`, or at the end of `region`. */
void nb_op_insert(nb_op *op, nb_region *region, nb_op *before);

#endif
