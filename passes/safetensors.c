/* Reading safetensors (safetensors.h). */
#include "passes/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A header has some hundred bytes for each tensor; one as long as this was made to harm. */
#define HEADER_MAX (UINT64_C(1) << 24)

static const struct {
    const char *name;
    nb_elem elem;
} types[] = {
    {"F64", NB_F64}, {"F32", NB_F32}, {"F16", NB_F16},   {"BF16", NB_BF16}, {"I64", NB_I64},
    {"I32", NB_I32}, {"I16", NB_I16}, {"I8", NB_I8},     {"U64", NB_U64},   {"U32", NB_U32},
    {"U16", NB_U16}, {"U8", NB_U8},   {"BOOL", NB_BOOL},
};

typedef struct reader {
    const char *path;
    nb_arena *arena;
    nb_diags *diags;
    const uint8_t *data; /* behind the header */
    uint64_t size;       /* of the data */
} reader;

static nb_where at(const char *path) { return (nb_where){.file = path, .offset = -1}; }

static nb_status read_type(const reader *r, const char *name, const json_t *entry, nb_tensor *out) {
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; text && i < NB_COUNT(types); i++) {
        if (strcmp(text, types[i].name) != 0) continue;
        out->elem = types[i].elem;
        return NB_OK;
    }
    return nb_error(r->diags, text ? NB_UNSUPPORTED : NB_MALFORMED, at(r->path),
                    "tensor '%s': expected a dtype such as F32, found '%.32s'", name,
                    text ? text : "");
}

/* The shape, and the bytes that it needs. */
static nb_status read_shape(const reader *r, const char *name, const json_t *entry,
                            nb_tensor *out) {
    const json_t *shape = json_object_get(entry, "shape");
    size_t rank = json_array_size(shape);
    int64_t count = 1;
    bool ok = json_is_array(shape) && rank <= NB_MAX_RANK;
    for (size_t i = 0; ok && i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        out->dims[i] = json_integer_value(dim);
        ok = json_is_integer(dim) && out->dims[i] >= 0 && nb_mul_i64(count, out->dims[i], &count);
    }
    out->rank = (int)rank;
    if (ok && nb_elem_bytes_of(out->elem, count, &out->bytes)) return NB_OK;
    return nb_error(r->diags, NB_MALFORMED, at(r->path),
                    "tensor '%s': the shape is not one of up to %d dimensions", name, NB_MAX_RANK);
}

static nb_status read_data(const reader *r, const char *name, const json_t *entry, nb_tensor *out) {
    const json_t *offsets = json_object_get(entry, "data_offsets"),
                 *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    json_int_t begin = json_integer_value(from), end = json_integer_value(to);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        begin < 0 || end < begin || (uint64_t)end > r->size)
        return nb_error(r->diags, NB_MALFORMED, at(r->path),
                        "tensor '%s': data_offsets are not two offsets in the %llu bytes of data",
                        name, (unsigned long long)r->size);
    if (end - begin != out->bytes)
        return nb_error(r->diags, NB_MALFORMED, at(r->path),
                        "tensor '%s': %lld bytes of data, the shape needs %lld", name,
                        (long long)(end - begin), (long long)out->bytes);
    out->data = (void *)(uintptr_t)(r->data + begin);
    return NB_OK;
}

static nb_status read_tensor(const reader *r, const char *name, const json_t *entry,
                             nb_safetensors *out) {
    nb_safetensor t = {.name = nb_strdup(r->arena, name)};
    if (!json_is_object(entry))
        return nb_error(r->diags, NB_MALFORMED, at(r->path),
                        "tensor '%s' is not described by an object", name);
    NB_TRY(read_type(r, name, entry, &t.tensor));
    NB_TRY(read_shape(r, name, entry, &t.tensor));
    NB_TRY(read_data(r, name, entry, &t.tensor));
    nb_vec_push(r->arena, out, t);
    return NB_OK;
}

nb_status nb_safetensors_parse(const char *path, const uint8_t *bytes, size_t size, nb_arena *arena,
                               nb_diags *diags, nb_safetensors *out) {
    uint64_t length = 0;
    *out = (nb_safetensors){0};
    for (int i = 7; i >= 0 && size >= 8; i--) length = length << 8 | bytes[i];
    if (size < 8 || length > size - 8 || length > HEADER_MAX)
        return nb_error(diags, NB_MALFORMED, at(path),
                        "expected safetensors: a header's length, and as many bytes of JSON; %zu "
                        "bytes begin with %llu",
                        size, (unsigned long long)length);
    json_error_t error;
    json_t *header =
        json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(header)) {
        json_decref(header);
        return nb_error(diags, NB_MALFORMED, (nb_where){.file = path, .offset = 8 + error.position},
                        "the header is not an object of JSON: %s", header ? "" : error.text);
    }
    const reader r = {path, arena, diags, bytes + 8 + length, size - 8 - length};
    nb_status status = NB_OK;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (status == NB_OK && strcmp(name, "__metadata__") != 0)
            status = read_tensor(&r, name, entry, out);
    }
    json_decref(header);
    return status;
}
