/* A unit of packed weights: 4 inputs of 16 columns if codes have 8 bits, 8 inputs otherwise, in
 * 16 bytes for each bit of a code (64 for 8 bits).
 *
 * Instructions know bytes, so codes of other widths are cut into planes of 4, 2 and 1 bits, which
 * unpack with shifts and masks: 3 = 2+1, 5 = 4+1, 6 = 4+2, 7 = 4+2+1, the widest plane having a
 * code's upper bits. Planes follow each other, the widest first.
 *
 * Unpacked, a unit is parts of 64 bytes: byte 4c+j of part p is input 4p+j of column c. A plane of
 * w bits has 16*w bytes and 8/w fields in each. Its field f holds w bits of 16*w consecutive bytes
 * of the parts, counted through: the first field those of the first 16*w bytes, and so on. So 4-bit
 * codes have part 0 in the low nibbles and part 1 in the high ones. */
#ifndef NB_KERNELS_PLANES_H
#define NB_KERNELS_PLANES_H

#include "codegen/cg.h"

#define NB_UNIT_INPUTS 8 /* at most */
#define NB_UNIT_BYTES  128
#define NB_UNIT_PLANES 3

static inline int nb_unit_inputs(int bits) { return bits == 8 ? 4 : 8; }
static inline int nb_unit_bytes(int bits) { return bits == 8 ? 64 : 16 * bits; }

/* Packs unsigned codes: those of 16 columns for each input. */
void nb_unit_pack(int bits, uint8_t codes[NB_UNIT_INPUTS][CG_LANES], uint8_t *out);

/* A unit in registers. */
typedef struct nb_unit {
    int bits;
    cg_val planes[NB_UNIT_PLANES]; /* <n x i32> */
} nb_unit;

/* `at`: a multiple of 8. */
nb_unit nb_unit_load(cg *g, int bits, cg_val at);
/* Part `p`, <64 x i8>. */
cg_val nb_unit_part(cg *g, const nb_unit *unit, int p);

#endif
