/* QAttention of com.microsoft: an encoder's attention whose projection multiplies integers. */
#include "frontend/quant.h"

#include <math.h>

/* Columns [from, from + heads * size) of x[B,S,3*H] as [B,heads,S,size]. */
static nb_value *heads_of(nb_importer *im, nb_value *x, int64_t from, int64_t heads, int64_t size) {
    x = nb_slice_axis(im, x, 2, nb_num(im, from), nb_num(im, heads * size), 1);
    if (!x) return NULL;
    x = nb_reshape(&im->b, x, 4,
                   (const nb_dim *[]){x->type->dims[0], x->type->dims[1], nb_num(im, heads),
                                      nb_num(im, size)});
    return nb_swap_axes(im, x, 1, 2);
}

/* f32 that broadcasts to [B,H,S,S]: 0 where `seen` holds. */
static nb_value *bias_of(nb_importer *im, nb_value *seen) {
    const double hidden = (double)nb_node_float(im, "mask_filter_value", -10000.0F);
    return seen ? nb_choose(im, seen, nb_scalar(im, NB_F32, 0), nb_scalar(im, NB_F32, hidden))
                : NULL;
}

/* Keys that a mask i32[B,T] has ones for, or those before the ends i32[B]. */
static nb_value *given_mask(nb_importer *im, nb_value *mask, const nb_value *x) {
    const nb_dim *one = nb_num(im, 1), *batch = x->type->dims[0], *keys = x->type->dims[1];
    if (!nb_elem_is_integer(mask->type->elem) || mask->type->rank < 1 || mask->type->rank > 2 ||
        nb_unify(im, mask->type->dims[0], batch) != NB_OK ||
        (mask->type->rank == 2 && nb_unify(im, mask->type->dims[1], keys) != NB_OK)) {
        nb_node_error(im, NB_UNSUPPORTED, "a mask of type %s, expected i32[B] or i32[B,T]",
                      nb_type_text(im->arena, mask->type));
        return NULL;
    }
    const bool ends = mask->type->rank == 1;
    mask =
        nb_reshape(&im->b, nb_cast(&im->b, mask, NB_I64), 4,
                   (const nb_dim *[]){x->type->dims[0], one, one, ends ? one : x->type->dims[1]});
    nb_value *left =
        ends ? nb_count_up(im, nb_num(im, 0), x->type->dims[1]) : nb_scalar(im, NB_I64, 0);
    return bias_of(im, nb_combine(im, NB_OP_lt, left, mask));
}

/* Keys up to a row's own place. */
static nb_value *causal_mask(nb_importer *im, const nb_value *x) {
    const nb_dim *zero = nb_num(im, 0), *length = x->type->dims[1];
    nb_value *key = nb_count_up(im, zero, length), *row = nb_along(im, key, 2, 0);
    nb_value *seen = nb_combine(im, NB_OP_le, key, row);
    return seen ? bias_of(im, nb_reshape(
                                  &im->b, seen, 4,
                                  (const nb_dim *[]){nb_num(im, 1), nb_num(im, 1), length, length}))
                : NULL;
}

static nb_status read_mask(nb_importer *im, const nb_value *x, nb_value **out) {
    nb_value *mask = NULL;
    if (nb_has_input(im, 5)) {
        nb_value *given = nb_node_input(im, 5);
        mask = given ? given_mask(im, given, x) : NULL;
        if (!mask) return NB_MALFORMED;
    }
    if (nb_node_int(im, "unidirectional", 0)) {
        nb_value *causal = causal_mask(im, x);
        mask = mask ? nb_combine(im, NB_OP_add, mask, causal) : causal;
        if (!mask) return NB_MALFORMED;
    }
    *out = mask;
    return NB_OK;
}

nb_status nb_import_qattention(nb_importer *im) {
    nb_value *x = nb_node_input(im, 0), *w = nb_node_input(im, 1), *bias = nb_node_input(im, 2),
             *xs = nb_node_input(im, 3), *ws = nb_node_input(im, 4), *mask = NULL;
    nb_value *xz = nb_has_input(im, 6) ? nb_node_input(im, 6) : NULL,
             *wz = nb_has_input(im, 7) ? nb_node_input(im, 7) : NULL;
    if (!x || !w || !bias || !xs || !ws) return NB_MALFORMED;
    const int64_t heads = nb_node_int(im, "num_heads", 0);
    NB_TRY(nb_check_bytes(im, x, xz, w, wz));
    if (x->type->rank != 3 || w->type->rank != 2 || !nb_dim_is_const(w->type->dims[1]))
        return nb_node_error(im, NB_MALFORMED, "%s by %s, expected [B,S,K] by [K,3*N]",
                             nb_type_text(im->arena, x->type), nb_type_text(im->arena, w->type));
    const int64_t width = w->type->dims[1]->value / 3;
    if (heads < 1 || w->type->dims[1]->value % 3 || width % heads)
        return nb_node_error(im, NB_MALFORMED, "%lld heads of a projection to %s", (long long)heads,
                             nb_dim_text(im->arena, w->type->dims[1]));
    if (nb_has_input(im, 8) || nb_node_int(im, "do_rotary", 0) ||
        nb_node_int(im, "past_present_share_buffer", 0))
        return nb_node_error(im, NB_UNSUPPORTED, "past keys and rotation are not supported");
    NB_TRY(read_mask(im, x, &mask));
    int64_t one;
    if (nb_type_static_count(ws->type, &one) && one == 1) ws = nb_reshape(&im->b, ws, 0, NULL);
    nb_value *sums = nb_integer_product(im, x, xz, w, wz);
    nb_value *y = sums ? nb_combine(im, NB_OP_mul, nb_cast(&im->b, sums, NB_F32),
                                    nb_combine(im, NB_OP_mul, nb_reshape(&im->b, xs, 0, NULL), ws))
                       : NULL;
    y = y ? nb_combine(im, NB_OP_add, y, bias) : NULL;
    const int64_t size = width / heads;
    nb_value *part[3];
    for (int i = 0; i < 3; i++) part[i] = heads_of(im, y, i * width, heads, size);
    const float scale = nb_node_float(im, "scale", 0);
    nb_begin(&im->b, NB_OP_attention);
    for (int i = 0; i < 3; i++) nb_arg(&im->b, part[i]);
    nb_arg(&im->b, mask);
    nb_set_float(&im->b, "scale", scale != 0 ? scale : 1.0F / sqrtf((float)size));
    y = nb_swap_axes(im, nb_end(&im->b), 1, 2);
    if (!y) return nb_node_output(im, 0, NULL);
    return nb_node_output(
        im, 0,
        nb_reshape(&im->b, y, 3,
                   (const nb_dim *[]){y->type->dims[0], y->type->dims[1], nb_num(im, width)}));
}
