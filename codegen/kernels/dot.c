/* Dot products on each kind of CPU (dot.h). */
#include "codegen/kernels/dot.h"

/* ---- signed bytes --------------------------------------------------------------------------- */

/* Any CPU: 32-bit lanes, one byte of each at a time. */
static cg_val step_generic(cg *g, cg_val sums, cg_val part, cg_val word) {
    cg_val weights = cg_bitcast(g, part, CG_V(CG_I32));
    for (int j = 0; j < 4; j++) {
        cg_val w = j == 3 ? cg_lshri(g, weights, 24) : cg_andi(g, cg_lshri(g, weights, 8 * j), 255);
        cg_val a = cg_ashri(g, cg_shli(g, word, 24 - 8 * j), 24);
        sums = cg_add(g, sums, cg_mul(g, w, cg_splat(g, a, CG_LANES)));
    }
    return sums;
}

static cg_val by_unsigned_generic(cg *g, cg_val sums, cg_val part, cg_val word) {
    cg_val weights = cg_bitcast(g, part, CG_V(CG_I32));
    for (int j = 0; j < 4; j++) {
        cg_val w = cg_ashri(g, cg_shli(g, weights, 24 - 8 * j), 24);
        cg_val a = cg_andi(g, cg_lshri(g, word, 8 * j), 255);
        sums = cg_add(g, sums, cg_mul(g, w, cg_splat(g, a, CG_LANES)));
    }
    return sums;
}

const nb_dot nb_dot_bytes = {.name = "bytes",
                             .act_bytes = 1,
                             .unpack = nb_unit_part,
                             .step = step_generic,
                             .by_unsigned = by_unsigned_generic};

/* One instruction of VNNI. */
static cg_val vnni(cg *g, const char *name, cg_val sums, cg_val a, cg_val b) {
    cg_val args[3] = {sums, cg_bitcast(g, a, CG_V(CG_I32)), cg_bitcast(g, b, CG_V(CG_I32))};
    return cg_bitcast(g, cg_intrinsic(g, name, 0, NULL, 3, args), CG_V(CG_I32));
}

cg_val nb_fours_vnni(cg *g, cg_val sums, cg_val a, cg_val b) {
    return vnni(g, "llvm.x86.avx512.vpdpbusd.512", sums, a, b);
}

static cg_val step_vnni(cg *g, cg_val sums, cg_val part, cg_val word) {
    return nb_fours_vnni(g, sums, part, cg_splat(g, word, CG_LANES));
}

static cg_val by_unsigned_vnni(cg *g, cg_val sums, cg_val part, cg_val word) {
    return nb_fours_vnni(g, sums, cg_splat(g, word, CG_LANES), part);
}

const nb_dot nb_dot_vnni = {.name = "vpdpbusd",
                            .act_bytes = 1,
                            .unpack = nb_unit_part,
                            .step = step_vnni,
                            .by_unsigned = by_unsigned_vnni};

/* ---- 16-bit words --------------------------------------------------------------------------- */

/* Pairs of neighbouring inputs of a unit lie in different 16-bit words: all even ones come before
 * all odd ones. */
static cg_val unpack_words(cg *g, const nb_unit *unit, int p) {
    const int half = nb_unit_inputs(unit->bits) / 4;
    cg_val bytes = nb_unit_part(g, unit, p % half),
           words = cg_bitcast(g, bytes, (cg_type){CG_I16, 32});
    return p < half ? cg_andi(g, words, 255) : cg_lshri(g, words, 8);
}

typedef struct width {
    int bytes; /* of a register */
    const char *pmaddwd, *pmaddubsw;
} width;

static const width sse2 = {16, "llvm.x86.sse2.pmadd.wd", NULL},
                   avx2 = {32, "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx2.pmadd.ub.sw"};

/* The lanes of register `i` of a 64-byte value, as `kind`. */
static cg_val piece(cg *g, const width *w, cg_val v, int i, cg_kind kind) {
    int lanes = w->bytes / 4;
    cg_val words = cg_slice(g, cg_bitcast(g, v, CG_V(CG_I32)), lanes * i, lanes);
    return cg_bitcast(g, words, (cg_type){kind, w->bytes / cg_kind_bytes(kind)});
}

static cg_val splat_word(cg *g, const width *w, cg_val word, cg_kind kind) {
    return cg_bitcast(g, cg_splat(g, word, w->bytes / 4),
                      (cg_type){kind, w->bytes / cg_kind_bytes(kind)});
}

/* acc + pairwise products of `a` with `b`, a register of i16 for all of `a` or as many as it has.
 */
static cg_val add_pmaddwd(cg *g, const width *w, cg_val acc, cg_val a, cg_val b) {
    cg_val out[4];
    int n = 64 / w->bytes;
    const bool one = cg_type_of(b).lanes == w->bytes / 2;
    for (int i = 0; i < n; i++) {
        cg_val args[2] = {piece(g, w, a, i, CG_I16), one ? b : piece(g, w, b, i, CG_I16)};
        cg_val products = cg_intrinsic(g, w->pmaddwd, 0, NULL, 2, args);
        out[i] = cg_add(g, piece(g, w, acc, i, CG_I32),
                        cg_bitcast(g, products, (cg_type){CG_I32, w->bytes / 4}));
    }
    return cg_join_all(g, out, n);
}

static cg_val step_words_sse2(cg *g, cg_val sums, cg_val part, cg_val word) {
    return add_pmaddwd(g, &sse2, sums, part, splat_word(g, &sse2, word, CG_I16));
}

static cg_val step_words_avx2(cg *g, cg_val sums, cg_val part, cg_val word) {
    return add_pmaddwd(g, &avx2, sums, part, splat_word(g, &avx2, word, CG_I16));
}

const nb_dot nb_dot_words_sse2 = {
    .name = "pmaddwd", .act_bytes = 2, .unpack = unpack_words, .step = step_words_sse2};
const nb_dot nb_dot_words_avx2 = {
    .name = "pmaddwd", .act_bytes = 2, .unpack = unpack_words, .step = step_words_avx2};

/* ---- sums in 16 bits ------------------------------------------------------------------------ */

static cg_val step_narrow(cg *g, cg_val sums, cg_val part, cg_val word) {
    cg_val out[2], by = splat_word(g, &avx2, word, CG_I8);
    for (int i = 0; i < 2; i++) {
        cg_val args[2] = {piece(g, &avx2, part, i, CG_I8), by};
        out[i] = cg_add(g, piece(g, &avx2, sums, i, CG_I16),
                        cg_intrinsic(g, avx2.pmaddubsw, 0, NULL, 2, args));
    }
    return cg_join(g, out[0], out[1]);
}

static cg_val end_narrow(cg *g, cg_val acc, cg_val sums) {
    return add_pmaddwd(g, &avx2, acc, sums, cg_splat(g, cg_const(g, CG_S(CG_I16), 1), 16));
}

const nb_dot nb_dot_narrow_avx2 = {.name = "pmaddubsw",
                                   .act_bytes = 1,
                                   .unpack = nb_unit_part,
                                   .step = step_narrow,
                                   .end = end_narrow};

/* ---- words by words ------------------------------------------------------------------------- */

cg_val nb_pairs_sse2(cg *g, cg_val sums, cg_val a, cg_val b) {
    return add_pmaddwd(g, &sse2, sums, a, b);
}

cg_val nb_pairs_avx2(cg *g, cg_val sums, cg_val a, cg_val b) {
    return add_pmaddwd(g, &avx2, sums, a, b);
}

cg_val nb_pairs_vnni(cg *g, cg_val sums, cg_val a, cg_val b) {
    return vnni(g, "llvm.x86.avx512.vpdpwssd.512", sums, a, b);
}

cg_val nb_pairs(cg *g, cg_val sums, cg_val a, cg_val b) {
    if (cg_isa_of(g)->pairs) return cg_isa_of(g)->pairs(g, sums, a, b);
    cg_val x = cg_bitcast(g, a, CG_V(CG_I32)), y = cg_bitcast(g, b, CG_V(CG_I32)),
           low = cg_mul(g, cg_ashri(g, cg_shli(g, x, 16), 16), cg_ashri(g, cg_shli(g, y, 16), 16)),
           high = cg_mul(g, cg_ashri(g, x, 16), cg_ashri(g, y, 16));
    return cg_add(g, sums, cg_add(g, low, high));
}

/* ---- choice --------------------------------------------------------------------------------- */

const nb_dot *nb_dot_of(const cg_isa *isa, int bits, nb_elem act, bool single) {
    const nb_dot *const *dots = isa->dots[bits < 8][act == NB_I16];
    const nb_dot *dot = single && dots[1] ? dots[1] : dots[0];
    return dot ? dot : &nb_dot_bytes;
}

int nb_dot_parts(const nb_dot *dot, int bits) { return nb_unit_inputs(bits) / 4 * dot->act_bytes; }

/* A step adds two products with -128..127 to a lane. */
int nb_dot_steps(int bits) { return INT16_MAX / (2 * 128 * ((1 << bits) - 1)); }
