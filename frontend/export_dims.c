/* Dimension expressions as ONNX nodes: shapes of inputs, and arithmetic on them. */
#include "frontend/export.h"

#include <string.h>

nb_port *nb_put_size(nb_exporter *x, nb_port *tensor, int d) {
    nb_port *y = NB_PUT(x, "Shape", tensor);
    nb_put_attr(x, NB_ATTR_I("start", d));
    nb_put_attr(x, NB_ATTR_I("end", d + 1));
    return y;
}

/* An axis that is just `dim`: of what goes in, here or around; for a symbol, of what was computed
 * too. A body may take a value for one whose size is a bounded expression: it is what it is. */
static nb_port *port_of_axis(nb_exporter *x, const nb_dim *dim) {
    for (const nb_onnx_graph *g = x->graph; g; g = g->outer) {
        for (size_t i = 0; i < g->values.count; i++) {
            const nb_value *v = g->values.entries[i].key;
            if (dim->kind != NB_DIM_SYMBOL && !v->region) continue;
            for (int d = 0; d < v->type->rank; d++)
                if (v->type->dims[d] == dim) return nb_put_size(x, g->values.entries[i].value, d);
        }
    }
    return NULL;
}

static nb_port *known_port(const nb_exporter *x, const nb_dim *d) {
    nb_port *p = NULL;
    for (const nb_onnx_graph *g = x->graph; g && !p; g = g->outer) p = nb_map_get(&g->dims, d);
    return p;
}

bool nb_dim_has_port(const nb_exporter *x, const nb_dim *symbol) { return known_port(x, symbol); }

static nb_port *port_of_dim(nb_exporter *x, const nb_dim *d);

/* Towards minus infinity: Div truncates, Mod has the sign of b. */
static nb_port *floordiv(nb_exporter *x, nb_port *a, nb_port *b, bool negative) {
    if (negative) a = NB_PUT(x, "Sub", a, NB_PUT(x, "Mod", a, b));
    return NB_PUT(x, "Div", a, b);
}

static nb_port *compute(nb_exporter *x, const nb_dim *d) {
    static const char *const operators[] = {
        [NB_DIM_ADD] = "Add", [NB_DIM_MUL] = "Mul", [NB_DIM_MIN] = "Min", [NB_DIM_MAX] = "Max"};
    int64_t min, max;
    nb_port *a = port_of_dim(x, d->a), *b = port_of_dim(x, d->b);
    if (!a || !b) return NULL;
    nb_dim_range(d->a, &min, &max);
    if (d->kind == NB_DIM_FLOORDIV) return floordiv(x, a, b, min < 0);
    if (d->kind == NB_DIM_CEILDIV) /* -floor(-a/b) */
        return NB_PUT(x, "Neg", floordiv(x, NB_PUT(x, "Neg", a), b, true));
    return NB_PUT(x, operators[d->kind], a, b);
}

static nb_port *port_of_dim(nb_exporter *x, const nb_dim *d) {
    if (d->kind == NB_DIM_CONST) return nb_port_i64s(x, 1, &d->value);
    nb_port *p = known_port(x, d);
    if (p) return p;
    p = port_of_axis(x, d);
    if (!p && d->kind == NB_DIM_SYMBOL)
        nb_export_refuse(x, "nothing has an axis that is just %s", d->symbol->name);
    else if (!p)
        p = compute(x, d);
    if (p) nb_map_set(&x->graph->dims, d, p);
    return p;
}

/* Constants side by side are one tensor. */
static nb_port *join(nb_exporter *x, size_t n, const nb_dim *const *dims) {
    nb_port **parts = (nb_port **)nb_alloc_array(x->arena, n, sizeof *parts);
    int64_t *values = NB_NEW_ARRAY(x->arena, int64_t, n);
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        size_t run = 0;
        for (; i + run < n && nb_dim_is_const(dims[i + run]); run++)
            values[run] = dims[i + run]->value;
        parts[count] = run ? nb_port_i64s(x, run, values) : port_of_dim(x, dims[i]);
        if (!parts[count++]) return NULL;
        i += run ? run : 1;
    }
    if (count == 1) return parts[0];
    nb_port *y = nb_put_node(x, "Concat", count, parts);
    nb_put_attr(x, NB_ATTR_I("axis", 0));
    return y;
}

nb_port *nb_port_dims(nb_exporter *x, size_t n, const nb_dim *const *dims) {
    if (!n) return nb_port_i64s(x, 0, NULL);
    nb_port *known = nb_shared_find(x, dims, n * sizeof *dims);
    if (known) return known;
    nb_port *p = join(x, n, dims);
    return p ? nb_shared_keep(x, dims, n * sizeof *dims, p) : NULL;
}

nb_port *nb_port_dim(nb_exporter *x, const nb_dim *d) {
    if (nb_dim_is_const(d)) return nb_port_i64(x, d->value);
    nb_port *p = nb_port_dims(x, 1, &d);
    return p ? NB_PUT(x, "Reshape", p, nb_port_i64s(x, 0, NULL)) : NULL;
}
