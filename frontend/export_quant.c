/* Codes of activations as ONNX, to the bit.
 *
 * Static codes are QuantizeLinear and DequantizeLinear. ONNX has no operator for a scale for each
 * token or block, so those are what NUMBERS.md says, in floats: codes are integers there too. */
#include "frontend/export.h"

#include <math.h>
#include <string.h>

/* From i8 to u8. */
enum { SHIFT = 128 };

static bool is_dynamic(const nb_quant *q) {
    return q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK;
}

/* Nothing is written yet: whoever wants codes, scales or numbers does it. */
nb_coded *nb_codes_made(nb_exporter *x, nb_port *source) {
    nb_coded *c = NB_NEW(x->arena, nb_coded);
    c->quantize = x->op;
    c->source = source;
    nb_map_set(&x->coded, nb_out(x->op), c);
    return c;
}

nb_status nb_export_quantize(nb_exporter *x) {
    nb_codes_made(x, NULL);
    return NB_OK;
}

nb_status nb_export_as_codes(nb_exporter *x) {
    nb_port *codes = nb_operand(x, 0);
    if (!codes) return nb_diags_status(x->diags);
    nb_coded *c = nb_codes_made(x, NULL);
    c->codes = codes;
    c->shifted = nb_map_get(&x->shifted, nb_in(x->op, 0)) != NULL;
    return NB_OK;
}

/* What is quantized, in f32. */
static nb_port *source_of(nb_exporter *x, const nb_coded *c) {
    const nb_op *at_hand = x->op;
    if (c->source) return c->source;
    x->op = c->quantize;
    nb_port *v = x->op->kind == NB_OP_qpatches ? nb_put_patches(x) : nb_operand(x, 0);
    if (v && nb_in(x->op, 0)->type->elem != NB_F32) v = nb_put_cast(x, v, NB_F32);
    x->op = at_hand;
    return v;
}

/* ---- a scale for each token or block -------------------------------------------------------- */

/* The shape of rows of blocks, [.., blocks, group], and how many zeros the last one lacks. */
static bool block_shape(nb_exporter *x, const nb_type *t, const nb_dim **dims, int64_t *lacks) {
    const int last = t->rank - 1;
    const int64_t group = t->quant->group;
    if (!nb_dim_is_const(t->dims[last])) {
        nb_export_refuse(x, "the length of its rows is not a constant");
        return false;
    }
    const int64_t n = nb_ceildiv(t->dims[last]->value, group);
    memcpy(dims, t->dims, (size_t)t->rank * sizeof *dims);
    dims[last] = nb_dim_const(x->g, n);
    dims[last + 1] = nb_dim_const(x->g, group);
    *lacks = n * group - t->dims[last]->value;
    return true;
}

static nb_port *to_blocks(nb_exporter *x, nb_port *v, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK + 1];
    int64_t lacks, pads[2 * NB_MAX_RANK] = {0};
    if (t->quant->granularity != NB_PER_BLOCK) return v;
    if (!block_shape(x, t, dims, &lacks)) return NULL;
    pads[2 * t->rank - 1] = lacks;
    if (lacks) v = NB_PUT(x, "Pad", v, nb_port_i64s(x, (size_t)(2 * t->rank), pads));
    return nb_put_reshape(x, v, lacks ? NULL : t, (size_t)t->rank + 1, dims);
}

static nb_port *from_blocks(nb_exporter *x, nb_port *v, const nb_type *t) {
    const nb_dim *dims[NB_MAX_RANK + 1];
    int64_t lacks;
    if (t->quant->granularity != NB_PER_BLOCK) return v;
    if (!block_shape(x, t, dims, &lacks)) return NULL;
    const int last = t->rank - 1;
    const int64_t length = t->dims[last]->value;
    dims[last] = nb_dim_const(x->g, length + lacks);
    v = nb_put_reshape(x, v, lacks ? NULL : t, (size_t)t->rank, dims);
    return v && lacks ? nb_put_slice(x, v, last, 0, length, 1) : v;
}

/* scale = amax / A, code = rint(x * (A / amax)). Where that factor overflows, because the row is
 * nothing or nearly so, codes and scale are 0. */
static bool put_dynamic(nb_exporter *x, nb_coded *c) {
    const nb_type *t = nb_out(c->quantize)->type;
    const int64_t last = -1;
    nb_port *v = source_of(x, c);
    if (v) v = to_blocks(x, v, t);
    if (!v) return false;
    nb_port *most = nb_port_f32(x, (float)t->quant->amax_code), *zero = nb_port_f32(x, 0),
            *size = NB_PUT(x, "Abs", v),
            *amax = NB_PUT(x, "ReduceMax", size, nb_port_i64s(x, 1, &last)),
            *factor = NB_PUT(x, "Div", most, amax), *scale = NB_PUT(x, "Div", amax, most),
            *over = NB_PUT(x, "Equal", factor, nb_port_f32(x, INFINITY));
    factor = NB_PUT(x, "Where", over, zero, factor);
    c->scale = NB_PUT(x, "Where", over, zero, scale);
    v = NB_PUT(x, "Mul", v, factor);
    c->floats = NB_PUT(x, "Round", v);
    return true;
}

/* ---- static scales -------------------------------------------------------------------------- */

static nb_port *scale_of(nb_exporter *x, const nb_quant *q) {
    return q->scales ? nb_port_of(x, q->scales) : nb_port_f32(x, q->scale);
}

static nb_port *zero_of(nb_exporter *x, const nb_quant *q, bool shifted) {
    if (q->zeros) return nb_port_const(x, q->zeros);
    const nb_elem storage = shifted ? NB_U8 : q->storage;
    const int64_t zero = q->zero + (shifted ? SHIFT : 0);
    const char *what = nb_format(x->arena, "zero%d.%lld", (int)storage, (long long)zero);
    nb_port *known = nb_shared_get(x, NULL, what);
    if (known) return known;
    uint8_t *data = nb_alloc(x->arena, 8);
    nb_elem_put(storage, data, 0, (uint64_t)zero);
    nb_initializer *t = nb_new_initializer(x, "zero_point", storage, 0, NULL);
    t->data = data;
    return nb_shared_set(x, NULL, what, t->port);
}

/* May integers be greater by 128 here, because what they reach only moves or orders them, up to
 * codes again?
 */
static bool are_moved(const nb_value *v) {
    for (const nb_use *u = v->uses; u; u = u->next) {
        switch (u->user->kind) {
        case NB_OP_as_codes:
            if (nb_attr_of(u->user, "to")->quant->storage != NB_I8) return false;
            break;
        case NB_OP_pad:
            if (nb_in(u->user, 1) && (u->index == 1 || !nb_is_const(nb_in(u->user, 1))))
                return false;
            if (!are_moved(nb_out(u->user))) return false;
            break;
        case NB_OP_reshape:
        case NB_OP_transpose:
        case NB_OP_slice:
        case NB_OP_expand:
        case NB_OP_patches:
        case NB_OP_reduce_max:
        case NB_OP_reduce_min:
            if (!are_moved(nb_out(u->user))) return false;
            break;
        default:
            return false;
        }
    }
    return true;
}

/* Signed bytes are written as unsigned ones wherever nothing looks at them: onnxruntime's products
 * on x86 take those, and where it has to turn signed ones into them it refuses nodes that it put
 * beside itself. */
static bool is_shifted(const nb_value *v) {
    const nb_quant *q = v->type->quant;
    if (q->storage != NB_I8 || q->zeros) return false;
    for (const nb_use *u = v->uses; u; u = u->next)
        if (u->user->kind == NB_OP_codes && !are_moved(nb_out(u->user))) return false;
    return true;
}

/* QuantizeLinear ends where the type does: codes that end before it are made of numbers that do. */
static nb_port *put_codes(nb_exporter *x, const nb_quant *q, bool shifted, nb_port *v, int rank) {
    nb_port *second = nb_before_channels_last(v, rank);
    if (second) v = second;
    if (nb_quant_min(q) != nb_elem_min(q->storage) || nb_quant_max(q) != nb_elem_max(q->storage))
        v = NB_PUT(x, "Clip", v, nb_port_f32(x, (float)(nb_quant_min(q) - q->zero) * q->scale),
                   nb_port_f32(x, (float)(nb_quant_max(q) - q->zero) * q->scale));
    v = NB_PUT(x, "QuantizeLinear", v, scale_of(x, q), zero_of(x, q, shifted));
    return second ? nb_put_channels_last(x, v, rank) : v;
}

static bool put_static(nb_exporter *x, nb_coded *c) {
    const nb_value *made = nb_out(c->quantize);
    const nb_quant *q = made->type->quant;
    if (q->granularity != NB_PER_TENSOR || q->scales || nb_elems[q->storage].onnx == 0 ||
        nb_elems[q->storage].bits > 16) {
        nb_export_refuse(x, "activations in #%s; one scale for the tensor can be written", q->name);
        return false;
    }
    nb_port *v = source_of(x, c);
    if (!v) return false;
    c->shifted = is_shifted(made);
    c->codes = put_codes(x, q, c->shifted, v, made->type->rank);
    return true;
}

/* ---- what is asked for ---------------------------------------------------------------------- */

static nb_coded *coded_of(nb_exporter *x, const nb_value *v) {
    nb_coded *c = nb_map_get(&x->coded, v);
    if (!c) {
        nb_export_refuse(x, "'%s' holds codes that no quantize made", v->name);
        return NULL;
    }
    if (c->floats || c->codes) return c;
    return (is_dynamic(v->type->quant) ? put_dynamic(x, c) : put_static(x, c)) ? c : NULL;
}

static nb_port *put_reals(nb_exporter *x, const nb_quant *q, bool shifted, nb_port *codes) {
    return NB_PUT(x, "DequantizeLinear", codes, scale_of(x, q), zero_of(x, q, shifted));
}

nb_port *nb_port_coded(nb_exporter *x, const nb_value *v) {
    nb_coded *c = coded_of(x, v);
    if (!c || c->reals) return c ? c->reals : NULL;
    const nb_quant *q = v->type->quant;
    c->reals = is_dynamic(q) ? from_blocks(x, NB_PUT(x, "Mul", c->floats, c->scale), v->type)
                             : put_reals(x, q, c->shifted, c->codes);
    return c->reals;
}

nb_port *nb_port_coded_second(nb_exporter *x, const nb_value *v) {
    const nb_quant *q = v->type->quant;
    nb_coded *c = coded_of(x, v);
    if (!c || c->second) return c ? c->second : NULL;
    const int rank = v->type->rank;
    c->second = is_dynamic(q)
                    ? nb_put_channels_second(x, nb_port_coded(x, v), rank)
                    : put_reals(x, q, c->shifted, nb_put_channels_second(x, c->codes, rank));
    return c->second;
}

nb_port *nb_port_coded_before(nb_exporter *x, const nb_value *v) {
    const nb_coded *c = coded_of(x, v);
    return c && nb_before_channels_last(c->codes, v->type->rank) ? nb_port_coded_second(x, v)
                                                                 : NULL;
}

nb_port *nb_port_coded_as(nb_exporter *x, const nb_value *v, const nb_value *from, nb_port *in) {
    const nb_quant *q = v->type->quant;
    const bool shifted = is_shifted(v);
    const char *what = nb_format(x->arena, "coded %s", q->name);
    nb_port *codes = nb_shared_get(x, from, what);
    if (!codes)
        codes = nb_shared_set(x, from, what, put_codes(x, q, shifted, in, from->type->rank));
    return put_reals(x, q, shifted, codes);
}

/* For MatMulInteger. */
nb_port *nb_port_integers(nb_exporter *x, nb_value *v, nb_port **zero) {
    const nb_quant *q = v->type->quant;
    *zero = NULL;
    if (nb_is_const(v)) {
        *zero = nb_port_zeros(x, v, true, false);
        return nb_port_codes(x, v, true);
    }
    const nb_coded *c = coded_of(x, v);
    if (c && (q->zero || c->shifted)) *zero = zero_of(x, q, c->shifted);
    return c ? c->codes : NULL;
}

/* In front of what moves its channels, for what is elementwise then. */
nb_status nb_export_dequantize(nb_exporter *x) {
    nb_value *v = nb_in(x->op, 0);
    const int rank = v->type->rank;
    const nb_coded *c = nb_is_const(v) ? NULL : coded_of(x, v);
    return nb_export_result(x, 0,
                            c && nb_before_channels_last(c->codes, rank)
                                ? nb_put_channels_last(x, nb_port_coded_second(x, v), rank)
                                : nb_operand(x, 0));
}

nb_status nb_export_codes(nb_exporter *x) {
    nb_value *v = nb_in(x->op, 0);
    if (nb_is_const(v)) return nb_export_result(x, 0, nb_port_codes(x, v, false));
    nb_coded *c = coded_of(x, v);
    if (!c) return nb_export_result(x, 0, NULL);
    if (c->shifted) nb_map_set(&x->shifted, nb_out(x->op), c);
    if (c->codes) return nb_export_result(x, 0, c->codes);
    nb_port *y = from_blocks(x, c->floats, v->type);
    return nb_export_result(x, 0, y ? nb_put_cast(x, y, v->type->elem) : NULL);
}

nb_status nb_export_scales(nb_exporter *x) {
    const nb_value *v = nb_in(x->op, 0);
    const nb_type *t = nb_out(x->op)->type;
    nb_coded *c = coded_of(x, v);
    if (!c || !c->scale) return nb_export_result(x, 0, NULL);
    return nb_export_result(x, 0,
                            v->type->quant->granularity == NB_PER_BLOCK
                                ? nb_put_reshape(x, c->scale, NULL, (size_t)t->rank, t->dims)
                                : c->scale);
}

/* ---- embeddings ----------------------------------------------------------------------------- */

/* Rows of codes, of their scales and zero points; then only those are dequantized. */
static nb_port *put_rows(nb_exporter *x, nb_value *w, nb_port *index) {
    const nb_quant *q = w->type->quant;
    const bool groups = q->granularity == NB_PER_GROUP, single = q->granularity == NB_PER_TENSOR;
    nb_port *zeros = nb_port_zeros(x, w, true, !groups),
            *codes = NB_PUT(x, "Gather", nb_port_codes(x, w, true), index),
            *scales = nb_port_scales(x, w, !groups);
    if (!single) scales = NB_PUT(x, "Gather", scales, index);
    if (!single && zeros) zeros = NB_PUT(x, "Gather", zeros, index);
    nb_port *y = NB_PUT(x, "DequantizeLinear", codes, scales, zeros);
    if (single) return y;
    nb_put_attr(x, NB_ATTR_I("axis", -1));
    nb_put_attr(x, NB_ATTR_I("block_size", groups ? q->group : w->type->dims[1]->value));
    return y;
}

nb_status nb_export_qgather(nb_exporter *x) {
    nb_value *w = nb_in(x->op, 0);
    const nb_quant *q = w->type->quant;
    nb_port *index = nb_operand(x, 1);
    if (!index) return nb_export_result(x, 0, NULL);
    const nb_elem e = nb_in(x->op, 1)->type->elem;
    if (e != NB_I64 && e != NB_I32) index = nb_put_cast(x, index, NB_I64);
    const bool rows = q->granularity == NB_PER_TENSOR ||
                      (q->granularity == NB_PER_AXIS && q->axis == 0) ||
                      (q->granularity == NB_PER_GROUP && q->axis == 1);
    if (rows && w->type->rank == 2 && nb_elem_is_integer(q->storage) &&
        nb_elems[q->storage].bits <= 8 && !nb_quant_has_minima(q))
        return nb_export_result(x, 0, put_rows(x, w, index));
    nb_port *table = nb_port_reals(x, w);
    return nb_export_result(x, 0, table ? NB_PUT(x, "Gather", table, index) : NULL);
}
