/* Constants and statistics through the host table (nb_pass.h). */
#include "passes/host.h"

#include "ir/codes.h"

#include <string.h>

/* Bytes that make_const_by asks for at a time. */
#define FILL_BYTES (INT64_C(1) << 24)

void nb_array_of(const nb_tensor *t, nb_array *out) {
    out->elem = nb_elems[t->elem].number;
    out->rank = t->rank;
    memcpy(out->dims, t->dims, sizeof out->dims);
    out->data = t->data;
    out->scales = t->scales;
}

bool nb_array_type(nb_pass_ctx *ctx, const nb_array *array, const nb_type **type, int64_t *bytes) {
    if (!array || array->rank < 0 || array->rank > NB_MAX_RANK) return false;
    nb_elem elem = nb_elem_from_number(array->elem);
    if (elem == NB_ELEM_COUNT) return false;
    const nb_dim *dims[NB_MAX_RANK];
    int64_t count = 1;
    for (int i = 0; i < array->rank; i++) {
        if (array->dims[i] < 0 || !nb_mul_i64(count, array->dims[i], &count)) return false;
        dims[i] = nb_dim_const(ctx->graph, array->dims[i]);
    }
    *type = nb_type_intern(ctx->graph, elem, NULL, array->rank, dims);
    return nb_elem_bytes_of(elem, count, bytes);
}

/* ---- reading -------------------------------------------------------------------------------- */

int nb_host_const_data(nb_pass_ctx *ctx, const nb_value *value, nb_array *out) {
    if (!value || !nb_is_const(value) || !out) {
        NB_MISUSE(ctx, "'%s' is not a constant", value ? value->name : "NULL");
        return 0;
    }
    nb_tensor t = nb_tensor_of_const(value);
    nb_array_of(&t, out);
    return 1;
}

int nb_host_const_floats(nb_pass_ctx *ctx, const nb_value *value, int64_t first, int64_t count,
                         float *out) {
    if (!value || !nb_is_const(value) || (count && !out)) {
        NB_MISUSE(ctx, "expected a constant and room for its elements, found '%s'",
                  value ? value->name : "NULL");
        return 0;
    }
    nb_tensor t = nb_tensor_of_const(value);
    if (first < 0 || count < 0 || first > nb_tensor_count(&t) - count) {
        NB_MISUSE(ctx, "'%s' has %lld elements, not %lld from %lld on", value->name,
                  (long long)nb_tensor_count(&t), (long long)count, (long long)first);
        return 0;
    }
    if (!value->type->quant) {
        if (t.elem == NB_F32 && count)
            memcpy(out, (const float *)t.data + first, (size_t)count * sizeof *out);
        for (int64_t i = 0; t.elem != NB_F32 && i < count; i++)
            out[i] = (float)nb_tensor_get(&t, first + i);
        return 1;
    }
    const nb_codes codes = nb_codes_of(value->type->quant, &t);
    for (int64_t i = 0; i < count; i++) out[i] = nb_codes_real(&codes, first + i);
    return 1;
}

int nb_host_const_rest(nb_pass_ctx *ctx, const nb_value *value) {
    if (!value || !nb_is_const(value)) {
        NB_MISUSE(ctx, "'%s' is not a constant", value ? value->name : "NULL");
        return 0;
    }
    nb_blob_rest(value->blob);
    return 1;
}

/* ---- making --------------------------------------------------------------------------------- */

/* A blob of that size, or NULL after a diagnostic. */
static nb_blob *new_blob(nb_pass_ctx *ctx, const char *call, int64_t bytes, void **data) {
    nb_blob *blob = nb_blob_create(bytes, data);
    if (!blob) nb_misuse(ctx, call, "out of memory for %lld bytes", (long long)bytes);
    return blob;
}

static bool is_array(nb_pass_ctx *ctx, const char *call, const char *name, const nb_array *array,
                     bool with_data, const nb_type **type, int64_t *bytes) {
    if (name && array && with_data == (array->data != NULL) &&
        nb_array_type(ctx, array, type, bytes))
        return true;
    nb_misuse(ctx, call,
              "expected a name and an array %s data, rank 0 to %d, dims >= 0 and a known "
              "element type",
              with_data ? "with" : "without", NB_MAX_RANK);
    return false;
}

nb_value *nb_const_of_array(nb_pass_ctx *ctx, const char *call, const char *name,
                            const nb_array *array, const nb_quant *quant) {
    const nb_type *type;
    int64_t bytes;
    void *data;
    if (!is_array(ctx, call, name, array, true, &type, &bytes)) return NULL;
    if (quant) {
        if (quant->storage != type->elem) {
            nb_misuse(ctx, call, "expected codes of %s, found %s", nb_elems[quant->storage].text,
                      nb_elems[type->elem].text);
            return NULL;
        }
        type = nb_type_with_quant(ctx->graph, type, quant);
        const char *misfit = nb_quant_misfit(ctx->graph, quant, type);
        if (misfit) {
            nb_misuse(ctx, call, "'%s' and quantization '%s': %s", name, quant->name, misfit);
            return NULL;
        }
    }
    nb_blob *blob = new_blob(ctx, call, bytes, &data);
    if (!blob) return NULL;
    if (bytes) memcpy(data, array->data, (size_t)bytes);
    return nb_graph_add_const(ctx->graph, name, type, blob, NULL);
}

nb_value *nb_host_make_const(nb_pass_ctx *ctx, const char *name, const nb_array *array) {
    return nb_const_of_array(ctx, "make_const", name, array, NULL);
}

nb_value *nb_host_make_const_by(nb_pass_ctx *ctx, const char *name, const nb_array *shape,
                                nb_fill_fn fill, void *user) {
    const nb_type *type;
    int64_t bytes;
    void *data;
    if (!is_array(ctx, "make_const_by", name, shape, false, &type, &bytes)) return NULL;
    if (!fill) {
        NB_MISUSE(ctx, "expected a function that fills '%s', found NULL", name);
        return NULL;
    }
    nb_blob *blob = new_blob(ctx, "make_const_by", bytes, &data);
    if (!blob) return NULL;
    if (bytes) memset(data, 0, (size_t)bytes);
    for (int64_t at = 0; at < bytes; at += FILL_BYTES) {
        if (fill(user, at, nb_min_i64(FILL_BYTES, bytes - at), (char *)data + at)) continue;
        NB_MISUSE(ctx, "the function that fills '%s' gave up at byte %lld of %lld", name,
                  (long long)at, (long long)bytes);
        nb_blob_release(blob);
        return NULL;
    }
    return nb_graph_add_const(ctx->graph, name, type, blob, NULL);
}

/* ---- calibration ---------------------------------------------------------------------------- */

int nb_host_stats(nb_pass_ctx *ctx, const nb_value *value, nb_stats_view *out) {
    if (!value || !out || out->size < NB_SIZE_TO(nb_stats_view, clip)) {
        NB_MISUSE(ctx, "expected a value, and a view whose size is set");
        return 0;
    }
    const nb_stats *s = nb_map_get(&nb_state_of(ctx)->env->stats, value);
    if (!s) return 0;
    const nb_stats_view view = {.channels = s->channels,
                                .rows = s->rows,
                                .amax = s->amax,
                                .mean_abs = s->mean_abs,
                                .mean = s->mean,
                                .low = s->low,
                                .high = s->high,
                                .min = s->min,
                                .max = s->max,
                                .clip = s->clip};
    nb_give_sized(out, &view, sizeof view);
    return 1;
}
