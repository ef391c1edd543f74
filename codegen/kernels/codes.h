/* What the kernels of quantized values share: reading codes, scales and zero points. */
#ifndef NB_KERNELS_CODES_H
#define NB_KERNELS_CODES_H

#include "codegen/lower.h"

/* Code number `index` (i64) of a dense array at `base`; packed elements are unpacked. As i32, codes
 * of 32 bits as i64: their difference to a zero point fits too. */
cg_val nb_code_at(cg *g, nb_elem elem, cg_val base, cg_val index);
/* Scale (f32) of run number `run` of a constant descriptor. */
cg_val nb_scale_at(nb_lower *l, const nb_operand *o, const nb_quant *q, cg_val run);
/* The number that element `k` of row `row` of a value of codes stands for, as dequantize is
 * specified. Rows are those of the last axis. */
cg_val nb_real_at(nb_lower *l, const nb_operand *o, cg_val row, cg_val k);

#endif
