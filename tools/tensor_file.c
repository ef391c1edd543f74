/* Tensors in files (tensor_file.h). */
#include "tools/tensor_file.h"
#include "lib/files.h"

#include "frontend/frontend.h"
#include "ir/support/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nb_where at(const char *path) { return (nb_where){.file = path, .offset = -1}; }

nb_status nbt_read_file(const char *path, nb_arena *arena, nb_diags *diags, char **text,
                        size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return nb_io_error(diags, path, "open");
    size_t capacity = 1 << 16, n;
    *text = nb_alloc(arena, capacity);
    *size = 0;
    while ((n = fread(*text + *size, 1, capacity - *size - 1, f)) > 0) {
        *size += n;
        if (capacity - *size > 1) continue;
        char *grown = nb_alloc(arena, 2 * capacity);
        memcpy(grown, *text, *size);
        *text = grown;
        capacity *= 2;
    }
    bool bad = ferror(f) != 0;
    nb_status status = bad ? nb_io_error(diags, path, "read") : NB_OK;
    fclose(f);
    return status;
}

/* ---- .npy (NumPy's format description, versions 1 and 2) ------------------------------------- */

static const struct {
    const char *descr;
    nb_elem elem;
} descriptors[] = {
    {"<f4", NB_F32}, {"<f8", NB_F64}, {"<f2", NB_F16}, {"<i8", NB_I64},
    {"<i4", NB_I32}, {"<i2", NB_I16}, {"|i1", NB_I8},  {"<u8", NB_U64},
    {"<u4", NB_U32}, {"<u2", NB_U16}, {"|u1", NB_U8},  {"|b1", NB_BOOL},
};

/* The text behind 'key': in the header's dictionary, or NULL. */
static const char *find_key(const char *header, const char *key) {
    const char *p = strstr(header, key);
    if (!p) return NULL;
    p += strlen(key);
    return p + strspn(p, "': ");
}

static nb_status parse_header(const char *path, const char *header, nb_diags *diags,
                              nb_tensor *out) {
    const char *descr = find_key(header, "'descr'"), *order = find_key(header, "'fortran_order'"),
               *shape = find_key(header, "'shape'");
    if (!descr || !order || !shape || *shape != '(')
        return nb_error(diags, NB_MALFORMED, at(path),
                        "the .npy header lacks descr, fortran_order or shape");
    size_t k = 0;
    while (k < NB_COUNT(descriptors) &&
           strncmp(descr, descriptors[k].descr, strlen(descriptors[k].descr)) != 0)
        k++;
    if (k == NB_COUNT(descriptors))
        return nb_error(diags, NB_UNSUPPORTED, at(path), "element type %.8s is not supported",
                        descr);
    if (strncmp(order, "False", 5) != 0)
        return nb_error(diags, NB_UNSUPPORTED, at(path),
                        "arrays in Fortran order are not supported");
    out->elem = descriptors[k].elem;
    out->rank = 0;
    for (const char *p = shape + 1; *p && *p != ')';) {
        char *end;
        long long v = strtoll(p, &end, 10);
        if (end == p || v < 0 || out->rank == NB_MAX_RANK)
            return nb_error(diags, NB_MALFORMED, at(path),
                            "the shape is not one of up to %d dimensions", NB_MAX_RANK);
        out->dims[out->rank++] = v;
        p = end + strspn(end, ", ");
    }
    return NB_OK;
}

nb_status nbt_parse_npy(const char *path, const char *bytes, size_t size, nb_arena *arena,
                        nb_diags *diags, nb_tensor *out) {
    if (size < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return nb_error(diags, NB_MALFORMED, at(path), "expected a NumPy array (.npy)");
    bool wide = bytes[6] >= 2;
    uint32_t length = 0;
    memcpy(&length, bytes + 8, wide ? 4 : 2);
    size_t start = (wide ? 12 : 10) + (size_t)length;
    if (start > size)
        return nb_error(diags, NB_MALFORMED, at(path),
                        "the header of %u bytes runs past the end of the file", length);
    NB_TRY(parse_header(path, nb_strndup(arena, bytes + (wide ? 12 : 10), length), diags, out));
    int64_t count = 1;
    for (int d = 0; d < out->rank; d++) {
        if (!nb_mul_i64(count, out->dims[d], &count))
            return nb_error(diags, NB_LIMIT, at(path), "the array is too large");
    }
    if (!nb_elem_bytes_of(out->elem, count, &out->bytes) || (size_t)out->bytes != size - start)
        return nb_error(diags, NB_MALFORMED, at(path), "%zu bytes of data, the shape needs %lld",
                        size - start, (long long)out->bytes);
    out->data =
        nb_alloc(arena, (size_t)out->bytes + 8); /* aligned, which the file's bytes need not be */
    memcpy(out->data, bytes + start, (size_t)out->bytes);
    return NB_OK;
}

nb_status nbt_read_tensor(const char *path, nb_arena *arena, nb_diags *diags, nb_tensor *out) {
    *out = (nb_tensor){0};
    if (nbl_ends_with(path, ".pb")) return nb_read_tensor_file(path, arena, diags, out);
    char *bytes;
    size_t size;
    NB_TRY(nbt_read_file(path, arena, diags, &bytes, &size));
    return nbt_parse_npy(path, bytes, size, arena, diags, out);
}

/* Behind the header: the elements as they are; NumPy has no bf16, whose values f32 holds. */
static void write_elements(FILE *f, const nb_tensor *t) {
    int64_t n = t->elem == NB_BF16 ? nb_tensor_count(t) : 0;
    for (int64_t i = 0; i < n; i++) {
        float v = (float)nb_tensor_get(t, i);
        fwrite(&v, 1, sizeof v, f);
    }
    if (t->elem != NB_BF16 && t->bytes) fwrite(t->data, 1, (size_t)t->bytes, f);
}

static const char *descriptor_of(nb_elem elem) {
    for (size_t k = 0; k < NB_COUNT(descriptors); k++) {
        if (descriptors[k].elem == elem) return descriptors[k].descr;
    }
    return NULL;
}

bool nbt_print_npy(FILE *f, const nb_tensor *t) {
    const char *descr = descriptor_of(t->elem == NB_BF16 ? NB_F32 : t->elem);
    if (!descr) return false;
    char header[512];
    int n = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                     descr);
    for (int d = 0; d < t->rank; d++)
        n += snprintf(header + n, sizeof header - (size_t)n, "%lld%s", (long long)t->dims[d],
                      d + 1 < t->rank ? ", "
                      : t->rank == 1  ? ","
                                      : "");
    n += snprintf(header + n, sizeof header - (size_t)n, "), }");
    int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
    unsigned char front[10] = {0x93,
                               'N',
                               'U',
                               'M',
                               'P',
                               'Y',
                               1,
                               0,
                               (unsigned char)(padded & 255),
                               (unsigned char)(padded >> 8)};
    fwrite(front, 1, sizeof front, f);
    fprintf(f, "%-*s\n", padded - 1, header);
    write_elements(f, t);
    return true;
}

static nb_status no_numpy_type(const char *path, const nb_tensor *t, nb_diags *diags) {
    return nb_error(diags, NB_UNSUPPORTED, at(path), "%s has no NumPy type",
                    nb_elems[t->elem].text);
}

nb_status nbt_write_npy(const char *path, const nb_tensor *t, nb_diags *diags) {
    nb_output f;
    NB_TRY(nb_output_open(path, diags, &f));
    const bool printed = nbt_print_npy(f.stream, t);
    return nb_output_close(&f, printed ? NB_OK : no_numpy_type(path, t, diags));
}

nb_status nbt_read_tokens(const char *path, nb_arena *arena, nb_diags *diags, int64_t **tokens,
                          size_t *count) {
    nb_tensor t;
    NB_TRY(nbt_read_tensor(path, arena, diags, &t));
    if (t.rank != 1 || !nb_elem_is_integer(t.elem))
        return nb_error(diags, NB_MALFORMED, at(path),
                        "expected a vector of integers, found %s of rank %d", nb_elems[t.elem].text,
                        t.rank);
    *count = (size_t)t.dims[0];
    *tokens = NB_NEW_ARRAY(arena, int64_t, *count + 1);
    for (size_t i = 0; i < *count; i++) (*tokens)[i] = nb_tensor_get_int(&t, (int64_t)i);
    return NB_OK;
}
