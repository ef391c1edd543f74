/* Elements of tensors, one at a time. */
#include "ir/eval.h"
#include "ir/eval_private.h"
#include "ir/minifloat.h"
#include "ir/scalar.h"

int64_t nb_tensor_count(const nb_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dims[i];
    return n;
}

nb_tensor nb_tensor_of_const(const nb_value *v) {
    nb_tensor t = {.elem = v->type->elem,
                   .rank = v->type->rank,
                   .bytes = v->blob->size,
                   .data = (void *)(uintptr_t)v->blob->data};
    for (int i = 0; i < t.rank; i++) t.dims[i] = v->type->dims[i]->value;
    return t;
}

int64_t nb_tensor_get_int(const nb_tensor *t, int64_t i) {
    uint64_t u = nb_elem_get(t->elem, t->data, i);
    int bits = nb_elems[t->elem].bits;
    if (nb_elems[t->elem].class_ == NB_CLASS_INT && bits < 64 && (u >> (bits - 1) & 1))
        u |= ~UINT64_C(0) << bits;
    return (int64_t)u;
}

double nb_tensor_get(const nb_tensor *t, int64_t i) {
    if (t->elem == NB_F32) return (double)((const float *)t->data)[i];
    if (t->elem == NB_F64) return ((const double *)t->data)[i];
    uint64_t bits = nb_elem_get(t->elem, t->data, i);
    if (nb_elem_is_float(t->elem)) return (double)nb_float_decode(t->elem, (uint32_t)bits);
    if (t->elem == NB_U64) return (double)bits;
    return (double)nb_tensor_get_int(t, i);
}

void nb_tensor_set_int(nb_tensor *t, int64_t i, int64_t value) {
    nb_elem_put(t->elem, t->data, i, (uint64_t)value);
}

void nb_tensor_set_float(nb_tensor *t, int64_t i, double value) {
    if (t->elem == NB_F32)
        ((float *)t->data)[i] = (float)value;
    else if (t->elem == NB_F64)
        ((double *)t->data)[i] = value;
    else
        nb_elem_put(t->elem, t->data, i, nb_float_encode(t->elem, (float)value));
}
