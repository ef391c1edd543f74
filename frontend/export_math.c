/* Elementwise operations and reductions as ONNX. */
#include "frontend/export.h"

static const char *operator_of(const nb_exporter *x) {
    return nb_export_rows[x->op->kind].operator;
}

static nb_port *put_operands(nb_exporter *x, const char *type) {
    nb_port *in[NB_MAX_OPERAND_SPECS] = {0};
    for (size_t i = 0; i < x->op->n_operands; i++) {
        in[i] = nb_operand(x, i);
        if (nb_in(x->op, i) && !in[i]) return NULL;
    }
    return nb_put_node(x, type, x->op->n_operands, in);
}

nb_status nb_export_plain(nb_exporter *x) {
    return nb_export_result(x, 0, put_operands(x, operator_of(x)));
}

/* And of bools, BitwiseAnd of integers. */
nb_status nb_export_logic(nb_exporter *x) {
    const char *type = operator_of(x);
    if (nb_out(x->op)->type->elem != NB_BOOL) type = nb_format(x->arena, "Bitwise%s", type);
    return nb_export_result(x, 0, put_operands(x, type));
}

nb_status nb_export_mod(nb_exporter *x) {
    nb_port *y = put_operands(x, "Mod");
    if (y && nb_elem_is_float(nb_out(x->op)->type->elem)) nb_put_attr(x, NB_ATTR_I("fmod", 1));
    return nb_export_result(x, 0, y);
}

nb_status nb_export_silu(nb_exporter *x) {
    nb_port *v = nb_operand(x, 0);
    return nb_export_result(x, 0, v ? NB_PUT(x, "Mul", v, NB_PUT(x, "Sigmoid", v)) : NULL);
}

nb_status nb_export_gelu(nb_exporter *x) {
    nb_port *y = put_operands(x, "Gelu");
    if (y) nb_put_attr(x, NB_ATTR_S("approximate", operator_of(x)));
    return nb_export_result(x, 0, y);
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
    nb_port *v = nb_operand(x, 0),
            *list = axes->ints.count ? nb_port_i64s(x, axes->ints.count, axes->ints.items) : NULL,
            *y = v ? NB_PUT(x, operator_of(x), v, list) : NULL;
    if (y) nb_put_attr(x, NB_ATTR_I("keepdims", nb_attr_bool(x->op, "keep")));
    return nb_export_result(x, 0, y);
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
