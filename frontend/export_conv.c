/* Convolutions as ONNX: Conv, whose channels stand second, and which takes the zeros around its
 * input along.
 *
 * Data and weights come out of DequantizeLinear with nothing between, and weights stand in the file
 * as Conv takes them: what fuses Q/DQ looks for this. */
#include "frontend/export.h"
#include "ir/conv.h"

/* What slides over the axes D of [B,C,D...]. */
typedef struct window {
    int axes;
    int64_t kernel[NB_MAX_RANK], strides[NB_MAX_RANK], dilations[NB_MAX_RANK];
    int64_t pads[2 * NB_MAX_RANK]; /* before, then behind */
    int64_t groups;
} window;

/* Steps of the op at hand. */
static window window_of(const nb_op *op, int axes) {
    window w = {.axes = axes, .groups = 1};
    for (int d = 0; d < axes; d++) {
        w.strides[d] = nb_conv_stride(op, d);
        w.dilations[d] = nb_conv_dilation(op, d);
    }
    return w;
}

/* Attributes of the node that was put last, which is the layer's own. */
static void put_window(nb_exporter *x, const window *w) {
    const size_t n = (size_t)w->axes;
    bool any = false;
    for (size_t d = 0; d < 2 * n; d++) any = any || w->pads[d];
    if (w->kernel[0]) nb_put_ints(x, "kernel_shape", n, w->kernel);
    nb_put_ints(x, "strides", n, w->strides);
    nb_put_ints(x, "dilations", n, w->dilations);
    if (any) nb_put_ints(x, "pads", 2 * n, w->pads);
    nb_put_attr(x, NB_ATTR_I("group", w->groups));
    x->main = nb_last_node(x);
}

/* ---- zeros around --------------------------------------------------------------------------- */

/* Does `op` pad with `zero` along the axes from `first`, by constants? They become the window's. */
static bool pads_with(const nb_op *op, int64_t zero, int first, window *w) {
    if (!op || op->kind != NB_OP_pad) return false;
    const nb_attr *sides[2] = {nb_attr_of(op, "before"), nb_attr_of(op, "after")};
    const nb_value *value = nb_in(op, 1);
    int64_t pads[2 * NB_MAX_RANK] = {0};
    if (value && !nb_is_const(value)) return false;
    const nb_tensor found = value ? nb_tensor_of_const(value) : (nb_tensor){0};
    if ((value ? nb_tensor_get(&found, 0) : 0) != (double)zero) return false;
    for (int s = 0; s < 2; s++)
        for (int d = 0; d < nb_out(op)->type->rank; d++) {
            const nb_dim *n = sides[s]->dims.items[d];
            const int axis = d - first;
            if (!nb_dim_is_const(n) || n->value < 0) return false;
            if (axis >= 0 && axis < w->axes)
                pads[s * w->axes + axis] = n->value;
            else if (n->value)
                return false;
        }
    for (int d = 0; d < 2 * w->axes; d++) w->pads[d] = pads[d];
    return true;
}

/* v, or what it is with zeros around, which become the window's. Codes are padded as integers. */
static nb_value *without_zeros(nb_value *v, int first, window *w) {
    const nb_quant *q = v->type->quant;
    nb_op *op = v->def;
    if (!q) return pads_with(op, 0, first, w) ? nb_in(op, 0) : v;
    if (!op || op->kind != NB_OP_as_codes || q->zeros) return v;
    nb_op *pad = nb_in(op, 0)->def;
    nb_op *codes = pad && pad->kind == NB_OP_pad ? nb_in(pad, 0)->def : NULL;
    if (!codes || codes->kind != NB_OP_codes || nb_in(codes, 0)->type->quant != q) return v;
    return pads_with(pad, q->zero, first, w) ? nb_in(codes, 0) : v;
}

/* ---- channels second ------------------------------------------------------------------------ */

nb_status nb_export_conv(nb_exporter *x) {
    const nb_type *t = nb_in(x->op, 1)->type;
    window w = window_of(x->op, t->rank - 2);
    nb_value *v = without_zeros(nb_in(x->op, 0), 2, &w);
    nb_port *in = nb_port_of(x, v), *weights = nb_operand(x, 1);
    if (!in || !weights) return nb_export_result(x, 0, NULL);
    bool fixed = true;
    for (int d = 0; d < w.axes; d++) fixed = fixed && nb_dim_is_const(t->dims[2 + d]);
    for (int d = 0; fixed && d < w.axes; d++) w.kernel[d] = t->dims[2 + d]->value;
    w.groups = nb_conv_groups(x->op);
    nb_port *y = NB_PUT(x, "Conv", in, weights, nb_operand(x, 2));
    put_window(x, &w);
    return nb_export_result(x, 0, y);
}

/* ---- products with a matrix ----------------------------------------------------------------- */

/* Is v to be codes, with nothing before that but what onnxruntime leaves out then? Codes have to
 * end with their type, and behind something that ends at 0 (`floor`) 0 has to be the first. */
static bool becomes_codes(const nb_value *v, bool floor) {
    const nb_use *u = v->uses;
    if (!u || u->next) return false;
    const nb_op *op = u->user;
    switch (op->kind) {
    case NB_OP_quantize: {
        const nb_quant *q = nb_attr_of(op, "to")->quant;
        return q->granularity == NB_PER_TENSOR && nb_quant_min(q) == nb_elem_min(q->storage) &&
               nb_quant_max(q) == nb_elem_max(q->storage) &&
               (!floor || q->zero == nb_elem_min(q->storage));
    }
    case NB_OP_max:
    case NB_OP_min:
        return nb_is_const(nb_in(op, 1 - u->index)) && becomes_codes(nb_out(op), true);
    case NB_OP_relu:
        return becomes_codes(nb_out(op), true);
    case NB_OP_transpose:
        return becomes_codes(nb_out(op), floor);
    default:
        return false;
    }
}

/* The patches that v is, or is codes of. */
static const nb_op *patches_of(const nb_value *v) {
    const nb_op *op = v->def;
    if (op && op->kind == NB_OP_quantize) op = nb_in(op, 0)->def;
    return op && (op->kind == NB_OP_patches || op->kind == NB_OP_qpatches) ? op : NULL;
}

/* Is it the transpose that puts channels second? */
static bool puts_second(const nb_op *op) {
    if (!op || op->kind != NB_OP_transpose) return false;
    const nb_attr *perm = nb_attr_of(op, "perm");
    const int rank = (int)perm->ints.count;
    for (int d = 0; d < rank; d++)
        if (perm->ints.items[nb_axis_channels_second(rank, d)] != d) return false;
    return true;
}

/* What `patches` slides over, and what is around it; they may have been put in another layout
 * together. *from is what holds it, whose layout that may be. */
static nb_port *slid_over(nb_exporter *x, const nb_op *patches, window *w, nb_value **from) {
    const nb_attr *kernel = nb_attr_of(patches, "kernel");
    nb_value *v = nb_in(patches, 0);
    *w = window_of(patches, w->axes);
    for (int d = 0; d < w->axes; d++) w->kernel[d] = kernel->ints.items[d];
    *from = without_zeros(v, 2, w);
    if (*from != v || !puts_second(v->def)) return nb_port_of(x, *from);
    *from = without_zeros(nb_in(v->def, 0), 1, w);
    return nb_put_channels_second(x, nb_port_of(x, *from), v->type->rank);
}

/* What the rows that a matrix multiplies are places of, with their channels second, and how it
 * slides over them; NULL: they are no places. */
static nb_port *places_of(nb_exporter *x, nb_value *v, window *w) {
    const nb_quant *q = v->type->quant;
    const nb_op *patches = patches_of(v);
    if (q && q->granularity != NB_PER_TENSOR) return NULL;
    if (patches && nb_in(patches, 0)->type->elem == NB_F32) {
        nb_value *from;
        nb_port *in = slid_over(x, patches, w, &from);
        return in && q ? nb_port_coded_as(x, v, from, in) : in;
    }
    for (int d = 0; d < w->axes; d++) w->kernel[d] = w->strides[d] = w->dilations[d] = 1;
    return q ? nb_port_coded_before(x, v) : nb_before_channels_last(nb_port_of(x, v), w->axes + 2);
}

nb_port *nb_put_as_conv(nb_exporter *x, size_t *done) {
    nb_value *v = nb_read_by(x->op, 0), *m = nb_constant_of(x->op, 1);
    const nb_type *t = v->type;
    window w = {.axes = t->rank - 2, .groups = 1};
    if (t->rank < 3 || !m || m->type->rank != 2) return NULL;
    nb_port *in = places_of(x, v, &w);
    bool point = true;
    int64_t inside = 1, dims[NB_MAX_RANK] = {m->type->dims[1]->value};
    for (int d = 0; d < w.axes; d++) {
        point = point && w.kernel[d] == 1;
        inside *= dims[d + 2] = w.kernel[d];
    }
    /* onnxruntime has products of codes whose results are floats, but no convolutions. */
    const bool codes = t->quant && m->type->quant,
               end = (x->op->kind == NB_OP_qmatmul && nb_attr_of(x->op, "to")->set) ||
                     becomes_codes(nb_out(x->op), false);
    if (!in || (point && codes && !end)) return NULL;
    dims[1] = m->type->dims[0]->value / inside;
    nb_port *weights = nb_port_last_first(x, m, t->rank, dims), *bias = NULL;
    if (!weights) return NULL;
    const nb_value *b = x->op->kind == NB_OP_qmatmul ? nb_in(x->op, 2) : NULL;
    if (b && nb_is_const(b) && b->type->rank == 1 && b->type->elem == NB_F32) {
        bias = nb_operand(x, 2);
        *done = 3;
    }
    nb_port *y = NB_PUT(x, "Conv", in, weights, bias);
    put_window(x, &w);
    return nb_put_channels_last(x, y, t->rank);
}

/* ---- channels last -------------------------------------------------------------------------- */

/* [K...,C] as [C,1,K...], when it runs. */
static nb_port *put_moved(nb_exporter *x, const window *w, nb_port *kernel) {
    const nb_type *t = nb_in(x->op, 1)->type;
    int64_t perm[NB_MAX_RANK] = {w->axes};
    const nb_dim *shape[NB_MAX_RANK] = {t->dims[w->axes], nb_dim_const(x->g, 1)};
    for (int d = 0; d < w->axes; d++) {
        perm[d + 1] = d;
        shape[d + 2] = t->dims[d];
    }
    if (kernel) kernel = nb_put_transpose(x, kernel, (size_t)t->rank, perm);
    return kernel ? nb_put_reshape(x, kernel, NULL, (size_t)t->rank + 1, shape) : NULL;
}

/* The same; in the file, if it is constant. */
static nb_port *put_kernel(nb_exporter *x, const window *w) {
    nb_value *k = nb_constant_of(x->op, 1);
    int64_t dims[NB_MAX_RANK] = {w->groups, 1};
    for (int d = 0; d < w->axes; d++) dims[d + 2] = w->kernel[d];
    nb_port *p = k ? nb_port_last_first(x, k, w->axes + 2, dims) : NULL;
    return p ? p : put_moved(x, w, nb_operand(x, 1));
}

/* Sums of codes as they are. */
static nb_port *put_depthwise_sums(nb_exporter *x, const window *w) {
    nb_port *vz = NULL, *kz = NULL, *v = nb_port_integers(x, nb_in(x->op, 0), &vz),
            *k = put_moved(x, w, nb_port_integers(x, nb_in(x->op, 1), &kz));
    if (!v || !k) return NULL;
    return NB_PUT(x, "ConvInteger", nb_put_channels_second(x, v, w->axes + 2), k, vz, kz);
}

static nb_port *put_depthwise(nb_exporter *x) {
    const nb_type *kernel = nb_in(x->op, 1)->type;
    nb_value *v = nb_in(x->op, 0);
    const int rank = v->type->rank;
    window w = window_of(x->op, rank - 2);
    for (int d = 0; d < w.axes; d++) w.kernel[d] = kernel->dims[d]->value;
    w.groups = kernel->dims[w.axes]->value;
    nb_port *y;
    if (x->op->kind == NB_OP_qdepthwise && nb_attr_bool(x->op, "sums")) {
        y = put_depthwise_sums(x, &w);
    } else {
        v = without_zeros(nb_read_by(x->op, 0), 1, &w);
        nb_port *in = v->type->quant ? nb_port_coded_second(x, v)
                                     : nb_put_channels_second(x, nb_port_of(x, v), rank),
                *k = put_kernel(x, &w);
        y = in && k ? NB_PUT(x, "Conv", in, k, nb_operand(x, 2)) : NULL;
    }
    if (!y) return NULL;
    put_window(x, &w);
    return nb_put_channels_last(x, y, rank);
}

nb_status nb_export_depthwise(nb_exporter *x) { return nb_export_result(x, 0, put_depthwise(x)); }

/* With its residual; then maybe codes again. */
nb_status nb_export_qdepthwise(nb_exporter *x) { return nb_export_sum(x, put_depthwise(x), 3); }
