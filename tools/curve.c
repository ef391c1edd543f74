/* Reads what tools/quality wrote (curve.h): {"results": [{"model": TEXT, "scheme": TEXT, "method":
 * TEXT, "system": TEXT, "bits": NUMBER, "kld_mean": NUMBER, "ppl": NUMBER}, ...]}. Lines that
 * failed, and those of f32, are no points. */
#include "tools/curve.h"

#include "tools/json.h"
#include "tools/tensor_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    nbt_args *args;
    const char *path;
    NB_VEC(nbt_curve) curves;
} reader;

static nb_status bad(const reader *r, const char *what) {
    nb_error(r->args->diags, NB_MALFORMED, (nb_where){.file = r->path, .offset = -1}, "%s", what);
    nb_help(r->args->diags, "--curve takes the quality.json that tools/quality writes");
    return NB_MALFORMED;
}

static const char *text(const reader *r, const json_t *row, const char *key) {
    const json_t *v = json_object_get(row, key);
    return nb_strdup(r->args->arena, json_is_string(v) ? json_string_value(v) : "");
}

static nbt_curve *curve_of(reader *r, const char *model, size_t rows) {
    for (size_t i = 0; i < r->curves.count; i++) {
        if (strcmp(r->curves.items[i].model, model) == 0) return &r->curves.items[i];
    }
    nbt_curve c = {.model = model,
                   .others = "",
                   .points = NB_NEW_ARRAY(r->args->arena, nbt_curve_point, rows)};
    nb_vec_push(r->args->arena, &r->curves, c);
    return &r->curves.items[r->curves.count - 1];
}

static nb_status read_row(reader *r, const json_t *row, size_t i, size_t rows) {
    nb_arena *arena = r->args->arena;
    const char *model = text(r, row, "model"), *scheme = text(r, row, "scheme"),
               *method = text(r, row, "method"), *system = text(r, row, "system");
    const double bits = json_number_value(json_object_get(row, "bits")),
                 kl = json_number_value(json_object_get(row, "kld_mean")),
                 ppl = json_number_value(json_object_get(row, "ppl"));
    if (!*model || !*scheme)
        return bad(r, nb_format(arena, "results[%zu]: expected \"model\" and \"scheme\"", i));
    if (json_object_get(row, "failed") || strcmp(scheme, "f32") == 0) return NB_OK;
    if (!(bits > 0 && bits <= 64 && kl > 1e-300 && isfinite(kl) && ppl >= 0 && isfinite(ppl)))
        return bad(r,
                   nb_format(arena,
                             "results[%zu] (%s, %s): expected \"bits\" up to 64 and \"kld_mean\" "
                             "above 0",
                             i, scheme, method));
    nbt_curve *c = curve_of(r, model, rows);
    const bool ours = !*system || strcmp(system, "nibble") == 0;
    const char *name = nb_format(arena, "%s%s%s", scheme, *method ? " " : "", method);
    if (!ours && !strstr(c->others, system))
        c->others = nb_format(arena, "%s%s%s", c->others, *c->others ? ", " : "", system);
    c->points[c->n++] = (nbt_curve_point){.name = name,
                                          .label = ours || !*method ? name : method,
                                          .ours = ours,
                                          .bits = bits,
                                          .kl = kl,
                                          .ppl = ppl};
    return NB_OK;
}

/* Of equal bits the least divergence first. */
static int by_bits(const void *a, const void *b) {
    const nbt_curve_point *x = a, *y = b;
    if (x->bits != y->bits) return x->bits < y->bits ? -1 : 1;
    return x->kl < y->kl ? -1 : x->kl > y->kl;
}

static void finish(nbt_curve *c) {
    double least = INFINITY;
    qsort(c->points, c->n, sizeof *c->points, by_bits);
    for (size_t i = 0; i < c->n; i++) {
        nbt_curve_point *p = &c->points[i];
        p->best = p->ours && p->kl < least;
        if (p->best) least = p->kl;
    }
}

static nb_status read_rows(reader *r, const json_t *file) {
    const json_t *rows = json_object_get(file, "results");
    if (!json_is_array(rows)) return bad(r, "expected an object with \"results\", an array");
    for (size_t i = 0; i < json_array_size(rows); i++)
        NB_TRY(read_row(r, json_array_get(rows, i), i, json_array_size(rows)));
    if (!r->curves.count) return bad(r, "no line has bits and a divergence");
    for (size_t i = 0; i < r->curves.count; i++) finish(&r->curves.items[i]);
    return NB_OK;
}

nb_status nbt_read_curves(nbt_args *args, const char *path, nbt_curve **out, size_t *n) {
    reader r = {.args = args, .path = path};
    char *bytes;
    size_t size;
    json_error_t error;
    NB_TRY(nbt_read_file(path, args->arena, args->diags, &bytes, &size));
    json_t *file = json_loadb(bytes, size, 0, &error);
    if (!file) return bad(&r, nb_format(args->arena, "line %d: %s", error.line, error.text));
    nb_status status = read_rows(&r, file);
    json_decref(file);
    *out = r.curves.items;
    *n = r.curves.count;
    return status;
}
