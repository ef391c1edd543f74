/* TensorProto: type, shape and bytes, whichever of ONNX's fields hold them. */
#include "frontend/model.h"

#include "frontend/guard.h"

#include <string.h>

/* Beyond this many elements no product of sizes here overflows. */
#define MAX_ELEMENTS (INT64_C(1) << 40)

NB_PRINTF(4, 5)
static nb_status refuse(nb_onnx *m, nb_status status, const char *what, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(m->arena, fmt, args);
    va_end(args);
    return nb_error(m->diags, status, (nb_where){.file = m->name, .offset = -1}, "%s: %s", what,
                    text);
}

static const char *type_text(nb_onnx *m, const nb_onnx_tensor *t) {
    const char *text = nb_format(m->arena, "%s[", nb_elems[t->elem].text);
    for (int i = 0; i < t->rank; i++)
        text = nb_format(m->arena, "%s%s%lld", text, i ? "," : "", (long long)t->dims[i]);
    return nb_format(m->arena, "%s]", text);
}

static nb_status read_shape(nb_onnx *m, const Onnx__TensorProto *t, const char *what,
                            nb_onnx_tensor *out, int64_t *count) {
    if (t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__STRING)
        return refuse(m, NB_UNSUPPORTED, what, "tensors of strings are not supported");
    if (t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__COMPLEX64 ||
        t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__COMPLEX128)
        return refuse(m, NB_UNSUPPORTED, what, "tensors of complex numbers are not supported");
    out->elem = nb_elem_from_onnx(t->data_type);
    if (out->elem == NB_ELEM_COUNT)
        return refuse(m, NB_MALFORMED, what, "element type %d is not one Nibble knows",
                      t->data_type);
    if (t->n_dims > NB_MAX_RANK)
        return refuse(m, NB_LIMIT, what, "rank %zu is above the limit of %d", t->n_dims,
                      NB_MAX_RANK);
    out->rank = (int)t->n_dims;
    *count = 1;
    for (int i = 0; i < out->rank; i++) {
        out->dims[i] = t->dims[i];
        if (t->dims[i] < 0)
            return refuse(m, NB_MALFORMED, what, "dimension %d is %lld", i, (long long)t->dims[i]);
        if (!nb_mul_i64(*count, t->dims[i], count) || *count > MAX_ELEMENTS)
            return refuse(m, NB_LIMIT, what, "more than 2^40 elements");
    }
    return NB_OK;
}

/* Entries of int32_data and uint64_data may be wider than the element: none may lose bits. Packed
 * entries are bytes; floats are bit patterns. */
static nb_status check_range(nb_onnx *m, const Onnx__TensorProto *t, const char *what,
                             const nb_onnx_tensor *tensor) {
    int bits = nb_elems[tensor->elem].bits;
    bool is_signed = nb_elems[tensor->elem].class_ == NB_CLASS_INT && bits >= 8;
    int64_t least = is_signed  ? nb_elem_min(tensor->elem)
                    : bits < 8 ? -128
                               : 0,
            most = is_signed  ? nb_elem_max(tensor->elem)
                   : bits < 8 ? 255
                              : (INT64_C(1) << bits) - 1;
    for (size_t i = 0; bits < 32 && i < t->n_int32_data; i++) {
        if (t->int32_data[i] < least || t->int32_data[i] > most)
            return refuse(m, NB_MALFORMED, what, "value %zu is %d, beyond %s", i, t->int32_data[i],
                          nb_elems[tensor->elem].text);
    }
    for (size_t i = 0; tensor->elem == NB_U32 && i < t->n_uint64_data; i++) {
        if (t->uint64_data[i] > UINT32_MAX)
            return refuse(m, NB_MALFORMED, what, "value %zu is %llu, beyond u32", i,
                          (unsigned long long)t->uint64_data[i]);
    }
    return NB_OK;
}

/* Bytes from one of the typed fields, if it is the right one for the element type. */
static nb_status from_typed(nb_onnx *m, const Onnx__TensorProto *t, const char *what,
                            const nb_onnx_tensor *tensor, int64_t count, uint8_t *to) {
    int bits = nb_elems[tensor->elem].bits;
    size_t n = 0, each = 1;
    const void *from = NULL;
    size_t width = 0; /* bytes of an entry of the field */
    if (tensor->elem == NB_F32) {
        n = t->n_float_data, from = t->float_data, width = 4;
    } else if (tensor->elem == NB_F64) {
        n = t->n_double_data, from = t->double_data, width = 8;
    } else if (tensor->elem == NB_I64) {
        n = t->n_int64_data, from = t->int64_data, width = 8;
    } else if (tensor->elem == NB_U64 || tensor->elem == NB_U32) {
        n = t->n_uint64_data, from = t->uint64_data, width = 8;
    } else {
        n = t->n_int32_data, from = t->int32_data, width = 4;
        each =
            bits < 8 ? (size_t)(8 / bits) : 1; /* packed: an entry holds the elements of one byte */
    }
    size_t wanted = ((size_t)count + each - 1) / each;
    if (n != wanted)
        return refuse(m, NB_MALFORMED, what, "%zu values, %s needs %zu", n, type_text(m, tensor),
                      wanted);
    NB_TRY(check_range(m, t, what, tensor));
    size_t bytes = bits < 8 ? 1 : (size_t)bits / 8;
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * bytes, (const uint8_t *)from + i * width,
               bytes); /* little-endian: low bytes first */
    return NB_OK;
}

/* How many of the typed fields hold something. */
static int typed_fields(const Onnx__TensorProto *t) {
    return (t->n_float_data != 0) + (t->n_double_data != 0) + (t->n_int32_data != 0) +
           (t->n_int64_data != 0) + (t->n_uint64_data != 0) + (t->n_string_data != 0);
}

/* The bytes that a token of the guard stands for, or the field's own. */
static nb_status raw_bytes(nb_onnx *m, const Onnx__TensorProto *t, const uint8_t **bytes,
                           int64_t *size) {
    *bytes = t->raw_data.data;
    *size = (int64_t)t->raw_data.len;
    if (!m->skeleton || t->raw_data.len != NB_TOKEN_SIZE) return NB_OK;
    uint64_t token[2];
    memcpy(token, t->raw_data.data, sizeof token);
    *bytes = m->bytes + token[0];
    *size = (int64_t)token[1];
    return NB_OK;
}

static nb_status owned(nb_onnx *m, const char *what, int64_t size, nb_blob **blob, void **data) {
    *blob = nb_blob_create(size, data);
    return *blob ? NB_OK
                 : refuse(m, NB_LIMIT, what, "out of memory for %lld bytes", (long long)size);
}

/* Borrows bytes that outlive the graph and are aligned for their element; copies others. */
static nb_status borrow_or_copy(nb_onnx *m, const char *what, const uint8_t *bytes, int64_t size,
                                nb_elem elem, nb_blob **out) {
    bool in_file = bytes >= m->bytes && bytes < m->bytes + m->size;
    if (in_file && (uintptr_t)bytes % nb_elem_alignment(elem) == 0) {
        *out = nb_blob_borrow(m->graph->arena, bytes, size);
        (*out)->file = m->graph->file;
        (*out)->offset = bytes - m->bytes;
        (*out)->mapped = m->mapped;
        return NB_OK;
    }
    void *data;
    NB_TRY(owned(m, what, size, out, &data));
    if (size) memcpy(data, bytes, (size_t)size);
    return NB_OK;
}

/* Gives up the blob when it holds a bool that is neither 0 nor 1. */
static nb_status check_bools(nb_onnx *m, const char *what, nb_onnx_tensor *t) {
    const uint8_t *b = t->blob->data;
    for (int64_t i = 0; t->elem == NB_BOOL && i < t->blob->size; i++) {
        if (b[i] <= 1) continue;
        refuse(m, NB_MALFORMED, what, "bool %lld is %d", (long long)i, b[i]);
        nb_blob_release(t->blob);
        t->blob = NULL;
        return NB_MALFORMED;
    }
    return NB_OK;
}

nb_status nb_onnx_read_tensor(nb_onnx *m, const Onnx__TensorProto *t, const char *what,
                              nb_onnx_tensor *out) {
    int64_t count = 0, bytes, size;
    *out = (nb_onnx_tensor){0};
    NB_TRY(read_shape(m, t, what, out, &count));
    if (!nb_elem_bytes_of(out->elem, count, &bytes))
        return refuse(m, NB_LIMIT, what, "%s is too large", type_text(m, out));
    if (t->segment) return refuse(m, NB_UNSUPPORTED, what, "tensors in segments are not supported");
    bool external =
        t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    if (external + (t->has_raw_data != 0) + typed_fields(t) > 1)
        return refuse(m, NB_MALFORMED, what, "its data stand in two places");
    if (external) {
        NB_TRY(nb_onnx_external(m, t, what, bytes, &out->blob));
        if ((uintptr_t)out->blob->data % nb_elem_alignment(out->elem))
            NB_TRY(borrow_or_copy(m, what, out->blob->data, bytes, out->elem, &out->blob));
        return check_bools(m, what, out);
    }
    if (!t->has_raw_data) {
        void *data;
        NB_TRY(owned(m, what, bytes, &out->blob, &data));
        nb_status status = from_typed(m, t, what, out, count, data);
        if (status == NB_OK) return check_bools(m, what, out);
        nb_blob_release(out->blob);
        return status;
    }
    const uint8_t *raw;
    NB_TRY(raw_bytes(m, t, &raw, &size));
    if (size != bytes)
        return refuse(m, NB_MALFORMED, what, "raw_data has %lld bytes, %s needs %lld",
                      (long long)size, type_text(m, out), (long long)bytes);
    NB_TRY(borrow_or_copy(m, what, raw, size, out->elem, &out->blob));
    return check_bools(m, what, out);
}
