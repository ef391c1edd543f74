/* The container of GGUF: header, values, and where tensors are (gguf.h). */
#include "frontend/gguf.h"

#include <stdlib.h>
#include <string.h>

/* Far above any model; what is counted takes memory. */
enum {
    MOST_VALUES = 1 << 16,
    MOST_TENSORS = 1 << 16,
    MOST_NAME = 1 << 16,
    MOST_ALIGNMENT = 1 << 16
};

/* Types of values, and bytes of those of fixed size. */
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64, TYPES };
static const uint8_t sizes[TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const type_names[TYPES] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                              "bool", "string", "array", "u64", "i64", "f64"};

nb_status nb_gguf_error(nb_gguf *f, nb_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = nb_vformat(f->arena, fmt, args);
    va_end(args);
    return nb_error(f->diags, status, (nb_where){.file = f->name, .offset = -1}, "%s", text);
}

/* The next n bytes. */
static nb_status take(nb_gguf *f, uint64_t n, const char *what, const uint8_t **out) {
    if (n > f->size - f->at) {
        nb_error(f->diags, NB_MALFORMED, (nb_where){.file = f->name, .offset = (int64_t)f->at},
                 "the file ends within %s: %llu bytes are wanted, %zu are left", what,
                 (unsigned long long)n, f->size - f->at);
        nb_help(f->diags, "a download that broke off? compare its size");
        return NB_MALFORMED;
    }
    *out = f->bytes + f->at;
    f->at += n;
    return NB_OK;
}

static uint64_t little(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static nb_status take_int(nb_gguf *f, size_t n, const char *what, uint64_t *out) {
    const uint8_t *p;
    NB_TRY(take(f, n, what, &p));
    *out = little(p, n);
    return NB_OK;
}

/* A name in the arena. */
static nb_status take_name(nb_gguf *f, const char *what, const char **out) {
    uint64_t n;
    const uint8_t *p;
    NB_TRY(take_int(f, 8, what, &n));
    if (n > MOST_NAME)
        return nb_gguf_error(f, NB_LIMIT, "%s of %llu bytes, more than %d", what,
                             (unsigned long long)n, MOST_NAME);
    NB_TRY(take(f, n, what, &p));
    if (memchr(p, 0, n)) return nb_gguf_error(f, NB_MALFORMED, "%s holds a NUL", what);
    *out = nb_strndup(f->arena, (const char *)p, n);
    return NB_OK;
}

/* ---- values --------------------------------------------------------------------------------- */

static nb_status skip_value(nb_gguf *f, uint64_t type, const char *key) {
    const uint8_t *p;
    uint64_t n = 1, of = type;
    if (type == ARRAY) {
        NB_TRY(take_int(f, 4, key, &of));
        NB_TRY(take_int(f, 8, key, &n));
    }
    if (of >= TYPES || of == ARRAY)
        return nb_gguf_error(f, NB_MALFORMED, "value \"%s\": there is no type %llu%s", key,
                             (unsigned long long)of, of == ARRAY ? " (array) in arrays" : "");
    if (of != TEXT) {
        if (n > f->size / sizes[of]) n = f->size; /* take says it */
        return take(f, n * sizes[of], key, &p);
    }
    for (uint64_t i = 0; i < n; i++) { /* each takes 8 bytes or more */
        uint64_t length;
        NB_TRY(take_int(f, 8, key, &length));
        NB_TRY(take(f, length, key, &p));
    }
    return NB_OK;
}

static nb_status read_values(nb_gguf *f, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        const char *key;
        uint64_t type;
        NB_TRY(take_name(f, "a key", &key));
        const uint8_t *at = f->bytes + f->at;
        NB_TRY(take_int(f, 4, key, &type));
        NB_TRY(skip_value(f, type, key));
        if (nb_map_get_str(&f->values, key, strlen(key)))
            return nb_gguf_error(f, NB_MALFORMED, "value \"%s\" is given twice", key);
        nb_map_set_str(&f->values, key, strlen(key), (void *)(uintptr_t)at);
    }
    return NB_OK;
}

/* Type and first byte of a value that is there. */
static const uint8_t *find(const nb_gguf *f, const char *key, uint64_t *type) {
    const uint8_t *at = nb_map_get_str(&f->values, key, strlen(key));
    if (!at) return NULL;
    *type = little(at, 4);
    return at + 4;
}

static bool wrong(nb_gguf *f, const char *key, uint64_t type, const char *wanted) {
    nb_gguf_error(f, NB_MALFORMED, "value \"%s\": expected %s, found %s", key, wanted,
                  type_names[type]);
    return false;
}

bool nb_gguf_text(nb_gguf *f, const char *key, const char **out) {
    uint64_t type;
    const uint8_t *p = find(f, key, &type);
    if (!p) return false;
    if (type != TEXT) return wrong(f, key, type, "a string");
    *out = nb_strndup(f->arena, (const char *)p + 8, little(p, 8));
    return true;
}

bool nb_gguf_int(nb_gguf *f, const char *key, int64_t *out) {
    uint64_t type;
    const uint8_t *p = find(f, key, &type);
    if (!p) return false;
    if (type > I64 || sizes[type] == 0 || type == F32 || type == BOOL)
        return wrong(f, key, type, "an integer");
    const unsigned unused = 64 - 8u * sizes[type];
    const uint64_t bits = little(p, sizes[type]) << unused;
    const bool is_signed = type == I8 || type == I16 || type == I32 || type == I64;
    *out = is_signed ? (int64_t)bits >> unused : (int64_t)(bits >> unused);
    return true;
}

bool nb_gguf_float(nb_gguf *f, const char *key, float *out) {
    uint64_t type;
    double wide;
    const uint8_t *p = find(f, key, &type);
    if (!p) return false;
    if (type == F32) {
        memcpy(out, p, 4);
        return true;
    }
    if (type != F64) return wrong(f, key, type, "a float");
    memcpy(&wide, p, 8);
    *out = (float)wide;
    return true;
}

/* ---- tensors -------------------------------------------------------------------------------- */

static nb_status read_shape(nb_gguf *f, nb_gguf_tensor *t) {
    uint64_t rank, type, offset;
    int64_t count = 1;
    NB_TRY(take_int(f, 4, t->name, &rank));
    if (rank < 1 || rank > 4)
        return nb_gguf_error(f, NB_MALFORMED, "tensor \"%s\": rank %llu is not 1 to 4", t->name,
                             (unsigned long long)rank);
    t->rank = (int)rank;
    for (int d = 0; d < 4; d++) {
        uint64_t n = 1;
        if (d < t->rank) NB_TRY(take_int(f, 8, t->name, &n));
        t->dims[d] = (int64_t)n;
        if (n < 1 || n > INT64_MAX || !nb_mul_i64(count, t->dims[d], &count))
            return nb_gguf_error(f, NB_MALFORMED, "tensor \"%s\": dimension %d is %llu", t->name, d,
                                 (unsigned long long)n);
    }
    NB_TRY(take_int(f, 4, t->name, &type));
    NB_TRY(take_int(f, 8, t->name, &offset));
    t->type = type <= UINT32_MAX ? nb_gguf_type_of((uint32_t)type) : NULL;
    if (!t->type)
        return nb_gguf_error(f, NB_UNSUPPORTED, "tensor \"%s\": ggml's type %llu is not supported",
                             t->name, (unsigned long long)type);
    if (t->dims[0] % t->type->count)
        return nb_gguf_error(
            f, NB_MALFORMED, "tensor \"%s\": rows of %lld are no multiple of %s's blocks of %lld",
            t->name, (long long)t->dims[0], t->type->name, (long long)t->type->count);
    if (offset > INT64_MAX || !nb_mul_i64(count / t->type->count, t->type->bytes, &t->bytes))
        return nb_gguf_error(f, NB_MALFORMED, "tensor \"%s\": its size is no number", t->name);
    t->offset = (int64_t)offset;
    return NB_OK;
}

static int by_offset(const void *a, const void *b) {
    const nb_gguf_tensor *x = *(const nb_gguf_tensor *const *)a,
                         *y = *(const nb_gguf_tensor *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Tensors lie within the file, and apart. */
static nb_status place_tensors(nb_gguf *f) {
    const size_t n = f->tensors.count, start = (f->at + (size_t)f->alignment - 1) /
                                               (size_t)f->alignment * (size_t)f->alignment;
    nb_gguf_tensor **all = (nb_gguf_tensor **)nb_alloc_array(f->arena, n + 1, sizeof *all);
    for (size_t i = 0; i < n; i++) all[i] = f->tensors.entries[i].value;
    qsort(all, n, sizeof *all, by_offset);
    for (size_t i = 0; i < n; i++) {
        nb_gguf_tensor *t = all[i];
        const int64_t left = start <= f->size ? (int64_t)(f->size - start) : 0;
        if (t->offset % f->alignment)
            return nb_gguf_error(f, NB_MALFORMED,
                                 "tensor \"%s\": offset %lld is no multiple of the alignment, %lld",
                                 t->name, (long long)t->offset, (long long)f->alignment);
        if (t->offset > left || t->bytes > left - t->offset) {
            nb_gguf_error(
                f, NB_MALFORMED,
                "tensor \"%s\": bytes %lld to %lld of the data, which ends at %lld", t->name,
                (long long)t->offset,
                (long long)(t->offset + (t->bytes < INT64_MAX - t->offset ? t->bytes : 0)),
                (long long)left);
            nb_help(f->diags, "a download that broke off? compare its size");
            return NB_MALFORMED;
        }
        if (i && all[i - 1]->offset + all[i - 1]->bytes > t->offset)
            return nb_gguf_error(f, NB_MALFORMED, "tensors \"%s\" and \"%s\" overlap",
                                 all[i - 1]->name, t->name);
        t->data = f->bytes + start + (size_t)t->offset;
    }
    return NB_OK;
}

static nb_status read_tensors(nb_gguf *f, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        nb_gguf_tensor *t = NB_NEW(f->arena, nb_gguf_tensor);
        NB_TRY(take_name(f, "a tensor's name", &t->name));
        NB_TRY(read_shape(f, t));
        if (nb_map_get_str(&f->tensors, t->name, strlen(t->name)))
            return nb_gguf_error(f, NB_MALFORMED, "tensor \"%s\" is there twice", t->name);
        nb_map_set_str(&f->tensors, t->name, strlen(t->name), t);
    }
    f->alignment = 32;
    if (!nb_gguf_int(f, "general.alignment", &f->alignment) && f->diags->errors)
        return nb_diags_status(f->diags);
    if (f->alignment < 1 || f->alignment > MOST_ALIGNMENT || (f->alignment & (f->alignment - 1)))
        return nb_gguf_error(f, NB_MALFORMED, "an alignment of %lld", (long long)f->alignment);
    return place_tensors(f);
}

nb_status nb_gguf_open(nb_gguf *f) {
    uint64_t version, tensors, values;
    const uint8_t *magic;
    f->values.arena = f->tensors.arena = f->arena;
    NB_TRY(take(f, 4, "its header", &magic));
    NB_TRY(take_int(f, 4, "its header", &version));
    NB_TRY(take_int(f, 8, "its header", &tensors));
    NB_TRY(take_int(f, 8, "its header", &values));
    if (version != 2 && version != 3)
        return nb_gguf_error(f, NB_UNSUPPORTED, "GGUF version %llu%s; 2 and 3 are supported",
                             (unsigned long long)version,
                             version >> 16 ? " (a big-endian file?)" : "");
    if (tensors > MOST_TENSORS || values > MOST_VALUES)
        return nb_gguf_error(f, NB_LIMIT, "%llu tensors and %llu values, more than %d",
                             (unsigned long long)tensors, (unsigned long long)values, MOST_VALUES);
    NB_TRY(read_values(f, values));
    return read_tensors(f, tensors);
}
