#include "tests/diff/quants.h"

#include "ir/eval.h"
#include "ir/minifloat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define I8_TOKEN \
    { .storage = NB_I8, .narrow = true, .granularity = NB_PER_TOKEN, .amax_code = 127 }
#define I16_TOKEN \
    { .storage = NB_I16, .granularity = NB_PER_TOKEN, .amax_code = 32639 }
#define BLOCKS(elem, n, amax) \
    { .storage = elem, .narrow = true, .granularity = NB_PER_BLOCK, .group = n, .amax_code = amax }

const diff_act diff_acts[] = {
    {"i8 tensor", {.storage = NB_I8, .scale = 0.05F}},
    {"i8 token", I8_TOKEN},
    {"i8 block 32", BLOCKS(NB_I8, 32, 127)},
    {"i16 tensor", {.storage = NB_I16, .scale = 0.0003F}},
    {"i16 token", I16_TOKEN},
    {"i16 block 64", BLOCKS(NB_I16, 64, 32639)},
    {"i8 tensor, saturating", {.storage = NB_I8, .scale = 1e-6F}},
    {"i16 tensor, saturating", {.storage = NB_I16, .scale = 1e-9F}},
    {"i8 tensor, zero -128", {.storage = NB_I8, .scale = 0.04F, .zero = -128}},
    {"u8 tensor, zero 131", {.storage = NB_U8, .scale = 0.05F, .zero = 131}},
    {"u8 tensor, zero 128", {.storage = NB_U8, .scale = 0.05F, .zero = 128}},
    {"u8 tensor, saturating", {.storage = NB_U8, .scale = 1e-6F, .zero = 255}},
};
const size_t diff_n_acts = NB_COUNT(diff_acts);

static int64_t code(const diff_codes *c) {
    int64_t low = nb_elem_min(c->storage), high = nb_elem_max(c->storage);
    if (c->contents == DIFF_TOP) return high;
    int64_t end = diff_below(2) ? low : high;
    if (c->contents == DIFF_ENDS || diff_below(8) == 0) return end;
    return low + (int64_t)(diff_random() % (uint64_t)(high - low + 1));
}

static nb_value *codes(diff *d, const char *name, const diff_codes *c, const nb_quant *quant,
                       int rank, const int64_t *dims) {
    const nb_dim *list[NB_MAX_RANK];
    int64_t count = 1, bytes;
    for (int i = 0; i < rank; i++) count *= dims[i];
    for (int i = 0; i < rank; i++) list[i] = nb_dim_const(d->graph, dims[i]);
    if (!nb_elem_bytes_of(c->storage, count, &bytes)) abort();
    void *data;
    nb_blob *blob = nb_blob_create(bytes, &data);
    unsigned char *at = (unsigned char *)data;
    for (int64_t i = 0; i < bytes; i++) at[i] = 0;
    int bits = nb_elems[c->storage].bits;
    for (int64_t i = 0; i < count; i++) {
        uint64_t v = (uint64_t)code(c);
        for (int b = 0; b < bits; b++) {
            int64_t bit = i * bits + b;
            at[bit / 8] = (unsigned char)(at[bit / 8] | (v >> b & 1) << bit % 8);
        }
    }
    const nb_type *type = nb_type_intern(d->graph, c->storage, quant, rank, list);
    return nb_graph_add_const(d->graph, name, type, blob, NULL);
}

static float scale(const diff_codes *c) {
    float s = (float)(diff_below(1000) + 1) * 2e-5F;
    return c->hard_scales ? ldexpf(s, (int)diff_below(260) - 132) : s;
}

/* About 1, positive. */
static nb_value *small_scales(diff *d, nb_elem e, int rank, const int64_t *dims) {
    const uint32_t one = nb_float_encode(e, 1);
    int64_t count = 1, bytes;
    const nb_dim *list[NB_MAX_RANK];
    for (int i = 0; i < rank; i++) list[i] = nb_dim_const(d->graph, dims[i]);
    for (int i = 0; i < rank; i++) count *= dims[i];
    void *data;
    if (!nb_elem_bytes_of(e, count, &bytes)) abort();
    nb_blob *blob = nb_blob_create(bytes, &data);
    for (int64_t i = 0; i < count; i++) nb_elem_put(e, data, i, one - 5 + (uint64_t)diff_below(10));
    const nb_type *type = nb_type_intern(d->graph, e, NULL, rank, list);
    return nb_graph_add_const(d->graph, "scale", type, blob, NULL);
}

/* Codes of scales or minima, any, some of them 0. */
static nb_value *coded_numbers(diff *d, int axis, int rank, const int64_t *dims) {
    const diff_codes form = {.storage = NB_I8};
    int64_t shape[NB_MAX_RANK];
    for (int i = 0; i < rank; i++) shape[i] = i == axis ? nb_ceildiv(dims[i], 4) : dims[i];
    const nb_quant q = {.storage = NB_I8,
                        .granularity = rank ? NB_PER_GROUP : NB_PER_TENSOR,
                        .axis = axis,
                        .group = rank ? 4 : 0,
                        .scale = 1,
                        .minimum = 0.5F,
                        .scales = small_scales(d, NB_F16, rank, shape)};
    const nb_quant *known = nb_quant_intern(d->graph, &q, "s", d->diags);
    return known ? codes(d, "number", &form, known, rank, dims) : NULL;
}

/* Scales or minima as `c` has them. */
static nb_value *numbers(diff *d, const diff_codes *c, int rank, const int64_t *dims) {
    if (c->scales == NB_I8) return coded_numbers(d, rank > 1 ? c->axis : 0, rank, dims);
    if (c->scales) return small_scales(d, c->scales, rank, dims);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= dims[i];
    float *scales = NB_NEW_ARRAY(d->arena, float, (size_t)count + 1);
    for (int64_t i = 0; i < count; i++) scales[i] = scale(c);
    return nb_const_f32(d->graph, "scale", rank, dims, scales);
}

nb_value *diff_codes_const(diff *d, const diff_codes *c, int rank, const int64_t *dims) {
    nb_quant q = {.storage = c->storage,
                  .granularity = c->granularity,
                  .axis = c->axis,
                  .group = c->group,
                  .scale = scale(c)};
    int64_t shape[NB_MAX_RANK];
    int of_scales = c->granularity == NB_PER_TENSOR ? 0 : c->granularity == NB_PER_AXIS ? 1 : rank;
    for (int i = 0; i < of_scales; i++) {
        shape[i] = of_scales == 1 ? dims[c->axis] : dims[i];
        if (of_scales > 1 && i == c->axis) shape[i] = nb_ceildiv(dims[i], c->group);
    }
    if (c->granularity != NB_PER_TENSOR || c->zeros == DIFF_ZEROS || c->zeros == DIFF_MINIMA)
        q.scales = numbers(d, c, of_scales, shape);
    if (c->zeros == DIFF_MINIMA) q.minima = numbers(d, c, of_scales, shape);
    if (c->zeros == DIFF_ONE_MINIMUM) q.minimum = -scale(c);
    diff_codes any = {.storage = c->storage};
    if (c->zeros == DIFF_ZEROS) q.zeros = codes(d, "zero", &any, NULL, of_scales, shape);
    if (c->zeros == DIFF_ONE_ZERO) q.zero = nb_min_i64(code(&any), nb_quant_max(&q));
    const nb_quant *known = nb_quant_intern(d->graph, &q, "w", d->diags);
    return known ? codes(d, "codes", c, known, rank, dims) : NULL;
}

diff_text diff_codes_text(const diff_codes *c) {
    static const char *const zeros[] = {"", ", zero", ", zeros", ", minimum", ", minima"};
    static const char *const contents[] = {"", ", ends", ", top"};
    diff_text t;
    char where[32] = "tensor";
    if (c->granularity == NB_PER_AXIS) (void)snprintf(where, sizeof where, "axis %d", c->axis);
    if (c->granularity == NB_PER_GROUP)
        (void)snprintf(where, sizeof where, "groups of %d on %d", (int)c->group, c->axis);
    (void)snprintf(t.text, sizeof t.text, "%s %s%s%s%s", nb_elems[c->storage].text, where,
                   zeros[c->zeros], contents[c->contents],
                   c->hard_scales ? ", hard scales"
                   : c->scales    ? nb_elems[c->scales].text
                                  : "");
    return t;
}

nb_value *diff_quantize(diff *d, nb_value *x, const nb_quant *quant) {
    const nb_quant *known = nb_quant_intern(d->graph, quant, "a", d->diags);
    if (!known) return NULL;
    nb_begin(&d->b, NB_OP_quantize);
    nb_arg(&d->b, x);
    nb_set_quant(&d->b, "to", known);
    return nb_end(&d->b);
}
