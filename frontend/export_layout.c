/* Where channels stand: last in graphs of channels-last, second in ONNX.
 *
 * A layer that ONNX has with its channels second is put so, between two transposes. Transposes are
 * kept apart from what can do without them: elementwise nodes, padding and QuantizeLinear are put
 * in front of one, so that it stands before the next layer's, which takes it back. What nobody uses
 * then is left out. */
#include "frontend/export.h"

#include <string.h>

/* ---- transposes ----------------------------------------------------------------------------- */

/* What p is a transpose of n axes of; NULL: it is none. */
static nb_port *before(const nb_port *p, size_t n, const int64_t **perm) {
    const nb_onnx_node *node = p ? p->maker : NULL;
    if (!node || strcmp(node->type, "Transpose") != 0 || node->attrs[0].count != n) return NULL;
    *perm = node->attrs[0].ints;
    return node->inputs[0];
}

nb_port *nb_put_transpose(nb_exporter *x, nb_port *from, size_t n, const int64_t *perm) {
    const int64_t *inner;
    int64_t both[2 * NB_MAX_RANK];
    nb_port *first = before(from, n, &inner);
    bool stays = true;
    for (size_t d = 0; d < n; d++) {
        both[d] = first ? inner[perm[d]] : perm[d];
        stays = stays && both[d] == (int64_t)d;
    }
    if (first) from = first;
    if (stays || !from) return from;
    nb_port *y = NB_PUT(x, "Transpose", from);
    nb_put_ints(x, "perm", n, both);
    return y;
}

int nb_axis_channels_second(int rank, int64_t d) {
    return d == 0 ? 0 : d == rank - 1 ? 1 : (int)d + 1;
}

nb_port *nb_put_channels_last(nb_exporter *x, nb_port *second, int rank) {
    int64_t perm[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) perm[d] = nb_axis_channels_second(rank, d);
    return nb_put_transpose(x, second, (size_t)rank, perm);
}

nb_port *nb_put_channels_second(nb_exporter *x, nb_port *last, int rank) {
    int64_t perm[NB_MAX_RANK];
    for (int d = 0; d < rank; d++) perm[nb_axis_channels_second(rank, d)] = d;
    return nb_put_transpose(x, last, (size_t)rank, perm);
}

nb_port *nb_before_channels_last(const nb_port *p, int rank) {
    const int64_t *perm;
    nb_port *first = rank < 3 ? NULL : before(p, (size_t)rank, &perm);
    for (int d = 0; first && d < rank; d++)
        if (perm[d] != nb_axis_channels_second(rank, d)) first = NULL;
    return first;
}

/* ---- elementwise nodes ---------------------------------------------------------------------- */

/* What has one element, or one for each channel, beside a tensor whose channels stand second; NULL:
 * it is neither. */
static nb_port *beside(nb_exporter *x, nb_port *p, nb_value *v, int rank) {
    const nb_type *t = v->type;
    int64_t dims[NB_MAX_RANK];
    for (int d = 0; d < t->rank - 1; d++)
        if (!nb_dim_is(t->dims[d], 1)) return NULL;
    if (t->rank == 0 || nb_dim_is(t->dims[t->rank - 1], 1)) return t->rank <= rank ? p : NULL;
    if (!nb_is_const(v) || t->quant || nb_elems[t->elem].bits < 8) return NULL;
    for (int d = 0; d < rank - 1; d++) dims[d] = 1;
    dims[0] = t->dims[t->rank - 1]->value;
    return nb_port_reshaped(x, v, rank - 1, dims);
}

nb_port *nb_put_each(nb_exporter *x, const char *type, int rank, size_t n, nb_port *const *in,
                     nb_value *const *values, const nb_onnx_attr *attr) {
    nb_port *moved[NB_MAX_OPERAND_SPECS] = {0};
    bool any = false, all = true;
    for (size_t i = 0; i < n; i++) {
        moved[i] = nb_before_channels_last(in[i], rank);
        any = any || moved[i];
    }
    for (size_t i = 0; any && all && i < n; i++) {
        if (!moved[i] && in[i]) moved[i] = values[i] ? beside(x, in[i], values[i], rank) : NULL;
        all = moved[i] || !in[i];
    }
    nb_port *y = nb_put_node(x, type, n, any && all ? moved : in);
    if (attr) nb_put_attr(x, *attr);
    return any && all ? nb_put_channels_last(x, y, rank) : y;
}

/* ---- what nobody uses ----------------------------------------------------------------------- */

/* Nodes of a graph, the last first: outputs of what is around it are marked already. */
static void sweep(nb_onnx_graph *g) {
    size_t kept = g->nodes.count;
    for (size_t i = g->nodes.count; i-- > 0;) {
        nb_onnx_node *n = g->nodes.items[i];
        bool live = false;
        for (size_t o = 0; o < n->n_outputs; o++) live = live || n->outputs[o]->used;
        if (!live) continue;
        for (size_t k = 0; k < n->n_inputs; k++)
            if (n->inputs[k]) n->inputs[k]->used = true;
        for (size_t a = 0; a < n->n_attrs; a++) {
            nb_onnx_graph *body = n->attrs[a].kind == NB_ONNX_GRAPH ? n->attrs[a].graph : NULL;
            for (size_t o = 0; body && o < body->outputs.count; o++)
                body->outputs.items[o].port->used = true;
            if (body) sweep(body);
        }
        g->nodes.items[--kept] = n;
    }
    g->nodes.count -= kept;
    memmove(g->nodes.items, g->nodes.items + kept, g->nodes.count * sizeof *g->nodes.items);
}

void nb_export_sweep(nb_exporter *x) {
    size_t kept = 0;
    sweep(x->model);
    for (size_t i = 0; i < x->tensors.count; i++)
        if (x->tensors.items[i]->port->used) x->tensors.items[kept++] = x->tensors.items[i];
    x->tensors.count = kept;
}
