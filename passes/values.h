/* The values of an attention: the layer that makes them and the layers that take what becomes of
 * them. What is done to the columns of the one can be undone in the rows of the others. */
#ifndef NB_PASSES_VALUES_H
#define NB_PASSES_VALUES_H

#include "passes/linear.h"

typedef struct nb_values {
    int64_t size;             /* of a head */
    int64_t from, count;      /* columns of the layer that makes them */
    nb_use *weight, *bias;    /* of that layer; bias NULL if it has none */
    nb_value *rows;           /* [..,heads*size] what the readers take */
    NB_VEC(nb_use *) readers; /* weights of the layers that take what attention makes */
} nb_values;

/* The operand that is an f32 weight of a linear layer, or NULL. */
nb_use *nb_float_weight(nb_op *op);
/* A constant of f32 with values, of any rank but 0. */
bool nb_is_float_const(const nb_value *v);
/* The layer whose result, with a bias (NULL: none), is `v` alone: its weight's slot, or NULL. */
nb_use *nb_layer_behind(nb_value *v, nb_use **bias);

/* Where the new ones of attention's keys (1) or values (2) come in: the operand, or what is joined
 * with past ones. NULL, with a reason, when past ones are not the attention's own. */
nb_use *nb_fresh_states(const nb_graph *g, nb_op *attention, uint32_t index, const char **why);

/* NULL, or why the layers on both sides of `attention` cannot be changed together. */
const char *nb_values_find(const nb_graph *g, nb_arena *arena, nb_op *attention, nb_values *out);

#endif
