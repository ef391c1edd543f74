/* Layers as ONNX: with operators of ai.onnx 21, and in the forms that raise (passes/) finds again.
 */
#include "frontend/export.h"
#include "ir/scalar.h"

#include <math.h>

/* ---- products ------------------------------------------------------------------------------- */

nb_value *nb_read_by(const nb_op *op, size_t i) {
    nb_value *v = nb_in(op, i);
    return v->def && v->def->kind == NB_OP_dequantize ? nb_in(v->def, 0) : v;
}

nb_value *nb_constant_of(const nb_op *op, size_t i) {
    nb_value *v = nb_read_by(op, i);
    return nb_is_const(v) ? v : NULL;
}

/* MatMulNBits rounds its activations by itself: it takes what was to be quantized. */
static nb_port *put_nbits(nb_exporter *x, nb_value *w) {
    nb_value *a = nb_in(x->op, 0);
    int64_t level = 0;
    if (a->def && a->def->kind == NB_OP_dequantize) a = nb_in(a->def, 0);
    if (a->def && a->def->kind == NB_OP_quantize) {
        level = nb_attr_of(a->def, "to")->quant->storage == NB_I8 ? 4 : 0;
        a = nb_in(a->def, 0);
    }
    nb_port *in = nb_port_of(x, a);
    return in ? nb_put_nbits(x, in, w, level) : NULL;
}

/* `done`: the first operand that is not in it. */
static nb_port *put_product(nb_exporter *x, size_t *done) {
    nb_value *w = nb_constant_of(x->op, 1);
    *done = 2;
    if (w && x->options->form == NB_ONNX_MATMUL_NBITS && nb_fits_nbits(w)) return put_nbits(x, w);
    nb_port *conv = nb_put_as_conv(x, done);
    if (conv) return conv;
    nb_port *a = nb_operand(x, 0), *b = nb_operand(x, 1);
    if (!a || !b) return NULL;
    const nb_type *s = nb_in(x->op, 0)->type, *t = nb_in(x->op, 1)->type;
    if (!s->quant && !t->quant && s->elem != t->elem) b = nb_put_cast(x, b, s->elem);
    return NB_PUT(x, "MatMul", a, b);
}

/* The layer's own node has its name, whatever is added behind it. */
static nb_port *put_main(nb_exporter *x, size_t *done) {
    nb_port *y = put_product(x, done);
    if (y && !x->main) x->main = nb_last_node(x);
    return y;
}

nb_status nb_export_matmul(nb_exporter *x) {
    size_t done;
    return nb_export_result(x, 0, put_main(x, &done));
}

/* Sums of codes as they are. */
static nb_port *put_sums(nb_exporter *x) {
    nb_port *az, *bz, *a = nb_port_integers(x, nb_in(x->op, 0), &az),
                      *b = nb_port_integers(x, nb_in(x->op, 1), &bz);
    return a && b ? NB_PUT(x, "MatMulInteger", a, b, az, bz) : NULL;
}

nb_status nb_export_sum(nb_exporter *x, nb_port *y, size_t from) {
    const int rank = nb_out(x->op)->type->rank;
    for (size_t i = from; y && i < x->op->n_operands; i++) {
        nb_value *values[2] = {NULL, nb_in(x->op, i)};
        nb_port *in[2] = {y, nb_operand(x, i)};
        if (in[1]) y = nb_put_each(x, "Add", rank, 2, in, values, NULL);
    }
    if (!y || !nb_attr_of(x->op, "to")->set) return nb_export_result(x, 0, y);
    nb_codes_made(x, y);
    return NB_OK;
}

nb_status nb_export_qmatmul(nb_exporter *x) {
    if (nb_attr_bool(x->op, "sums")) return nb_export_result(x, 0, put_sums(x));
    size_t done;
    nb_port *y = put_main(x, &done);
    return nb_export_sum(x, y, done);
}

/* ---- rows ----------------------------------------------------------------------------------- */

nb_status nb_export_softmax(nb_exporter *x) {
    nb_port *v = nb_operand(x, 0), *y = v ? NB_PUT(x, "Softmax", v) : NULL;
    if (y) nb_put_attr(x, NB_ATTR_I("axis", nb_attr_int(x->op, "axis")));
    return nb_export_result(x, 0, y);
}

/* Norms compute in f32 whatever they take. */
static nb_port *wide(nb_exporter *x, size_t i) {
    nb_port *v = nb_operand(x, i);
    return v && nb_in(x->op, i)->type->elem != NB_F32 ? nb_put_cast(x, v, NB_F32) : v;
}

static nb_status narrow_result(nb_exporter *x, nb_port *y) {
    const nb_elem to = nb_out(x->op)->type->elem;
    return nb_export_result(x, 0, y && to != NB_F32 ? nb_put_cast(x, y, to) : y);
}

/* x / sqrt(mean(x^2) + eps) * gain */
nb_status nb_export_rms_norm(nb_exporter *x) {
    const int64_t last = -1;
    nb_port *v = wide(x, 0), *gain = wide(x, 1);
    if (!v || !gain) return nb_export_result(x, 0, NULL);
    nb_port *square = NB_PUT(x, "Pow", v, nb_port_f32(x, 2)),
            *mean = NB_PUT(x, "ReduceMean", square, nb_port_i64s(x, 1, &last));
    nb_port *eps = nb_port_f32(x, nb_attr_float(x->op, "eps")),
            *root = NB_PUT(x, "Sqrt", NB_PUT(x, "Add", mean, eps));
    return narrow_result(x, NB_PUT(x, "Mul", NB_PUT(x, "Div", v, root), gain));
}

nb_status nb_export_layer_norm(nb_exporter *x) {
    nb_port *v = wide(x, 0), *gain = wide(x, 1);
    if (!v || !gain) return nb_export_result(x, 0, NULL);
    nb_port *y = NB_PUT(x, "LayerNormalization", v, gain, nb_in(x->op, 2) ? wide(x, 2) : NULL);
    nb_put_attr(x, NB_ATTR_I("axis", -1));
    nb_put_attr(x, NB_ATTR_F("epsilon", nb_attr_float(x->op, "eps")));
    return narrow_result(x, y);
}

/* Blocks by a matrix of signs. */
/* n x n, a power of two: rows of Sylvester's matrix by 1 / sqrt(n). */
static nb_port *signs_of(nb_exporter *x, int64_t n) {
    const int64_t shape[2] = {n, n};
    const char *what = nb_format(x->arena, "hadamard%lld", (long long)n);
    nb_port *signs = nb_shared_get(x, NULL, what);
    if (signs) return signs;
    nb_initializer *h = nb_new_initializer(x, what, NB_F32, 2, shape);
    float *data = NB_NEW_ARRAY(x->arena, float, (size_t)(n * n));
    for (int64_t i = 0; i < n * n; i++)
        data[i] =
            (__builtin_parityll((uint64_t)(i / n & i % n)) ? -1.0f : 1.0f) * (1 / sqrtf((float)n));
    h->data = data;
    return nb_shared_set(x, NULL, what, h->port);
}

/* v, whose last axis has `size` entries, in blocks of n: all of the operand, of type `t`, or
 * (NULL) a part of it. */
static nb_port *in_blocks(nb_exporter *x, nb_port *v, const nb_type *t, const nb_dim *size,
                          int64_t n) {
    const nb_type *all = nb_in(x->op, 0)->type;
    const nb_dim *dims[NB_MAX_RANK + 1], *block = nb_dim_const(x->g, n);
    const int last = all->rank - 1;
    for (int d = 0; d < last; d++) dims[d] = all->dims[d];
    dims[last] = nb_dim_floordiv(x->g, size, block);
    dims[last + 1] = block;
    v = nb_put_reshape(x, v, t, (size_t)last + 2, dims);
    if (v) v = NB_PUT(x, "MatMul", v, signs_of(x, n));
    dims[last] = size;
    return v ? nb_put_reshape(x, v, t, (size_t)last + 1, dims) : NULL;
}

nb_status nb_export_hadamard(nb_exporter *x) {
    const nb_type *t = nb_in(x->op, 0)->type;
    const int64_t n = nb_attr_int(x->op, "block");
    const nb_dim *size = t->dims[t->rank - 1], *block = nb_dim_const(x->g, n);
    nb_port *v = nb_operand(x, 0), *parts[64];
    size_t count = 0;
    if (!v) return nb_export_result(x, 0, NULL);
    if (nb_dim_mul(x->g, nb_dim_floordiv(x->g, size, block), block) == size)
        return nb_export_result(x, 0, in_blocks(x, v, t, size, n));
    if (!nb_dim_is_const(size))
        return nb_export_refuse(x, "the blocks of %lld at the end of %s are not known",
                                (long long)n, nb_type_text(x->arena, t));
    for (int64_t at = 0, each, end; at < size->value; at = end) {
        each = nb_hadamard_block(n, size->value - at);
        end = at + (size->value - at) / each * each;
        nb_port *part = nb_put_slice(x, v, t->rank - 1, at, end, 1);
        if (each > 1) part = in_blocks(x, part, NULL, nb_dim_const(x->g, end - at), each);
        if (!part) return nb_export_result(x, 0, NULL);
        parts[count++] = part;
    }
    v = nb_put_node(x, "Concat", count, parts);
    nb_put_attr(x, NB_ATTR_I("axis", -1));
    return nb_export_result(x, 0, v);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* x1, x2 and cos, sin: (x1*cos - x2*sin, x2*cos + x1*sin), of halves or of neighbours. */
nb_status nb_export_rotary(nb_exporter *x) {
    const nb_type *t = nb_in(x->op, 0)->type;
    const int64_t D = t->dims[3]->value, heads = 1, behind = -1;
    const bool pairs = nb_attr_bool(x->op, "interleaved");
    nb_port *v = nb_operand(x, 0), *cos = nb_operand(x, 1), *sin = nb_operand(x, 2);
    if (!v || !cos || !sin) return nb_export_result(x, 0, NULL);
    nb_port *first = pairs ? nb_put_slice(x, v, 3, 0, D, 2) : nb_put_slice(x, v, 3, 0, D / 2, 1),
            *second = pairs ? nb_put_slice(x, v, 3, 1, D, 2) : nb_put_slice(x, v, 3, D / 2, D, 1);
    cos = NB_PUT(x, "Unsqueeze", cos, nb_port_i64s(x, 1, &heads));
    sin = NB_PUT(x, "Unsqueeze", sin, nb_port_i64s(x, 1, &heads));
    nb_port *a = NB_PUT(x, "Sub", NB_PUT(x, "Mul", first, cos), NB_PUT(x, "Mul", second, sin)),
            *b = NB_PUT(x, "Add", NB_PUT(x, "Mul", second, cos), NB_PUT(x, "Mul", first, sin));
    if (pairs) {
        a = NB_PUT(x, "Unsqueeze", a, nb_port_i64s(x, 1, &behind));
        b = NB_PUT(x, "Unsqueeze", b, nb_port_i64s(x, 1, &behind));
    }
    nb_port *y = NB_PUT(x, "Concat", a, b);
    nb_put_attr(x, NB_ATTR_I("axis", -1));
    return nb_export_result(x, 0, pairs ? nb_put_reshape(x, y, t, 4, t->dims) : y);
}

/* Keys or values, f32, each head repeated for the queries that share it. */
static nb_port *put_heads(nb_exporter *x, size_t i, size_t scales, const nb_dim *heads) {
    const nb_type *t = nb_in(x->op, i)->type;
    const nb_dim *dims[4] = {t->dims[0], heads, t->dims[2], t->dims[3]};
    const int64_t behind = 2;
    nb_port *v = nb_operand(x, i);
    if (v && t->elem != NB_F32) v = nb_put_cast(x, v, NB_F32);
    if (v && nb_in(x->op, scales)) v = NB_PUT(x, "Mul", v, nb_operand(x, scales));
    if (!v || t->dims[1] == heads) return v;
    if (!nb_dim_is_const(heads) || !nb_dim_is_const(t->dims[1])) {
        nb_export_refuse(x, "the number of heads is not a constant");
        return NULL;
    }
    const int64_t times[5] = {1, 1, heads->value / t->dims[1]->value, 1, 1};
    v = NB_PUT(x, "Unsqueeze", v, nb_port_i64s(x, 1, &behind));
    v = NB_PUT(x, "Expand", v, nb_port_i64s(x, 5, times));
    return nb_put_reshape(x, v, NULL, 4, dims);
}

/* softmax(q.k^T * scale + mask).v */
nb_status nb_export_attention(nb_exporter *x) {
    enum { Q, K, V, MASK, K_SCALES, V_SCALES, K_MINIMA };
    static const int64_t perm[4] = {0, 1, 3, 2};
    const nb_dim *heads = nb_in(x->op, Q)->type->dims[1];
    if (nb_in(x->op, K_MINIMA))
        return nb_export_refuse(x, "its keys and values have 4 bits; another --kv can be written");
    nb_port *q = nb_operand(x, Q), *k = put_heads(x, K, K_SCALES, heads),
            *v = put_heads(x, V, V_SCALES, heads);
    if (!q || !k || !v) return nb_export_result(x, 0, NULL);
    nb_port *y = NB_PUT(x, "MatMul", q, nb_put_transpose(x, k, 4, perm));
    const float scale = nb_attr_float(x->op, "scale");
    if (scale != 1) y = NB_PUT(x, "Mul", y, nb_port_f32(x, scale));
    if (nb_in(x->op, MASK)) y = NB_PUT(x, "Add", y, nb_operand(x, MASK));
    y = NB_PUT(x, "Softmax", y);
    nb_put_attr(x, NB_ATTR_I("axis", -1));
    return nb_export_result(x, 0, NB_PUT(x, "MatMul", y, v));
}
