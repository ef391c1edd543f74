/* Run-time indices into an axis: operand 1 of gather and of scatter. */
#ifndef NB_INDEX_H
#define NB_INDEX_H

#include "codegen/lower.h"

/* Index number `i` as i64, from the end of the axis when negative. */
cg_val nb_index_at(nb_lower *l, cg_val length, cg_val i);
/* As check: is an index outside of an axis of that length? */
cg_val nb_index_check(nb_lower *l, cg_val length);
/* Refuses bools as indices, and what nb_accept_plain does. */
nb_status nb_index_accept(const nb_op *op, const cg_cpu *cpu, nb_diags *diags);
/* The axes of a buffer from `from` on, as a buffer of their own at `base`. */
cg_buf nb_tail_of(const cg_buf *b, int from, cg_val base);

#endif
