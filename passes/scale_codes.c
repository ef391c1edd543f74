/* Scales as codes (scale_codes.h). */
#include "passes/scale_codes.h"

#include "ir/build.h"
#include "passes/grid.h"
#include "passes/weight_codes.h"

#include <stdlib.h>

#define RUN 256
#define TOP 127

/* Of those that are not 0. */
static float mean_of(const float *scales, int64_t n) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)scales[i];
        count += scales[i] != 0;
    }
    return count ? (float)(sum / (double)count) : 1;
}

/* Codes of n scales that share the scale which it returns. */
static float round_run(float *scales, int64_t n, float mean, int8_t *codes) {
    float amax = 0;
    for (int64_t i = 0; i < n; i++) {
        if (scales[i] == 0) scales[i] = mean;
        amax = fmaxf(amax, fabsf(scales[i] - mean));
    }
    const float scale = amax / TOP > 0 ? amax / TOP : 1;
    for (int64_t i = 0; i < n; i++) {
        codes[i] = (int8_t)nb_nearest_step((scales[i] - mean) / scale, -TOP, TOP);
        scales[i] = (float)codes[i] * scale + mean;
    }
    return scale;
}

nb_value *nb_scale_codes(nb_pass_ctx *ctx, const nb_value *w, const nb_type *type, float *scales) {
    nb_graph *g = ctx->graph;
    const nb_dim *dims[NB_MAX_RANK];
    const int last = type->rank - 1;
    const int64_t length = type->dims[last]->value, runs = nb_ceildiv(length, RUN),
                  rows = last ? type->dims[0]->value : 1;
    void *codes, *coarse;
    nb_blob *code_blob = nb_blob_create(rows * length, &codes),
            *coarse_blob = nb_blob_create(rows * runs * (int64_t)sizeof(float), &coarse);
    if (!code_blob || !coarse_blob) {
        nb_blob_release(code_blob);
        nb_blob_release(coarse_blob);
        nb_codes_no_memory(ctx, w);
        return NULL;
    }
    const float mean = mean_of(scales, rows * length);
    for (int64_t r = 0; r < rows * runs; r++) {
        const int64_t at = r / runs * length + r % runs * RUN;
        ((float *)coarse)[r] = round_run(scales + at, nb_min_i64(RUN, length - r % runs * RUN),
                                         mean, (int8_t *)codes + at);
    }
    for (int d = 0; d < last; d++) dims[d] = type->dims[d];
    dims[last] = nb_dim_const(g, runs);
    const nb_type *of_coarse = nb_type_intern(g, NB_F32, NULL, type->rank, dims);
    const nb_quant q = {.storage = NB_I8,
                        .narrow = true,
                        .granularity = NB_PER_GROUP,
                        .axis = last,
                        .group = RUN,
                        .minimum = mean,
                        .scales = nb_add_part(ctx, w, ".scale.scale", of_coarse, coarse_blob)};
    const char *name = nb_format(g->arena, "%s.scale", w->name);
    const nb_quant *known = nb_quant_intern(g, &q, name, nb_diags_of(ctx));
    if (known) return nb_add_part(ctx, w, ".scale", nb_type_with_quant(g, type, known), code_blob);
    nb_blob_release(code_blob);
    return NULL;
}
