/* What data count, as ONNX: sizes, and the boxes that suppression leaves. */
#include "frontend/export.h"

/* The vector of bools whose true entries `n` counts, as NonZero has them; NULL: it counts none. */
static nb_value *counted_bools(const nb_value *n) {
    const nb_op *sum = n->def, *cast;
    if (!sum || sum->kind != NB_OP_reduce_sum) return NULL;
    cast = nb_in(sum, 0)->def;
    if (!cast || cast->kind != NB_OP_cast) return NULL;
    nb_value *is = nb_in(cast, 0);
    return is->type->elem == NB_BOOL && is->type->rank == 1 ? is : NULL;
}

/* The size as that of a tensor with as many entries: to who reads the model it is a shape then, and
 * so is what is computed from it. `most` is how many NonZero can find at most. */
static nb_port *put_counted(nb_exporter *x, nb_port *n) {
    const nb_attr *most = nb_attr_of(x->op, "most");
    nb_value *bools = counted_bools(nb_in(x->op, 0));
    nb_port *zero = nb_port_i64(x, 0), *one = nb_port_i64(x, 1), *is = NULL;
    if (!bools && !most->set) return nb_put_size(x, NB_PUT(x, "Range", zero, n, one), 0);
    if (bools) {
        is = nb_port_of(x, bools);
    } else {
        nb_port *end = nb_port_dim(x, most->dims.items[0]);
        is = end ? NB_PUT(x, "Less", NB_PUT(x, "Range", zero, end, one), n) : NULL;
    }
    return is ? nb_put_size(x, NB_PUT(x, "NonZero", is), 1) : NULL;
}

/* A number that must be what it was before can only fail a run where something takes it. */
nb_status nb_export_bind(nb_exporter *x) {
    const nb_dim *size = nb_attr_of(x->op, "size")->dims.items[0];
    nb_port *n = nb_operand(x, 0);
    if (!n) return nb_export_result(x, 0, NULL);
    if (nb_bound_by(x->op) && !nb_dim_has_port(x, size)) {
        nb_port *p = put_counted(x, n);
        if (!p) return nb_diags_status(x->diags);
        nb_map_set(&x->graph->dims, size, p);
    } else if (nb_out(x->op)->uses) {
        nb_port *is = nb_port_dim(x, size);
        n = is ? nb_put_required(x, n, NB_PUT(x, "Equal", n, is)) : NULL;
    }
    return nb_export_result(x, 0, n);
}

/* Column i of rows of batch, class and box. */
static nb_port *column(nb_exporter *x, nb_port *rows, int64_t i) {
    nb_port *y = NB_PUT(x, "Gather", rows, nb_port_i64(x, i));
    nb_put_attr(x, NB_ATTR_I("axis", 1));
    return y;
}

static nb_port *put_scatter(nb_exporter *x, nb_port *to, nb_port *at, nb_port *values,
                            const char *how) {
    nb_port *y = NB_PUT(x, "ScatterElements", to, at, values);
    nb_put_attr(x, NB_ATTR_I("axis", 0));
    nb_put_attr(x, NB_ATTR_S("reduction", how));
    return y;
}

/* NonMaxSuppression gives rows of batch, class and box, those of a class together. Row k goes to
 * place k - (how many rows there are of the classes before) of its class; other places are -1. */
nb_status nb_export_nms(nb_exporter *x) {
    const nb_type *scores = nb_in(x->op, 1)->type, *t = nb_out(x->op)->type;
    const nb_dim *lists = nb_dim_mul(x->g, scores->dims[0], scores->dims[1]),
                 *all = nb_dim_mul(x->g, lists, scores->dims[2]);
    nb_port *in[5], *zero = nb_port_i64(x, 0), *one = nb_port_i64(x, 1);
    for (size_t i = 0; i < NB_COUNT(in); i++) {
        in[i] = nb_operand(x, i);
        if (!in[i]) return nb_export_result(x, 0, NULL);
    }
    nb_port *n_lists = nb_port_dims(x, 1, &lists), *n_all = nb_port_dims(x, 1, &all),
            *classes = nb_port_dim(x, scores->dims[1]), *boxes = nb_port_dim(x, scores->dims[2]);
    if (!n_lists || !n_all || !classes || !boxes) return nb_export_result(x, 0, NULL);
    nb_port *rows = nb_put_node(x, "NonMaxSuppression", NB_COUNT(in), in);
    nb_put_attr(x, NB_ATTR_I("center_point_box", nb_attr_bool(x->op, "center")));
    x->main = nb_last_node(x);
    nb_port *list = NB_PUT(x, "Mul", column(x, rows, 0), classes);
    list = NB_PUT(x, "Add", list, column(x, rows, 1));
    nb_port *n = nb_put_size(x, rows, 0), *ones = NB_PUT(x, "Expand", one, n),
            *none = NB_PUT(x, "Expand", zero, n_lists);
    nb_port *before = NB_PUT(x, "CumSum", put_scatter(x, none, list, ones, "add"), zero);
    nb_put_attr(x, NB_ATTR_I("exclusive", 1));
    n = NB_PUT(x, "Reshape", n, nb_port_i64s(x, 0, NULL));
    nb_port *place =
        NB_PUT(x, "Sub", NB_PUT(x, "Range", zero, n, one), NB_PUT(x, "Gather", before, list));
    place = NB_PUT(x, "Add", NB_PUT(x, "Mul", list, boxes), place);
    nb_port *empty = NB_PUT(x, "Expand", nb_port_i64(x, -1), n_all),
            *y = put_scatter(x, empty, place, column(x, rows, 2), "none");
    return nb_export_result(x, 0, nb_put_reshape(x, y, NULL, (size_t)t->rank, t->dims));
}
