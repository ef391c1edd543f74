/* Caches of GroupQueryAttention in i8, with one scale or one for each channel of each head
 * (quant.h). Scales of channels leave the attention: those of keys go into the query, those of
 * values behind the result, so that attention multiplies codes by one scale, or by 1. */
#include "frontend/quant.h"

#include <string.h>

nb_status nb_read_cache(nb_importer *im, const char *type_name, size_t input, int64_t groups,
                        int64_t size, nb_cache *out) {
    const char *type = nb_node_string(im, type_name, "NONE");
    *out = (nb_cache){.groups = groups, .size = size};
    if (strcmp(type, "NONE") == 0) {
        if (!nb_has_input(im, input)) return NB_OK;
        return nb_node_error(im, NB_MALFORMED, "input %zu is a scale, but %s is NONE", input,
                             type_name);
    }
    const int64_t bits = nb_node_int(im, "kv_cache_bit_width", 0);
    out->by_channel = strcmp(type, "PER_CHANNEL") == 0;
    if (!out->by_channel && strcmp(type, "PER_TENSOR") != 0)
        return nb_node_error(im, NB_MALFORMED,
                             "%s is '%s', expected NONE, PER_TENSOR or PER_CHANNEL", type_name,
                             type);
    if (bits != 8) {
        nb_node_error(im, NB_UNSUPPORTED, "a cache of %lld bits is not supported", (long long)bits);
        nb_help(im->diags, "export with a cache of 8 bits, or of floats and compile with --kv i4");
        return NB_UNSUPPORTED;
    }
    nb_value *scale = nb_node_input(im, input);
    if (!scale) return NB_MALFORMED;
    int64_t count;
    if (!nb_elem_is_float(scale->type->elem) || !nb_type_static_count(scale->type, &count) ||
        count != (out->by_channel ? groups * size : 1)) {
        nb_node_error(im, NB_MALFORMED, "scales of the cache are %s, expected %lld",
                      nb_type_text(im->arena, scale->type),
                      (long long)(out->by_channel ? groups * size : 1));
        nb_help(im->diags, "PER_TENSOR is one, PER_CHANNEL one for each element of each head");
        return NB_MALFORMED;
    }
    if (scale->type->elem != NB_F32) scale = nb_cast(&im->b, scale, NB_F32);
    out->scale = out->by_channel ? nb_reshape(&im->b, scale, 4,
                                              (const nb_dim *[]){nb_num(im, 1), nb_num(im, groups),
                                                                 nb_num(im, 1), nb_num(im, size)})
                                 : nb_reshape(&im->b, scale, 0, NULL);
    return out->scale ? NB_OK : NB_MALFORMED;
}

nb_value *nb_cache_codes(nb_importer *im, const nb_cache *c, nb_value *x) {
    if (!c->scale || !x) return x;
    if (x->type->elem != NB_F32) x = nb_cast(&im->b, x, NB_F32);
    x = nb_combine(im, NB_OP_div, x, c->scale);
    return x ? nb_cast(&im->b, nb_unary(&im->b, NB_OP_round, x), NB_I8) : NULL;
}

nb_value *nb_cache_scales(nb_importer *im, const nb_cache *c, const nb_value *codes) {
    if (!c->scale || !codes) return NULL;
    const nb_dim *dims[4];
    for (int d = 0; d < 4; d++) dims[d] = d < 3 ? codes->type->dims[d] : nb_num(im, 1);
    return nb_expand_to(im, c->by_channel ? nb_scalar(im, NB_F32, 1) : c->scale, 4, dims);
}

nb_value *nb_cache_scaled(nb_importer *im, const nb_cache *c, nb_value *x, int64_t heads) {
    if (!c->scale || !c->by_channel || !x) return x;
    const nb_dim *one = nb_num(im, 1), *groups = nb_num(im, c->groups), *size = nb_num(im, c->size),
                 *share = nb_num(im, heads / c->groups);
    nb_value *f = nb_reshape(&im->b, c->scale, 5, (const nb_dim *[]){one, groups, one, one, size});
    f = nb_expand_to(im, f, 5, (const nb_dim *[]){one, groups, share, one, size});
    f = nb_reshape(&im->b, f, 4, (const nb_dim *[]){one, nb_num(im, heads), one, size});
    return nb_combine(im, NB_OP_mul, x, f);
}
