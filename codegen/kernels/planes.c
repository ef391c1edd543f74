/* Packing and unpacking of units (planes.h). */
#include "codegen/kernels/planes.h"

#include <string.h>

typedef struct plane {
    int width;   /* bits */
    int below;   /* bits of a code in the planes that follow */
    int at, len; /* bytes of the unit */
    int pieces;  /* of a part, each a field of the whole plane */
} plane;

static int planes_of(int bits, plane planes[NB_UNIT_PLANES]) {
    int n = 0, at = 0;
    for (int width = 8, left = bits; left; width /= 2) {
        if (width > left) continue;
        left -= width;
        const int len = width == 8 ? 64 : 16 * width;
        planes[n++] = (plane){width, left, at, len, 64 / len};
        at += len;
    }
    return n;
}

void nb_unit_pack(int bits, uint8_t codes[NB_UNIT_INPUTS][CG_LANES], uint8_t *out) {
    plane planes[NB_UNIT_PLANES] = {{0}};
    const int n = planes_of(bits, planes), inputs = nb_unit_inputs(bits);
    uint8_t parts[NB_UNIT_BYTES];
    for (int k = 0; k < inputs; k++)
        for (int c = 0; c < CG_LANES; c++) parts[k / 4 * 64 + 4 * c + k % 4] = codes[k][c];
    memset(out, 0, (size_t)nb_unit_bytes(bits));
    for (const plane *p = planes; p < planes + n; p++) {
        const uint64_t mask = ((UINT64_C(1) << p->width) - 1) * UINT64_C(0x0101010101010101);
        for (int i = 0; i < CG_LANES * inputs; i += 8) { /* 8 bytes side by side */
            uint64_t code, fields;
            uint8_t *to = out + p->at + i % p->len;
            memcpy(&code, parts + i, 8);
            memcpy(&fields, to, 8);
            fields |= (code >> p->below & mask) << i / p->len * p->width;
            memcpy(to, &fields, 8);
        }
    }
}

nb_unit nb_unit_load(cg *g, int bits, cg_val at) {
    plane planes[NB_UNIT_PLANES] = {{0}};
    const int n = planes_of(bits, planes);
    nb_unit unit = {.bits = bits};
    for (int i = 0; i < n; i++)
        unit.planes[i] = cg_load(g, (cg_type){CG_I32, planes[i].len / 4},
                                 cg_offset(g, at, cg_i64(g, planes[i].at)), 8);
    return unit;
}

/* Part `number` has its bits in these fields, one after the other: shifted to their place in a
 * code. 32-bit lanes, since AVX2 shifts those alone by different counts. */
static cg_val spread(cg *g, const plane *p, cg_val bits, int number) {
    int64_t right[CG_LANES], left[CG_LANES];
    int picks[CG_LANES];
    bool any_right = false, any_left = false;
    for (int i = 0; i < CG_LANES; i++) {
        const int from = (number * p->pieces + 4 * i / p->len) * p->width;
        picks[i] = i % (p->len / 4);
        right[i] = from > p->below ? from - p->below : 0;
        left[i] = from < p->below ? p->below - from : 0;
        any_right |= right[i] != 0;
        any_left |= left[i] != 0;
    }
    if (p->pieces > 1) bits = cg_shuffle(g, bits, NULL, CG_LANES, picks);
    if (any_right) bits = cg_lshr(g, bits, cg_const_lanes(g, CG_I32, CG_LANES, right));
    if (any_left) bits = cg_shl(g, bits, cg_const_lanes(g, CG_I32, CG_LANES, left));
    const int64_t mask = (INT64_C(1) << p->width) - 1;
    return p->width == 8 ? bits : cg_andi(g, bits, (mask << p->below) * 0x01010101);
}

cg_val nb_unit_part(cg *g, const nb_unit *unit, int number) {
    plane planes[NB_UNIT_PLANES] = {{0}};
    const int n = planes_of(unit->bits, planes);
    cg_val code = spread(g, &planes[0], unit->planes[0], number);
    for (int i = 1; i < n; i++)
        code = cg_or(g, code, spread(g, &planes[i], unit->planes[i], number));
    return cg_bitcast(g, code, (cg_type){CG_I8, 64});
}
