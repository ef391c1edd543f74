/* What codes stand for (codes.h). */
#include "ir/codes.h"

nb_codes nb_codes_of(const nb_quant *q, const nb_tensor *t) {
    nb_codes c = {.q = q, .codes = t, .inner = 1, .length = 1, .groups = 1};
    if (q->zeros) c.zeros = nb_tensor_of_const(q->zeros);
    if (q->scales && !nb_quant_has_small_scales(q)) c.scales = q->scales->blob->data;
    if (q->granularity == NB_PER_AXIS || q->granularity == NB_PER_GROUP) {
        c.length = t->dims[q->axis];
        for (int d = q->axis + 1; d < t->rank; d++) c.inner *= t->dims[d];
        c.groups = q->granularity == NB_PER_GROUP ? nb_ceildiv(c.length, q->group) : c.length;
    }
    return c;
}

nb_codes nb_codes_expand(const nb_quant *q, const nb_tensor *t, nb_arena *arena) {
    nb_codes c = nb_codes_of(q, t);
    int64_t n = 0;
    if (q->scales) (void)nb_type_static_count(q->scales->type, &n);
    float *scales = c.scales || !n ? NULL : NB_NEW_ARRAY(arena, float, (size_t)n),
          *minima = q->minima && n ? NB_NEW_ARRAY(arena, float, (size_t)n) : NULL;
    for (int64_t i = 0; scales && i < n; i++) scales[i] = nb_quant_scale(q, i);
    for (int64_t i = 0; minima && i < n; i++) minima[i] = nb_quant_minimum(q, i);
    if (scales) c.scales = scales;
    c.minima = minima;
    return c;
}

int64_t nb_codes_run(const nb_codes *c, int64_t i) {
    const int64_t along = i / c->inner % c->length;
    switch (c->q->granularity) {
    case NB_PER_AXIS:
        return along;
    case NB_PER_GROUP:
        return (i / (c->inner * c->length) * c->groups + along / c->q->group) * c->inner +
               i % c->inner;
    default:
        return 0;
    }
}

static float scale_of(const nb_codes *c, int64_t run) {
    return c->scales ? c->scales[run] : nb_quant_scale(c->q, run);
}

float nb_codes_scale(const nb_codes *c, int64_t i) { return scale_of(c, nb_codes_run(c, i)); }

int64_t nb_codes_zero(const nb_codes *c, int64_t i) {
    return c->q->zeros ? nb_tensor_get_int(&c->zeros, nb_codes_run(c, i)) : c->q->zero;
}

float nb_codes_real(const nb_codes *c, int64_t i) {
    const int64_t run = nb_codes_run(c, i);
    const float code = nb_elem_is_float(c->codes->elem)
                           ? (float)nb_tensor_get(c->codes, i)
                           : (float)(nb_tensor_get_int(c->codes, i) - nb_codes_zero(c, i)),
                x = code * scale_of(c, run);
    if (!nb_quant_has_minima(c->q)) return x;
    return x + (c->minima ? c->minima[run] : nb_quant_minimum(c->q, run));
}

/* ---- constants of scales and minima -------------------------------------------------------- */

static float number_of(const nb_value *v, int64_t i) {
    const nb_tensor t = nb_tensor_of_const(v);
    if (!v->type->quant) return (float)nb_tensor_get(&t, i);
    const nb_codes c = nb_codes_of(v->type->quant, &t);
    return nb_codes_real(&c, i);
}

float nb_quant_scale(const nb_quant *q, int64_t i) {
    if (!q->scales) return q->scale;
    if (nb_quant_has_small_scales(q)) return number_of(q->scales, i) * q->scale;
    return ((const float *)q->scales->blob->data)[i];
}

float nb_quant_minimum(const nb_quant *q, int64_t i) {
    return q->minima ? number_of(q->minima, i) : q->minimum;
}
