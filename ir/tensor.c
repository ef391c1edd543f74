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

/* The raw bits of element i. */
static uint64_t bits_at(const nb_tensor *t, int64_t i) {
    int bits = nb_elems[t->elem].bits;
    const uint8_t *bytes = t->data;
    uint64_t u = 0;
    if (bits < 8) {
        int per = 8 / bits;
        return (uint64_t)(bytes[i / per] >> (i % per * bits)) & ((1u << bits) - 1);
    }
    memcpy(&u, bytes + i * (bits / 8), (size_t)bits / 8);
    return u;
}

static void put_bits(nb_tensor *t, int64_t i, uint64_t u) {
    int bits = nb_elems[t->elem].bits;
    uint8_t *bytes = t->data;
    if (bits >= 8) {
        memcpy(bytes + i * (bits / 8), &u, (size_t)bits / 8);
        return;
    }
    int per = 8 / bits, shift = (int)(i % per) * bits;
    uint8_t mask = (uint8_t)(((1 << bits) - 1) << shift);
    bytes[i / per] = (uint8_t)((bytes[i / per] & ~mask) | ((u << shift) & mask));
}

int64_t nb_tensor_get_int(const nb_tensor *t, int64_t i) {
    uint64_t u = bits_at(t, i);
    int bits = nb_elems[t->elem].bits;
    if (nb_elems[t->elem].class_ == NB_CLASS_INT && bits < 64 && (u >> (bits - 1) & 1))
        u |= ~UINT64_C(0) << bits;
    return (int64_t)u;
}

double nb_tensor_get(const nb_tensor *t, int64_t i) {
    if (t->elem == NB_F32) return (double)((const float *)t->data)[i];
    if (t->elem == NB_F64) return ((const double *)t->data)[i];
    if (nb_elem_is_float(t->elem)) return (double)nb_float_decode(t->elem, (uint32_t)bits_at(t, i));
    if (t->elem == NB_U64) return (double)bits_at(t, i);
    return (double)nb_tensor_get_int(t, i);
}

void nb_tensor_set_int(nb_tensor *t, int64_t i, int64_t value) { put_bits(t, i, (uint64_t)value); }

void nb_tensor_set_float(nb_tensor *t, int64_t i, double value) {
    if (t->elem == NB_F32)
        ((float *)t->data)[i] = (float)value;
    else if (t->elem == NB_F64)
        ((double *)t->data)[i] = value;
    else
        put_bits(t, i, nb_float_encode(t->elem, (float)value));
}
