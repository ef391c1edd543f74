/* Constants as numbers (reals.h). */
#include "ir/reals.h"

void nb_reals_open(nb_reals *r, const nb_value *constant, nb_arena *arena) {
    *r = (nb_reals){.tensor = nb_tensor_of_const(constant)};
    r->count = nb_tensor_count(&r->tensor);
    if (constant->type->quant) r->codes = nb_codes_expand(constant->type->quant, &r->tensor, arena);
}

double nb_real(const nb_reals *r, int64_t i) {
    return r->codes.q ? (double)nb_codes_real(&r->codes, i) : nb_tensor_get(&r->tensor, i);
}
