/* AArch64: what its levels do by themselves. Members that are not named are NULL or false, and the
 * generic way is used. */
#include "codegen/isa.h"

const cg_isa cg_isa_neon = {
    .name = "neon",
    .vector_bytes = 16,
    .registers = 32,
    .fma = true,
    .round = true,
    .f16 = true,
    .maximum = true,
    .streams = 4,
    .ahead = 384,
};

const cg_isa cg_isa_neon_dotprod = {
    .name = "neon-dotprod",
    .vector_bytes = 16,
    .registers = 32,
    .fma = true,
    .round = true,
    .f16 = true,
    .maximum = true,
    .streams = 4,
    .ahead = 384,
};
