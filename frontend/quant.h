/* Private to frontend/: integers that stand for numbers, as ONNX writes them: plain tensors with
 * scales and zero points beside them. Where those are constants they become descriptors of the IR
 * (nb_quant), and integers stay integers: constants of codes, `quantize`, `codes`, `as_codes`,
 * `dequantize`. Where they are only known at run time it is arithmetic. */
#ifndef NB_FRONTEND_QUANT_H
#define NB_FRONTEND_QUANT_H

#include "frontend/import.h"

/* real = (code - zero) * scale */
typedef struct nb_scaling {
    nb_value *scale, *zero; /* zero NULL: 0 */
    int64_t axis;           /* that a vector of scales, or blocks, lie along */
    int64_t block;          /* codes along the axis that share a scale; 0: no blocks */
} nb_scaling;

/* Operands `scale` and, if given, `zero` of the node. */
nb_status nb_read_scaling(nb_importer *im, size_t scale, size_t zero, int64_t axis,
                          nb_scaling *out);

/* What the integers (or small floats) x stand for, in `to`. NULL after an error. */
nb_value *nb_dequantized(nb_importer *im, nb_value *x, const nb_scaling *s, nb_elem to);
/* The codes of x, rounded half to even and saturated, as plain `to`; `in` is what x is divided in.
 * NULL after an error. */
nb_value *nb_quantized(nb_importer *im, nb_value *x, const nb_scaling *s, nb_elem to, nb_elem in);

/* x as DynamicQuantizeLinear has it: codes of u8, their scale, their zero point. False after an
 * error. */
bool nb_dynamic_codes(nb_importer *im, nb_value *x, nb_value **parts);

/* A constant of these plain codes under `members`, whose storage they have; then what they stand
 * for, f32. NULL after an error. */
nb_value *nb_dequantized_const(nb_importer *im, nb_value *codes, const nb_quant *members);
/* A constant of `elem` of that shape with room for its bytes at *data; NULL after an error. */
nb_value *nb_new_const(nb_importer *im, const char *name, nb_elem elem, int rank,
                       const int64_t *dims, void **data);
/* An operand that must be a constant without codes; NULL after an error. */
nb_value *nb_constant_input(nb_importer *im, size_t i, const char *what);

/* Refuses what are no integers of 8 bits, and zero points of another type; those may be NULL. */
nb_status nb_check_bytes(nb_importer *im, const nb_value *a, const nb_value *az, const nb_value *b,
                         const nb_value *bz);
/* The matrix product of a - az and b - bz, integers of 8 bits, exact in i32; az is one number or
 * one for each row, bz one number or one for each column. NULL zero points are 0. NULL after an
 * error.
 */
nb_value *nb_integer_product(nb_importer *im, nb_value *a, nb_value *az, nb_value *b, nb_value *bz);

/* ---- caches of attention (import_cache.c) ---------------------------------------------------- */

/* Keys or values of past tokens as codes of i8; scale NULL: as floats. */
typedef struct nb_cache {
    nb_value *scale; /* f32[], or [1,groups,1,size] */
    bool by_channel;
    int64_t groups, size;
} nb_cache;

/* From attribute `type_name` and the operand of scales. */
nb_status nb_read_cache(nb_importer *im, const char *type_name, size_t input, int64_t groups,
                        int64_t size, nb_cache *out);
/* x[B,G,S,D] as the cache holds it. */
nb_value *nb_cache_codes(nb_importer *im, const nb_cache *c, nb_value *x);
/* The scales that attention takes beside codes [B,G,T,D]; NULL for floats. */
nb_value *nb_cache_scales(nb_importer *im, const nb_cache *c, const nb_value *codes);
/* x[B,H,S,D] of f32 times the scales of channels, if it has them. */
nb_value *nb_cache_scaled(nb_importer *im, const nb_cache *c, nb_value *x, int64_t heads);

#endif
