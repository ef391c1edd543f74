/* Element types and interned tensor types. */
#include "ir/interner.h"

#include <assert.h>
#include <string.h>

const nb_elem_info nb_elems[NB_ELEM_COUNT] = {
#define ELEM(name, text_, bits_, kind, number_)                 \
    [NB_##name] = {.text = text_,                               \
                   .bits = bits_,                               \
                   .class_ = NB_CLASS_##kind,                   \
                   .onnx = number_ < NB_ELEM_OWN ? number_ : 0, \
                   .number = number_},
#include "ir/elems.def"
#undef ELEM
};

nb_elem nb_elem_from_text(const char *text, size_t length) {
    for (int e = 0; e < NB_ELEM_COUNT; e++) {
        if (strlen(nb_elems[e].text) == length && memcmp(nb_elems[e].text, text, length) == 0)
            return (nb_elem)e;
    }
    return NB_ELEM_COUNT;
}

nb_elem nb_elem_from_number(int number) {
    for (int e = 0; e < NB_ELEM_COUNT; e++) {
        if (nb_elems[e].number == number) return (nb_elem)e;
    }
    return NB_ELEM_COUNT;
}

nb_elem nb_elem_from_onnx(int onnx) {
    return onnx < NB_ELEM_OWN ? nb_elem_from_number(onnx) : NB_ELEM_COUNT;
}

nb_elem nb_elem_integer(int bits, bool is_signed) {
    const nb_elem_class class_ = is_signed ? NB_CLASS_INT : NB_CLASS_UINT;
    for (int e = 0; e < NB_ELEM_COUNT; e++) {
        if (nb_elems[e].bits == bits && nb_elems[e].class_ == class_) return (nb_elem)e;
    }
    return NB_ELEM_COUNT;
}

int64_t nb_elem_min(nb_elem e) {
    if (nb_elems[e].class_ != NB_CLASS_INT) return 0;
    return nb_elems[e].bits == 64 ? INT64_MIN : -(INT64_C(1) << (nb_elems[e].bits - 1));
}

int64_t nb_elem_max(nb_elem e) {
    if (nb_elems[e].class_ == NB_CLASS_BOOL) return 1;
    int bits = nb_elems[e].bits - (nb_elems[e].class_ == NB_CLASS_INT);
    return bits >= 63 ? INT64_MAX : (INT64_C(1) << bits) - 1;
}

bool nb_elem_bytes_of(nb_elem e, int64_t count, int64_t *bytes) {
    int64_t bits;
    if (count < 0 || !nb_mul_i64(count, nb_elems[e].bits, &bits) || bits > INT64_MAX - 7)
        return false;
    *bytes = (bits + 7) / 8;
    return true;
}

uint64_t nb_elem_get(nb_elem e, const void *data, int64_t i) {
    const int bits = nb_elems[e].bits;
    const uint8_t *bytes = data;
    uint64_t u = 0;
    if (bits >= 8) {
        memcpy(&u, bytes + i * (bits / 8), (size_t)bits / 8);
        return u;
    }
    const int64_t at = i * bits; /* of the first bit; the last may be in the same byte */
    return (uint64_t)((bytes[at / 8] | bytes[(at + bits - 1) / 8] << 8) >> at % 8) &
           ((1u << bits) - 1);
}

void nb_elem_put(nb_elem e, void *data, int64_t i, uint64_t u) {
    const int bits = nb_elems[e].bits;
    uint8_t *bytes = data;
    if (bits >= 8) {
        memcpy(bytes + i * (bits / 8), &u, (size_t)bits / 8);
        return;
    }
    const int64_t at = i * bits, last = (at + bits - 1) / 8;
    const unsigned mask = ((1u << bits) - 1) << at % 8, code = (unsigned)(u << at % 8) & mask;
    bytes[at / 8] = (uint8_t)((bytes[at / 8] & ~mask) | code);
    if (last != at / 8) bytes[last] = (uint8_t)((bytes[last] & ~(mask >> 8)) | code >> 8);
}

size_t nb_elem_alignment(nb_elem e) {
    return nb_elems[e].bits < 8 ? 1 : (size_t)nb_elems[e].bits / 8;
}

const nb_type *nb_type_intern(nb_graph *g, nb_elem elem, const nb_quant *quant, int rank,
                              const nb_dim *const *dims) {
    nb_type t;
    assert(rank >= 0 && rank <= NB_MAX_RANK);
    memset(&t, 0, sizeof t); /* the bytes are the key: padding and unused dims must be equal */
    t.elem = elem;
    t.quant = quant;
    t.rank = rank;
    for (int i = 0; i < rank; i++) t.dims[i] = dims[i];
    nb_map *map = &g->interner->types;
    const nb_type *known = nb_map_get_str(map, (const char *)&t, sizeof t);
    if (known) return known;
    nb_type *fresh = NB_NEW(g->arena, nb_type);
    *fresh = t;
    nb_map_set_str(map, (const char *)&t, sizeof t, fresh);
    fresh->id = g->interner->n_types++;
    return fresh;
}

const nb_type *nb_type_with_elem(nb_graph *g, const nb_type *type, nb_elem elem) {
    return nb_type_intern(g, elem, NULL, type->rank, type->dims);
}

const nb_type *nb_type_with_quant(nb_graph *g, const nb_type *type, const nb_quant *quant) {
    return nb_type_intern(g, quant->storage, quant, type->rank, type->dims);
}

const nb_type *nb_type_with_dims(nb_graph *g, const nb_type *type, int rank,
                                 const nb_dim *const *dims) {
    return nb_type_intern(g, type->elem, type->quant, rank, dims);
}

const nb_dim *nb_type_count(nb_graph *g, const nb_type *type) {
    const nb_dim *count = nb_dim_const(g, 1);
    for (int i = 0; i < type->rank; i++) count = nb_dim_mul(g, count, type->dims[i]);
    return count;
}

bool nb_type_static_count(const nb_type *type, int64_t *count) {
    *count = 1;
    for (int i = 0; i < type->rank; i++) {
        if (!nb_dim_is_const(type->dims[i]) || !nb_mul_i64(*count, type->dims[i]->value, count))
            return false;
    }
    return true;
}

const char *nb_type_text(nb_arena *arena, const nb_type *type) {
    const char *text = type->quant ? nb_format(arena, "#%s[", type->quant->name)
                                   : nb_format(arena, "%s[", nb_elems[type->elem].text);
    for (int i = 0; i < type->rank; i++)
        text = nb_format(arena, "%s%s%s", text, i ? "," : "", nb_dim_text(arena, type->dims[i]));
    return nb_format(arena, "%s]", text);
}
