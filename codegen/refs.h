/* What memory an op refers to, in a fixed order: the list from which the packer takes constants,
 * a task function takes addresses, and a kernel reads them. */
#ifndef NB_CODEGEN_REFS_H
#define NB_CODEGEN_REFS_H

#include "codegen/pack.h"
#include "ir/chain.h"

typedef enum nb_ref_part { NB_REF_DATA, NB_REF_SCALES, NB_REF_ZEROS, NB_REF_MINIMA } nb_ref_part;

typedef struct nb_ref {
    bool result;
    uint32_t index; /* of the operand or result */
    nb_ref_part part;
    const nb_value *value;   /* whose memory: of the parts of a quant its constant */
    const nb_layout *layout; /* of a constant; NULL for a value that is computed */
} nb_ref;

typedef NB_VEC(nb_ref) nb_refs;

nb_refs nb_refs_of(nb_arena *arena, const nb_op *op, const cg_cpu *cpu);

/* The value that `v` views, through reshapes. */
const nb_value *nb_root_of(const nb_value *v);
/* Is it a plain constant of one element, which kernels get as a number? */
bool nb_is_immediate(const nb_value *v);
/* Does nothing happen at run time for this op? */
bool nb_emits_nothing(const nb_op *op);
/* A quant descriptor as text, without names and constants: equal text, equal code. */
const char *nb_quant_key(nb_arena *arena, const nb_quant *q);
/* Everything the code of `op` depends on. */
const char *nb_kernel_key(nb_arena *arena, const nb_op *op, const nb_graph *g, const cg_cpu *cpu);

#endif
