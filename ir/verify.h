/* What holds for a graph between any two passes. */
#ifndef NB_VERIFY_H
#define NB_VERIFY_H

#include "ir/ir.h"

/* Checks use lists, order of definition, types against the shape rules, names, constants' sizes,
 * quant descriptors, state pairs, and that every op is legal in the graph's stage. Records every
 * violation found (up to the cap); NB_INTERNAL if there is any. */
nb_status nb_verify(const nb_graph *g, nb_diags *diags);
/* The same but for what scales are: a number that is none spoils results, and nothing else. */
nb_status nb_verify_form(const nb_graph *g, nb_diags *diags);

/* NB_UNSUPPORTED-free check used by passes: is this op legal in that stage? */
bool nb_legal_in(nb_op_kind kind, nb_stage stage);

#endif
