/* Elementwise operations and reductions as ONNX. */
#include "frontend/export.h"

static const char *operator_of(const nb_exporter *x) {
    return nb_export_rows[x->op->kind].operator;
}

/* A node of all operands, with an attribute. */
static nb_port *put_with(nb_exporter *x, const char *type, nb_onnx_attr attr) {
    nb_port *in[NB_MAX_OPERAND_SPECS] = {0};
    nb_value *values[NB_MAX_OPERAND_SPECS] = {0};
    for (size_t i = 0; i < x->op->n_operands; i++) {
        in[i] = nb_operand(x, i);
        values[i] = nb_in(x->op, i);
        if (values[i] && !in[i]) return NULL;
    }
    return nb_put_each(x, type, nb_out(x->op)->type->rank, x->op->n_operands, in, values,
                       attr.name ? &attr : NULL);
}

static nb_port *put_operands(nb_exporter *x, const char *type) {
    return put_with(x, type, (nb_onnx_attr){0});
}

nb_status nb_export_plain(nb_exporter *x) {
    return nb_export_result(x, 0, put_operands(x, operator_of(x)));
}

/* The constant number that operand i or the other one is, and which one that is; NULL: there is
 * none. */
static nb_value *number_beside(const nb_op *op, size_t *other) {
    for (size_t i = 0; i < 2; i++) {
        nb_value *v = nb_in(op, i);
        *other = 1 - i;
        if (nb_is_const(v) && v->type->rank == 0 && !v->type->quant) return v;
    }
    return NULL;
}

/* Of max(v, low) and high: Clip, which is looked for in front of QuantizeLinear. */
nb_status nb_export_min(nb_exporter *x) {
    size_t inner, other;
    nb_value *high = number_beside(x->op, &inner);
    const nb_op *max = high ? nb_in(x->op, inner)->def : NULL;
    nb_value *low = max && max->kind == NB_OP_max ? number_beside(max, &other) : NULL;
    if (!low || !nb_elem_is_float(low->type->elem))
        return nb_export_result(x, 0, put_operands(x, "Min"));
    nb_value *values[3] = {nb_in(max, other), low, high};
    nb_port *in[3] = {nb_port_of(x, values[0]), nb_port_of(x, low), nb_port_of(x, high)};
    if (!in[0] || !in[1] || !in[2]) return nb_export_result(x, 0, NULL);
    return nb_export_result(x, 0,
                            nb_put_each(x, "Clip", nb_out(x->op)->type->rank, 3, in, values, NULL));
}

/* And of bools, BitwiseAnd of integers. */
nb_status nb_export_logic(nb_exporter *x) {
    const char *type = operator_of(x);
    if (nb_out(x->op)->type->elem != NB_BOOL) type = nb_format(x->arena, "Bitwise%s", type);
    return nb_export_result(x, 0, put_operands(x, type));
}

nb_status nb_export_mod(nb_exporter *x) {
    const bool floats = nb_elem_is_float(nb_out(x->op)->type->elem);
    return nb_export_result(
        x, 0, floats ? put_with(x, "Mod", NB_ATTR_I("fmod", 1)) : put_operands(x, "Mod"));
}

nb_status nb_export_silu(nb_exporter *x) {
    const int rank = nb_out(x->op)->type->rank;
    nb_value *values[2] = {nb_in(x->op, 0)};
    nb_port *in[2] = {nb_operand(x, 0)};
    if (in[0]) in[1] = nb_put_each(x, "Sigmoid", rank, 1, in, values, NULL);
    return nb_export_result(x, 0, in[0] ? nb_put_each(x, "Mul", rank, 2, in, values, NULL) : NULL);
}

nb_status nb_export_gelu(nb_exporter *x) {
    return nb_export_result(x, 0, put_with(x, "Gelu", NB_ATTR_S("approximate", operator_of(x))));
}

nb_status nb_export_cast(nb_exporter *x) {
    const nb_elem to = nb_attr_of(x->op, "to")->elem;
    nb_port *v = nb_operand(x, 0);
    if (nb_elems[to].onnx == 0)
        return nb_export_refuse(x, "ONNX has no type like %s", nb_elems[to].text);
    nb_port *y = v ? nb_put_cast(x, v, to) : NULL;
    if (y && nb_attr_bool(x->op, "overflow")) nb_put_attr(x, NB_ATTR_I("saturate", 0));
    return nb_export_result(x, 0, y);
}

nb_status nb_export_reduce(nb_exporter *x) {
    const nb_attr *axes = nb_attr_of(x->op, "axes");
    const bool keep = nb_attr_bool(x->op, "keep");
    const int rank = nb_in(x->op, 0)->type->rank;
    const size_t n = axes->ints.count;
    int64_t along[NB_MAX_RANK];
    nb_port *v = nb_operand(x, 0), *second = keep ? nb_before_channels_last(v, rank) : NULL;
    for (size_t i = 0; i < n; i++) {
        along[i] = axes->ints.items[i];
        if (second) along[i] = nb_axis_channels_second(rank, along[i]);
    }
    if (!v) return nb_export_result(x, 0, NULL);
    nb_port *y =
        NB_PUT(x, operator_of(x), second ? second : v, n ? nb_port_i64s(x, n, along) : NULL);
    nb_put_attr(x, NB_ATTR_I("keepdims", keep));
    return nb_export_result(x, 0, second ? nb_put_channels_last(x, y, rank) : y);
}

nb_status nb_export_cumsum(nb_exporter *x) {
    nb_port *v = nb_operand(x, 0);
    return nb_export_result(
        x, 0, v ? NB_PUT(x, "CumSum", v, nb_port_i64(x, nb_attr_int(x->op, "axis"))) : NULL);
}

nb_status nb_export_topk(nb_exporter *x) {
    const nb_attr *count = nb_attr_of(x->op, "count");
    nb_port *v = nb_operand(x, 0), *k = nb_port_dims(x, 1, count->dims.items);
    if (!v || !k) return nb_export_result(x, 0, NULL);
    nb_port *values = NB_PUT(x, "TopK", v, k), *places = nb_put_output(x);
    nb_put_attr(x, NB_ATTR_I("axis", nb_attr_int(x->op, "axis")));
    nb_put_attr(x, NB_ATTR_I("largest", !nb_attr_bool(x->op, "smallest")));
    NB_TRY(nb_export_result(x, 0, values));
    return nb_export_result(x, 1, places);
}
