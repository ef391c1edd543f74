/* Convolutions of integers and of codes: products of patches (conv.h). The border of codes is their
 * zero point. */
#include "frontend/conv.h"
#include "frontend/quant.h"

#include "ir/codes.h"

#include <string.h>

/* Patches have as many axes again as the kernel. */
#define MOST_AXES ((NB_MAX_RANK - 2) / 2)

/* The constant of codes that v was dequantized from, or NULL. */
static nb_value *codes_of(const nb_value *v) {
    nb_value *c = v->def && v->def->kind == NB_OP_dequantize ? nb_in(v->def, 0) : NULL;
    return c && nb_is_const(c) ? c : NULL;
}

/* The codes with one scale that the window's x was dequantized from, or NULL. */
static nb_value *codes_at_run_time(const nb_window *c) {
    const nb_op *made = c->x->def;
    nb_value *codes = made && made->kind == NB_OP_dequantize ? nb_in(made, 0) : NULL;
    const nb_quant *q = codes ? codes->type->quant : NULL;
    return q && q->granularity == NB_PER_TENSOR && (q->storage == NB_I8 || q->storage == NB_U8)
               ? codes
               : NULL;
}

/* Each channel by itself? */
static bool is_depthwise(const nb_value *w, int64_t groups) {
    return groups > 1 && nb_dim_is(w->type->dims[0], groups) && nb_dim_is(w->type->dims[1], 1);
}

bool nb_conv_is_product(const nb_window *c, const nb_value *w, int64_t groups) {
    const nb_value *codes = codes_of(w);
    if (!codes || c->axes > MOST_AXES || c->x->type->elem != NB_F32) return false;
    const nb_quant *q = codes->type->quant;
    if (is_depthwise(w, groups)) {
        const nb_value *x = codes_at_run_time(c);
        return x && !nb_depthwise_obstacle(x->type->quant, q, 0, codes->blob->size / groups);
    }
    if (groups != 1) return false;
    return q->granularity == NB_PER_TENSOR || (q->granularity == NB_PER_AXIS && q->axis == 0);
}

nb_value *nb_conv_patches(nb_importer *im, const nb_window *c, nb_value *x) {
    int64_t kernel[NB_MAX_RANK];
    for (int d = 0; d < c->axes; d++) kernel[d] = c->kernel[d]->value;
    nb_begin(&im->b, NB_OP_patches);
    nb_arg(&im->b, x);
    nb_set_ints(&im->b, "kernel", (size_t)c->axes, kernel);
    nb_set_ints(&im->b, "strides", (size_t)c->axes, c->strides);
    nb_set_ints(&im->b, "dilations", (size_t)c->axes, c->dilations);
    return nb_end(&im->b);
}

/* [B,places...,M] as [B,M,places...] */
static nb_value *channels_second(nb_importer *im, int axes, nb_value *y) {
    int64_t perm[NB_MAX_RANK] = {0, axes + 1};
    for (int d = 0; d < axes; d++) perm[d + 2] = d + 1;
    return y ? nb_transpose(&im->b, y, perm) : NULL;
}

/* Of w[M,...] a matrix type [M,rest]. */
static const nb_type *rows_type(nb_importer *im, const nb_value *w) {
    const nb_dim *rest = nb_num(im, 1);
    for (int d = 1; d < w->type->rank; d++) rest = nb_dim_mul(im->g, rest, w->type->dims[d]);
    return nb_type_with_dims(im->g, w->type, 2, (const nb_dim *[]){w->type->dims[0], rest});
}

/* Codes w[M,C,K...] as a matrix [C*K...,M], dequantized. */
static nb_value *matrix(nb_importer *im, nb_value *w) {
    nb_value *rows = nb_graph_add_const(im->g, nb_format(im->arena, "%s.rows", w->name),
                                        rows_type(im, w), nb_blob_retain(w->blob), NULL);
    nb_value *m = nb_codes_permuted(im->g, rows, (const int64_t[]){1, 0}, im->diags);
    if (m) return nb_unary(&im->b, NB_OP_dequantize, m);
    nb_node_error(im, NB_LIMIT, "no memory for \"%s\" as a matrix", w->name);
    return NULL;
}

/* As plain integers, with the window's border. */
static nb_value *bordered_codes(nb_importer *im, const nb_window *c, nb_value *codes) {
    const nb_quant *q = codes->type->quant;
    nb_value *plain = nb_unary(&im->b, NB_OP_codes, codes);
    return nb_conv_bordered(im, c, plain, nb_scalar(im, q->storage, (double)q->zero));
}

static nb_value *as_codes(nb_importer *im, nb_value *plain, const nb_quant *q) {
    if (!plain || !q) return NULL;
    nb_begin(&im->b, NB_OP_as_codes);
    nb_arg(&im->b, plain);
    nb_set_quant(&im->b, "to", q);
    return nb_end(&im->b);
}

static nb_value *dequantized_again(nb_importer *im, nb_value *plain, const nb_quant *q) {
    nb_value *codes = as_codes(im, plain, q);
    return codes ? nb_unary(&im->b, NB_OP_dequantize, codes) : NULL;
}

/* What a place sees: of dequantized codes with one scale their patches as codes, dequantized. */
static nb_value *inputs(nb_importer *im, const nb_window *c) {
    nb_value *codes = codes_at_run_time(c);
    if (!codes) return nb_conv_patches(im, c, nb_conv_bordered(im, c, c->x, NULL));
    return dequantized_again(im, nb_conv_patches(im, c, bordered_codes(im, c, codes)),
                             codes->type->quant);
}

/* ---- channels by themselves ------------------------------------------------------------------ */

/* [B,C,D...] as [B,D...,C]. */
static nb_value *channels_last(nb_importer *im, int axes, nb_value *x) {
    int64_t perm[NB_MAX_RANK] = {0};
    for (int d = 0; d < axes; d++) perm[d + 1] = d + 2;
    perm[axes + 1] = 1;
    return x ? nb_transpose(&im->b, x, perm) : NULL;
}

/* Codes w[C,1,K...] as [K...,C]. */
static nb_value *kernel_by_channel(nb_importer *im, const nb_window *c, nb_value *w) {
    const nb_dim *dims[NB_MAX_RANK] = {w->type->dims[0]};
    int64_t perm[NB_MAX_RANK] = {0};
    for (int d = 0; d < c->axes; d++) {
        dims[d + 1] = w->type->dims[d + 2];
        perm[d] = d + 1;
    }
    nb_value *rows = nb_graph_add_const(im->g, nb_format(im->arena, "%s.rows", w->name),
                                        nb_type_with_dims(im->g, w->type, c->axes + 1, dims),
                                        nb_blob_retain(w->blob), NULL);
    nb_value *k = nb_codes_permuted(im->g, rows, perm, im->diags);
    if (!k) nb_node_error(im, NB_LIMIT, "no memory for \"%s\" with channels last", w->name);
    return k;
}

/* depthwise or qdepthwise of x[B,D...,C] by k[K...,C]; channels come second again. */
static nb_value *by_channel(nb_importer *im, const nb_window *c, nb_op_kind kind, nb_value *x,
                            nb_value *k, nb_value *bias) {
    const bool sums = kind == NB_OP_qdepthwise;
    if (!x || !k) return NULL;
    nb_begin(&im->b, kind);
    nb_arg(&im->b, x);
    nb_arg(&im->b, k);
    nb_arg(&im->b, bias);
    if (sums) nb_arg(&im->b, NULL);
    if (sums) nb_set_bool(&im->b, "sums", true);
    nb_set_ints(&im->b, "strides", (size_t)c->axes, c->strides);
    nb_set_ints(&im->b, "dilations", (size_t)c->axes, c->dilations);
    return nb_end(&im->b);
}

static nb_value *depthwise(nb_importer *im, const nb_window *c, nb_value *w, nb_value *bias) {
    nb_value *codes = codes_at_run_time(c), *k = kernel_by_channel(im, c, w);
    nb_value *x = channels_last(im, c->axes, bordered_codes(im, c, codes));
    x = dequantized_again(im, x, codes->type->quant);
    k = k ? nb_unary(&im->b, NB_OP_dequantize, k) : NULL;
    return channels_second(im, c->axes, by_channel(im, c, NB_OP_depthwise, x, k, bias));
}

/* ---- all channels together ------------------------------------------------------------------- */

nb_value *nb_conv_product(nb_importer *im, const nb_window *c, nb_value *w, nb_value *bias) {
    if (nb_node_int(im, "group", 1) != 1) return depthwise(im, c, codes_of(w), bias);
    nb_value *y = nb_binary(&im->b, NB_OP_matmul, inputs(im, c), matrix(im, codes_of(w)));
    if (bias && y) y = nb_combine(im, NB_OP_add, y, bias);
    return channels_second(im, c->axes, y);
}

/* ---- ConvInteger ---------------------------------------------------------------------------- */

/* w[M,C,K...] of plain integers as a matrix [C*K...,M]. */
static nb_value *plain_matrix(nb_importer *im, nb_value *w) {
    if (!nb_is_const(w)) {
        const nb_type *rows = rows_type(im, w);
        return nb_swap_axes(im, nb_reshape(&im->b, w, 2, rows->dims), 0, 1);
    }
    const int64_t M = w->type->dims[0]->value, n = w->blob->size, K = M ? n / M : 0;
    void *data;
    nb_value *m = nb_new_const(im, nb_format(im->arena, "%s.matrix", w->name), w->type->elem, 2,
                               (const int64_t[]){K, M}, &data);
    for (int64_t i = 0; m && i < n; i++)
        ((uint8_t *)data)[i % K * M + i / K] = ((const uint8_t *)w->blob->data)[i];
    return m;
}

/* Channels [from, from + count) along an axis; all of a constant along axis 0 as a constant. */
static nb_value *part(nb_importer *im, nb_value *v, int axis, int64_t from, int64_t count) {
    if (nb_dim_is(v->type->dims[axis], count)) return v;
    if (!nb_is_const(v)) return nb_slice_axis(im, v, axis, nb_num(im, from), nb_num(im, count), 1);
    int64_t dims[NB_MAX_RANK];
    const nb_tensor t = nb_tensor_of_const(v);
    for (int d = 0; d < t.rank; d++) dims[d] = d ? t.dims[d] : count;
    const int64_t row = t.dims[0] ? t.bytes / t.dims[0] : 0;
    void *data;
    nb_value *p = nb_new_const(im, v->name, t.elem, t.rank, dims, &data);
    if (p && count > 0 && row > 0)
        memcpy(data, (const uint8_t *)t.data + from * row, (size_t)(count * row));
    return p;
}

/* A descriptor of scale 1 with that zero point (NULL: 0) where it is a constant of one number. */
static const nb_quant *units(nb_importer *im, nb_elem storage, const nb_value *zero, bool *known) {
    nb_quant q = {.storage = storage, .scale = 1};
    int64_t n;
    *known = !zero || (nb_is_const(zero) && nb_type_static_count(zero->type, &n) && n == 1);
    if (zero && *known) {
        const nb_tensor z = nb_tensor_of_const(zero);
        q.zero = nb_tensor_get_int(&z, 0);
    }
    return nb_quant_intern(im->g, &q, "unit", im->diags);
}

/* i32[C]: of each channel the sum of k[K...,C] less its zero point. */
static nb_value *channel_sums(nb_importer *im, const nb_value *k) {
    const nb_tensor t = nb_tensor_of_const(k);
    const int64_t C = t.dims[t.rank - 1];
    void *data;
    nb_value *sums =
        nb_new_const(im, nb_format(im->arena, "%s.sums", k->name), NB_I32, 1, &C, &data);
    for (int64_t i = 0; sums && i < nb_tensor_count(&t); i++)
        ((int32_t *)data)[i % C] += (int32_t)(nb_tensor_get_int(&t, i) - k->type->quant->zero);
    return sums;
}

/* Can integers w[C,1,K...] be multiplied channel by channel? `qw`: what they are then. */
static bool are_by_channel(nb_importer *im, nb_value *w, const nb_value *wz, int64_t groups,
                           const nb_quant **qw) {
    const nb_quant any = {.storage = NB_U8, .scale = 1};
    bool known;
    if (!is_depthwise(w, groups) || !nb_is_const(w) || w->blob->size == 0) return false;
    *qw = units(im, w->type->elem, wz, &known);
    return *qw && known && !nb_depthwise_obstacle(&any, *qw, 0, w->blob->size / groups);
}

/* Their sums with x, which has its border; what a zero point that only a run tells adds is taken
 * off. */
static nb_value *integers_by_channel(nb_importer *im, const nb_window *c, nb_value *x, nb_value *xz,
                                     nb_value *w, const nb_quant *qw) {
    bool known;
    const nb_quant *qx = units(im, x->type->elem, xz, &known);
    nb_value *codes =
        nb_graph_add_const(im->g, nb_format(im->arena, "%s.q", w->name),
                           nb_type_with_quant(im->g, w->type, qw), nb_blob_retain(w->blob), NULL);
    nb_value *k = kernel_by_channel(im, c, codes);
    if (im->g->stage < NB_STAGE_FUSED) im->g->stage = NB_STAGE_FUSED;
    nb_value *y = by_channel(im, c, NB_OP_qdepthwise,
                             as_codes(im, channels_last(im, c->axes, x), qx), k, NULL);
    if (y && !known) {
        nb_value *zero = nb_cast(&im->b, nb_reshape(&im->b, xz, 0, NULL), NB_I32);
        y = nb_combine(im, NB_OP_sub, y, nb_combine(im, NB_OP_mul, zero, channel_sums(im, k)));
    }
    return channels_second(im, c->axes, y);
}

nb_status nb_import_conv_integer(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *w = nb_node_input(im, 1), *y = NULL;
    nb_value *xz = nb_has_input(im, 2) ? nb_node_input(im, 2) : NULL,
             *wz = nb_has_input(im, 3) ? nb_node_input(im, 3) : NULL;
    nb_window c;
    NB_TRY(nb_conv_read(im, x, w, &c));
    const int64_t groups = nb_node_int(im, "group", 1);
    NB_TRY(nb_check_bytes(im, x, xz, w, wz));
    const nb_dim *rows = w->type->dims[0], *channels = w->type->dims[1];
    if (c.axes > MOST_AXES)
        return nb_node_error(im, NB_UNSUPPORTED, "kernels of more than %d axes", MOST_AXES);
    if (!nb_dim_is_const(rows) || !nb_dim_is_const(channels) || groups < 1 ||
        rows->value % groups != 0)
        return nb_node_error(im, NB_MALFORMED, "%s outputs in %lld groups",
                             nb_dim_text(im->arena, rows), (long long)groups);
    for (int d = 0; d < c.axes; d++)
        if (!nb_dim_is_const(c.kernel[d]))
            return nb_node_error(im, NB_UNSUPPORTED, "the kernel's size must be known");
    const int64_t M = rows->value / groups, C = channels->value;
    const bool one = xz && nb_type_count(im->g, xz->type) == nb_num(im, 1);
    if (xz && !one) return nb_node_error(im, NB_MALFORMED, "x has one zero point");
    nb_value *border = xz ? nb_reshape(&im->b, xz, 0, NULL) : NULL,
             *padded = nb_conv_bordered(im, &c, x, border);
    if (wz && wz->type->rank == 1 && !nb_dim_is(wz->type->dims[0], 1))
        NB_TRY(nb_unify(im, wz->type->dims[0], rows));
    const nb_quant *qw;
    if (padded && are_by_channel(im, w, wz, groups, &qw))
        return nb_node_output(im, 0, integers_by_channel(im, &c, padded, xz, w, qw));
    for (int64_t g = 0; g < groups && padded; g++) {
        const bool each = wz && wz->type->rank == 1 && wz->type->dims[0] == rows;
        nb_value *wg = part(im, w, 0, g * M, M), *zg = each ? part(im, wz, 0, g * M, M) : wz;
        nb_value *seen = nb_conv_patches(im, &c, part(im, padded, 1, g * C, C));
        nb_value *p =
            wg && seen ? nb_integer_product(im, seen, xz, plain_matrix(im, wg), zg) : NULL;
        p = channels_second(im, c.axes, p);
        y = y ? nb_join(im, y, p, 1) : p;
    }
    return nb_node_output(im, 0, y);
}
