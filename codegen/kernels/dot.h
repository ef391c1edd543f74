/* How kinds of CPU multiply packed weights (qmatmul.h) by activations, exactly.
 *
 * `unpack` turns a unit of weights (planes.h) into parts of 64 bytes, 4 bytes for each column. Part
 * p is multiplied by word p, 4 bytes, of the unit's prepared activations; products are added to one
 * 32-bit sum per column. */
#ifndef NB_KERNELS_DOT_H
#define NB_KERNELS_DOT_H

#include "codegen/kernels/planes.h"

struct nb_dot {
    const char *name;
    /* Bytes of a prepared activation. 1: signed bytes in their order; 16-bit codes come as two
     * planes, x = 256 * high + low, and are multiplied twice. 2: 16 bits, in each unit those with
     * even numbers before those with odd ones. */
    int act_bytes;
    /* Part `p` of a unit. */
    cg_val (*unpack)(cg *g, const nb_unit *unit, int p);
    /* sums + products of part and word (i32). */
    cg_val (*step)(cg *g, cg_val sums, cg_val part, cg_val word);
    /* The same of signed bytes of weights and unsigned ones of activations; of act_bytes 1. */
    cg_val (*by_unsigned)(cg *g, cg_val sums, cg_val part, cg_val word);
    /* Lanes of `sums`: 16 of i32, or, with `end`, 32 of i16, which start at 0, hold some steps
     * (nb_dot_steps) and are then added to the 16. */
    cg_val (*end)(cg *g, cg_val acc, cg_val sums);
};

/* The way of this CPU for weights of that many bits and activations i8 or i16; `single`: of one
 * row. */
const nb_dot *nb_dot_of(const cg_isa *isa, int bits, nb_elem act, bool single);
/* Parts of a unit. */
int nb_dot_parts(const nb_dot *dot, int bits);
/* How many steps fit sums of 16 bits. */
int nb_dot_steps(int bits);

/* sums + products of neighbouring words of a and b, 32 each, on any CPU. */
cg_val nb_pairs(cg *g, cg_val sums, cg_val a, cg_val b);

/* What isa_*.c choose from. */
cg_val nb_pairs_sse2(cg *g, cg_val sums, cg_val a, cg_val b);
cg_val nb_pairs_avx2(cg *g, cg_val sums, cg_val a, cg_val b);
cg_val nb_pairs_vnni(cg *g, cg_val sums, cg_val a, cg_val b);
cg_val nb_fours_vnni(cg *g, cg_val sums, cg_val a, cg_val b);
extern const nb_dot nb_dot_bytes;       /* any CPU */
extern const nb_dot nb_dot_words_sse2;  /* pmaddwd */
extern const nb_dot nb_dot_words_avx2;  /* pmaddwd */
extern const nb_dot nb_dot_narrow_avx2; /* pmaddubsw; weights below 8 bits */
extern const nb_dot nb_dot_vnni;        /* vpdpbusd, 64 bytes */

#endif
