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

/* The first `count` of 16 bytes. */
static void store_bytes(cg *g, cg_val bytes, cg_val to, int count) {
    for (int size = 16, at = 0; size > 0; size /= 2) {
        if (!(count & size)) continue;
        cg_val part = size > 1 ? cg_slice(g, bytes, at, size) : cg_lane(g, bytes, at);
        cg_store(g, part, cg_offset(g, to, cg_i64(g, at)), 1);
        at += size;
    }
}

/* Four words of 4 bytes for each place are turned into 16 bytes of each. */
void nb_turn_codes(cg *g, const cg_val *codes, int count, int bytes, cg_val to, int64_t apart,
                   cg_val n) {
    const int each = 4 / bytes;
    const int64_t mask = (INT64_C(1) << 8 * bytes) - 1;
    cg_val word[4];
    for (int w = 0; w < 4; w++) {
        word[w] = cg_zero(g, CG_V(CG_I32));
        for (int i = 0; i < each && w * each + i < count; i++) {
            cg_val c = cg_andi(g, codes[w * each + i], mask);
            word[w] = cg_or(g, word[w], cg_shli(g, c, 8 * bytes * i));
        }
    }
    nb_turn(g, CG_LANES, word);
    for (int p = 0; p < CG_LANES; p++) {
        cg_val four = cg_slice(g, word[p % 4], p / 4 * 4, 4);
        cg_val row = cg_bitcast(g, four, (cg_type){CG_I8, 16});
        cg_val at = cg_offset(g, to, cg_i64(g, p * apart));
        if (n) {
            CG_IF(g, cg_cmpi(g, CG_GT, n, p)) { store_bytes(g, row, at, count * bytes); }
        } else {
            store_bytes(g, row, at, count * bytes);
        }
    }
}
