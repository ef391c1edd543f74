/* x86-64: what its levels do by themselves. Members that are not named are NULL or false, and the
 * generic way is used. */
#include "codegen/isa.h"
#include "codegen/kernels/dot.h"

const cg_isa cg_isa_sse2 = {
    .name = "sse2",
    .vector_bytes = 16,
    .registers = 16,
    .streams = 6,
    .ahead = 2048,
    .dots = {{{&nb_dot_words_sse2}, {&nb_dot_words_sse2}},
             {{&nb_dot_words_sse2}, {&nb_dot_words_sse2}}},
    .pairs = nb_pairs_sse2,
};

const cg_isa cg_isa_avx2 = {
    .name = "avx2",
    .vector_bytes = 32,
    .registers = 16,
    .fma = true,
    .round = true,
    .f16 = true,
    .mask_bits = 32,
    .streams = 6,
    .ahead = 2048,
    .dots = {{{&nb_dot_words_avx2}, {&nb_dot_words_avx2}},
             {{&nb_dot_narrow_avx2}, {&nb_dot_words_avx2, &nb_dot_narrow_avx2}}},
    .pairs = nb_pairs_avx2,
};

const cg_isa cg_isa_avx512vnni = {
    .name = "avx512vnni",
    .vector_bytes = 64,
    .registers = 32,
    .fma = true,
    .round = true,
    .f16 = true,
    .mask_bits = 8,
    .streams = 6,
    .ahead = 2048,
    .dots = {{{&nb_dot_vnni}, {&nb_dot_vnni}}, {{&nb_dot_vnni}, {&nb_dot_vnni}}},
    .pairs = nb_pairs_vnni,
    .fours = nb_fours_vnni,
};
