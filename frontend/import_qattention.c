/* QAttention of com.microsoft: an encoder's attention whose projection multiplies integers. */
#include "frontend/quant.h"

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
    int64_t one;
    if (nb_type_static_count(ws->type, &one) && one == 1) ws = nb_reshape(&im->b, ws, 0, NULL);
    nb_value *sums = nb_integer_product(im, x, xz, w, wz);
    nb_value *y = sums ? nb_combine(im, NB_OP_mul, nb_cast(&im->b, sums, NB_F32),
                                    nb_combine(im, NB_OP_mul, nb_reshape(&im->b, xs, 0, NULL), ws))
                       : NULL;
    y = y ? nb_combine(im, NB_OP_add, y, bias) : NULL;
    nb_value *part[3];
    for (int i = 0; i < 3; i++) part[i] = nb_ms_heads(im, y, i * width, width, heads);
    if (!part[0] || !part[1] || !part[2]) return nb_node_output(im, 0, NULL);
    NB_TRY(nb_ms_bias(im, part[0], part[1], 5, SIZE_MAX, &mask));
    return nb_node_output(im, 0, nb_ms_attend(im, part[0], part[1], part[2], mask));
}
