/* Shape rules of layers and of quantization. */
#include "ir/conv.h"
#include "ir/infer.h"
#include "ir/interner.h"

#include <string.h>

static nb_status check_quant(const nb_inferring *i, const nb_quant *q, const nb_type *t) {
    const char *why = nb_quant_misfit(i->g, q, t);
    return why ? nb_infer_error(i, "%s", why) : NB_OK;
}

nb_status nb_infer_matmul(const nb_inferring *i) {
    const nb_type *a = nb_in_type(i, 0), *b = nb_in_type(i, 1);
    if (b->quant) {
        if (!nb_is_const(nb_in(i->op, 1)) || b->rank != 2)
            return nb_infer_error(i, "multiplies codes that are a constant matrix, found %s",
                                  nb_in_text(i, 1));
        NB_TRY(check_quant(i, b->quant, b));
        b = nb_type_with_elem(i->g, b, NB_F32);
    }
    if (a->quant)
        return nb_infer_error(i, "takes a plain left operand, found %s", nb_in_text(i, 0));
    bool half = b->elem == NB_F16 || b->elem == NB_BF16;
    if ((a->elem != b->elem && !(a->elem == NB_F32 && half)) || a->elem == NB_BOOL || a->rank < 2 ||
        b->rank < 2)
        return nb_infer_error(
            i,
            "takes two tensors of numbers of one type, or f32 by f16 or bf16, and "
            "of rank 2 or more, found %s and %s",
            nb_in_text(i, 0), nb_in_text(i, 1));
    if (a->dims[a->rank - 1] != b->dims[b->rank - 2])
        return nb_infer_error(i, "the inner dimensions of %s and %s differ", nb_in_text(i, 0),
                              nb_in_text(i, 1));
    const nb_dim *dims[NB_MAX_RANK];
    int batch;
    if (!nb_infer_axes(i, a, b, 2, &batch, dims)) return NB_MALFORMED;
    dims[batch] = a->dims[a->rank - 2];
    dims[batch + 1] = b->dims[b->rank - 1];
    i->types[0] = nb_type_intern(i->g, a->elem, NULL, batch + 2, dims);
    return NB_OK;
}

/* ---- what slides along axes ---------------------------------------------------------------- */

/* Strides or dilations: none, or a positive number for each axis that the kernel slides along. */
static nb_status check_steps(const nb_inferring *i, const char *name, int axes) {
    const nb_attr *a = nb_attr_of(i->op, name);
    if (a->ints.count && a->ints.count != (size_t)axes)
        return nb_infer_error(i, "has %zu %s for %d axes", a->ints.count, name, axes);
    for (size_t k = 0; k < a->ints.count; k++) {
        if (a->ints.items[k] < 1 || a->ints.items[k] > INT32_MAX)
            return nb_infer_error(i, "%s[%zu] is %lld, expected 1 .. 2^31-1", name, k,
                                  (long long)a->ints.items[k]);
    }
    return NB_OK;
}

/* The places of a kernel of these lengths along the axes of x from `first` on. */
static nb_status slide(const nb_inferring *i, const nb_type *x, int first, const int64_t *kernel,
                       const nb_dim **places) {
    for (int d = 0; d < x->rank - 2; d++) {
        int64_t reach = kernel[d] - 1;
        if (reach < 0 || !nb_mul_i64(reach, nb_conv_dilation(i->op, d), &reach) ||
            reach == INT64_MAX)
            return nb_infer_error(i, "a kernel of length %lld along axis %d is not possible",
                                  (long long)kernel[d], d + first);
        const nb_dim *room = nb_dim_sub(i->g, x->dims[d + first], nb_dim_const(i->g, reach + 1));
        const nb_dim *stride = nb_dim_const(i->g, nb_conv_stride(i->op, d));
        places[d] = nb_dim_add(i->g, nb_dim_floordiv(i->g, room, stride), nb_dim_const(i->g, 1));
    }
    return NB_OK;
}

nb_status nb_infer_conv(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0), *w = nb_in_type(i, 1);
    if (x->elem != w->elem || !nb_elem_is_float(x->elem) || x->rank < 3 || w->rank != x->rank)
        return nb_infer_error(i, "takes floats x[B,C,D...] and w[M,C/groups,K...], found %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    NB_TRY(check_steps(i, "strides", x->rank - 2));
    NB_TRY(check_steps(i, "dilations", x->rank - 2));
    bool known = nb_dim_is_const(x->dims[1]);
    for (int d = 0; d < w->rank; d++) known = known && nb_dim_is_const(w->dims[d]);
    if (!known)
        return nb_infer_error(i, "needs known channels and a kernel of known size, found %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    int64_t groups = nb_conv_groups(i->op), channels = x->dims[1]->value, M = w->dims[0]->value;
    if (groups < 1 || channels % groups != 0 || M % groups != 0 ||
        channels / groups != w->dims[1]->value)
        return nb_infer_error(i, "%s and %s do not fit %lld groups", nb_in_text(i, 0),
                              nb_in_text(i, 1), (long long)groups);
    int64_t kernel[NB_MAX_RANK];
    for (int d = 2; d < w->rank; d++) kernel[d - 2] = w->dims[d]->value;
    const nb_dim *dims[NB_MAX_RANK] = {x->dims[0], w->dims[0]};
    NB_TRY(slide(i, x, 2, kernel, dims + 2));
    i->types[0] = nb_type_intern(i->g, x->elem, NULL, x->rank, dims);
    const nb_value *bias = nb_in(i->op, 2);
    if (bias &&
        (bias->type->elem != x->elem || bias->type->rank != 1 || bias->type->dims[0] != w->dims[0]))
        return nb_infer_error(i, "the bias is a vector as long as %s has rows, found %s",
                              nb_in_text(i, 1), nb_in_text(i, 2));
    return NB_OK;
}

/* The shape of depthwise: x[B,D...,C] and w[K...,C], whatever their elements. */
static nb_status slide_by_channel(const nb_inferring *i, const nb_dim **dims) {
    const nb_type *x = nb_in_type(i, 0), *w = nb_in_type(i, 1);
    bool fits = x->rank >= 3 && w->rank == x->rank - 1 && nb_dim_is_const(x->dims[x->rank - 1]) &&
                w->dims[w->rank - 1] == x->dims[x->rank - 1];
    for (int d = 0; fits && d < w->rank; d++) fits = nb_dim_is_const(w->dims[d]);
    if (!fits)
        return nb_infer_error(i, "takes x[B,D...,C] and w[K...,C] of known sizes, found %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    NB_TRY(check_steps(i, "strides", x->rank - 2));
    NB_TRY(check_steps(i, "dilations", x->rank - 2));
    int64_t kernel[NB_MAX_RANK];
    for (int d = 0; d < w->rank - 1; d++) kernel[d] = w->dims[d]->value;
    dims[0] = x->dims[0];
    NB_TRY(slide(i, x, 1, kernel, dims + 1));
    dims[x->rank - 1] = x->dims[x->rank - 1];
    const nb_value *bias = nb_in(i->op, 2);
    if (bias && (bias->type->elem != NB_F32 || bias->type->quant || bias->type->rank != 1 ||
                 bias->type->dims[0] != x->dims[x->rank - 1]))
        return nb_infer_error(i, "the bias is f32, one for each channel of %s, found %s",
                              nb_in_text(i, 0), nb_in_text(i, 2));
    return NB_OK;
}

nb_status nb_infer_depthwise(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0), *w = nb_in_type(i, 1);
    const nb_dim *dims[NB_MAX_RANK];
    if (x->elem != NB_F32 || w->elem != NB_F32)
        return nb_infer_error(i, "takes f32, found %s and %s", nb_in_text(i, 0), nb_in_text(i, 1));
    NB_TRY(slide_by_channel(i, dims));
    i->types[0] = nb_type_intern(i->g, NB_F32, NULL, x->rank, dims);
    return NB_OK;
}

/* The axes and those of the kernel once more make the rank that a patch is copied in. */
#define MOST_AXES ((NB_MAX_RANK - 2) / 2)

nb_status nb_infer_patches(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *kernel = nb_attr_of(i->op, "kernel");
    const int axes = x->rank - 2;
    if (x->quant || nb_elems[x->elem].bits < 8 || x->elem == NB_BOOL || axes < 1 ||
        axes > MOST_AXES || !nb_dim_is_const(x->dims[1]))
        return nb_infer_error(
            i, "takes numbers of whole bytes x[B,C,D...] of rank 3 to %d, C known, found %s",
            MOST_AXES + 2, nb_in_text(i, 0));
    if (kernel->ints.count != (size_t)axes)
        return nb_infer_error(i, "has %zu kernel lengths for %d axes", kernel->ints.count, axes);
    NB_TRY(check_steps(i, "strides", axes));
    NB_TRY(check_steps(i, "dilations", axes));
    const nb_dim *dims[NB_MAX_RANK] = {x->dims[0]};
    NB_TRY(slide(i, x, 2, kernel->ints.items, dims + 1));
    int64_t inputs = x->dims[1]->value;
    for (int d = 0; d < axes; d++) {
        if (!nb_mul_i64(inputs, kernel->ints.items[d], &inputs))
            return nb_infer_error(i, "a patch of %s has too many inputs", nb_in_text(i, 0));
    }
    dims[axes + 1] = nb_dim_const(i->g, inputs);
    i->types[0] = nb_type_intern(i->g, x->elem, NULL, x->rank, dims);
    return NB_OK;
}

nb_status nb_infer_rotary(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    if (x->rank != 4 || x->elem != NB_F32)
        return nb_infer_error(i, "takes f32[B,H,S,D], found %s", nb_in_text(i, 0));
    const nb_dim *half = nb_dim_floordiv(i->g, x->dims[3], nb_dim_const(i->g, 2));
    if (nb_dim_mul(i->g, half, nb_dim_const(i->g, 2)) != x->dims[3])
        return nb_infer_error(i, "the last axis of %s is not even", nb_in_text(i, 0));
    for (size_t k = 1; k < 3; k++) {
        const nb_type *t = nb_in_type(i, k);
        bool fits = t->elem == NB_F32 && t->rank == 3 &&
                    (t->dims[0] == x->dims[0] || nb_dim_is(t->dims[0], 1)) &&
                    t->dims[1] == x->dims[2] && t->dims[2] == half;
        if (!fits)
            return nb_infer_error(i, "cos and sin are f32[B or 1,S,D/2] for %s, found %s",
                                  nb_in_text(i, 0), nb_in_text(i, k));
    }
    i->types[0] = x;
    return NB_OK;
}

nb_status nb_infer_hadamard(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    int64_t n = nb_attr_int(i->op, "block");
    if (x->rank < 1 || x->elem != NB_F32)
        return nb_infer_error(i, "takes f32 with an axis, found %s", nb_in_text(i, 0));
    if (n < 1 || n > 1024 || (n & (n - 1)) != 0)
        return nb_infer_error(i, "block is %lld, expected a power of two up to 1024", (long long)n);
    i->types[0] = x;
    return NB_OK;
}

/* Keys and values may be stored in fewer bits than they are computed in. */
static bool is_key_elem(nb_elem e) {
    return e == NB_F32 || e == NB_F16 || e == NB_BF16 || e == NB_I8 || e == NB_U8;
}

/* Runs of a power of two of at least 16: a vector of 16 lies in one. */
static nb_status check_group(const nb_inferring *i) {
    int64_t group = nb_attr_int(i->op, "group");
    if (group >= 16 && (group & (group - 1)) == 0) return NB_OK;
    return nb_infer_error(i, "a group of 4-bit codes is a power of two from 16 on, found %lld",
                          (long long)group);
}

/* The type of the scales of x, and of its minima; `size` is that of a head. */
static const nb_type *scales_of_u4(const nb_inferring *i, const nb_type *x, const nb_dim *size) {
    const nb_dim *group = nb_dim_const(i->g, nb_attr_int(i->op, "group"));
    const nb_dim *dims[4] = {x->dims[0], x->dims[1], nb_dim_ceildiv(i->g, size, group), x->dims[2]};
    return nb_type_intern(i->g, NB_F16, NULL, 4, dims);
}

/* Elements of a head: two to a byte of u8. */
static const nb_dim *head_size(const nb_inferring *i, const nb_type *x) {
    return x->elem == NB_U8 ? nb_dim_mul(i->g, x->dims[3], nb_dim_const(i->g, 2)) : x->dims[3];
}

/* What stands beside keys or values of type x: operand number `at` is of type t, NULL for none. */
static nb_status check_beside(const nb_inferring *i, size_t x, size_t at, const nb_type *t) {
    const nb_value *v = nb_in(i->op, at);
    if ((v ? v->type : NULL) == t) return NB_OK;
    return nb_infer_error(i, "%s has %s %s, found %s", nb_in_text(i, x),
                          at < 6 ? "scales" : "minima", t ? nb_type_text(i->g->arena, t) : "none",
                          v ? nb_in_text(i, at) : "none");
}

/* Scales and minima of keys (x = 1) or values (2): those of codes, none of floats. */
static nb_status check_scales(const nb_inferring *i, size_t x) {
    const nb_type *t = nb_in_type(i, x), *scales = NULL, *minima = NULL;
    if (t->elem == NB_I8) {
        const nb_dim *dims[4] = {t->dims[0], t->dims[1], t->dims[2], nb_dim_const(i->g, 1)};
        scales = nb_type_intern(i->g, NB_F32, NULL, 4, dims);
    } else if (t->elem == NB_U8) {
        NB_TRY(check_group(i));
        scales = minima = scales_of_u4(i, t, head_size(i, t));
    }
    NB_TRY(check_beside(i, x, x + 3, scales));
    return check_beside(i, x, x + 5, minima);
}

nb_status nb_infer_attention(const nb_inferring *i) {
    const nb_type *q = nb_in_type(i, 0), *k = nb_in_type(i, 1), *v = nb_in_type(i, 2);
    if (q->elem != NB_F32 || !is_key_elem(k->elem) || !is_key_elem(v->elem) || q->rank != 4 ||
        k->rank != 4 || v->rank != 4)
        return nb_infer_error(
            i,
            "takes q in f32, k and v in f32, f16, bf16, i8 or u8, of rank 4, found %s, %s and %s",
            nb_in_text(i, 0), nb_in_text(i, 1), nb_in_text(i, 2));
    bool heads = nb_dim_is_const(q->dims[1]) && nb_dim_is_const(k->dims[1]) &&
                 k->dims[1]->value > 0 && q->dims[1]->value % k->dims[1]->value == 0;
    if (!heads || k->dims[1] != v->dims[1])
        return nb_infer_error(i, "the %s query heads are not a multiple of the key and value heads",
                              nb_dim_text(i->g->arena, q->dims[1]));
    if (q->dims[0] != k->dims[0] || k->dims[0] != v->dims[0] || k->dims[2] != v->dims[2] ||
        q->dims[3] != head_size(i, k))
        return nb_infer_error(i, "%s, %s and %s do not fit q[B,H,S,D], k[B,G,T,D], v[B,G,T,E]",
                              nb_in_text(i, 0), nb_in_text(i, 1), nb_in_text(i, 2));
    if (nb_in(i->op, 3)) {
        const nb_type *m = nb_in_type(i, 3);
        const nb_dim *full[4] = {q->dims[0], q->dims[1], q->dims[2], k->dims[2]};
        bool fits = m->elem == NB_F32 && m->rank <= 4;
        for (int d = 0; fits && d < m->rank; d++)
            fits = m->dims[d] == full[4 - m->rank + d] || nb_dim_is(m->dims[d], 1);
        if (!fits)
            return nb_infer_error(i, "the mask broadcasts to f32[B,H,S,T], found %s",
                                  nb_in_text(i, 3));
    }
    NB_TRY(check_scales(i, 1));
    NB_TRY(check_scales(i, 2));
    const nb_dim *dims[4] = {q->dims[0], q->dims[1], q->dims[2], head_size(i, v)};
    i->types[0] = nb_type_intern(i->g, NB_F32, NULL, 4, dims);
    return NB_OK;
}

/* ---- quantization -------------------------------------------------------------------------- */

/* Can codes of x under q be made at run time? */
static nb_status check_codes(const nb_inferring *i, const nb_quant *q, const nb_type *x) {
    if (!nb_elem_is_integer(q->storage))
        return nb_infer_error(i, "makes integer codes, not %s", nb_elems[q->storage].text);
    if (nb_quant_has_minima(q))
        return nb_infer_error(i, "makes codes with zero points, not minima");
    return check_quant(i, q, x);
}

nb_status nb_infer_quantize(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *to = nb_attr_of(i->op, "to");
    if (!to->set) return nb_infer_error(i, "needs attribute `to`");
    if (x->quant || x->elem != NB_F32)
        return nb_infer_error(i, "takes f32, found %s", nb_in_text(i, 0));
    NB_TRY(check_codes(i, to->quant, x));
    i->types[0] = nb_type_with_quant(i->g, x, to->quant);
    return NB_OK;
}

nb_status nb_infer_qpatches(const nb_inferring *i) {
    const nb_attr *to = nb_attr_of(i->op, "to");
    if (!to->set) return nb_infer_error(i, "needs attribute `to`");
    if (nb_in_type(i, 0)->elem != NB_F32)
        return nb_infer_error(i, "takes f32, found %s", nb_in_text(i, 0));
    NB_TRY(nb_infer_patches(i));
    const nb_granularity by = to->quant->granularity;
    if (by != NB_PER_TENSOR && by != NB_PER_TOKEN)
        return nb_infer_error(i, "makes codes with a scale for the tensor or for each token");
    NB_TRY(check_codes(i, to->quant, i->types[0]));
    i->types[0] = nb_type_with_quant(i->g, i->types[0], to->quant);
    return NB_OK;
}

nb_status nb_infer_quantize_u4(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    if (x->elem != NB_F32 || x->rank != 4 || !nb_dim_is_const(x->dims[3]) || x->dims[3]->value % 2)
        return nb_infer_error(i, "takes f32[B,G,S,D] with an even constant D, found %s",
                              nb_in_text(i, 0));
    NB_TRY(check_group(i));
    const nb_dim *square[3] = {x->dims[1], x->dims[3], x->dims[3]};
    if (nb_in(i->op, 1) && nb_in_type(i, 1) != nb_type_intern(i->g, NB_F32, NULL, 3, square))
        return nb_infer_error(i, "takes feedback f32[G,D,D] of %s, found %s", nb_in_text(i, 0),
                              nb_in_text(i, 1));
    const nb_dim *bytes = nb_dim_const(i->g, x->dims[3]->value / 2);
    const nb_dim *dims[4] = {x->dims[0], x->dims[1], x->dims[2], bytes};
    i->types[0] = nb_type_intern(i->g, NB_U8, NULL, 4, dims);
    i->types[1] = i->types[2] = scales_of_u4(i, x, x->dims[3]);
    return NB_OK;
}

nb_status nb_infer_dequantize(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    if (!x->quant) return nb_infer_error(i, "takes codes, found %s", nb_in_text(i, 0));
    NB_TRY(check_quant(i, x->quant, x));
    i->types[0] = nb_type_with_elem(i->g, x, NB_F32);
    return NB_OK;
}

nb_status nb_infer_codes(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    if (!x->quant) return nb_infer_error(i, "takes codes, found %s", nb_in_text(i, 0));
    i->types[0] = nb_type_with_elem(i->g, x, x->elem);
    return NB_OK;
}

nb_status nb_infer_as_codes(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_attr *to = nb_attr_of(i->op, "to");
    if (!to->set) return nb_infer_error(i, "needs attribute `to`");
    const nb_quant *q = to->quant;
    if (x->quant || x->elem != q->storage)
        return nb_infer_error(i, "takes plain %s, found %s", nb_elems[q->storage].text,
                              nb_in_text(i, 0));
    if (q->granularity == NB_PER_TOKEN || q->granularity == NB_PER_BLOCK)
        return nb_infer_error(i, "takes a descriptor that is not dynamic");
    NB_TRY(check_quant(i, q, x));
    i->types[0] = nb_type_with_quant(i->g, x, q);
    return NB_OK;
}

nb_status nb_infer_scales(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0);
    const nb_quant *q = x->quant;
    if (!q || (q->granularity != NB_PER_TOKEN && q->granularity != NB_PER_BLOCK))
        return nb_infer_error(i, "takes codes with scales per token or block, found %s",
                              nb_in_text(i, 0));
    NB_TRY(check_quant(i, q, x));
    const nb_dim *dims[NB_MAX_RANK], *one = nb_dim_const(i->g, 1), *last = x->dims[x->rank - 1];
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = q->granularity == NB_PER_TOKEN
                            ? one
                            : nb_dim_ceildiv(i->g, last, nb_dim_const(i->g, q->group));
    i->types[0] = nb_type_intern(i->g, NB_F32, NULL, x->rank, dims);
    return NB_OK;
}

/* The result of a product of codes whose floats are of type y. */
static nb_status end_product(const nb_inferring *i, const nb_type *y) {
    const nb_quant *a = nb_in_type(i, 0)->quant, *b = nb_in_type(i, 1)->quant;
    const nb_value *bias = nb_in(i->op, 2), *residual = nb_in(i->op, 3);
    if (residual && residual->type != y)
        return nb_infer_error(i, "the residual has the result's type %s, found %s",
                              nb_type_text(i->g->arena, y), nb_in_text(i, 3));
    const nb_attr *to = nb_attr_of(i->op, "to");
    if (nb_attr_bool(i->op, "sums")) {
        if (bias || residual || to->set || a->granularity != NB_PER_TENSOR ||
            a->storage == NB_I16 || b->granularity == NB_PER_GROUP)
            return nb_infer_error(i,
                                  "gives sums of activations of 8 bits with one scale and weights "
                                  "without groups, without bias, residual and `to`");
        y = nb_type_with_elem(i->g, y, NB_I32);
    } else if (to->set) {
        NB_TRY(check_codes(i, to->quant, y));
        if (to->quant->granularity != NB_PER_TENSOR ||
            (to->quant->storage != NB_I8 && to->quant->storage != NB_U8))
            return nb_infer_error(i, "makes codes of i8 or u8 with a scale for the tensor");
        y = nb_type_with_quant(i->g, y, to->quant);
    }
    i->types[0] = y;
    return NB_OK;
}

nb_status nb_infer_qmatmul(const nb_inferring *i) {
    const nb_type *a = nb_in_type(i, 0), *b = nb_in_type(i, 1);
    bool constant = nb_is_const(nb_in(i->op, 1));
    if (!a->quant || !b->quant || a->rank < 1 || b->rank != 2 || !constant)
        return nb_infer_error(i, "takes codes and a constant matrix of codes, found %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    NB_TRY(check_quant(i, a->quant, a));
    NB_TRY(check_quant(i, b->quant, b));
    const char *why = nb_product_obstacle(a->quant, b->quant, b->dims[0]->value);
    if (why) return nb_infer_error(i, "%s (%s and %s)", why, nb_in_text(i, 0), nb_in_text(i, 1));
    if (a->dims[a->rank - 1] != b->dims[0])
        return nb_infer_error(i, "the inner dimensions of %s and %s differ", nb_in_text(i, 0),
                              nb_in_text(i, 1));
    const nb_dim *dims[NB_MAX_RANK];
    memcpy(dims, a->dims, sizeof dims);
    dims[a->rank - 1] = b->dims[1];
    const nb_type *y = nb_type_intern(i->g, NB_F32, NULL, a->rank, dims);
    const nb_value *bias = nb_in(i->op, 2);
    if (bias && (bias->type->elem != NB_F32 || bias->type->quant || bias->type->rank != 1 ||
                 bias->type->dims[0] != b->dims[1]))
        return nb_infer_error(i,
                              "the bias is an f32 vector as long as the matrix is wide, found %s",
                              nb_in_text(i, 2));
    return end_product(i, y);
}

nb_status nb_infer_qdepthwise(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0), *w = nb_in_type(i, 1);
    const nb_dim *dims[NB_MAX_RANK];
    int64_t positions = 1;
    if (!x->quant || !w->quant || !nb_is_const(nb_in(i->op, 1)))
        return nb_infer_error(i, "takes codes and a constant of codes, found %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    NB_TRY(check_quant(i, x->quant, x));
    NB_TRY(check_quant(i, w->quant, w));
    NB_TRY(slide_by_channel(i, dims));
    for (int d = 0; d < w->rank - 1; d++)
        if (!nb_mul_i64(positions, w->dims[d]->value, &positions)) positions = INT64_MAX;
    const char *why = nb_depthwise_obstacle(x->quant, w->quant, w->rank - 1, positions);
    if (why) return nb_infer_error(i, "%s (%s and %s)", why, nb_in_text(i, 0), nb_in_text(i, 1));
    return end_product(i, nb_type_intern(i->g, NB_F32, NULL, x->rank, dims));
}

nb_status nb_infer_qgather(const nb_inferring *i) {
    const nb_type *x = nb_in_type(i, 0), *index = nb_in_type(i, 1);
    const nb_quant *q = x->quant;
    if (!q || !nb_is_const(nb_in(i->op, 0)) || x->rank < 1 || !nb_elem_is_integer(index->elem))
        return nb_infer_error(i, "takes a constant table of codes and integers, found %s and %s",
                              nb_in_text(i, 0), nb_in_text(i, 1));
    NB_TRY(check_quant(i, q, x));
    bool rows = q->granularity == NB_PER_TENSOR ||
                (q->granularity == NB_PER_AXIS && q->axis == 0) ||
                (q->granularity == NB_PER_GROUP && q->axis == x->rank - 1);
    if (!rows)
        return nb_infer_error(i, "the scales of %s are not per row, or groups along its rows",
                              nb_in_text(i, 0));
    int rank = index->rank + x->rank - 1;
    if (rank > NB_MAX_RANK)
        return nb_infer_error(i, "the result would have rank %d, above %d", rank, NB_MAX_RANK);
    const nb_dim *dims[NB_MAX_RANK];
    for (int d = 0; d < index->rank; d++) dims[d] = index->dims[d];
    for (int d = 1; d < x->rank; d++) dims[index->rank + d - 1] = x->dims[d];
    i->types[0] = nb_type_intern(i->g, NB_F32, NULL, rank, dims);
    return NB_OK;
}
