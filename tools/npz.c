/* NumPy's .npz: a zip archive with one NAME.npy for each array (numpy.savez, savez_compressed). */
#include "ir/support/output.h"
#include "tools/tensor_file.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

#define ARRAY_MAX (UINT64_C(1) << 36) /* bytes: more is a damaged file, or one made to harm */

static nb_where at(const char *path) { return (nb_where){.file = path, .offset = -1}; }

static nb_status read_entry(zip_t *archive, zip_uint64_t index, const char *path, nb_arena *arena,
                            nb_diags *diags, nbt_named_tensor *out) {
    zip_stat_t stat;
    if (zip_stat_index(archive, index, 0, &stat) != 0 || !(stat.valid & ZIP_STAT_NAME) ||
        !(stat.valid & ZIP_STAT_SIZE))
        return nb_error(diags, NB_MALFORMED, at(path), "entry %llu of the archive is damaged",
                        (unsigned long long)index);
    size_t length = strlen(stat.name);
    if (length < 5 || strcmp(stat.name + length - 4, ".npy") != 0)
        return nb_error(diags, NB_MALFORMED, at(path),
                        "expected NumPy arrays (NAME.npy) in the archive, found '%s'", stat.name);
    if (stat.size > ARRAY_MAX)
        return nb_error(diags, NB_LIMIT, at(path), "array '%s' has %llu bytes, the most is %llu",
                        stat.name, (unsigned long long)stat.size, (unsigned long long)ARRAY_MAX);
    out->name = nb_strndup(arena, stat.name, length - 4);
    char *bytes = nb_alloc(arena, (size_t)stat.size + 1);
    zip_file_t *file = zip_fopen_index(archive, index, 0);
    zip_int64_t n = file ? zip_fread(file, bytes, stat.size) : -1;
    /* Closing compares the checksum. */
    if (file && zip_fclose(file) != 0) n = -1;
    if (n < 0 || (zip_uint64_t)n != stat.size)
        return nb_error(diags, NB_MALFORMED, at(path), "array '%s' cannot be unpacked", stat.name);
    const char *where = nb_format(arena, "%s(%s)", path, stat.name);
    return nbt_parse_npy(where, bytes, (size_t)stat.size, arena, diags, &out->tensor);
}

nb_status nbt_read_npz(const char *path, nb_arena *arena, nb_diags *diags, nbt_named_tensor **out,
                       size_t *count) {
    int code;
    zip_t *archive = zip_open(path, ZIP_RDONLY, &code);
    if (!archive) {
        zip_error_t error;
        zip_error_init_with_code(&error, code);
        bool damaged = code == ZIP_ER_NOZIP || code == ZIP_ER_INCONS;
        nb_status status = nb_error(diags, damaged ? NB_MALFORMED : NB_IO, at(path),
                                    "cannot open the archive: %s", zip_error_strerror(&error));
        zip_error_fini(&error);
        return status;
    }
    zip_int64_t n = zip_get_num_entries(archive, 0);
    *out = NB_NEW_ARRAY(arena, nbt_named_tensor, (size_t)n + 1);
    *count = (size_t)n;
    nb_status status = NB_OK;
    for (zip_int64_t i = 0; i < n && status == NB_OK; i++)
        status = read_entry(archive, (zip_uint64_t)i, path, arena, diags, &(*out)[i]);
    zip_discard(archive);
    return status;
}

/* The archive owns the bytes from here on. */
static nb_status add_entry(zip_t *archive, const char *path, const nbt_named_tensor *array,
                           nb_diags *diags) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&bytes, &size);
    if (!f) return nb_io_error(diags, path, "write");
    const bool printed = nbt_print_npy(f, &array->tensor);
    fclose(f);
    if (!printed) {
        free(bytes);
        return nb_error(diags, NB_UNSUPPORTED, at(path), "%s of '%s' has no NumPy type",
                        nb_elems[array->tensor.elem].text, array->name);
    }
    const char *name = nb_format(diags->arena, "%s.npy", array->name);
    zip_source_t *source = zip_source_buffer(archive, bytes, size, 1);
    if (source && zip_file_add(archive, name, source, ZIP_FL_ENC_UTF_8 | ZIP_FL_OVERWRITE) >= 0)
        return NB_OK;
    if (source)
        zip_source_free(source);
    else
        free(bytes);
    return nb_error(diags, NB_IO, at(path), "cannot add '%s': %s", array->name,
                    zip_strerror(archive));
}

/* libzip writes a file of its own, which takes the place of the old one when it is whole. */
nb_status nbt_write_npz(const char *path, const nbt_named_tensor *arrays, size_t n,
                        nb_diags *diags) {
    int code;
    zip_t *archive = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!archive) return nb_error(diags, NB_IO, at(path), "cannot write the archive");
    nb_status status = NB_OK;
    for (size_t i = 0; i < n && status == NB_OK; i++)
        status = add_entry(archive, path, &arrays[i], diags);
    if (status == NB_OK && zip_close(archive) == 0) return NB_OK;
    if (status == NB_OK)
        status = nb_error(diags, NB_IO, at(path), "cannot write: %s", zip_strerror(archive));
    zip_discard(archive);
    return status;
}
