/* Transposes in registers (turn.h): pairs of rows are interleaved, then pairs of pairs. */
#include "codegen/kernels/turn.h"

void nb_turn(cg *g, int lanes, cg_val v[4]) {
    int low[CG_LANES], high[CG_LANES], even[CG_LANES], odd[CG_LANES];
    for (int i = 0; i < lanes; i++) {
        int quad = i / 4 * 4, other = i % 2 * lanes;
        low[i] = quad + i % 4 / 2 + other;
        high[i] = low[i] + 2;
        even[i] = quad + i % 2 + i % 4 / 2 * lanes;
        odd[i] = even[i] + 2;
    }
    cg_val a = cg_shuffle(g, v[0], v[1], lanes, low), b = cg_shuffle(g, v[0], v[1], lanes, high);
    cg_val c = cg_shuffle(g, v[2], v[3], lanes, low), d = cg_shuffle(g, v[2], v[3], lanes, high);
    v[0] = cg_shuffle(g, a, c, lanes, even);
    v[1] = cg_shuffle(g, a, c, lanes, odd);
    v[2] = cg_shuffle(g, b, d, lanes, even);
    v[3] = cg_shuffle(g, b, d, lanes, odd);
}
