/* Private to frontend/: integers that stand for numbers, as ONNX writes them: plain tensors with
 * scales and zero points beside them. Where those are constants they become descriptors of the IR
 * (nb_quant), and integers stay integers: constants of codes, `quantize`, `codes`, `as_codes`,
 * `dequantize`. Where they are only known at run time it is arithmetic. */
#ifndef NB_FRONTEND_QUANT_H
#define NB_FRONTEND_QUANT_H

#include "frontend/import.h"
#include "ir/eval.h"

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

/* ---- weights in blocks (import_blocks.c) ----------------------------------------------------- */

/* Stored rows of codes, `block` of which share a scale; what becomes of them is a matrix [K,N] of
 * which column n is row first + n * step. */
typedef struct nb_blocks {
    int64_t K, N, block, count; /* count: blocks of a row */
    int64_t first, step, row;   /* row: codes from a stored row to the next */
    int bits;
    bool by_row; /* a scale for each row, a block; then zero points of neighbours share bytes */
    nb_elem storage;
    const uint8_t *codes;
    nb_tensor scales, zeros; /* [rows*count]; zeros.data NULL: none; u8 ones are packed */
    const int64_t *group;    /* [K] the block each code belongs to; NULL: its place tells */
} nb_blocks;

/* Operand i: `count` floats, each of which is a scale or 0. */
nb_status nb_block_scales(nb_importer *im, size_t i, int64_t count, nb_tensor *out);
/* Operand i, if it is given: zero points of so many rows. */
nb_status nb_block_zeros(nb_importer *im, size_t i, int64_t rows, nb_blocks *b);
/* The matrix, dequantized codes; NULL after an error. */
nb_value *nb_blocks_weight(nb_importer *im, const nb_blocks *b, const char *name);
/* x times the weight of MatMulNBits that stands at input `weight`, its scales at the next, + bias
 * if that is given, by the node's attributes and for N outputs; NULL after an error. */
nb_value *nb_nbits_product(nb_importer *im, nb_value *x, size_t weight, size_t bias, int64_t N);

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
