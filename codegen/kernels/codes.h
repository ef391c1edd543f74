/* What the kernels of quantized values share: reading codes, scales and zero points. */
#ifndef NB_KERNELS_CODES_H
#define NB_KERNELS_CODES_H

#include "codegen/lower.h"

/* Code number `index` (i64) of a dense array at `base`; packed elements are unpacked. As i32, codes
 * of 32 bits as i64: their difference to a zero point fits too. */
cg_val nb_code_at(cg *g, nb_elem elem, cg_val base, cg_val index);
/* Scale (f32) of run number `run` of a constant descriptor. */
cg_val nb_scale_at(nb_lower *l, const nb_operand *o, const nb_quant *q, cg_val run);
/* What codes of 8 bits as memory has them, one or 16, stand for: of one scale and no minima. */
cg_val nb_real_of(cg *g, const nb_quant *q, cg_val codes);
/* The number that element `k` of row `row` of a value of codes stands for, as dequantize is
 * specified. Rows are those of the last axis. */
cg_val nb_real_at(nb_lower *l, const nb_operand *o, cg_val row, cg_val k);
/* Has each row one scale, and are its codes integers of 8 or 16 bits? Then 16 of them from k on, or
 * n, are these. */
bool nb_has_rows_of_a_scale(const nb_type *t);
cg_val nb_reals_at(nb_lower *l, const nb_operand *o, cg_val row, cg_val k, cg_val n);

/* ---- making codes --------------------------------------------------------------------------- *
 * Of one run of values or, with vectors, of 16: they share a scale. */

/* What the largest |x| of a run, as bits, makes of it. */
typedef struct nb_rounding {
    cg_val inverse, scale; /* f32 */
    cg_val dead;           /* i1: all codes are 0 */
} nb_rounding;
nb_rounding nb_rounding_of(cg *g, const nb_quant *q, cg_val largest);
/* Codes of 16 values (i32), of i8 or i16: dynamic, and with a known scale (f32). */
cg_val nb_round_dynamic(cg *g, const nb_rounding *r, cg_val values);
cg_val nb_round_static(cg *g, const nb_quant *q, cg_val scale, cg_val values);

/* A run of values whose codes are wanted (kernels/quantize.c). */
typedef struct nb_code_run {
    cg *g;
    const nb_quant *q;
    const cg_buf *x;         /* what the values lie in: its element counts */
    cg_val immediate;        /* the value of them all, or NULL */
    cg_val from, stride, to; /* first value in memory; codes lie behind each other */
    cg_val scale;            /* static: f32[16] */
    cg_var top;              /* <16 x i32>: largest |x| as bits */
    nb_rounding rounding;    /* dynamic */
} nb_code_run;
/* Writes the codes of `length` values. Dynamic: all share one scale, which is returned. */
cg_val nb_codes_dynamic(nb_code_run *r, cg_val length);
void nb_codes_static(nb_code_run *r, cg_val length);

/* NB_UNSUPPORTED unless the op's result has codes that can be made at run time. */
nb_status nb_accept_codes(const nb_op *op, nb_diags *diags);

#endif
